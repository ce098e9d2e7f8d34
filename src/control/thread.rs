//! The thread of one reactor, and the wire to it.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::prepare::{ReactorPlan, StartError};
use super::proxy::{Desk, Post};
use crate::config::LogLevel;
use crate::engine::choice::{self, Waker};
use crate::engine::{Engine, SessionKey};
use crate::net::limits;
use crate::observe::counters::Counters;
use crate::observe::log::Log;
use crate::reactor::upstream::server::{Server, ServerSet};
use crate::reactor::{Reactor, Setup, Verdict};
use crate::relay::ending::Cause;
use crate::relay::id::PoolId;

/// What control tells a reactor.
#[derive(Debug, Clone)]
pub(super) enum Order {
    /// Accept nothing more; end when the last session has.
    Drain,
    /// End every session.
    Cut(Cause),
    /// Bring the gauges up to date.
    Publish,
    /// These are the servers of an upstream from now on.
    Servers(PoolId, Arc<ServerSet>),
    /// End the sessions of a server.
    CutServer(Arc<Server>),
    /// Where the request of a session may go.
    Answer(SessionKey, Verdict),
}

/// The way to a reactor, for other threads.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    orders: Sender<Order>,
    waker: Arc<Waker>,
}

impl Wire {
    pub(super) fn send(&self, order: Order) {
        // A reactor that has ended needs no orders.
        if self.orders.send(order).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

/// A running reactor.
#[derive(Debug)]
pub(super) struct ReactorThread {
    thread: Option<JoinHandle<()>>,
    wire: Wire,
    counters: Arc<Counters>,
}

impl ReactorThread {
    /// Starts the thread; returns once its engine stands.
    pub(super) fn spawn(plan: ReactorPlan) -> Result<Self, StartError> {
        let counters = plan.setup.counters.clone();
        let (orders, inbox) = channel();
        let (ready, started) = channel();
        let own = orders.clone();
        let thread = std::thread::Builder::new()
            .name(format!("reactor-{}", plan.setup.reactor))
            .spawn(move || main(plan, &inbox, own, &ready))
            .map_err(StartError::Reactor)?;
        let waker = started
            .recv()
            .map_err(|_| StartError::Reactor(io::Error::other("the thread ended at once")))?
            .map_err(StartError::Reactor)?;
        Ok(Self {
            thread: Some(thread),
            wire: Wire { orders, waker },
            counters,
        })
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn is_running(&self) -> bool {
        self.thread
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
    }

    pub(super) fn send(&self, order: Order) {
        self.wire.send(order);
    }

    /// The way to it.
    pub(super) fn wire(&self) -> Wire {
        self.wire.clone()
    }

    /// Waits for the thread to end, but not for ever.
    pub(super) fn join(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.is_running() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        if let Some(thread) = self.thread.take_if(|thread| thread.is_finished()) {
            // A panic was printed by the thread itself.
            let _ = thread.join();
        }
    }
}

/// The engine is made on its own thread: a ring has a single issuer.
fn main(
    plan: ReactorPlan,
    inbox: &Receiver<Order>,
    orders: Sender<Order>,
    ready: &Sender<io::Result<Arc<Waker>>>,
) {
    let ReactorPlan {
        kind,
        engine,
        listeners,
        setup,
        pin,
        origin,
        desk,
    } = plan;
    let log = setup.log.clone();
    if let Some(cpu) = pin
        && let Err(error) = limits::pin_to_cpu(cpu)
    {
        log.line(
            LogLevel::Warn,
            format!(
                "reactor {}: cannot stay on CPU {cpu}: {error}",
                setup.reactor
            ),
        );
    }
    let work = Job {
        setup,
        inbox,
        orders,
        desk,
        ready,
        log,
    };
    if let Err(error) = choice::run(kind, &engine, listeners, origin, work) {
        let _ = ready.send(Err(error));
    }
}

/// What a reactor's thread does once its engine stands.
struct Job<'a> {
    setup: Setup,
    inbox: &'a Receiver<Order>,
    /// To itself, for answers to what it asks.
    orders: Sender<Order>,
    desk: Option<Arc<Desk>>,
    ready: &'a Sender<io::Result<Arc<Waker>>>,
    log: Log,
}

impl choice::Work for Job<'_> {
    fn work<E: Engine>(mut self, engine: E, waker: Waker) {
        let waker = Arc::new(waker);
        if let Some(desk) = self.desk {
            let wire = Wire {
                orders: self.orders,
                waker: waker.clone(),
            };
            self.setup.decider = Some(Box::new(Post::new(desk, wire)));
        }
        // Nobody waits for the answer only if the process is ending.
        if self.ready.send(Ok(waker)).is_ok() {
            work(Reactor::new(engine, self.setup), self.inbox, &self.log);
        }
    }
}

fn work<E: Engine>(mut reactor: Reactor<E>, inbox: &Receiver<Order>, log: &Log) {
    let mut draining = false;
    while !draining || reactor.live() > 0 {
        match reactor.turn() {
            Ok(false) => {}
            Ok(true) => {
                for order in inbox.try_iter() {
                    match order {
                        Order::Drain => {
                            reactor.stop_accepting();
                            draining = true;
                        }
                        Order::Cut(cause) => reactor.cut_all(cause),
                        Order::Publish => reactor.publish(),
                        Order::Servers(pool, set) => reactor.replace_servers(pool, set),
                        Order::CutServer(server) => reactor.cut_server(&server),
                        Order::Answer(key, verdict) => reactor.decided(key, verdict),
                    }
                }
            }
            Err(error) => {
                // epoll_wait fails only on misuse; go on would be to spin.
                log.line(
                    LogLevel::Error,
                    format!("a reactor stops: waiting for events failed: {error}"),
                );
                return;
            }
        }
    }
    reactor.publish();
}
