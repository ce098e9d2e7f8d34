//! The thread of one reactor. That a thread has ended is told to control's
//! [`Inbox`](super::inbox::Inbox), whatever it ended of.

use std::collections::VecDeque;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use nix::unistd::{Pid, gettid};

use super::acquire::ReactorPlan;
use super::error::StartError;
use super::inbox::{Teller, Told};
use super::proxy::{Deciders, ReactorDecider};
use super::wire::{Message, Order, Pending, Visitor, Wire};
use crate::engine::choice::{self, Waker};
use crate::engine::{self, Datagrams};
use crate::net::limits;
use crate::observe::counters::Counters;
use crate::observe::log::Log;
use crate::observe::notice::Notice;
use crate::reactor::{Listener, Reactor, Setup};

/// A running reactor.
#[derive(Debug)]
pub(super) struct ReactorThread {
    number: u16,
    thread: JoinHandle<()>,
    wire: Wire,
    counters: Arc<Counters>,
    id: Pid,
}

impl ReactorThread {
    /// Starts the thread; returns once its engine stands. Its end is told to `teller`.
    pub(super) fn spawn(plan: ReactorPlan, teller: Teller) -> Result<Self, StartError> {
        let counters = plan.setup.counters.clone();
        let (messages, inbox) = channel();
        let (ready, started) = channel();
        let own = messages.clone();
        let reactor = plan.setup.reactor;
        let thread = std::thread::Builder::new()
            .name(format!("reactor-{reactor}"))
            .spawn(move || {
                let _told = AtTheEnd(teller, reactor);
                main(plan, &inbox, own, &ready);
            })
            .map_err(StartError::Reactor)?;
        let (waker, id) = started
            .recv()
            .map_err(|_| StartError::Reactor(io::Error::other("the thread ended at once")))?
            .map_err(StartError::Reactor)?;
        Ok(Self {
            number: reactor,
            thread,
            wire: Wire { messages, waker },
            counters,
            id,
        })
    }

    /// What the kernel knows the thread by.
    pub(super) const fn thread_id(&self) -> Pid {
        self.id
    }

    pub(super) const fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    pub(super) fn send(&self, order: Order) -> Pending {
        self.wire.send(order)
    }

    /// Its number, what it counts and the way to it.
    pub(super) fn seen(&self) -> (u16, Arc<Counters>, Wire) {
        (self.number, self.counters.clone(), self.wire.clone())
    }

    /// The way to it.
    pub(super) fn wire(&self) -> Wire {
        self.wire.clone()
    }

    /// Waits for a thread that has told its end.
    pub(super) fn join(self) {
        // A panic was printed by the thread itself.
        let _ = self.thread.join();
    }
}

/// Tells that a thread has ended, also by a panic.
struct AtTheEnd(Teller, u16);

impl Drop for AtTheEnd {
    fn drop(&mut self) {
        self.0.tell(Told::Ended(self.1));
    }
}

/// The engine is made on its own thread: a ring has a single issuer.
fn main(
    plan: ReactorPlan,
    inbox: &Receiver<Message>,
    messages: Sender<Message>,
    ready: &Sender<io::Result<(Arc<Waker>, Pid)>>,
) {
    let ReactorPlan {
        kind,
        engine,
        listeners,
        setup,
        pin,
        origin,
        deciders,
        waits,
    } = plan;
    let log = setup.log.clone();
    if let Some(cpu) = pin
        && let Err(error) = limits::pin_to_cpu(cpu)
    {
        let reactor = setup.reactor;
        log.notice(Notice::NotPinned {
            reactor,
            cpu,
            error,
        });
    }
    let work = ReactorWork {
        setup,
        listeners,
        inbox,
        messages,
        deciders,
        waits,
        ready,
        log,
    };
    if let Err(error) = choice::run(kind, &engine, origin, work) {
        let _ = ready.send(Err(error));
    }
}

/// What a reactor's thread does once its engine stands.
struct ReactorWork<'a> {
    setup: Setup,
    listeners: Vec<(engine::Listener, Arc<Listener>)>,
    inbox: &'a Receiver<Message>,
    /// To itself, for answers to what it asks.
    messages: Sender<Message>,
    deciders: Option<Arc<Deciders>>,
    /// What another process has is on its way.
    waits: bool,
    ready: &'a Sender<io::Result<(Arc<Waker>, Pid)>>,
    log: Log,
}

impl choice::Work for ReactorWork<'_> {
    fn work<E>(mut self, engine: E, waker: Waker)
    where
        E: Datagrams<
                Listener = engine::Listener,
                Incoming = engine::Incoming,
                Detached = engine::Detached,
                Call = OwnedFd,
            >,
    {
        let waker = Arc::new(waker);
        if let Some(deciders) = self.deciders {
            let wire = Wire {
                messages: self.messages,
                waker: waker.clone(),
            };
            let decider = ReactorDecider::new(deciders, wire, self.setup.reactor);
            self.setup.decider = Some(Box::new(decider));
        }
        let number = self.setup.reactor;
        let (homes, awake) = (self.setup.homes.clone(), waker.clone());
        let wake = move || {
            let _ = awake.wake();
        };
        homes.connect(number, Box::new(wake));
        let mut reactor = Reactor::new(engine, self.setup);
        if self.waits {
            reactor.hold_spares();
        }
        for (socket, at) in self.listeners {
            if let Err(error) = reactor.add_listener(socket, at) {
                let _ = self.ready.send(Err(error));
                return;
            }
        }
        // Nobody waits for the answer only if the process is ending.
        if self.ready.send(Ok((waker.clone(), gettid()))).is_ok() {
            // A reactor that panicked is not taken apart: the kernel may be writing into its
            // buffers, and what its sessions were in the middle of nobody knows. With the
            // process everything ends at once, and a supervisor starts it again.
            let done = catch_unwind(AssertUnwindSafe(|| {
                work(&mut reactor, number, (self.inbox, &waker), &self.log);
            }));
            if done.is_err() {
                std::process::abort();
            }
            homes.disconnect(number);
        }
    }
}

/// Lets clients in at these sockets. One that the kernel does not let be waited for is
/// told of; its queue waits for the next change.
fn adopt<E: Datagrams<Listener = engine::Listener, Detached = engine::Detached, Call = OwnedFd>>(
    reactor: &mut Reactor<E>,
    sockets: Vec<(engine::Listener, Arc<Listener>)>,
    log: &Log,
) {
    for (socket, at) in sockets {
        let listener = at.address.clone();
        if let Err(error) = reactor.listen_or_change(socket, at) {
            log.notice(Notice::AcceptFailed { listener, error });
        }
    }
}

/// Receives a visitor, and counts what of the thread's time he took: sessions wait meanwhile.
fn visited<E: Datagrams>(reactor: &mut Reactor<E>, visitor: &mut Visitor) -> ControlFlow<()> {
    let ran = || clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let before = ran();
    let more = (visitor.0)(reactor);
    if let (Ok(before), Ok(after)) = (before, ran()) {
        reactor.was_visited(after.saturating_sub(before));
    }
    more
}

fn work<E>(
    reactor: &mut Reactor<E>,
    number: u16,
    (inbox, waker): (&Receiver<Message>, &Waker),
    log: &Log,
) where
    E: Datagrams<
            Listener = engine::Listener,
            Incoming = engine::Incoming,
            Detached = engine::Detached,
            Call = OwnedFd,
        >,
{
    let mut draining = false;
    // Who has not seen all yet.
    let mut visitors: VecDeque<Visitor> = VecDeque::new();
    while !draining || reactor.live() > 0 {
        match reactor.turn() {
            Ok(false) => {}
            Ok(true) => {
                for message in inbox.try_iter() {
                    // Dropped behind what it stands for: that is the reply.
                    let (order, _done) = match message {
                        Message::Order(order, done) => (order, done),
                        Message::Decided(key, ruling) => {
                            reactor.decided(key, ruling);
                            continue;
                        }
                        Message::Guest(guest, coming) => {
                            reactor.welcome(guest);
                            drop(coming);
                            continue;
                        }
                        Message::Visit(visitor) => {
                            visitors.push_back(visitor);
                            continue;
                        }
                    };
                    let mut weighs = false;
                    match order {
                        Order::Drain => {
                            reactor.stop_accepting();
                            draining = true;
                        }
                        Order::Cut(cause) => reactor.cut_all(cause),
                        Order::CutForwards(forwards, cause) => {
                            reactor.cut_forwards(&forwards, cause);
                        }
                        Order::Change(change) => {
                            reactor.change(*change);
                            weighs = true;
                        }
                        Order::Adopt(sockets) => {
                            adopt(reactor, sockets, log);
                            weighs = true;
                        }
                        Order::NoteHomes(listeners) => reactor.note_homes(&listeners),
                        Order::GiveAway(sockets) => {
                            for (id, socket) in sockets {
                                reactor.give_away(id, socket);
                            }
                        }
                        Order::Neighbours(around) => reactor.set_neighbours(around),
                        Order::ForgetPools(pools) => reactor.forget_pools(&pools),
                        Order::Publish => reactor.publish(),
                        Order::Servers(pool, set) => reactor.replace_servers(pool, set),
                        Order::CutServer(server) => reactor.cut_server(&server),
                        Order::Release(release) => reactor.release(release),
                        Order::ReleaseThese(keys, release) => {
                            reactor.release_these(keys, release.reply);
                        }
                        // Nobody waits for the answer only when the process is ending.
                        Order::AdoptSessions(arrivals, reply) => {
                            let _ = reply.send(reactor.adopt(arrivals));
                        }
                        Order::EndSessions(arrivals, cause, reply) => {
                            let _ = reply.send(reactor.end_arrivals(arrivals, cause));
                        }
                        Order::KeepIn(store) => reactor.keep_in(store),
                        Order::Note(key, mark) => reactor.note(key, mark),
                        Order::NoPlace(key) => reactor.no_place(key),
                        Order::MakeRoom(key, name) => reactor.keep_no_more(key, name),
                        Order::TakeBack(moved, reply) => {
                            let _ = reply.send(reactor.take_back(moved));
                        }
                        Order::NumberFrom(session, flow) => reactor.number_from(session, flow),
                        Order::ReleaseFlows(at_most, reply) => {
                            let _ = reply.send(reactor.release_flows(at_most));
                        }
                        Order::ExpectFlows(arrivals) => reactor.expect_flows(arrivals),
                        Order::TakeFlowsBack(moved) => reactor.expect_flows_back(moved),
                        Order::ReleaseSpares(reply) => {
                            let _ = reply.send(reactor.release_spares());
                        }
                        Order::AdoptSpares(spares) => reactor.adopt_spares(spares),
                    }
                    // Sessions have their turn before what else there may be.
                    if weighs && waker.wake().is_ok() {
                        break;
                    }
                }
                // One a turn: many who look hold sessions no longer than one does.
                if let Some(mut visitor) = visitors.pop_front()
                    && visited(reactor, &mut visitor).is_continue()
                {
                    visitors.push_back(visitor);
                }
                if !visitors.is_empty() {
                    // It fails only where it is awake already.
                    let _ = waker.wake();
                }
            }
            Err(error) => {
                // epoll_wait fails only on misuse; go on would be to spin.
                log.notice(Notice::ReactorStops {
                    reactor: number,
                    error,
                });
                return;
            }
        }
    }
    reactor.publish();
}
