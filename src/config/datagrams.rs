//! What a forward of datagrams cannot have, though each of its keys is right by itself.

use std::net::Ipv4Addr;

use super::forward::Forward;
use super::report::{Fault, Report, Span};
use super::route::{Route, RouteTo};
use super::send_proxy::SendProxy;
use super::udp::Protocol;
use crate::net::address::Address;
use crate::proto::proxy::Version;

/// Refuses what a forward of datagrams cannot have, and says why.
pub(super) fn refuse_of_udp(forward: &Forward, span: &Span, report: &mut Report) {
    let of_udp =
        |it: &Address| matches!(it, Address::Srv(name) if name.split('.').nth(1) == Some("_udp"));
    if !forward.protocol.has_udp() {
        if forward.pool.servers.iter().any(|it| of_udp(&it.address)) {
            let fault = Fault::new("a service of `_udp` is none of TCP".to_owned());
            let remedy = "write `_tcp`, or protocol = \"udp\"".to_owned();
            report.error(span, fault.remedy(remedy));
        }
        return;
    }
    let mut refuse = |problem: &str, remedy: &str| {
        report.error(
            span,
            Fault::new(problem.to_owned()).remedy(remedy.to_owned()),
        );
    };
    let unix = |it: &Address| matches!(it, Address::Unix(_));
    if forward.listen.iter().any(unix) {
        refuse(
            "a unix socket takes no UDP datagrams",
            "give it a forward of its own, with protocol = \"tcp\"",
        );
    }
    let servers = || forward.pools().flat_map(|it| &it.servers);
    if servers().any(|it| unix(&it.address)) {
        refuse(
            "a server of UDP has an address and a port, not a unix socket",
            "write HOST:PORT",
        );
    }
    if forward.listen.iter().any(is_group) || servers().any(|it| is_group(&it.address)) {
        refuse(
            "multicast and broadcast are not forwarded",
            "write the address of one host",
        );
    }
    if forward.protocol == Protocol::Udp && forward.routes.iter().any(needs_a_stream) {
        refuse(
            "a route asks what only a connection of TCP says",
            "leave `host` and mode = \"http-connect\" out, or give it a forward with protocol = \"tcp\"",
        );
    }
    let asks = |it: &Route| it.conditions.wants_protocol();
    if forward.protocol == Protocol::Udp && !forward.udp.quic && forward.routes.iter().any(asks) {
        refuse(
            "a route asks what datagrams say, and nobody looks at them",
            "write quic = true, or leave `sni`, `alpn`, `no_sni`, `host` and `protocol` out",
        );
    }
    let by_line = |it: &SendProxy| it.version == Version::V1;
    if forward
        .pools()
        .any(|pool| pool.headers().any(|it| by_line(&it)))
    {
        refuse(
            "`send_proxy`: version 1 of the PROXY protocol has no word for datagrams",
            "write send_proxy = \"v2\"",
        );
    }
    if forward.accept_proxy.as_ref().is_some_and(|it| !it.v2) {
        refuse(
            "`accept_proxy`: version 1 of the PROXY protocol has no word for datagrams",
            "let versions have \"v2\"",
        );
    }
    if forward.protocol == Protocol::Udp && forward.tap.is_some() {
        refuse("a tap shows connections, not datagrams", "remove `tap`");
    }
}

/// Many hosts at once, none of which can be told from the others by a connected socket.
fn is_group(address: &Address) -> bool {
    matches!(address, Address::Inet(at) if at.ip().is_multicast() || at.ip() == Ipv4Addr::BROADCAST)
}

/// Whether no datagram can ever take it.
fn needs_a_stream(route: &Route) -> bool {
    route.conditions.wants_host() || matches!(route.to, RouteTo::HttpConnect(_))
}
