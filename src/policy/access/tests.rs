use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

/// The rules as they are written, each held against the question: what the tables are
/// to answer as well.
fn scan(deny: &[Rule], allow: &[Rule], name: Option<&str>, address: SocketAddr) -> bool {
    let (ip, port) = (address.ip().to_canonical(), address.port());
    let within = behind_nat64(ip).map(IpAddr::from);
    let denied = deny.iter().any(|rule| {
        let about = match &rule.scope {
            Scope::Anywhere => true,
            Scope::Network(network) => {
                network.contains(&ip) || within.is_some_and(|it| network.contains(&it))
            }
            named => is_named(named, name),
        };
        about && rule.ports.as_ref().is_none_or(|it| it.contains(&port))
    });
    let allowed = allow.iter().any(|rule| {
        let about = match &rule.scope {
            Scope::Anywhere => is_public(ip),
            Scope::Network(network) => network.contains(&ip),
            named => is_named(named, name) && is_public(ip),
        };
        let ports = rule.ports.clone().unwrap_or(DEFAULT_PORT..=DEFAULT_PORT);
        about && ports.contains(&port)
    });
    !ip.is_unspecified() && !denied && allowed
}

/// Likewise of one list: the first rule that is about the question.
fn first(rules: &[Verdict], name: Option<&str>, address: SocketAddr) -> bool {
    let (ip, port) = (address.ip().to_canonical(), address.port());
    let within = behind_nat64(ip).map(IpAddr::from);
    let found = rules.iter().find(|Verdict { denies, rule }| {
        let about = match &rule.scope {
            Scope::Anywhere => *denies || is_public(ip),
            Scope::Network(network) => {
                network.contains(&ip) || *denies && within.is_some_and(|it| network.contains(&it))
            }
            named => is_named(named, name) && (*denies || is_public(ip)),
        };
        let unwritten = if *denies {
            1..=u16::MAX
        } else {
            DEFAULT_PORT..=DEFAULT_PORT
        };
        about && rule.ports.clone().unwrap_or(unwritten).contains(&port)
    });
    !ip.is_unspecified() && found.is_some_and(|it| !it.denies)
}

fn is_named(scope: &Scope, asked: Option<&str>) -> bool {
    match (scope, asked) {
        (Scope::Name(name), Some(asked)) => name == asked,
        (Scope::Below(parent), Some(asked)) => {
            let above = asked.strip_suffix(parent.as_str());
            above.is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
        }
        _ => false,
    }
}

/// Addresses that rules are about, and some beside them: private, public, of NAT64.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        prop::sample::select(vec![
            "0.0.0.0",
            "10.0.0.1",
            "10.128.0.1",
            "127.0.0.1",
            "1.1.1.1",
            "1.1.2.1",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "fd00::1",
            "2606:4700::1",
            "2606:4700:8000::1",
            "64:ff9b::a00:1",
            "64:ff9b::101:101",
        ])
        .prop_map(|text| text.parse().expect("an address")),
        any::<u32>().prop_map(|bits| Ipv4Addr::from_bits(bits).into()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from_bits(bits).into()),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "a", "a.b", "b", "c.a.b", "d.c.a.b", "xa.b", "x", "a.x", "b.a.b",
    ])
    .prop_map(str::to_owned)
}

fn scope() -> impl Strategy<Value = Scope> {
    // IPv4-mapped networks are refused where rules are read.
    let network = (address(), 0_u8..=128).prop_map(|(ip, prefix)| {
        let ip = ip.to_canonical();
        let prefix = prefix.min(if ip.is_ipv4() { 32 } else { 128 });
        Scope::Network(IpNet::new(ip, prefix).expect("a length").trunc())
    });
    prop_oneof![
        1 => Just(Scope::Anywhere),
        2 => name().prop_map(Scope::Name),
        2 => name().prop_map(Scope::Below),
        6 => network,
    ]
}

fn port() -> impl Strategy<Value = u16> {
    prop::sample::select(vec![1, 80, 442, 443, 444, 8000, u16::MAX])
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let ports = prop::option::of((port(), port()).prop_map(|(a, b)| a.min(b)..=a.max(b)));
    let rule = (scope(), ports);
    let rule = rule.prop_map(|(scope, ports)| Rule { scope, ports });
    prop::collection::vec(rule, 0..8)
}

proptest! {
    #[test]
    fn the_tables_answer_as_a_scan_of_the_rules(
        deny in rules(),
        allow in rules(),
        asked in prop::collection::vec((prop::option::of(name()), address(), port()), 1..40),
    ) {
        let access = Access::new(&deny, &allow);
        for (name, ip, port) in asked {
            let address = SocketAddr::new(ip, port);
            let admits = access.admits(name.as_deref(), address);
            let expected = scan(&deny, &allow, name.as_deref(), address);
            prop_assert_eq!(admits, expected, "{:?} {}", name, address);
            if let Some(name) = name {
                prop_assert!(!admits || !access.is_hopeless(&name, port), "{} {}", name, port);
            }
        }
    }
}

proptest! {
    #[test]
    fn one_list_answers_by_its_first_rule(
        rules in rules(),
        denies in prop::collection::vec(any::<bool>(), 8),
        asked in prop::collection::vec((prop::option::of(name()), address(), port()), 1..40),
    ) {
        let rules = rules.into_iter().zip(denies);
        let rules: Vec<_> = rules.map(|(rule, denies)| Verdict { denies, rule }).collect();
        let access = Access::ordered(rules.clone());
        for (name, ip, port) in asked {
            let address = SocketAddr::new(ip, port);
            let admits = access.admits(name.as_deref(), address);
            let expected = first(&rules, name.as_deref(), address);
            prop_assert_eq!(admits, expected, "{:?} {}", name, address);
            if let Some(name) = name {
                prop_assert!(!admits || !access.is_hopeless(&name, port), "{} {}", name, port);
            }
        }
    }
}

#[test]
fn a_network_of_either_list_decides_whatever_its_length() {
    let rule = |network: &str| Rule {
        scope: Scope::Network(network.parse().expect("a network")),
        ports: None,
    };
    let access = Access::new(
        &[rule("10.0.0.0/8")],
        &[rule("10.1.0.0/16"), rule("0.0.0.0/0")],
    );
    let admits = |ip: [u8; 4]| access.admits(None, (ip, DEFAULT_PORT).into());
    assert!(
        !admits([10, 1, 0, 1]),
        "deny wins, also over what is narrower"
    );
    assert!(admits([192, 168, 0, 1]));
}

#[test]
fn only_the_very_address_with_its_port_is_listed() {
    let network = |text: &str, ports| Rule {
        scope: Scope::Network(text.parse().unwrap()),
        ports,
    };
    let allow = [
        network("10.0.0.0/8", Some(1..=u16::MAX)),
        network("10.0.0.1/32", None),
        network("10.0.0.2/32", Some(5432..=5433)),
    ];
    let access = Access::new(&[], &allow);
    let lists = |address: &str| access.lists(address.parse().unwrap());
    assert!(lists("10.0.0.2:5432") && lists("[::ffff:10.0.0.2]:5433"));
    for other in ["10.0.0.2:443", "10.0.0.1:443", "10.0.0.3:5432"] {
        assert!(!lists(other), "{other}");
    }
}
