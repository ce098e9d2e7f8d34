//! What files and answers say, without asking anybody: for whoever reads them elsewhere, and
//! for fuzzers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_proto::op::Message;
use hickory_proto::rr::{Name, RecordType};

use super::hosts;
use super::query::{follow, targets};
use super::system::parse_resolv_conf;

/// What resolv.conf says of how to ask, as far as it counts here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvConf {
    /// The name servers in the order of asking, never none.
    pub servers: Vec<SocketAddr>,
    /// How often they are asked, all in turn.
    pub rounds: u32,
    /// How long each of them has.
    pub timeout: Duration,
    /// Names with fewer dots are tried below the search list first.
    pub ndots: usize,
    /// The search list, absolute names.
    pub search: Vec<String>,
}

/// Reads the text of a resolv.conf; what cannot be understood is left out.
pub fn resolv_conf(text: &[u8]) -> ResolvConf {
    let (manner, servers) = parse_resolv_conf(text);
    ResolvConf {
        servers,
        rounds: manner.rounds,
        timeout: manner.timeout,
        ndots: manner.ndots,
        search: manner.search.iter().map(Name::to_ascii).collect(),
    }
}

/// The addresses that the text of a hosts file gives a name, in the order of the file.
pub fn hosts(text: &[u8], name: &str) -> Vec<IpAddr> {
    hosts::addresses_in(text, name)
}

/// What an answer of a name server says of the name that was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaidByDns {
    /// Links of its chain of CNAMEs.
    pub links: usize,
    /// Addresses of the name at its end.
    pub addresses: Vec<IpAddr>,
    /// Targets of the service at its end: host and port.
    pub targets: Vec<(String, u16)>,
}

/// Reads a message; `None`: it is none, or asks for nothing.
pub fn answer(bytes: &[u8]) -> Option<SaidByDns> {
    let message = Message::from_vec(bytes).ok()?;
    let asked = message.queries.first()?.name().clone();
    let chain = follow(&message.answers, &asked);
    let addresses = [RecordType::AAAA, RecordType::A]
        .into_iter()
        .flat_map(|kind| chain.records(kind))
        .filter_map(|record| record.data.ip_addr());
    let services: Vec<_> = chain.records(RecordType::SRV).cloned().collect();
    let services = targets(&services, Duration::ZERO).map(|(targets, _)| targets);
    let services = services.unwrap_or_default().into_iter();
    Some(SaidByDns {
        links: chain.links(),
        addresses: addresses.collect(),
        targets: services.map(|it| (it.host, it.port)).collect(),
    })
}
