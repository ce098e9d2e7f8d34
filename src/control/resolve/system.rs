//! What the system says of names: the name servers and the search list of
//! resolv.conf, and the hosts file. Both are read again when they have changed.
//!
//! Name servers are asked one after the other (`query`), as resolv.conf(5) says: the
//! second may know nothing of internal names, and SERVFAIL of one is not the answer of
//! all.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::rr::Name;
use resolv_conf::ScopedIp;
use tokio::sync::Semaphore;

use super::exchange::NameServer;
use super::files::{Stamp, read_bounded};
use super::hosts::Hosts;
use crate::config::NameSources;
use crate::observe::log::Log;
use crate::observe::notice::{List, Notice};

/// Bytes of resolv.conf that are read.
const FILE_MAX: u64 = 1 << 20;

/// What resolv.conf(5) caps these at.
const NDOTS_MAX: u32 = 15;
const TIMEOUT_MAX: u32 = 30;
const ATTEMPTS_MAX: u32 = 5;

/// Name servers of resolv.conf that are asked. The C library asks three.
const SERVERS_MAX: usize = 8;

/// Questions that were given up whose answer is waited for all the same, to tell a slow
/// name server from a silent one.
pub(super) const LATE_MAX: usize = 4;

/// The clients of the moment, and the files they were made from.
#[derive(Debug)]
pub(super) struct System {
    sources: NameSources,
    pub(super) log: Log,
    current: Mutex<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    stamps: [Stamp; 2],
    clients: Arc<Clients>,
}

/// How names are asked for.
#[derive(Debug)]
pub(super) struct Clients {
    /// In the order of asking.
    pub(super) servers: Vec<Arc<NameServer>>,
    pub(super) manner: Manner,
    pub(super) hosts: Hosts,
    pub(super) log: Log,
    /// Places for [`LATE_MAX`].
    pub(super) late: Arc<Semaphore>,
}

/// What resolv.conf says of how to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Manner {
    /// How often the name servers are asked, all in turn.
    pub(super) rounds: u32,
    /// How long each of them has.
    pub(super) timeout: Duration,
    /// Names with fewer dots are tried below the search list first.
    pub(super) ndots: usize,
    pub(super) search: Vec<Name>,
    /// `use-vc`: never by a datagram.
    pub(super) over_tcp: bool,
    /// `no-aaaa`: DNS is asked for IPv4 only.
    pub(super) no_aaaa: bool,
}

impl System {
    pub(super) fn new(sources: NameSources, log: Log) -> Self {
        Self {
            sources,
            log,
            current: Mutex::new(None),
        }
    }

    /// The clients by the files as they are now: two calls of stat(2), and a new
    /// read if one of them has changed.
    pub(super) fn clients(&self) -> Arc<Clients> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before reading: a change in between is seen the next time.
        let stamps = [
            Stamp::of(&self.sources.resolv_conf),
            Stamp::of(&self.sources.hosts),
        ];
        if let Some(current) = &*current
            && current.stamps == stamps
        {
            return current.clients.clone();
        }
        let again = current.is_some();
        let clients = Arc::new(self.read(again));
        *current = Some(Current {
            stamps,
            clients: clients.clone(),
        });
        clients
    }

    fn read(&self, again: bool) -> Clients {
        let (manner, mut servers) = self.read_resolv_conf();
        if !self.sources.dns_servers.is_empty() {
            servers.clone_from(&self.sources.dns_servers);
        }
        if again {
            let name_servers = servers.iter().map(|it| it.ip().to_string());
            self.log.notice(Notice::NameServersChanged {
                resolv_conf: self.sources.resolv_conf.clone(),
                hosts: self.sources.hosts.clone(),
                name_servers: List(name_servers.collect()),
            });
        }
        Clients {
            servers: servers
                .into_iter()
                .map(|address| Arc::new(NameServer::new(address)))
                .collect(),
            manner,
            hosts: self.read_hosts(),
            log: self.log.clone(),
            late: Arc::new(Semaphore::new(LATE_MAX)),
        }
    }

    fn read_resolv_conf(&self) -> (Manner, Vec<SocketAddr>) {
        let path = &self.sources.resolv_conf;
        let text = read_bounded(path, FILE_MAX).unwrap_or_else(|error| {
            if self.sources.dns_servers.is_empty() {
                self.warn(path, &error, "the name server 127.0.0.1 is asked");
            }
            Vec::new()
        });
        parse_resolv_conf(&text)
    }

    fn read_hosts(&self) -> Hosts {
        let path = &self.sources.hosts;
        Hosts::read(path).unwrap_or_else(|error| {
            // A container without one is nothing to be told of.
            if error.kind() != io::ErrorKind::NotFound {
                self.warn(path, &error, "no name of it is known");
            }
            Hosts::default()
        })
    }

    fn warn(&self, path: &Path, error: &impl std::fmt::Display, instead: &'static str) {
        self.log.notice(Notice::NameFileUnreadable {
            path: path.to_owned(),
            error: error.to_string(),
            instead,
        });
    }
}

/// How to ask, and whom: what cannot be understood is left out, as the C library does.
/// Without a name server in it, the one on this host is asked.
pub(super) fn parse_resolv_conf(text: &[u8]) -> (Manner, Vec<SocketAddr>) {
    let (conf, _) = resolv_conf::Config::parse_with_errors(text);
    // Not by IDNA: what is not ASCII cannot be asked for.
    let domain = |text: &str| {
        let text = text.is_ascii().then_some(text)?;
        let mut name = Name::from_ascii(text.to_ascii_lowercase()).ok()?;
        name.set_fqdn(true);
        Some(name)
    };
    let mut search: Vec<Name> = conf
        .get_last_search_or_domain()
        .filter_map(|it| domain(it))
        .collect();
    if search.is_empty() {
        // This host's own domain stands for a list that is not given.
        search.extend(conf.get_system_domain().and_then(|it| domain(&it)));
    }
    let mut servers: Vec<SocketAddr> = conf
        .nameservers
        .iter()
        .filter_map(name_server)
        .take(SERVERS_MAX)
        .collect();
    if servers.is_empty() {
        servers.push((Ipv4Addr::LOCALHOST, DNS_PORT).into());
    }
    let manner = Manner {
        rounds: conf.attempts.clamp(1, ATTEMPTS_MAX),
        timeout: Duration::from_secs(conf.timeout.clamp(1, TIMEOUT_MAX).into()),
        ndots: conf.ndots.min(NDOTS_MAX) as usize,
        search,
        over_tcp: conf.use_vc,
        no_aaaa: conf.no_aaaa,
    };
    (manner, servers)
}

/// Where DNS servers listen (RFC 1035, section 4.2).
const DNS_PORT: u16 = 53;

/// `fe80::1%eth0` is asked by that interface; without one of this name it cannot be.
fn name_server(ip: &ScopedIp) -> Option<SocketAddr> {
    let ScopedIp::V6(address, Some(scope)) = ip else {
        return Some(SocketAddr::new(IpAddr::from(ip.clone()), DNS_PORT));
    };
    let index = scope.parse().ok();
    let index = index.or_else(|| nix::net::if_::if_nametoindex(scope.as_str()).ok());
    Some(SocketAddrV6::new(*address, DNS_PORT, 0, index?).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_says_whom_to_ask_and_how() {
        let (manner, servers) = parse_resolv_conf(
            b"# by hand\nnameserver 192.0.2.53\nnameserver 2001:db8::53\nnameserver fe80::1%lo\n\
              nameserver nonsense\nsearch One.test two.test.\n\
              options ndots:99 timeout:0 attempts:99 use-vc no-aaaa edns0 \xff\n",
        );
        let lo = nix::net::if_::if_nametoindex("lo").expect("every host has it");
        assert_eq!(
            servers.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [
                "192.0.2.53:53".to_owned(),
                "[2001:db8::53]:53".to_owned(),
                format!("[fe80::1%{lo}]:53")
            ]
        );
        let search: Vec<String> = manner.search.iter().map(Name::to_ascii).collect();
        assert_eq!(search, ["one.test.", "two.test."]);
        // That line is not UTF-8, and the C library would take it; nothing else is lost.
        let (_, servers) = parse_resolv_conf(
            b"options ndots:99 timeout:0 attempts:99 use-vc no-aaaa edns0 unknown\nsearch .\n",
        );
        assert_eq!(servers, ["127.0.0.1:53".parse().expect("an address")]);
        let (manner, _) = parse_resolv_conf("search b\u{fc}cher.test good.test\n".as_bytes());
        assert_eq!(manner.search.len(), 1, "{:?}", manner.search);
        let (manner, _) = parse_resolv_conf(
            b"options ndots:99 timeout:0 attempts:99 use-vc no-aaaa edns0 unknown\nsearch .\n",
        );
        assert_eq!((manner.ndots, manner.rounds), (15, 5));
        assert_eq!(manner.timeout, Duration::from_secs(1));
        assert!(manner.over_tcp && manner.no_aaaa);
    }
}
