//! A resolver at work: its name server, its files, its log, and what it told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thalweg::config::{LogFormat, LogLevel, LogTarget, NameSources};
use thalweg::control::resolve::{
    Answer, LookupError, LookupId, Name, NameRequest, Resolved, Resolver,
};
use thalweg::engine::SessionKey;
use thalweg::observe::log::{Log, LogWriter};
use thalweg::relay::id::NameId;

use crate::kit::directory::Directory;
use crate::kit::{Dns, PATIENCE, poll, wait_until};

/// The longest wait between two questions, unless a test says otherwise: so that
/// what is to come comes soon.
pub(crate) const TTL_MAX: Duration = Duration::from_millis(300);

/// Where names come from.
pub(crate) struct Bench {
    pub(crate) dns: Dns,
    pub(crate) directory: Directory,
    pub(crate) sources: NameSources,
}

impl Bench {
    /// A name server that knows no name, a resolv.conf that does not wait long, and
    /// an empty hosts file.
    pub(crate) fn new() -> Self {
        let directory = Directory::new();
        let dns = Dns::start();
        let sources = NameSources {
            dns_servers: vec![dns.address()],
            resolv_conf: directory.join("resolv.conf"),
            hosts: directory.join("hosts"),
        };
        let bench = Self {
            dns,
            directory,
            sources,
        };
        bench.write_resolv_conf("options timeout:1 attempts:1\n");
        bench.write_hosts("");
        bench
    }

    pub(crate) fn write_resolv_conf(&self, text: &str) {
        std::fs::write(&self.sources.resolv_conf, text).unwrap();
    }

    pub(crate) fn write_hosts(&self, text: &str) {
        std::fs::write(&self.sources.hosts, text).unwrap();
    }

    /// Keeps these names, with a time to live of up to [`TTL_MAX`].
    pub(crate) fn keep(&self, names: &[Name]) -> Kept {
        self.keep_for(names, Duration::from_millis(100), TTL_MAX)
    }

    pub(crate) fn keep_for(&self, names: &[Name], ttl_min: Duration, ttl_max: Duration) -> Kept {
        let path = self.directory.join("log");
        let target = LogTarget::File(path.clone());
        let (log, writer) = Log::start(LogLevel::Info, LogFormat::Text, &target).unwrap();
        let told: Arc<Mutex<Vec<(NameId, Answer)>>> = Arc::default();
        let requests = names.iter().zip(0..).map(|(name, id)| NameRequest {
            id: NameId::new(id),
            name: name.clone(),
            ttl_min,
            ttl_max,
            obeys: false,
        });
        let tell = told.clone();
        let resolver = Resolver::start(&self.sources, requests.collect(), log, move |answers| {
            tell.lock().unwrap().extend(answers);
        });
        Kept {
            resolver: resolver.unwrap(),
            told,
            log: path,
            writer: Some(writer),
        }
    }
}

/// A resolver, and what it told.
pub(crate) struct Kept {
    pub(crate) resolver: Resolver,
    told: Arc<Mutex<Vec<(NameId, Answer)>>>,
    log: std::path::PathBuf,
    writer: Option<LogWriter>,
}

impl Kept {
    /// Every answer that this name was given, in order.
    pub(crate) fn answers(&self, id: u32) -> Vec<Vec<Resolved>> {
        let told = self.told.lock().unwrap();
        let own = told.iter().filter(|(it, _)| *it == NameId::new(id));
        own.map(|(_, answer)| answer.addresses.clone()).collect()
    }

    /// The addresses of now in the order of dialling; none before the first answer.
    pub(crate) fn now(&self, id: u32) -> Vec<String> {
        let last = self.answers(id).pop().unwrap_or_default();
        last.iter().map(|it| it.endpoint.to_string()).collect()
    }

    /// The addresses of now, sorted.
    pub(crate) fn sorted(&self, id: u32) -> Vec<String> {
        let last = self.answers(id).pop().unwrap_or_default();
        let mut endpoints: Vec<SocketAddr> = last.iter().map(|it| it.endpoint).collect();
        endpoints.sort_unstable();
        endpoints.iter().map(ToString::to_string).collect()
    }

    /// Waits until the name has exactly these addresses.
    #[track_caller]
    pub(crate) fn wait_for(&self, id: u32, sorted: &[&str]) {
        let found = poll(PATIENCE, || (self.sorted(id) == sorted).then_some(()));
        assert!(found.is_some(), "{sorted:?}, but {:?}", self.sorted(id));
    }

    /// The lines of the log that contain all of these words.
    pub(crate) fn lines(&self, words: &[&str]) -> Vec<String> {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines = text.lines().map(str::to_owned);
        lines
            .filter(|line| words.iter().all(|word| line.contains(word)))
            .collect()
    }

    /// Waits for a line of the log with all of these words.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, words: &[&str]) {
        wait_until(&format!("{words:?} in the log"), PATIENCE, || {
            !self.lines(words).is_empty()
        });
    }

    /// Keeps these names from now on, for an hour.
    pub(crate) fn set(&self, names: &[(u32, Name)]) {
        let hour = Duration::from_secs(3600);
        let requests = names.iter().map(|(id, name)| NameRequest {
            id: NameId::new(*id),
            name: name.clone(),
            ttl_min: hour,
            ttl_max: hour,
            obeys: false,
        });
        self.resolver.set_names(requests.collect());
    }

    /// A one-off lookup, waited for.
    #[track_caller]
    pub(crate) fn lookup(&self, host: &str, port: u16) -> Result<Vec<String>, LookupError> {
        self.lookup_for("127.0.0.1", host, port)
    }

    /// The same, for this client.
    #[track_caller]
    pub(crate) fn lookup_for(
        &self,
        client: &str,
        host: &str,
        port: u16,
    ) -> Result<Vec<String>, LookupError> {
        let outcome = self
            .begin(client, host, port)
            .recv_timeout(PATIENCE)
            .unwrap();
        outcome.map(|endpoints| endpoints.iter().map(ToString::to_string).collect())
    }

    /// Begins one, and says where its outcome arrives.
    pub(crate) fn begin(&self, client: &str, host: &str, port: u16) -> Receiver<Outcome> {
        self.begin_as(lookup_id(), client, host, port)
    }

    /// The same, by this number.
    pub(crate) fn begin_as(
        &self,
        id: LookupId,
        client: &str,
        host: &str,
        port: u16,
    ) -> Receiver<Outcome> {
        let (sender, outcome) = channel();
        let client = client.parse().unwrap();
        self.resolver
            .lookup((id, Some(client)), (host, port), move |outcome| {
                let _ = sender.send(outcome);
            });
        outcome
    }
}

/// What a lookup gives.
pub(crate) type Outcome = Result<Vec<SocketAddr>, LookupError>;

/// A number that no other lookup has.
pub(crate) fn lookup_id() -> LookupId {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let key = SessionKey {
        slot: NEXT.fetch_add(1, Ordering::Relaxed),
        generation: 0,
    };
    (0, key)
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.finish(Duration::from_secs(1));
        }
    }
}

pub(crate) fn host(name: &str, port: u16) -> Name {
    Name::Host(name.to_owned(), port)
}

pub(crate) fn service(name: &str) -> Name {
    Name::Srv(name.to_owned())
}
