//! The configuration: TOML text and command-line pairs to one validated,
//! immutable [`Config`]; all errors at once, each with its line and column.
//!
//! ```text
//! file ──► raw tree ◄── -l/-r, --set      each value knows its place
//!             │ resolve                   keys, types, units, names, defaults
//!             ▼
//!          Config ──► to_toml             what `thalweg check` prints, readable again
//! ```
//! Nothing here touches the network or looks up a name.

mod addresses;
mod check;
mod choices;
mod forward;
mod http_connect;
mod names;
mod pool;
mod print;
mod profile;
mod raw;
mod report;
mod resolve;
mod server;
mod sources;
mod tap;
#[cfg(test)]
mod tests;
pub mod units;
mod values;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::net::address::Address;
use crate::net::options::SocketOptions;

pub use check::{Check, CheckKind, OnDown};
pub use http_connect::{AccessRules, HttpConnect, Mode};
pub use pool::{Balance, HashKey, Pool, Resolve};
pub use report::{ConfigErrors, Place, Problem};
pub use server::{AdminState, Server};
pub use tap::{Rotate, Sample, Tap, TapDirection, TapFilter, TapFormat, TapTarget};

/// What a configuration is made from. All parts are optional; together they must
/// name at least one forward.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inputs {
    /// The configuration file.
    pub file: Option<FileText>,
    /// `-l`/`-r` pairs, each one more forward.
    pub pairs: Vec<Pair>,
    /// `--set` and the flags that are short for it, applied in this order.
    pub overrides: Vec<Override>,
}

/// A file that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileText {
    /// What errors call it.
    pub name: String,
    /// Its bytes; what is not UTF-8 is an error with its place.
    pub bytes: Vec<u8>,
}

/// `-l LISTEN -r UPSTREAM`. Half a pair is an error, which names the other half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// After `-l`.
    pub listen: Option<String>,
    /// After `-r`.
    pub upstream: Option<String>,
}

/// One value of the command line that goes before the file's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The flag as the user wrote it: `--set`, `--engine`.
    pub flag: String,
    /// The key that the flag stands for, dotted. `None` for `--set`, whose text is
    /// `KEY=VALUE`.
    pub key: Option<String>,
    /// The text after the flag.
    pub text: String,
}

impl Config {
    /// Reads, merges and checks everything. On failure all errors are reported
    /// at once.
    pub fn load(inputs: &Inputs) -> Result<Self, ConfigErrors> {
        resolve::load(inputs)
    }

    /// Reads the text of a file.
    pub fn parse(text: &str) -> Result<Self, ConfigErrors> {
        Self::load(&Inputs {
            file: Some(FileText {
                name: "thalweg.toml".to_owned(),
                bytes: text.as_bytes().to_vec(),
            }),
            ..Inputs::default()
        })
    }

    /// The configuration as TOML with every default filled in, port ranges
    /// expanded and pools inlined. [`Config::parse`] reads it as the same value.
    pub fn to_toml(&self) -> String {
        print::to_toml(self)
    }
}

/// A whole, validated configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[global]`.
    pub global: Global,
    /// `[log]`.
    pub log: Log,
    /// Every `[profile.NAME]` and the built-in `default`, as written: what the two
    /// legs of a forward make of one is in [`Forward::client`] and
    /// [`Forward::upstream`].
    pub profiles: BTreeMap<String, SocketOptions>,
    /// Every `[[forward]]`; one whose ports pair up with its upstream's is expanded
    /// to one for each pair. Never empty.
    pub forwards: Vec<Arc<Forward>>,
}

/// `[global]`: what concerns the process as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Global {
    /// How many reactors.
    pub reactors: Reactors,
    /// Which engine.
    pub engine: EngineChoice,
    /// Sessions at the most over all forwards; `None`: what the descriptors allow.
    pub max_connections: Option<u32>,
    /// Bytes of the scratch buffer of each reactor; 256 KiB by default (measured:
    /// 1 MiB is no faster).
    pub scratch_buffer: u32,
    /// Bytes asked for each pipe; 1 MiB by default, the kernel may grant less.
    pub pipe_size: u32,
    /// Bytes of parked tails and pipes each reactor may hold before reads shrink
    /// and pipes are refused; 256 MiB by default.
    pub buffer_limit: u64,
    /// Spin this long for events before sleeping; zero (the default) never spins.
    pub busy_poll: Duration,
    /// Where names are looked up.
    pub names: NameSources,
}

impl Default for Global {
    fn default() -> Self {
        Self {
            reactors: Reactors::Auto,
            engine: EngineChoice::Auto,
            max_connections: None,
            scratch_buffer: 256 << 10,
            pipe_size: 1 << 20,
            buffer_limit: 256 << 20,
            busy_poll: Duration::ZERO,
            names: NameSources::default(),
        }
    }
}

/// Where names are looked up; by default as the system does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameSources {
    /// `dns_servers`: asked in this order instead of those of `resolv_conf`, whose
    /// search list and options stay. Empty (the default): those of `resolv_conf`.
    pub dns_servers: Vec<SocketAddr>,
    /// `resolv_conf`: name servers, search list and options, as resolv.conf(5);
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// `hosts`: names that DNS is not asked for, as hosts(5); `/etc/hosts`.
    pub hosts: PathBuf,
}

impl Default for NameSources {
    fn default() -> Self {
        Self {
            dns_servers: Vec::new(),
            resolv_conf: "/etc/resolv.conf".into(),
            hosts: "/etc/hosts".into(),
        }
    }
}

/// Number of reactors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reactors {
    /// One for each core this process may use: CPU affinity and cgroup quota.
    Auto,
    /// Exactly so many, 1 to 1024.
    Count(u16),
}

/// `engine =`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineChoice {
    /// `io_uring` where built in and permitted, otherwise epoll.
    Auto,
    /// Readiness, through mio.
    Epoll,
    /// Completions; an error at start where it is not built in or not permitted.
    IoUring,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Lines below this level are not written.
    pub level: LogLevel,
    /// Text for people, JSON for machines.
    pub format: LogFormat,
    /// Which session records are written.
    pub sessions: SessionLog,
    /// Where lines go.
    pub to: LogTarget,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Text,
            sessions: SessionLog::Close,
            to: LogTarget::Stdout,
        }
    }
}

/// Severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something is broken and needs an operator.
    Error,
    /// Something is off; forwarding goes on.
    Warn,
    /// What a person wants to know.
    Info,
    /// What a developer wants to know.
    Debug,
}

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// `key=value` text.
    Text,
    /// One JSON object a line.
    Json,
}

/// Which session records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionLog {
    /// None; counters still count.
    Off,
    /// One at the end of each session.
    Close,
    /// One at the start, one at the end.
    All,
}

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output, the default.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to a file.
    File(PathBuf),
}

impl std::fmt::Display for LogTarget {
    /// Control bytes of a path are escaped.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => path.as_os_str().as_encoded_bytes().escape_ascii().fmt(f),
        }
    }
}

/// One forward: listeners that share servers, options and limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// Its name, unique; the address of the first listener when not given.
    pub name: String,
    /// Where it listens; never empty. A name is looked up at start.
    pub listen: Vec<Address>,
    /// What it does with a connection.
    pub mode: Mode,
    /// Its servers and how they are used; without servers, and everything else by
    /// default, when its clients say where to go ([`Mode::HttpConnect`]). The same `Arc` for every forward that
    /// has the same named pool with the same ports.
    pub pool: Arc<Pool>,
    /// Sessions at the most; `None`: only the global limit.
    pub max_connections: Option<u32>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Copy, splice, or whichever suits the traffic.
    pub data_path: DataPath,
    /// What of its traffic is shown; `None`: nothing.
    pub tap: Option<Tap>,
    /// Options of the leg towards clients.
    pub client: SocketOptions,
    /// The profile they come from, for messages.
    pub client_profile: String,
    /// Options of the leg towards upstreams. `quickack` is `Some(false)` where the
    /// profile leaves it open (measured: 6 to 18 % more connections a second).
    pub upstream: SocketOptions,
    /// The profile they come from, for messages.
    pub upstream_profile: String,
}

/// Deadlines of a session. `0` or `off` in the text means "never" and is
/// `Duration::MAX` here, so that comparing needs no special case; anything else is
/// at most a year.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For each attempt to connect upstream; 5 s.
    pub connect: Duration,
    /// No byte either way, and none still on its way out of the kernel; 10 min.
    pub idle: Duration,
    /// After one side ended: silence since the last byte; 60 s.
    pub half_close: Duration,
    /// Bytes to write and the peer takes none; 10 min.
    pub write_stall: Duration,
    /// After SIGTERM: sessions that are left are cut; 30 s. A global drain uses
    /// the longest of its forwards.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            idle: Duration::from_secs(600),
            half_close: Duration::from_secs(60),
            write_stall: Duration::from_secs(600),
            drain: Duration::from_secs(30),
        }
    }
}

/// How payload crosses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataPath {
    /// Copy first, splice once a lane shows bulk.
    Auto,
    /// Always through the scratch buffer.
    Copy,
    /// Always through a pipe; copies where a pipe cannot be had.
    Splice,
}
