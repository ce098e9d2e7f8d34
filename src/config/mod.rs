//! The configuration: TOML text and command-line pairs to one validated,
//! immutable [`Config`]; all errors at once, each with its line and column.
//!
//! Nothing here touches the network or looks up a name.

use std::sync::Arc;
use std::time::Duration;

use crate::net::address::Address;
use crate::net::options::SocketOptions;

/// A whole, validated configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[global]`.
    pub global: Global,
    /// `[log]`.
    pub log: Log,
    /// Every `[[forward]]`, port ranges expanded to one each.
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
    /// io_uring where built in and permitted, otherwise epoll.
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
    File(std::path::PathBuf),
}

/// One forward: listeners that share servers, options and limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// Its name, unique; `listen` address of the first listener when not given.
    pub name: String,
    /// Where it listens; never empty.
    pub listen: Vec<Address>,
    /// The servers, in order; never empty, never [`Address::Any`].
    pub servers: Vec<Server>,
    /// Sessions at the most; `None`: only the global limit.
    pub max_connections: Option<u32>,
    /// Deadlines.
    pub timeouts: Timeouts,
    /// Copy, splice, or whichever suits the traffic.
    pub data_path: DataPath,
    /// Options of the leg towards clients.
    pub client: SocketOptions,
    /// Options of the leg towards upstreams.
    pub upstream: SocketOptions,
}

/// One server of a forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub address: Address,
}

/// Deadlines of a session. Zero in the text means "never" and is
/// `Duration::MAX` here, so that comparing needs no special case.
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
