//! Whom a datagram is for: who sent it, or whom the PROXY header in it names; and how the servers of a
//! pool with `send_proxy` are told.
//!
//! Of datagrams that come with headers each is read by itself: one that has none, or a bad one, or a
//! sender who is not trusted, is dropped alone. What is longer with its header than a datagram can be is
//! lost, and counted as that.

use std::net::{IpAddr, SocketAddr};

use super::Flows;
use super::heading::Client;
use super::homes::FlowName;

use super::why::Why;
use crate::engine::Datagrams;
use crate::net::address::Endpoint;
use crate::proto::opening::StepKind;
use crate::proto::proxy::{self, Announced};
use crate::reactor::context::Ctx;
use crate::reactor::setup::Listener;
use crate::relay::Direction;

impl Flows {
    /// Sends a datagram of a flow at once, with its header if it is to have one.
    pub(super) fn send_up<E: Datagrams>(&mut self, ctx: &mut Ctx<E>, slot: u32, datagram: &[u8]) {
        let now = ctx.now();
        let Some(entry) = self.table.get_mut(slot) else {
            return;
        };
        let bytes = datagram.len() as u64;
        entry.flow.asks(1, bytes, now);
        let sent = match entry.heading.as_mut().filter(|it| it.is_due()) {
            Some(heading) => {
                self.scratch.clear();
                self.scratch.extend_from_slice(&heading.header);
                self.scratch.extend_from_slice(datagram);
                let sent = ctx.engine.send_at_once(entry.socket, &self.scratch);
                heading.said = heading.said.map(|said| said || sent.is_ok());
                sent
            }
            None => ctx.engine.send_at_once(entry.socket, datagram),
        };
        match sent {
            Ok(()) => {
                entry.flow.sent(Direction::Up, 1, bytes);
                entry
                    .at
                    .forward
                    .books
                    .of(ctx.reactor)
                    .cells
                    .bytes_up
                    .add(bytes);
                ctx.counters.udp_sent_up.add(1);
                ctx.counters.bytes_up.add(bytes);
                ctx.counters.bytes_read.add(bytes);
            }
            Err(lost) => {
                entry.flow.lost(Direction::Up, 1);
                Why::Lost(lost).count(&ctx.counters, 1);
            }
        }
    }

    /// Whether what a flow sends next has a header.
    pub(super) fn has_heading(&self, slot: u32) -> bool {
        let heading = self.table.get(slot).and_then(|it| it.heading.as_ref());
        heading.is_some_and(|it| it.is_due())
    }
}

/// The client that the header of a datagram names, and where its payload begins.
pub(super) fn read(
    at: &Listener,
    name: &FlowName,
    datagram: &[u8],
) -> Result<(Client, usize), Why> {
    let steps = at.forward.steps.iter();
    let trust = steps.filter_map(|step| match &step.kind {
        StepKind::ProxyHeader { trust, .. } => Some(trust),
        _ => None,
    });
    let is_trusted = trust.into_iter().any(|it| it.takes(Some(name.client.ip())));
    if !is_trusted {
        return Err(Why::ProxyHeader);
    }
    let (header, len) = proxy::parse_datagram(datagram).map_err(|_| Why::ProxyHeader)?;
    let client = match header.announced {
        Announced::Inet {
            source,
            destination,
        } => Client {
            source,
            destination: Some(destination),
        },
        // A check of the proxy's own, or somebody whom it cannot name.
        Announced::Local | Announced::Unknown | Announced::Unix { .. } => sender(at, name),
    };
    Ok((client, len))
}

/// Who sent a datagram, without a header.
pub(super) fn sender(at: &Listener, name: &FlowName) -> Client {
    let destination = match (&at.address, name.local) {
        (Endpoint::Inet(address), Some(local)) => Some((local.ip, address.port()).into()),
        (Endpoint::Inet(address), None) => Some(*address),
        (Endpoint::Unix(_) | Endpoint::Unnamed, _) => None,
    };
    Client {
        source: name.client,
        destination,
    }
}

/// Whether an answer to this address can reach one that sent: forged senders have the rest.
pub(super) fn may_be_answered(client: &SocketAddr) -> bool {
    let ip = client.ip();
    let is_broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    client.port() != 0 && !ip.is_multicast() && !ip.is_unspecified() && !is_broadcast
}
