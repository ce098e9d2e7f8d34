//! What the system says of names: the name servers and the search list of
//! resolv.conf, and the hosts file. Both are read again when they have changed.
//!
//! Each name server has a client of its own, and they are asked one after the other
//! (`query`), as resolv.conf(5) says. The library's pool asks two at once and takes
//! the first answer, where the second server may know nothing of internal names;
//! and it takes SERVFAIL of one for the answer of all.

use std::fs::{self, Metadata};
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::config::{
    NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::{Hosts, TokioResolver, system_conf};

use super::QUESTIONS_MAX;
use crate::config::NameSources;
use crate::observe::log::Log;
use crate::observe::notice::{List, Notice};

/// Bytes of a file that are read: a hosts file with a hundred thousand names.
const FILE_MAX: u64 = 8 << 20;

/// The clients of the moment, and the files they were made from.
#[derive(Debug)]
pub(super) struct System {
    sources: NameSources,
    log: Log,
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
    /// One for each name server, in the order of asking.
    pub(super) servers: Vec<TokioResolver>,
    /// How often they are asked, all in turn.
    pub(super) rounds: usize,
    /// Names with fewer dots are tried below the search list first.
    pub(super) ndots: usize,
    pub(super) search: Vec<Name>,
    pub(super) hosts: Hosts,
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
    /// read if one of them has changed. Needs the runtime.
    pub(super) fn clients(&self) -> Result<Arc<Clients>, NetError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken before reading: a change in between is seen the next time.
        let stamps = [
            Stamp::of(&self.sources.resolv_conf),
            Stamp::of(&self.sources.hosts),
        ];
        if let Some(current) = &*current
            && current.stamps == stamps
        {
            return Ok(current.clients.clone());
        }
        let again = current.is_some();
        let clients = Arc::new(self.read(again)?);
        *current = Some(Current {
            stamps,
            clients: clients.clone(),
        });
        Ok(clients)
    }

    fn read(&self, again: bool) -> Result<Clients, NetError> {
        let (config, options) = self.read_resolv_conf();
        let (domain, search, mut servers) = config.into_parts();
        if !self.sources.dns_servers.is_empty() {
            let servers_given = self.sources.dns_servers.iter();
            servers = servers_given.map(|server| at_port(*server)).collect();
        }
        if again {
            let name_servers = servers.iter().map(|it| it.ip.to_string());
            self.log.notice(Notice::NameServersChanged {
                resolv_conf: self.sources.resolv_conf.clone(),
                hosts: self.sources.hosts.clone(),
                name_servers: List(name_servers.collect()),
            });
        }
        Ok(Clients {
            rounds: options.attempts.max(1),
            ndots: options.ndots,
            // The domain stands for a list that is not given.
            search: if search.is_empty() {
                domain.into_iter().collect()
            } else {
                search
            },
            hosts: self.read_hosts(),
            servers: servers
                .into_iter()
                .map(|server| client(server, &options))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Without a name server in it, the one on this host is asked (resolv.conf(5)).
    fn read_resolv_conf(&self) -> (ResolverConfig, ResolverOpts) {
        let path = &self.sources.resolv_conf;
        let text = match read_bounded(path) {
            Ok(text) => text,
            Err(error) => {
                if self.sources.dns_servers.is_empty() {
                    self.warn(path, &error, "the name server 127.0.0.1 is asked");
                }
                Vec::new()
            }
        };
        let local = [&text[..], b"\nnameserver 127.0.0.1\n"].concat();
        let parsed = system_conf::parse_resolv_conf(&text)
            .or_else(|_| system_conf::parse_resolv_conf(&local));
        parsed.unwrap_or_else(|error| {
            self.warn(path, &error, "the name server 127.0.0.1 is asked");
            let server = NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into());
            (
                ResolverConfig::from_name_servers(vec![server]),
                ResolverOpts::default(),
            )
        })
    }

    fn read_hosts(&self) -> Hosts {
        let path = &self.sources.hosts;
        let mut hosts = Hosts::default();
        let read = read_bounded(path).and_then(|text| hosts.read_hosts_conf(&text[..]));
        match read {
            Ok(()) => {}
            // A container without one is nothing to be told of.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.warn(path, &error, "only names above the fault are known"),
        }
        hosts
    }

    fn warn(&self, path: &Path, error: &impl std::fmt::Display, instead: &'static str) {
        self.log.notice(Notice::NameFileUnreadable {
            path: path.to_owned(),
            error: error.to_string(),
            instead,
        });
    }
}

/// What changes when a file does, be it written or replaced.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(Option<(i64, i64, u64, u64)>);

impl Stamp {
    fn of(path: &Path) -> Self {
        let stamp = |it: Metadata| (it.mtime(), it.mtime_nsec(), it.ino(), it.len());
        Self(fs::metadata(path).ok().map(stamp))
    }
}

/// What is no file is not opened: a pipe would keep the thread for ever. A device,
/// which can only be `/dev/null`, is how one says "none".
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_char_device() {
        return Ok(Vec::new());
    }
    if !kind.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = Vec::new();
    let file = fs::File::open(path)?;
    file.take(FILE_MAX).read_to_end(&mut text)?;
    Ok(text)
}

fn at_port(server: SocketAddr) -> NameServerConfig {
    let mut config = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut config.connections {
        connection.port = server.port();
    }
    config
}

/// A client that asks one server once: turns, caching and the hosts file are ours.
fn client(server: NameServerConfig, options: &ResolverOpts) -> Result<TokioResolver, NetError> {
    let config = ResolverConfig::from_name_servers(vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let mut options = options.clone();
    options.attempts = 0;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.num_concurrent_reqs = 1;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    // Of one TCP connection, which all who ask share.
    options.max_active_requests = 2 * QUESTIONS_MAX;
    options.timeout = options.timeout.max(Duration::from_secs(1));
    *builder.options_mut() = options;
    builder.build()
}
