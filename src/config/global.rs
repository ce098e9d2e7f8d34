//! `[global]`: what concerns the process as a whole.

use std::time::Duration;

use serde_json::json;

use super::clients::ClientMemory;
use super::confine::Confine;
use super::kind::{Kind, Limit, Special, Switch, choice, size, time};
use super::names::NameSources;
use super::raw::{Node, Value};
use super::report::Fault;
use super::section::section;
use super::text::quote;
use super::units::format_duration;
use super::values;
use super::words::words;

section! {
    /// `[global]`: what concerns the process as a whole.
    #[derive(Debug, Clone, PartialEq)]
    pub struct Global, WrittenGlobal {
        parts {
            /// Where names are looked up.
            names: NameSources;
            /// What is remembered of clients.
            clients: ClientMemory;
            /// What this process may do.
            confine: Confine;
        }
        keys {
            /// Threads that forward; auto is one for each core this process may use, by CPU
            /// affinity and cgroup quota, pinned if there are several.
            reactors: Reactors = Reactors::Auto, reactors(), Live;
            /// Who waits for the kernel; auto takes io_uring only where it is built in and
            /// permitted.
            engine: EngineChoice = EngineChoice::Auto, choice(), Live;
            /// Sessions over all forwards at the most; auto is as many as descriptors allow,
            /// which also bounds a number.
            max_connections: Option<u32> = None, Limit, Live;
            /// The buffer of each reactor that copied bytes pass through, and the most that one
            /// read takes. More is no faster.
            scratch_buffer: u32 = 256 << 10, size(4 << 10..=16 << 20), Live;
            /// Asked for each pipe; whatever the kernel grants is used, if it is 64KiB or more.
            pipe_size: u32 = 1 << 20, size(4 << 10..=1 << 30), Live;
            /// Bytes that each reactor may hold for slow receivers before reads shrink and pipes
            /// are refused. In a cgroup with a limit of memory half of that, shared by the reactors,
            /// is the most.
            buffer_limit: u64 = 256 << 20, size(1 << 20..=1 << 50), Live;
            /// A reactor spins this long for events before it sleeps: lower latency, a core
            /// burnt. auto spins only while it pays: an idle process uses no CPU.
            busy_poll: BusyPoll = BusyPoll::For(Duration::ZERO), busy_poll(), Live;
            /// Who serves a client: the reactor that the kernel's hash leads it to, or the one that
            /// has the fewest sessions, to which it is passed on right after the accept; for few
            /// and long connections.
            spread: Spread = Spread::Kernel, choice(), Live;
            /// A reactor that is busy gives sessions that run to one that is not, a few at a time;
            /// not together with `busy_poll`, with which all look busy.
            rebalance: Rebalance = Rebalance::Off, choice(), Live;
            /// Reads the configuration again when one of its files has changed, as SIGHUP does.
            watch: bool = false, Switch, Live;
            /// Sessions of five seconds and more go on after this process was killed, those of which it held
            /// nothing then. A service manager keeps their descriptors: for few and long sessions,
            /// and with epoll only, which auto is then.
            survive_crash: bool = false, Switch, Restart;
            /// After the first SIGTERM clients are let in until none has come for so long, ten times
            /// as long at the most, while /readyz says no: whoever balances before it notices, and
            /// sends nobody any more.
            drain_delay: Duration = Duration::ZERO,
                time(Duration::ZERO..=Duration::from_secs(3600)), Live;
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

/// How long a reactor spins for events before it sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusyPoll {
    /// While it pays.
    Auto,
    /// So long, up to a second; zero: not at all.
    For(Duration),
}

words! {
    /// `rebalance =`.
    pub enum Rebalance {
        /// A session stays with its reactor.
        Off = "off",
        /// It may be moved to another one.
        Auto = "auto",
    }
}

words! {
    /// `spread =`.
    pub enum Spread {
        /// Whoever accepts a client serves it.
        Kernel = "kernel",
        /// The reactor with the fewest sessions does.
        Least = "least",
    }
}

words! {
    /// `engine =`.
    pub enum EngineChoice {
        /// `io_uring` where built in and permitted, otherwise epoll.
        Auto = "auto",
        /// Readiness, through mio.
        Epoll = "epoll",
        /// Completions; an error at start where it is not built in or not permitted.
        IoUring = "io_uring",
    }
}

fn reactors() -> Special<Reactors> {
    Special {
        read: read_reactors,
        write: |reactors| match reactors {
            Reactors::Auto => quote("auto"),
            Reactors::Count(count) => count.to_string(),
        },
        words: "number or `\"auto\"`",
        schema: || {
            json!({ "anyOf": [
                { "enum": ["auto"] },
                { "type": "integer", "minimum": 1, "maximum": 1024 },
            ]})
        },
    }
}

const BUSY_POLL_MAX: Duration = Duration::from_secs(1);

fn busy_poll() -> Special<BusyPoll> {
    Special {
        read: read_busy_poll,
        write: |busy_poll| match busy_poll {
            BusyPoll::Auto => quote("auto"),
            BusyPoll::For(time) => quote(&format_duration(*time)),
        },
        words: "duration up to 1s or `\"auto\"`",
        schema: || json!({ "anyOf": [{ "enum": ["auto"] }, time(Duration::ZERO..=BUSY_POLL_MAX).schema()] }),
    }
}

fn read_busy_poll(node: &Node) -> Result<BusyPoll, Fault> {
    match &node.value {
        Value::String(text) if text == "auto" => Ok(BusyPoll::Auto),
        _ => {
            let range = Duration::ZERO..=BUSY_POLL_MAX;
            values::duration(node, range, Duration::from_micros(1)).map(BusyPoll::For)
        }
    }
}

fn read_reactors(node: &Node) -> Result<Reactors, Fault> {
    match &node.value {
        Value::String(text) if text == "auto" => Ok(Reactors::Auto),
        Value::String(text) if text.parse::<u16>().is_err() => {
            Err(Fault::new("this must be a number or \"auto\"")
                .remedy("\"auto\" is one for each core this process may use"))
        }
        _ => values::integer(node, 1..=1024).map(Reactors::Count),
    }
}
