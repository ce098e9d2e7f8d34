//! Which sessions and flows a visitor means.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::net::address::Endpoint;
use crate::reactor::Entry;
use crate::reactor::destination::Destination;
use crate::reactor::flows::FlowSeen;
use crate::reactor::upstream::server::Server;
use crate::relay::Direction;
use crate::relay::id::ServerId;
use crate::relay::time::Time;

/// Which sessions.
#[derive(Debug, Clone, Default)]
pub struct SessionFilter {
    /// Those of clients in this network.
    pub client: Option<IpNet>,
    /// … and from this port.
    pub client_port: Option<u16>,
    /// Those of the forward of this name, be it in force or not any more.
    pub forward: Option<Arc<str>>,
    /// Those on these servers.
    pub servers: Option<Vec<ServerId>>,
    /// … or connected to this address, whoever chose it.
    pub endpoint: Option<Endpoint>,
    /// Those that are as old.
    pub older_than: Option<Duration>,
    /// Those that are younger.
    pub younger_than: Option<Duration>,
    /// Those that moved so many bytes, both ways together.
    pub bytes_min: Option<u64>,
    /// The one of this number.
    pub id: Option<u64>,
    /// Flows of datagrams alone, or sessions alone.
    pub is_flow: Option<bool>,
}

impl SessionFilter {
    pub(super) fn takes(&self, entry: &Entry, now: Time) -> bool {
        self.takes_one(&Traits {
            id: entry.id.id(),
            is_flow: false,
            client: &entry.client.get(),
            forward: &entry.listener.forward.name,
            server: account(entry),
            endpoint: entry.destination.as_ref().map(Destination::endpoint),
            age: now.since(entry.session.started()),
            moved: moved(entry),
        })
    }

    pub(super) fn takes_flow(&self, flow: &FlowSeen, now: Time) -> bool {
        self.takes_one(&Traits {
            id: flow.id,
            is_flow: true,
            client: &flow.client,
            forward: &flow.at.forward.name,
            server: Some(&flow.server),
            endpoint: Some(flow.server.endpoint()),
            age: now.since(flow.started),
            moved: flow.traffic.iter().map(|it| it.bytes).sum(),
        })
    }

    fn takes_one(&self, it: &Traits<'_>) -> bool {
        let client = match (it.client, self.client) {
            (Endpoint::Inet(client), Some(network)) => network.contains(&client.ip()),
            (_, network) => network.is_none(),
        };
        let port = match (it.client, self.client_port) {
            (Endpoint::Inet(client), Some(port)) => client.port() == port,
            (_, port) => port.is_none(),
        };
        client
            && port
            && self.id.is_none_or(|id| id == it.id)
            && self.is_flow.is_none_or(|is_flow| is_flow == it.is_flow)
            && self
                .forward
                .as_deref()
                .is_none_or(|name| name == it.forward)
            && self.takes_server(it)
            && self.older_than.is_none_or(|than| it.age >= than)
            && self.younger_than.is_none_or(|than| it.age < than)
            && self.bytes_min.is_none_or(|min| it.moved >= min)
    }
}

impl SessionFilter {
    fn takes_server(&self, it: &Traits<'_>) -> bool {
        if self.servers.is_none() && self.endpoint.is_none() {
            return true;
        }
        let server = it.server.map(|server| server.settings().id);
        let of_these = self.servers.as_ref().zip(server);
        of_these.is_some_and(|(ids, id)| ids.contains(&id))
            || self.endpoint.is_some() && self.endpoint.as_ref() == it.endpoint
    }
}

/// What sessions and flows are chosen by.
struct Traits<'a> {
    id: u64,
    is_flow: bool,
    client: &'a Endpoint,
    forward: &'a str,
    server: Option<&'a Arc<Server>>,
    endpoint: Option<&'a Endpoint>,
    age: Duration,
    moved: u64,
}

fn account(entry: &Entry) -> Option<&Arc<Server>> {
    entry.destination.as_ref().and_then(Destination::account)
}

fn moved(entry: &Entry) -> u64 {
    let lanes = Direction::BOTH.map(|it| entry.session.lane(it).bytes_out());
    lanes.iter().sum()
}
