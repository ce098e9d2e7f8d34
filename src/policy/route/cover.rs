//! What is wrong with routes together: one that can never be taken, because its own
//! conditions exclude each other or because another route takes all of its sessions.
//!
//! Certain, not complete: what is said to be never taken is not, whatever comes; that
//! several routes together cover one is not looked for.

use super::{Conditions, ListenAt, Pattern, Protocol};

/// Why a route, or a name of it, is never taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// Its conditions exclude each other.
    Contradiction {
        /// Which route.
        route: usize,
        /// Which conditions, and why.
        why: &'static str,
    },
    /// Another one takes all that it would.
    Shadowed {
        /// Which route.
        route: usize,
        /// Which of its names; `None`: it has none.
        name: Option<String>,
        /// The other one.
        by: usize,
    },
}

/// The names of one kind.
type Names = fn(&Conditions) -> &[Pattern];

/// Every doubt about routes in their order.
pub fn doubts(routes: &[Conditions]) -> Vec<Doubt> {
    let mut found = Vec::new();
    for (at, route) in routes.iter().enumerate() {
        if let Some(why) = contradiction(route) {
            found.push(Doubt::Contradiction { route: at, why });
            continue;
        }
        let before = || routes.iter().enumerate().take(at);
        if route.names().next().is_none() {
            let by = before().find(|(_, it)| it.names().next().is_none() && covers(it, route));
            found.extend(by.map(|(by, _)| Doubt::Shadowed {
                route: at,
                name: None,
                by,
            }));
            continue;
        }
        let kinds: [(&[Pattern], Names); 2] =
            [(&route.sni, |it| &it.sni), (&route.host, |it| &it.host)];
        for (patterns, of) in kinds {
            for pattern in patterns {
                let has_it = |it: &Conditions| of(it).iter().any(|other| takes(other, pattern));
                let by = before().find(|(_, it)| has_it(it) && covers(it, route));
                found.extend(by.map(|(by, _)| Doubt::Shadowed {
                    route: at,
                    name: Some(pattern.to_string()),
                    by,
                }));
            }
        }
    }
    found
}

fn contradiction(route: &Conditions) -> Option<&'static str> {
    let may_be = |kind| route.protocol.is_empty() || route.protocol.contains(&kind);
    let tls = !route.sni.is_empty() || !route.alpn.is_empty() || route.no_sni;
    if !route.sni.is_empty() && route.no_sni {
        return Some("`sni` asks for a server name and `no_sni` for none");
    }
    if tls && !route.host.is_empty() {
        return Some("`host` is for HTTP in plain, and `sni`, `alpn` and `no_sni` are for TLS");
    }
    if tls && !may_be(Protocol::Tls) && !may_be(Protocol::Quic) {
        return Some("`sni`, `alpn` and `no_sni` are for TLS, which `protocol` leaves out");
    }
    if !route.host.is_empty() && !may_be(Protocol::Http) {
        return Some("`host` is for HTTP in plain, which `protocol` leaves out");
    }
    if route.share == Some(0) {
        return Some("a `share` of nothing is nobody");
    }
    None
}

/// Whether a name of an earlier route takes those of a later one before it does.
fn takes(earlier: &Pattern, later: &Pattern) -> bool {
    match (earlier, later) {
        (Pattern::Exact(a), Pattern::Exact(b)) => a == b,
        (Pattern::Below(a), Pattern::Below(b)) => {
            a == b
                || b.strip_suffix(a.as_str())
                    .is_some_and(|front| front.ends_with('.'))
        }
        // The very name goes before, wherever it stands.
        (Pattern::Below(_), Pattern::Exact(_)) | (Pattern::Exact(_), Pattern::Below(_)) => false,
    }
}

/// Whether every session of `inner` meets the conditions of `outer`, names apart.
fn covers(outer: &Conditions, inner: &Conditions) -> bool {
    let subset = |outer: &[String], inner: &[String]| {
        outer.is_empty() || (!inner.is_empty() && inner.iter().all(|it| outer.contains(it)))
    };
    let kinds_within = kinds(inner).iter().all(|it| kinds(outer).contains(it));
    let clients_within = outer.client.is_empty()
        || (!inner.client.is_empty()
            && inner
                .client
                .iter()
                .all(|it| outer.client.iter().any(|network| network.contains(it))));
    let listeners_within = outer.listener.is_empty()
        || (!inner.listener.is_empty()
            && inner
                .listener
                .iter()
                .all(|it| outer.listener.iter().any(|place| listens_covers(place, it))));
    // A client of a unix socket has no share, not even a whole one.
    let share_within = match (outer.share, inner.share) {
        (None, _) => true,
        (Some(outer), Some(inner)) => inner <= outer,
        (Some(_), None) => false,
    };
    subset(&outer.alpn, &inner.alpn)
        && kinds_within
        && (!outer.no_sni || inner.no_sni)
        && clients_within
        && listeners_within
        && share_within
}

/// What the stream may be, by all conditions.
fn kinds(route: &Conditions) -> Vec<Protocol> {
    let of_tls = !route.sni.is_empty() || !route.alpn.is_empty() || route.no_sni;
    let may_be = |kind: &Protocol| {
        (route.protocol.is_empty() || route.protocol.contains(kind))
            && (!of_tls || kind.has_hello())
            && (route.host.is_empty() || *kind == Protocol::Http)
    };
    Protocol::ALL.into_iter().filter(may_be).collect()
}

fn listens_covers(outer: &ListenAt, inner: &ListenAt) -> bool {
    match (outer, inner) {
        (ListenAt::Port(port), ListenAt::Address(address)) => address.port() == *port,
        (outer, inner) => outer == inner,
    }
}
