//! The PROXY header that a server is told: in the datagram itself, before its payload, on each of a flow or
//! on the first.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::config::ProxyDatagrams;
use crate::proto::proxy::{self, Announced, Outgoing};
use crate::reactor::prefix::unique_id;
use crate::reactor::upstream::server::Server;

/// What the datagrams of a flow begin with.
#[derive(Debug)]
pub(super) struct Heading {
    pub(super) header: Vec<u8>,
    /// Only the first has it: whether that has left.
    pub(super) said: Option<bool>,
}

/// Whom a header speaks for, and where that client sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Client {
    pub(super) source: SocketAddr,
    pub(super) destination: Option<SocketAddr>,
}

impl Heading {
    /// What a flow to this server begins with; usually nothing.
    pub(super) fn of(
        server: &Server,
        client: &Client,
        (reactor, id): (u16, u64),
    ) -> Option<Box<Self>> {
        let send = server.send_proxy()?;
        let announced = match client.destination {
            Some(destination) => Announced::Inet {
                source: client.source,
                destination,
            },
            None => Announced::Unknown,
        };
        let id = unique_id(reactor, id);
        let tlvs = [(proxy::UNIQUE_ID, id.as_bytes())];
        let outgoing = Outgoing {
            version: send.version,
            announced: &announced,
            tlvs: if send.unique_id { &tlvs } else { &[] },
            checksum: send.crc32c,
        };
        let mut header = Vec::new();
        proxy::write_for_datagram(&outgoing, &mut header);
        Some(Box::new(Self {
            header,
            said: (send.datagrams == ProxyDatagrams::First).then_some(false),
        }))
    }

    /// Whether the next datagram has it.
    pub(super) fn is_due(&self) -> bool {
        self.said != Some(true)
    }
}
