//! What the log says in operation: one [`Notice`] for each thing that can be said.
//!
//! A row below says all there is to say of a notice: its kind, level, whom it is about,
//! what else is known, and the sentence for people. The same notice is a line of text or
//! an object of JSON whose fields need no parsing. Errors in a configuration are no
//! notices: nothing is in operation then.
//!
//! Making one formats nothing; that is done by whoever writes it.

mod shown;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use shown::{List, ServerName, Shown};

use crate::config::LogLevel;
use crate::net::address::Endpoint;
use crate::net::options::{Advice, Leg, Shortfall};
use crate::net::word::Text;
use crate::observe::counters::{ProcessSnapshot, ServerSnapshot, Snapshot};
use crate::relay::ending::Cause;
use crate::relay::id::{ForwardId, ListenerId, ServerId};

/// Whom trouble is about, for the throttle: a number, so that asking costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Subject {
    /// The process, or the reactor that says it.
    Process,
    /// A forward.
    Forward(ForwardId),
    /// A server.
    Server(ServerId),
    /// A listener.
    Listener(ListenerId),
    /// What turns clients away at a forward: a rule by its place, or a limit.
    Rule(ForwardId, u32),
}

/// ```text
/// /// When it is said.
/// Variant "kind" Level [whom it is about] { what else is known }
///     "sentence with {fields}";
/// ```
/// A level and a sentence that depend on the fields are expressions in parentheses.
macro_rules! notices {
    ($(
        $(#[doc = $doc:literal])+
        $Variant:ident $kind:literal $level:tt [$($whom:ident: $Whom:ty),*]
            { $($field:ident: $Field:ty),* } $sentence:tt;
    )+) => {
        /// Something that is said once, when it happens.
        #[derive(Debug)]
        pub enum Notice {
            $(
                $(#[doc = $doc])+
                #[allow(missing_docs, reason = "the sentence says what its fields are")]
                $Variant { $($whom: $Whom,)* $($field: $Field,)* },
            )+
        }

        /// What a notice says, whomever it is about.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[doc = $doc])+ $Variant,)+
        }

        impl Kind {
            /// Every kind, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$Variant,)+];

            /// A stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$Variant => $kind,)+ }
            }

            /// The fields of the JSON object, units and those of tables left out.
            pub const fn fields(self) -> &'static [&'static str] {
                match self {
                    $(Self::$Variant => &[$(stringify!($whom),)* $(stringify!($field),)*],)+
                }
            }
        }

        impl Notice {
            /// What it says.
            pub const fn kind(&self) -> Kind {
                match self { $(Self::$Variant { .. } => Kind::$Variant,)+ }
            }

            /// How much it matters.
            #[allow(unused_variables, reason = "few levels depend on the fields")]
            pub const fn level(&self) -> LogLevel {
                match self {
                    $(Self::$Variant { $($whom,)* $($field,)* } => notices!(@level $level),)+
                }
            }

            /// Whom it is about, then what else is known.
            pub fn fields(&self) -> Vec<(&'static str, &dyn Shown)> {
                match self {
                    $(Self::$Variant { $($whom,)* $($field,)* } => vec![
                        $((stringify!($whom), $whom as &dyn Shown),)*
                        $((stringify!($field), $field as &dyn Shown),)*
                    ],)+
                }
            }
        }

        impl fmt::Display for Notice {
            /// The sentence.
            #[allow(unused_variables, reason = "not every sentence has all fields")]
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$Variant { $($whom,)* $($field,)* } => notices!(@say f $sentence),)+
                }
            }
        }
    };

    (@level ($level:expr)) => { $level };
    (@level $level:ident) => { LogLevel::$level };
    (@say $f:ident (|$to:ident| $say:expr)) => {{ let $to = $f; $say }};
    (@say $f:ident $sentence:literal) => { write!($f, $sentence) };
}

notices! {
    // The process.

    /// At the start: what will run.
    Starting "starting" Info [] { reactors: usize, engine: &'static str, sessions_max: u32, admin: String }
        "{reactors} reactors, engine {engine}, up to {sessions_max} sessions, admin {admin}";
    /// At the start: where metrics can be had, besides the admin endpoint.
    MetricsListening "metrics_listening" Info [] { listener: Endpoint }
        "metrics can be read at {listener}";
    /// At the start: there is no admin endpoint, which nobody asked for in so many words.
    NoAdmin "no_admin" Info [] { reason: String }
        "no admin endpoint: {reason}";
    /// At the start, with `engine = "auto"`: which it is, and why.
    EngineChosen "engine_chosen" (if *refused { LogLevel::Warn } else { LogLevel::Info })
        [] { engine: &'static str, reason: String, refused: bool }
        "engine {engine}: {reason}";
    /// At the start: the limit of descriptors is below what `max_connections` takes.
    DescriptorsShort "descriptors_short" Warn []
        { wanted: u32, needed: u64, limit: u64, sessions_max: u32 }
        "{wanted} sessions need {needed} descriptors, the hard limit is {limit}: \
         {sessions_max} sessions fit; raise RLIMIT_NOFILE (ulimit -Hn, LimitNOFILE=)";
    /// A listener is open.
    Listening "listening" Info [listener: Endpoint] { forward: Arc<str> }
        (|f| write!(f, "listening on {listener} forward={}", Text(forward)));
    /// The kernel grants a forward, and `others` with the same options, less than they ask for.
    OptionShort "option_short" Warn [forward: Arc<str>]
        { others: usize, leg: Leg, shortfall: Shortfall }
        (|f| write!(f, "{}, {leg} leg: {shortfall}", Whose(forward, *others)));
    /// An option will slow a forward, and `others` with the same options, down.
    OptionAdvice "option_advice" Warn [forward: Arc<str>]
        { others: usize, leg: Leg, advice: Advice }
        (|f| write!(f, "{}, {leg} leg: {advice}", Whose(forward, *others)));
    /// Sessions of a forward are shown to a tap.
    Tapped "tapped" Info [forward: Arc<str>]
        { tap: String, bytes: u64 }
        (|f| write!(
            f,
            "forward {forward}: the first {} of each session are shown to {tap}",
            crate::config::units::format_size(*bytes)
        ));
    /// A caller of the admin endpoint looks at sessions.
    LookedAt "looked_at" Info [] { sessions: String, bytes: String }
        "{sessions}: the first {bytes} of each session are shown to a caller of the admin endpoint";
    /// At the start: whose it became, and what the kernel denies it.
    Confined "confined" Info [] { confinement: String }
        "{confinement}";
    /// The service manager that the environment names cannot be told anything.
    ServiceManager "service_manager" Warn [] { complaint: String }
        "the service manager is told nothing: {complaint}";
    /// The service manager has no room for sockets that would outlive a crash.
    ListenersNotKept "listeners_not_kept" Warn [] { sockets: usize, room: usize }
        "{sockets} listening sockets are not kept over a crash: the service manager keeps {room} \
         descriptors; raise FileDescriptorStoreMax=";
    /// The process before was killed: what has become of its sessions.
    Survived "survived" Info [] { sessions: u64, reset: u64, reasons: String }
        (|f| {
            write!(f, "the process before was killed: {sessions} sessions go on, {reset} are reset")?;
            if reasons.is_empty() { Ok(()) } else { write!(f, " ({reasons})") }
        });
    /// Sessions will end with this process although they are not to.
    SessionsNotKept "sessions_not_kept" Warn [] { reason: String }
        "sessions do not outlive a crash: {reason}";
    /// The end has begun.
    Draining "draining" Info [] { sessions: u64, flows: u64, timeout: Option<Duration> }
        (|f| {
            write!(f, "draining: {sessions} sessions")?;
            if *flows > 0 {
                write!(f, " and {flows} flows of UDP")?;
            }
            match timeout {
                Some(timeout) => write!(f, ", up to {timeout:?}"),
                None => f.write_str(", for as long as they take"),
            }
        });
    /// It was told to end, and lets clients in for a while yet.
    Lingering "lingering" Info [] { delay: Duration }
        "clients are let in for {delay:?} yet, and /readyz says that it will end";
    /// A signal came that means nothing here.
    SignalIgnored "signal_ignored" Warn [] { signal: &'static str }
        "{signal} means nothing here and is ignored: SIGTERM ends, SIGHUP reads again, SIGUSR1 reports";
    /// Datagrams of a forward cannot leave several at a time by some way.
    SentSingly "sent_singly" Info [forward: Arc<str>] {}
        "the way takes no joined datagrams: they are sent one by one forward={forward}";
    /// A listener lets nobody in any more but those who wait already.
    NotListening "not_listening" Info [listener: Endpoint] { forward: Arc<str> }
        "not listening on {listener} any more forward={forward}";
    /// Another configuration runs: what differs, one line for each.
    Reloaded "reloaded" Info [] { generation: u64, summary: String, changes: List, back: bool }
        (|f| {
            let back = if *back { "back to what was confirmed last: " } else { "" };
            write!(f, "reloaded: {back}{summary}")
        });
    /// The configuration that was to run is not to be had; nothing has changed.
    ReloadRefused "reload_refused" Error [] { error: String }
        "not reloaded, nothing has changed: {error}";
    /// Another process serves; this one ends once its last session has.
    HandedOver "handed_over" Info [] { process: u32, build: String, sessions: u64 }
        "process {process} (thalweg {build}) has taken over; {sessions} sessions are left here";
    /// This process serves in the place of another one.
    TakenOver "taken_over" Info [] { process: u32, build: String, sessions: u64 }
        "took over from process {process} (thalweg {build}), with {sessions} sessions";
    /// A busy reactor has given sessions that run to one that is not: `rebalance = "auto"`.
    Rebalanced "rebalanced" Info [] { sessions: usize, from: u16, to: u16 }
        "{sessions} sessions moved from reactor {from} to reactor {to}";
    /// Sessions that moved between processes could not be had by any reactor, and have ended.
    SessionsLost "sessions_lost" Error [] { sessions: usize }
        "{sessions} sessions could not be taken in and have ended";
    /// A new process serves on trial; this one waits beside it.
    OnTrial "on_trial" Info [] { process: u32, build: String }
        "process {process} (thalweg {build}) serves on trial";
    /// This process was on trial, and gives everything back.
    GoesBack "goes_back" Warn [] { process: u32, reason: String }
        "gives everything back to process {process}: {reason}";
    /// A trial has come to nothing: this process serves again.
    UpgradeUndone "upgrade_undone" Warn [] { process: u32, reason: String, sessions: u64 }
        "serves again in the place of process {process}, with {sessions} sessions of it: {reason}";
    /// A new process has not taken over; everything is as before.
    UpgradeRefused "upgrade_refused" Error [] { error: String }
        "no upgrade: {error}";
    /// Files of the configuration are looked after: `watch = true`.
    Watching "watching" Info [] { files: usize }
        "watching {files} files of the configuration";
    /// There is no file: standard input, or the command line alone.
    WatchesNothing "watches_nothing" Warn [] {}
        "`watch` has no effect: the configuration is not read from a file";
    /// The kernel does not say what changes: files are looked at several times a second.
    WatchPolls "watch_polls" Warn [] { error: io::Error }
        "changes of the configuration's files are not told of, so they are looked at all the time: \
         {error}; raise fs.inotify.max_user_instances";
    /// Nobody looks after them.
    NotWatched "not_watched" Warn [] { error: io::Error }
        "the files of the configuration cannot be watched: {error}";
    /// A tap goes on where it was.
    TapNotReopened "tap_not_reopened" Warn [tap: String] { error: io::Error }
        "tap {tap} cannot be opened anew, and goes on where it is: {error}";
    /// The log goes on in the file that has its name now.
    LogReopened "log_reopened" Info [] {}
        "the log was opened anew";
    /// That failed: it goes on where it was.
    LogNotReopened "log_not_reopened" Warn [] { error: io::Error }
        "the log cannot be opened anew, and goes on where it is: {error}";
    /// Entries of the log were lost.
    LogLost "log_lost" Warn [] { lost: u64, total: u64 }
        "the log lost {lost} entries ({total} in all)";
    /// What a tap should have shown was lost, because its target failed.
    TapLost "tap_lost" Warn [tap: String] { error: io::Error, bytes: u64 }
        "tap {tap}: {error}; {bytes} bytes are lost so far";

    /// At the start: hashes of a file of users that are weak, dear or mixed.
    UsersAdvice "users_advice" Warn [forward: Arc<str>] { path: PathBuf, problem: String }
        (|f| write!(f, "forward {forward}: users of {}: {problem}", path.display()));
    /// The configuration is valid, and has something that is seldom meant.
    ConfigAdvice "config_advice" Warn [] { advice: String }
        "{advice}";
    /// A thread beside the reactors panicked, and goes on; the panic itself is on standard error.
    HelperPanicked "helper_panicked" Error [] { thread: &'static str, panics: u64 }
        "the thread {thread} panicked and goes on ({panics} panics so far); please report it, with \
         what standard error has";

    // Reactors.

    /// A reactor runs on any CPU instead of its own.
    NotPinned "not_pinned" Warn [reactor: u16] { cpu: usize, error: io::Error }
        "reactor {reactor}: cannot stay on CPU {cpu}: {error}";
    /// A reactor has failed; the others drain.
    ReactorStops "reactor_stops" Error [reactor: u16] { error: io::Error }
        "reactor {reactor} stops: waiting for events failed: {error}";
    /// Splice does not work here.
    SpliceRefused "splice_refused" Warn [reactor: u16] {}
        "reactor {reactor}: the kernel refuses to splice; lanes that it refuses copy instead";
    /// A reactor is out of descriptors or memory.
    AcceptPaused "accept_paused" Warn [reactor: u16] { cause: Cause }
        (|f| write!(f, "accepting pauses: {}; connections wait in the accept queue", cause.name()));
    /// Accepting fails for another reason.
    AcceptFailed "accept_failed" Warn [listener: Endpoint] { error: io::Error }
        "listener {listener}: accept failed: {error}";
    /// A forward has as many sessions as it may.
    ForwardFull "forward_full" Warn [forward: Arc<str>] { live: u32, max: u32 }
        "forward {forward}: {live} connections, its max_connections is {max}; new ones wait";
    /// A client is turned away for what it said first: its PROXY header, its hello, the
    /// route that these lead to.
    OpeningRefused "opening_refused" Warn [forward: Arc<str>] { client: Endpoint, cause: Cause, why: &'static str }
        "forward {forward}: client {client} is turned away: {why}";
    /// All forwards together have as many sessions as they may.
    ProcessFull "process_full" Warn [] { forward: Arc<str>, live: u32, max: u32 }
        "{live} connections over all forwards, the limit is {max}; new ones wait (forward {forward})";

    /// Clients are turned away at a forward. Of each rule and limit the first is named.
    ClientDenied "client_denied" (if *dry_run { LogLevel::Info } else { LogLevel::Warn })
        [forward: Arc<str>] { client: Endpoint, code: &'static str, cause: &'static str,
            reason: String, dry_run: bool }
        (|f| write!(
            f,
            "forward {forward}: client {client} {} turned away: {reason} code={code} cause={cause}",
            if *dry_run { "would be" } else { "is" }
        ));
    /// At a report: what a rule has turned away.
    ClientRule "client_rule" Info [forward: Arc<str>] { rule: Arc<str>, denied: u64 }
        (|f| write!(f, "forward {forward} rule={} denied={denied}", Text(rule)));

    // Servers.

    /// No server of a forward may be picked.
    NoServer "no_server" Warn [forward: Arc<str>] {}
        "forward {forward}: no server is up";
    /// A connect failed, or a server reset right after one.
    ConnectFailed "connect_failed" Warn [server: ServerName] { cause: Cause }
        (|f| write!(f, "connecting to {server} failed: {}", cause.name()));
    /// A connect would have come back to where it is made.
    ForwardLoop "forward_loop" Warn [server: ServerName] { forward: Arc<str> }
        "connecting to {server} would be a loop: forward {forward} listens there, and leads \
         back; name another server";
    /// A connect failed for want of something here.
    ConnectShortage "connect_shortage" Warn [server: ServerName] { cause: Cause }
        (|f| write!(f, "cannot connect to {} from here: {}", server.endpoint, cause.name()));
    /// A server failed once too often, and is left alone for a while.
    ServerMarked "server_marked" Warn [server: ServerName]
        { cause: Cause, fail_timeout: Duration, max_fails: u32 }
        (|f| write!(
            f,
            "server {server} is marked for {fail_timeout:?}: {} (max_fails {max_fails})",
            cause.name()
        ));
    /// A marked server has served a session.
    ServerUnmarked "server_unmarked" Info [server: ServerName] {}
        "server {server} is used again: a session got through";
    /// Checks found a server up.
    ServerUp "server_up" Info [server: ServerName] { reason: String }
        "server {server} is up: {reason}";
    /// Checks found a server down.
    ServerDown "server_down" Warn [server: ServerName] { reason: String }
        "server {server} is down: {reason}";
    /// A check failed, which does not change the server's side.
    CheckFailed "check_failed" Debug [server: ServerName] { reason: String }
        "a check of server {server} failed: {reason}";
    /// This host cannot check a server.
    CheckImpossible "check_impossible" Warn [server: ServerName] { reason: String }
        "server {server} cannot be checked: {reason}";
    /// Servers are checked no more.
    ChecksStop "checks_stop" Error [] { error: io::Error }
        "checks stop: waiting for events failed: {error}";
    /// The addresses of a pool's names have changed.
    PoolChanged "pool_changed" Info [pool: Arc<str>] { servers: usize }
        "upstream {pool}: {servers} servers";
    /// The addresses of a name have changed that many pools have.
    PoolsChanged "pools_changed" Info [pool: Arc<str>] { servers: usize, others: usize }
        "upstream {pool}: {servers} servers; so have {others} others of the same name";

    // Names.

    /// A name is resolved for the first time, or its addresses have changed.
    NameResolved "name_resolved" Info [name: String] { addresses: List }
        "name {name} is {addresses}";
    /// A name begins to fail.
    NameFailed "name_failed" Warn [name: String]
        { error: String, addresses: List, retry: Duration }
        (|f| {
            write!(f, "name {name}: {error}; ")?;
            if addresses.0.is_empty() {
                f.write_str("it has no address until it can be resolved")?;
            } else {
                write!(f, "what is known is used: {addresses}")?;
            }
            write!(f, "; next try in {:.1}s", retry.as_secs_f32())
        });
    /// A name that failed works again.
    NameRecovered "name_recovered" Info [name: String] { addresses: Option<List> }
        (|f| match addresses {
            Some(addresses) => write!(f, "name {name} resolves again: {addresses}"),
            None => write!(f, "name {name} resolves again: the same addresses"),
        });
    /// A name still fails.
    NameStillFails "name_still_fails" Debug [name: String] { error: String }
        "name {name}: {error}";
    /// A name is what it was.
    NameUnchanged "name_unchanged" Debug [name: String] {}
        "name {name}: the same";
    /// A name has more addresses than are used.
    NameCrowded "name_crowded" Warn [name: String] { addresses: usize, used: usize }
        "name {name}: it has {addresses} addresses; {used} of them are used";
    /// A name server begins to answer late.
    NameServerSlow "name_server_slow" Warn []
        { name_server: String, took: Duration, allowed: Duration }
        (|f| write!(
            f,
            "the name server {name_server} is slow: an answer took {:.1}s, and resolv.conf \
             gives it {:.1}s",
            took.as_secs_f32(),
            allowed.as_secs_f32()
        ));
    /// The files that say how names are resolved have changed.
    NameServersChanged "name_servers_changed" Info []
        { resolv_conf: PathBuf, hosts: PathBuf, name_servers: List }
        (|f| write!(
            f,
            "{} or {} has changed; name servers: {}",
            resolv_conf.display(),
            hosts.display(),
            name_servers
        ));
    /// Such a file cannot be read.
    NameFileUnreadable "name_file_unreadable" Warn []
        { path: PathBuf, error: String, instead: &'static str }
        (|f| write!(
            f,
            "cannot read {}: {error}; {instead}, and it is read again when it changes",
            path.display()
        ));

    // Reports: at SIGUSR1 and at the end. Their figures follow the sentence.

    /// The counters, summed over reactors.
    Counters "counters" Info [] { counters: Box<Snapshot>, process: ProcessSnapshot }
        "counters";
    /// How connections spread over reactors; 1 is even.
    Spread "spread" Info [] { accepted: Vec<u64>, busiest_to_mean: f64 }
        (|f| {
            f.write_str("spread of accepted connections over reactors")?;
            for (reactor, accepted) in accepted.iter().enumerate() {
                write!(f, " {reactor}={accepted}")?;
            }
            write!(f, " busiest_to_mean={busiest_to_mean:.2}")
        });
    /// A route, and how many sessions took it.
    Route "route" Info [forward: Arc<str>, route: Arc<str>] { sessions: u64 }
        (|f| write!(f, "forward {} route={} sessions={sessions}", Text(forward), Text(route)));
    /// A server, and what came of dialling it.
    Server "server" Info [server: ServerName] { figures: Box<ServerSnapshot> }
        (|f| write!(f, "server {} pool={}", server.endpoint, Text(&server.pool)));
}

/// A forward, and how many others are like it.
struct Whose<'a>(&'a str, usize);

impl fmt::Display for Whose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(forward, others) = self;
        match others {
            0 => write!(f, "forward {forward}"),
            1 => write!(f, "forward {forward} and another"),
            others => write!(f, "forward {forward} and {others} others"),
        }
    }
}

#[cfg(test)]
mod tests;
