use proptest::prelude::*;

use super::*;

fn exact(name: &str) -> Pattern {
    Pattern::Exact(name.to_owned())
}

fn below(name: &str) -> Pattern {
    Pattern::Below(name.to_owned())
}

fn sni(patterns: &[Pattern]) -> Conditions {
    Conditions {
        sni: patterns.to_vec(),
        ..Conditions::default()
    }
}

fn tls(name: &str) -> Known<'_> {
    Known {
        protocol: Some(Protocol::Tls),
        sni: Some(name),
        ..Known::default()
    }
}

#[test]
fn exact_names_go_before_suffixes_and_these_before_the_rest() {
    let routes = Routes::new(vec![
        Conditions::default(),
        sni(&[below("example")]),
        sni(&[below("a.example"), exact("b.example")]),
        sni(&[exact("x.a.example")]),
        sni(&[exact("b.example")]),
    ]);
    for (name, expected) in [
        ("x.a.example", Chosen::Exact(3)),
        ("b.example", Chosen::Exact(2)),
        // Among suffixes the order of the routes decides.
        ("y.a.example", Chosen::Suffix(1)),
        ("example", Chosen::Unnamed(0)),
        ("other", Chosen::Unnamed(0)),
    ] {
        assert_eq!(routes.decide(&tls(name)), expected, "{name}");
    }
}

#[test]
fn all_conditions_of_a_route_hold_together() {
    let route = Conditions {
        sni: vec![exact("a.example")],
        alpn: vec!["h2".to_owned(), "h3".to_owned()],
        client: vec!["10.0.0.0/8".parse().expect("a network")],
        listener: vec![ListenAt::Port(443)],
        ..Conditions::default()
    };
    let routes = Routes::new(vec![route]);
    let offered = [b"http/1.1".to_vec(), b"h2".to_vec()];
    let fits = Known {
        alpn: &offered,
        client: Some("10.1.2.3".parse().expect("an address")),
        listener: Some("192.0.2.1:443".parse().expect("an address")),
        ..tls("a.example")
    };
    assert_eq!(routes.decide(&fits), Chosen::Exact(0));
    for other in [
        Known {
            alpn: &offered[..1],
            ..fits.clone()
        },
        Known {
            client: Some("11.0.0.1".parse().expect("an address")),
            ..fits.clone()
        },
        Known {
            client: None,
            ..fits.clone()
        },
        Known {
            listener: Some("192.0.2.1:80".parse().expect("an address")),
            ..fits.clone()
        },
        Known {
            listener: None,
            ..fits.clone()
        },
        tls("b.example"),
    ] {
        assert_eq!(routes.decide(&other), Chosen::Default, "{other:?}");
    }
}

#[test]
fn what_is_not_tls_has_no_missing_name() {
    let no_sni = Conditions {
        no_sni: true,
        ..Conditions::default()
    };
    let routes = Routes::new(vec![no_sni]);
    let of = |protocol| {
        routes.decide(&Known {
            protocol: Some(protocol),
            ..Known::default()
        })
    };
    assert_eq!(of(Protocol::Tls), Chosen::Unnamed(0));
    assert_eq!(of(Protocol::Http), Chosen::Default);
    assert_eq!(routes.decide(&tls("a")), Chosen::Default);
}

#[test]
fn a_share_is_a_fixed_part_and_a_larger_one_has_the_same_clients() {
    let clients = || (0..100_000_u32).map(|at| IpAddr::from((0x0a00_0000 + at * 7).to_be_bytes()));
    for share in [100, 1000, 5000] {
        let taken = clients().filter(|ip| place_of(*ip) < share).count();
        let expected = 10 * usize::from(share);
        let off = taken.abs_diff(expected);
        // Four standard deviations of a fair draw.
        let p = f64::from(share) / f64::from(ALL);
        let deviation = (100_000.0 * p * (1.0 - p)).sqrt();
        assert!(
            (off as f64) < 4.0 * deviation,
            "{share}: {taken} of {expected}"
        );
    }
    // Known places: they must not move from version to version.
    let place = |ip: &str| place_of(ip.parse().expect("an address"));
    assert_eq!(place("::ffff:192.0.2.1"), place("192.0.2.1"));
    assert_eq!(place("2001:db8::1"), place("2001:db8::ffff:2"));
    assert_ne!(place("2001:db8::1"), place("2001:db8:0:1::1"));
}

#[test]
fn routes_that_are_never_taken_are_found() {
    let shadowed = |route, name: Option<&str>, by| Doubt::Shadowed {
        route,
        name: name.map(str::to_owned),
        by,
    };
    let h2 = |mut route: Conditions| {
        route.alpn = vec!["h2".to_owned()];
        route
    };
    let share = |share| Conditions {
        share: Some(share),
        ..Conditions::default()
    };
    assert_eq!(
        doubts(&[sni(&[exact("a")]), sni(&[exact("b"), exact("a")])]),
        [shadowed(1, Some("a"), 0)]
    );
    assert_eq!(doubts(&[h2(sni(&[exact("a")])), sni(&[exact("a")])]), []);
    assert_eq!(
        doubts(&[sni(&[below("example")]), sni(&[below("a.example")])]),
        [shadowed(1, Some("*.a.example"), 0)]
    );
    assert_eq!(
        doubts(&[sni(&[below("a.example")]), sni(&[below("example")])]),
        []
    );
    assert_eq!(
        doubts(&[sni(&[below("example")]), sni(&[exact("a.example")])]),
        []
    );
    assert_eq!(doubts(&[Conditions::default(), sni(&[exact("a")])]), []);
    assert_eq!(
        doubts(&[Conditions::default(), h2(Conditions::default())]),
        [shadowed(1, None, 0)]
    );
    assert_eq!(doubts(&[share(1000), share(2000)]), []);
    assert_eq!(doubts(&[share(1000), share(1000)]), [shadowed(1, None, 0)]);
    let both = Conditions {
        no_sni: true,
        ..sni(&[exact("a")])
    };
    assert!(matches!(
        doubts(&[both])[..],
        [Doubt::Contradiction { route: 0, .. }]
    ));
}

/// Conditions that overlap a lot.
fn conditions() -> impl Strategy<Value = Conditions> {
    let pattern = prop::sample::select(vec![
        exact("a.x"),
        exact("b.x"),
        below("x"),
        below("a.x"),
        exact("x"),
    ]);
    let network = prop::sample::select(vec!["10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/8"]);
    (
        prop::collection::vec(pattern, 0..3),
        prop::collection::vec(prop::sample::select(vec!["h2", "h3"]), 0..2),
        prop::collection::vec(network, 0..2),
        prop::option::of(1..=ALL),
        any::<bool>(),
        prop::collection::vec(prop::sample::select(Protocol::ALL.to_vec()), 0..3),
    )
        .prop_map(|(names, alpn, client, share, tls, protocol)| Conditions {
            sni: if tls { names.clone() } else { Vec::new() },
            host: if tls { Vec::new() } else { names },
            alpn: alpn.into_iter().map(str::to_owned).collect(),
            client: client
                .into_iter()
                .map(|it| it.parse().expect("a network"))
                .collect(),
            share,
            protocol,
            ..Conditions::default()
        })
}

/// What a table must decide, looked for one route after the other.
fn scan(routes: &[Conditions], known: &Known<'_>) -> Option<usize> {
    let names = |route: &Conditions, exact: bool| {
        let is = |pattern: &&Pattern, name: Option<&str>| {
            matches!(pattern, Pattern::Exact(_)) == exact && name.is_some_and(|it| pattern.is(it))
        };
        route.sni.iter().any(|it| is(&it, known.sni))
            || route.host.iter().any(|it| is(&it, known.host))
    };
    let first = |fits: &dyn Fn(&Conditions) -> bool| {
        routes
            .iter()
            .position(|route| fits(route) && route.hold(known))
    };
    first(&|route| names(route, true))
        .or_else(|| first(&|route| names(route, false)))
        .or_else(|| first(&|route| route.names().next().is_none()))
}

proptest! {
    #[test]
    fn the_table_decides_as_a_scan_and_a_doubted_route_is_never_taken(
        routes in prop::collection::vec(conditions(), 0..8),
        name in prop::sample::select(vec!["a.x", "b.x", "c.a.x", "x", "y"]),
        is_tls in any::<bool>(),
        is_http in any::<bool>(),
        offers in prop::sample::select(vec!["h2", "h3", "h1"]),
        client in prop::sample::select(vec!["10.1.2.3", "10.200.0.7", "11.0.0.9", "12.0.0.1"]),
    ) {
        let protocol = match (is_tls, is_http) {
            (true, _) => Protocol::Tls,
            (false, true) => Protocol::Http,
            (false, false) => Protocol::Other,
        };
        let offered = [offers.as_bytes().to_vec()];
        let known = Known {
            protocol: Some(protocol),
            sni: is_tls.then_some(name),
            host: (protocol == Protocol::Http).then_some(name),
            alpn: if is_tls { &offered } else { &[] },
            client: Some(client.parse().expect("an address")),
            ..Known::default()
        };
        let chosen = Routes::new(routes.clone()).decide(&known).route();
        prop_assert_eq!(chosen, scan(&routes, &known));
        for doubt in doubts(&routes) {
            match doubt {
                Doubt::Contradiction { route, .. } | Doubt::Shadowed { route, name: None, .. } => {
                    prop_assert_ne!(chosen, Some(route));
                }
                Doubt::Shadowed { .. } => {}
            }
        }
    }
}
