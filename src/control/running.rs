//! A forwarder at work: its reactors, what they are told, how they end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admin;
use crate::net::address::Endpoint;
use crate::observe::counters::Snapshot;
use crate::observe::log::Log;
use crate::observe::notice::Notice;
use crate::relay::ending::Cause;
use crate::relay::id::ForwardId;

use super::acquire::{Acquired, Held};
use super::drain::{self, Deadlines};
use super::error::StartError;
use super::inbox::{Inbox, Teller, Told};
use super::report;
use super::request::Request;
use super::resolve::Resolver;
use super::signals::Signal;
use super::steering::Steering;
use super::thread::ReactorThread;
use super::upstreams::Upstreams;
use super::wire::{Order, Pending};

/// How long a reactor may take to carry out an order that needs nobody's consent: a
/// matter of a turn or two, but for a machine that is busy with other things.
const ORDER_PATIENCE: Duration = Duration::from_secs(2);

/// How long the log's target may take to be opened anew.
const REOPEN_PATIENCE: Duration = Duration::from_secs(1);

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Sessions go on until they end.
    Drain,
    /// They are cut.
    Cut,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Running {
    /// By number; `None` once it has ended.
    reactors: Vec<Option<ReactorThread>>,
    upstreams: Arc<Upstreams>,
    /// Answers for as long as it is there.
    _admin: admin::Server,
    steering: Arc<Steering>,
    /// Keeps names resolved for as long as it is there.
    _resolver: Option<Arc<Resolver>>,
    held: Held,
    drain_timeouts: Vec<(ForwardId, Duration)>,
    log: Log,
    /// What reactors that have ended had counted.
    ended: Vec<Snapshot>,
}

impl Running {
    pub(super) fn start(
        acquired: Acquired,
        held: Held,
        drain_timeouts: Vec<(ForwardId, Duration)>,
        log: Log,
        teller: &Teller,
    ) -> Result<Self, StartError> {
        let Acquired {
            reactors,
            upstreams,
            resolver,
            admin,
            steering,
            origin,
        } = acquired;
        let reactors = reactors
            .into_iter()
            .map(|plan| ReactorThread::spawn(plan, teller.clone()).map(Some))
            .collect::<Result<Vec<_>, _>>()?;
        let wires = reactors.iter().flatten().map(ReactorThread::wire).collect();
        upstreams.connect(wires);
        steering.connect(reactors.iter().flatten().map(ReactorThread::seen));
        upstreams
            .start_checks(origin, &log)
            .map_err(StartError::Checker)?;
        Ok(Self {
            ended: vec![Snapshot::default(); reactors.len()],
            reactors,
            upstreams,
            _admin: admin::Server::start(admin, steering.clone())?,
            steering,
            _resolver: resolver,
            held,
            drain_timeouts,
            log,
        })
    }

    /// Until a signal ends it, or a reactor fails: then the others drain, and the
    /// service manager learns of it by the exit code.
    pub(super) fn serve(mut self, inbox: &Inbox) -> Result<(), StartError> {
        let mut lost = false;
        let how = loop {
            let Some(told) = inbox.wait(None) else {
                break End::Drain;
            };
            match told {
                Told::Signal(Signal::Reload) => self.reopen_log(),
                Told::Ended(reactor) => {
                    self.note_the_end(reactor);
                    lost = true;
                    break End::Drain;
                }
                other => {
                    if let Some(end) = self.heed(&other) {
                        break end;
                    }
                }
            }
        };
        self.steering.drains();
        self.upstreams.stop_checks();
        self.drain(inbox, how);
        self.report();
        if lost {
            Err(StartError::ReactorLost)
        } else {
            Ok(())
        }
    }

    /// What is heeded at work and while it drains alike; whether that is to be the end.
    fn heed(&self, told: &Told) -> Option<End> {
        match told {
            // The first one; a second one cuts.
            Told::Signal(Signal::Stop | Signal::Drain) => return Some(End::Drain),
            Told::Signal(Signal::Report) => self.report(),
            Told::Signal(Signal::Reload) => self.reopen_log(),
            Told::Signal(Signal::Meaningless(signal)) => self.log.notice(Notice::SignalIgnored {
                signal: signal.as_str(),
            }),
            Told::Signal(Signal::Child) | Told::Ended(_) | Told::Ready => {}
            Told::Asked(Request::Drain) => return Some(End::Drain),
            Told::Asked(Request::Cut) => return Some(End::Cut),
            Told::Asked(Request::Listeners(reply)) => {
                let _ = reply.send(self.listeners());
            }
            Told::Asked(Request::Counters(reply)) => {
                self.publish();
                let total = self.snapshots().into_iter();
                let _ = reply.send(total.fold(Snapshot::default(), Snapshot::plus));
            }
        }
        None
    }

    /// Ends when every reactor has, which is when its last session has ended; those that
    /// are left when their forward's time has run out, or at a second signal, are cut.
    fn drain(&mut self, inbox: &Inbox, how: End) {
        let live: u64 = self
            .snapshots()
            .iter()
            // Two loads beside a running reactor: an end may be seen before its start.
            .map(|counters| counters.accepted.saturating_sub(counters.ended))
            .sum();
        self.log.notice(Notice::Draining {
            sessions: live,
            timeout: drain::longest(&self.drain_timeouts),
        });
        self.order(|| Order::Drain);
        let mut deadlines = Deadlines::of(&self.drain_timeouts, Instant::now());
        while how == End::Drain && !self.has_ended() {
            while let Some(forwards) = deadlines.due(Instant::now()) {
                self.order(|| Order::CutForwards(forwards.clone(), Cause::DrainTimeout));
            }
            match inbox.wait(deadlines.next()) {
                Some(Told::Ended(reactor)) => self.note_the_end(reactor),
                Some(Told::Signal(Signal::Stop)) => break,
                Some(Told::Signal(Signal::Drain)) => {}
                Some(told) if self.heed(&told) == Some(End::Cut) => break,
                Some(_) => {}
                None if deadlines.next().is_none() => break,
                None => {}
            }
        }
        if self.has_ended() {
            return;
        }
        self.order(|| Order::Cut(Cause::Stopped));
        // A reactor that does not answer must not keep the process alive.
        let deadline = Instant::now() + ORDER_PATIENCE;
        while !self.has_ended() {
            match inbox.wait(Some(deadline)) {
                Some(Told::Ended(reactor)) => self.note_the_end(reactor),
                Some(_) => {}
                None => return,
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.reactors.iter().all(Option::is_none)
    }

    /// The thread of a reactor is over.
    fn note_the_end(&mut self, reactor: u16) {
        let index = usize::from(reactor);
        if let Some(thread) = self.reactors.get_mut(index).and_then(Option::take) {
            self.ended[index] = thread.counters().snapshot();
            thread.join();
        }
    }

    /// Tells every reactor; nobody waits.
    fn order(&self, order: impl Fn() -> Order) {
        for reactor in self.reactors.iter().flatten() {
            reactor.send(order()).forget();
        }
    }

    /// Goes on in the file that has the log's name now.
    pub(super) fn reopen_log(&self) {
        match self.log.reopen(REOPEN_PATIENCE) {
            Ok(()) => self.log.notice(Notice::LogReopened {}),
            Err(error) => self.log.notice(Notice::LogNotReopened { error }),
        }
    }

    /// Where it listens, by forward.
    fn listeners(&self) -> Vec<(Arc<str>, Endpoint)> {
        self.held.locals()
    }

    fn snapshots(&self) -> Vec<Snapshot> {
        let each = self.reactors.iter().zip(&self.ended);
        each.map(|(reactor, ended)| {
            let running = reactor.as_ref();
            running.map_or(*ended, |reactor| reactor.counters().snapshot())
        })
        .collect()
    }

    /// Brings the gauges up to date; a reactor that is stuck is left as it was.
    fn publish(&self) {
        let running = self.reactors.iter().flatten();
        let published: Vec<Pending> = running.map(|it| it.send(Order::Publish)).collect();
        let deadline = Instant::now() + ORDER_PATIENCE;
        for pending in published {
            pending.is_done_by(deadline);
        }
    }

    /// Logs the counters: in all, and how evenly the reactors share the load.
    fn report(&self) {
        self.publish();
        report::tell(
            &self.log,
            &self.snapshots(),
            self.steering.routes(),
            &self.upstreams.servers(),
            self.held.policies(),
        );
    }
}
