//! Active checks: servers are asked, between sessions, whether they are well.
//!
//! One thread for all checks, whatever their number: connections and commands are
//! waited for together, nothing blocks on one of them. It tells its owner when a
//! server goes up or down, and logs that once, with the reason.
//!
//! | file | what |
//! | --- | --- |
//! | here | [`Checker`], the owner's end |
//! | `checks` | the thread: who is due, what came of it |
//! | `schedule` | when a server is checked; pure |
//! | `connection` | checks over a connection: tcp, exchange, http, tls |
//! | `answer` | what an answer has to be; pure |
//! | `hello` | a TLS ClientHello; pure |
//! | `command` | checks by an external command |
//!
//! As in HAProxy a server counts as up until it is checked, and a first check that
//! fails takes it down at once; after that `fall` in a row do, and `rise` good ones
//! in a row bring it back. What this host lacks (ports, descriptors, memory) is no
//! answer: the check is repeated and the server neither blamed nor praised.
//!
//! Deliberately not here: what becomes of the sessions of a server that is down.

mod answer;
mod checks;
mod command;
mod connection;
mod hello;
pub mod read;
mod schedule;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use mio::Waker;

use crate::balance::health::Change;
use crate::config::{Check, CheckKind};
use crate::net::address::Endpoint;
use crate::net::options::OptionPlan;
use crate::observe::log::Log;
use crate::observe::notice::ServerName;
use crate::proto::proxy;
use crate::reactor::upstream::server::Server;
use crate::relay::id::ServerId;

use checks::{CheckOrder, Checks};

/// How long a checker may take to stop; it is a matter of milliseconds.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// A server to check, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckPlan {
    /// The owner's number of it, unique among its plans. It stands for the server:
    /// its state is kept as long as plans have this number, whatever else in them
    /// changes. Without a plan it is checked no more, which is told if it was down; under
    /// the same number it begins anew later, as [`CheckPlan::down`] says.
    pub id: ServerId,
    /// Its pool, for the log.
    pub pool: Arc<str>,
    /// The host name it was configured by, without a port: what a `tls` check asks
    /// for and an `http` check says in `Host`, unless the check has its own. `None`:
    /// it was configured by its address.
    pub host: Option<String>,
    /// The server itself; the check's own port is applied on top.
    pub endpoint: Endpoint,
    /// The options of the sessions' upstream leg, its source address included.
    pub options: Arc<OptionPlan>,
    /// How, and how often.
    pub check: Arc<Check>,
    /// Checks found it down before, so it begins with that; counts for a server that is not
    /// checked yet.
    pub down: bool,
    /// It is checked for the sessions that it has, and no longer than it has any.
    pub while_used: Option<Used>,
    /// The server expects a PROXY header: it is told that a check is nobody's.
    pub send_proxy: Option<proxy::Version>,
}

/// What is checked otherwise than before; whatever stands in none of the two is checked as before.
#[derive(Debug, Default)]
pub struct CheckChange {
    /// They are checked no more.
    pub gone: Vec<ServerId>,
    /// They are checked like this. Those that are new get their first check soon; the state of those that were
    /// known is kept, see [`CheckPlan::id`].
    pub plans: Vec<CheckPlan>,
}

/// A server that may have sessions.
#[derive(Debug, Clone)]
pub struct Used(pub Arc<Server>);

impl PartialEq for Used {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl CheckPlan {
    /// What the log calls the server.
    fn name(&self) -> ServerName {
        ServerName {
            endpoint: self.endpoint.clone(),
            pool: self.pool.clone(),
        }
    }

    /// What is connected to: the server, on the check's port if it has one.
    fn target(&self) -> Endpoint {
        let mut target = self.endpoint.clone();
        if let (Endpoint::Inet(address), Some(port)) = (&mut target, self.check.port) {
            address.set_port(port);
        }
        target
    }

    /// What a `Host` header says of the server by default. Port 80 goes without
    /// saying (RFC 9110, section 7.2).
    fn host_header(&self, target: &Endpoint) -> String {
        match (&self.host, target) {
            (Some(host), Endpoint::Inet(address)) if address.port() == 80 => host.clone(),
            (Some(host), Endpoint::Inet(address)) => format!("{host}:{}", address.port()),
            (None, Endpoint::Inet(address)) => address.to_string(),
            (_, Endpoint::Unix(_) | Endpoint::Unnamed) => "localhost".to_owned(),
        }
    }

    fn argv(&self) -> Option<&[String]> {
        match &self.check.kind {
            CheckKind::Command { argv } => Some(argv),
            _ => None,
        }
    }
}

/// That a server went up or down, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Which.
    pub change: Change,
    /// As in the log: `connect refused, 3 of 3 checks failed`. Not in the log, and for
    /// a server that was down when its plan was taken away: `checked no more`.
    pub reason: String,
    /// It was down when its plan was taken away: nothing speaks for it, but nobody will say
    /// that it is up either.
    pub released: bool,
}

/// What came of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Passed,
    /// The server failed; why.
    Failed(String),
    /// Nothing was learnt of the server; why.
    Unable(String),
}

/// The checks of a process, on a thread of their own. Dropping it stops them, kills
/// the commands that run, and returns within a second.
#[derive(Debug)]
pub struct Checker {
    orders: Sender<CheckOrder>,
    waker: Waker,
    /// Nothing is ever sent: it breaks when the thread has ended.
    ended: Receiver<()>,
    /// Servers that have not been checked so far.
    unproven: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Checker {
    /// Starts to check. `on_change` is called on the checker's thread, which it must
    /// not keep waiting: all checks stand still meanwhile. Servers count as up
    /// until it says otherwise.
    ///
    /// Fails when the thread or what it waits with cannot be had.
    pub fn start<F>(plans: Vec<CheckPlan>, log: Log, on_change: F) -> io::Result<Self>
    where
        F: Fn(ServerId, Verdict) + Send + 'static,
    {
        let (orders, inbox) = channel();
        let (alive, ended) = channel();
        let (checks, waker) = Checks::new(plans, inbox, log, on_change)?;
        let unproven = checks.unproven();
        let thread = std::thread::Builder::new()
            .name("checks".into())
            .spawn(move || {
                checks.run();
                drop::<Sender<()>>(alive);
            })?;
        Ok(Self {
            orders,
            waker,
            ended,
            unproven,
            thread: Some(thread),
        })
    }

    /// Whether every server has been checked once.
    pub fn firsts_are_known(&self) -> bool {
        self.unproven.load(Ordering::Relaxed) == 0
    }

    /// Checks some servers otherwise from now on.
    pub fn change(&self, change: CheckChange) {
        self.order(CheckOrder::Change(change));
    }

    fn order(&self, order: CheckOrder) {
        // Only a thread that has ended takes none.
        if self.orders.send(order).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.order(CheckOrder::Stop);
        let _ = self.ended.recv_timeout(STOP_PATIENCE);
        if let Some(thread) = self.thread.take_if(|thread| thread.is_finished()) {
            // A panic was printed by the thread itself.
            let _ = thread.join();
        }
    }
}
