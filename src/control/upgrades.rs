//! Upgrades of a forwarder at work: what control's thread does for a hand-over, in the
//! process that has everything and in the one that gets it.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use crate::admin;
use crate::net::handed::HandedLabel;
use crate::observe::log::Log;
use crate::observe::notice::Notice;
use crate::relay::id::ListenerId;

use super::acquire::spares;
use super::error::StartError;
use super::inbox::{Teller, Told};
use super::request::{HandOverRequest, Request};
use super::resolve::KnownNames;
use super::running::{Running, await_all};
use super::signals;
use super::upgrade::channel::Channel;
use super::upgrade::entrance::{Entrance, OpenEntrance};
use super::upgrade::give::{ControlThread, give};
use super::upgrade::moves;
use super::upgrade::order::{Frozen, HandOver, Later, Luggage, Offer, Settled, Takes, Upgrading};
use super::upgrade::spawn::NewProcess;
use super::upgrade::tables::Tables;
use super::upgrade::take::Taking;
use super::upgrade::talk::Talk;
use super::upgrade::trial;
use super::upgrade::{UpgradeError, UpgradeRequest, Upgraded};
use super::wire::Order as ReactorOrder;

/// How long the end of this process waits until the next one has what was counted last.
const REST_PATIENCE: Duration = Duration::from_secs(10);

/// How long a service manager may take to heed that another process is the service.
const MANAGER_PATIENCE: Duration = Duration::from_secs(1);

/// Descriptors that a new process needs beside what it is handed.
const DESCRIPTORS_OWN: u64 = 64;

/// The way to control's thread, for a hand-over.
pub(super) struct Control(pub(super) Teller);

impl ControlThread for Control {
    fn order(&self, order: HandOver) {
        self.0
            .tell(Told::Asked(Request::HandOver(HandOverRequest(order))));
    }
}

type UpgradeReply = Sender<Result<Upgraded, UpgradeError>>;

impl Running {
    /// By a signal: what comes of it is said in the log.
    pub(super) fn upgrade_unasked(&mut self) {
        self.upgrade(UpgradeRequest::default(), None);
    }

    /// Starts a new process and hands over to it, on a thread of its own.
    pub(super) fn upgrade(&mut self, request: UpgradeRequest, reply: Option<UpgradeReply>) {
        let outcome = match &self.upgrading {
            Upgrading::Not => Ok(()),
            Upgrading::Offered(to) | Upgrading::Frozen(to) => Err(UpgradeError::Busy(to.clone())),
            Upgrading::Tried(_) => Err(UpgradeError::Busy(self.on_trial().unwrap_or_default())),
            Upgrading::Left(leave) => Err(UpgradeError::Impossible(format!(
                "process {} serves already",
                leave.process
            ))),
        };
        let (teller, log) = (self.teller.clone(), self.log.clone());
        let answer = reply.clone();
        let spawned = outcome.and_then(|()| {
            let thread = std::thread::Builder::new().name("upgrade".to_owned());
            let spawned = thread.spawn(move || {
                signals::block_here();
                by_child(&request, teller, &log, answer);
            });
            let failed = |error: std::io::Error| UpgradeError::Failed(error.to_string());
            spawned.map(drop).map_err(failed)
        });
        if let Err(error) = spawned {
            refused(&self.log, reply, error);
        }
    }

    /// Lets processes in that were started by somebody else.
    pub(super) fn open_entrance(&self, entrance: Option<Entrance>) -> Option<OpenEntrance> {
        let (teller, log) = (self.teller.clone(), self.log.clone());
        let opened = entrance?.open(move |channel| by_stranger(channel, teller.clone(), &log));
        // Without it a new process can still be started by this one.
        opened.ok()
    }

    /// What a hand-over asks for; whether that is the end of this process.
    pub(super) fn hand_over(&mut self, order: HandOver) -> bool {
        match order {
            HandOver::Begin(who, reply) => self.begin(who, reply),
            HandOver::Freeze(takes, reply) => {
                let frozen = self.freeze(takes);
                if let Err(unheard) = reply.send(frozen) {
                    self.resume(unheard.0.moved);
                }
            }
            HandOver::Resume(moved) => self.resume(moved),
            HandOver::Leave(leave) => {
                self.upgrading = Upgrading::Left(leave);
                return true;
            }
            HandOver::Service => self.become_service(),
            // It has ended: whatever it had to tell the manager is told.
            HandOver::Rest(tables) => {
                self.become_service();
                self.absorb(&tables.counted);
            }
            HandOver::Alone => {
                self.become_service();
                return self.try_out(HandOver::Alone);
            }
            HandOver::Try(_)
            | HandOver::Confirmed
            | HandOver::Returned(_)
            | HandOver::HowIsIt(_)
            | HandOver::Undo(..) => return self.try_out(order),
            other => self.move_sessions(other),
        }
        false
    }

    /// Offers everything, once the process before has told a service manager that this one is
    /// the service: only then can this one tell it of the next.
    pub(super) fn begin(&mut self, who: String, reply: Sender<Result<Offer, UpgradeError>>) {
        if self.manager.is_heeded() || self.probation.is_some() || self.next_upgrade.is_some() {
            let offer = match &self.next_upgrade {
                Some((other, _)) => Err(UpgradeError::Busy(other.clone())),
                None => self.offer(who),
            };
            let _ = reply.send(offer);
        } else {
            self.next_upgrade = Some((who, reply));
        }
    }

    fn offer(&mut self, who: String) -> Result<Offer, UpgradeError> {
        if let Some(trial) = self.on_trial() {
            return Err(UpgradeError::Busy(trial));
        }
        match &self.upgrading {
            Upgrading::Not | Upgrading::Tried(_) => {}
            Upgrading::Offered(to) | Upgrading::Frozen(to) => {
                return Err(UpgradeError::Busy(to.clone()));
            }
            Upgrading::Left(leave) => {
                let serves = format!("process {} serves already", leave.process);
                return Err(UpgradeError::Impossible(serves));
            }
        }
        if self.preparing.is_some() {
            let reload = "a reload; try again when it is done".to_owned();
            return Err(UpgradeError::Busy(reload));
        }
        let listeners = self.passable()?;
        let sessions = u64::from(self.gate.live());
        let pipes = self.total().pipes;
        let flows = u64::from(self.flows.live());
        let spares = u64::from(spares(&self.upstreams.setups(), self.reactors.len()));
        let others = DESCRIPTORS_OWN + listeners.len() as u64 + spares;
        let descriptors = others + 2 * (sessions + pipes) + flows;
        self.upgrading = Upgrading::Offered(who);
        Ok(Offer {
            listeners,
            tables: Box::new(Tables {
                names: self
                    .resolver
                    .as_ref()
                    .map(|it| it.known())
                    .unwrap_or_default(),
                ..self.tables()
            }),
            descriptors,
        })
    }

    /// Every listening socket once, however many reactors look after it.
    fn passable(&self) -> Result<Vec<(HandedLabel, OwnedFd)>, UpgradeError> {
        let failed = |error: std::io::Error| UpgradeError::Failed(error.to_string());
        let mut passable = Vec::new();
        for (label, id) in self.labelled() {
            let Some(listener) = self.held.listeners.get(&id) else {
                continue;
            };
            let mut known = Vec::new();
            for socket in &listener.sockets {
                let cookie = rustix::net::sockopt::socket_cookie(socket.fd().as_ref());
                let cookie = cookie.map_err(|errno| failed(errno.into()))?;
                if !known.contains(&cookie) {
                    known.push(cookie);
                    let copy = socket.fd().try_clone().map_err(failed)?;
                    passable.push((label.clone(), copy));
                }
            }
        }
        let admin = self.admin.iter().flat_map(admin::Server::passable);
        for (label, socket) in admin {
            passable.push((label.clone(), socket.try_clone().map_err(failed)?));
        }
        let entrance = self.entrance.as_ref();
        passable.extend(entrance.and_then(|it| it.entrance.passable()));
        Ok(passable)
    }

    /// The listeners of forwards, by what they are called between processes.
    fn labelled(&self) -> Vec<(HandedLabel, ListenerId)> {
        let listeners = self.held.listeners.iter();
        listeners.map(|(id, it)| (it.handed_label(), *id)).collect()
    }

    /// Nobody is let in from now on; whoever comes waits in the queues.
    fn freeze(&mut self, takes: Takes) -> Frozen {
        self.let_moves_arrive();
        let who = match &mut self.upgrading {
            Upgrading::Offered(who) => std::mem::take(who),
            _ => "the process before".to_owned(),
        };
        self.upgrading = Upgrading::Frozen(who);
        if let Some(admin) = &self.admin {
            admin.let_in(false);
        }
        let given = self.reactors.iter().map(|(number, reactor)| {
            let listeners = self.held.listeners.iter();
            let its = listeners.flat_map(|(id, listener)| {
                let sockets = listener.sockets.iter();
                let its = sockets.filter(|it| it.reactor == *number);
                its.map(|it| (*id, it.at.socket))
            });
            reactor.send(ReactorOrder::GiveAway(its.collect()))
        });
        await_all(given.collect());
        let (sessions, last_session) = self.release(takes.sessions);
        let (flows, last_flow) = if takes.flows {
            self.release_flows()
        } else {
            (Vec::new(), 0)
        };
        let spares = if takes.spares {
            self.release_spares()
        } else {
            Vec::new()
        };
        let mut tables = Tables {
            last_session,
            last_flow,
            ..self.tables()
        };
        let counted = tables.counted.clone();
        if let Some(probation) = &self.probation {
            // The other one has counted on from what it told.
            tables.counted = tables.counted.since(&probation.told);
        }
        Frozen {
            tables: Box::new(tables),
            counted,
            sessions_left: u64::from(self.gate.live()),
            moved: Luggage {
                sessions,
                flows,
                spares,
            },
        }
    }

    /// Nothing came of a hand-over.
    pub(super) fn resume(&mut self, moved: Luggage) {
        self.take_back(moved.sessions);
        // Before the ports, which they wait for.
        self.take_flows_back(moved.flows);
        self.take_spares(moved.spares);
        if let Upgrading::Frozen(_) = self.upgrading {
            let adopted = self.reactors.iter().map(|(number, reactor)| {
                reactor.send(ReactorOrder::Adopt(self.held.of_reactor(*number)))
            });
            await_all(adopted.collect());
            if let Some(admin) = &self.admin {
                admin.let_in(true);
            }
        }
        self.upgrading = Upgrading::Not;
    }

    /// Another process serves from now on.
    pub(super) fn leave(&mut self) {
        let Upgrading::Left(leave) = &self.upgrading else {
            return;
        };
        self.log.notice(Notice::HandedOver {
            process: leave.process,
            build: leave.build.clone(),
            sessions: u64::from(self.gate.live()),
        });
        let taken = leave.taken.clone();
        let mine = self.labelled().into_iter();
        let mine = mine.filter(|(label, _)| !taken.contains(label));
        let mine: Vec<_> = mine.collect();
        let listeners = mine
            .iter()
            .filter_map(|(_, id)| self.held.listeners.get(id));
        let kept = listeners.filter_map(|listener| listener.label().kept_as());
        self.manager.keep_no_more(kept);
        // Sessions that the next process has it keeps by itself, and by other names.
        self.manager.forget_beside_but(|_| false);
        self.manager.hand_over_to(leave.process, MANAGER_PATIENCE);
        if leave.awaits_service {
            let _ = leave.later.send(Later::Service);
        }
        // Whoever waits where nobody else listens is let in before it closes.
        for (number, reactor) in &self.reactors {
            let left = mine
                .iter()
                .filter_map(|(_, id)| self.held.listeners.get(id));
            let adopted = left.flat_map(|listener| {
                let sockets = listener.sockets.iter();
                let its = sockets.filter(|it| it.reactor == *number);
                its.map(|it| it.for_engine(&listener.options.plan))
            });
            let adopted: Vec<_> = adopted.collect();
            if !adopted.is_empty() {
                reactor.send(ReactorOrder::Adopt(adopted)).forget();
            }
        }
        self.leave_paths(&taken);
    }

    /// What was counted since.
    pub(super) fn tell_the_rest(&mut self) {
        if let Upgrading::Left(leave) = &self.upgrading {
            let (told, done) = channel();
            let mut tables = self.tables();
            tables.counted = tables.counted.since(&leave.counted);
            let rest = Later::Rest(Box::new(tables), told);
            if leave.later.send(rest).is_ok() {
                let _ = done.recv_timeout(REST_PATIENCE);
            }
        }
    }

    fn tables(&self) -> Tables {
        Tables {
            generation: self.generation,
            age: self.origin.elapsed().as_micros() as u64,
            last_session: 0,
            last_flow: 0,
            counted: self.counted(),
            steered: self.upstreams.steered(),
            clients: self.owed(),
            names: KnownNames::default(),
        }
    }

    /// This process serves in the place of another one.
    pub(super) fn stand_in(
        &mut self,
        taking: &Taking,
        taken: &[HandedLabel],
        settled: Settled,
    ) -> Result<(), StartError> {
        self.begin_probation(taking, taken, &settled);
        // Those who wait already before those who come.
        let sessions = self.take_in(settled);
        let adopted = self.reactors.iter().map(|(number, reactor)| {
            reactor.send(ReactorOrder::Adopt(self.held.of_reactor(*number)))
        });
        await_all(adopted.collect());
        self.open(taken)?;
        self.log.notice(Notice::TakenOver {
            process: taking.process,
            build: taking.build.clone(),
            sessions,
        });
        Ok(())
    }

    /// What another process had goes on here; how many sessions.
    pub(super) fn take_in(&mut self, settled: Settled) -> u64 {
        self.generation = settled.tables.generation + 1;
        let forwards = self.forwards.values().map(|it| it.forward.clone());
        self.steering.put(&self.config, forwards, self.generation);
        self.absorb(&settled.tables.counted);
        self.upstreams.steer(&settled.tables.steered);
        self.owe(&settled.tables.clients);
        let Tables {
            last_session,
            last_flow,
            ..
        } = *settled.tables;
        for reactor in self.reactors.values() {
            let order = ReactorOrder::NumberFrom(last_session, last_flow);
            reactor.send(order).forget();
        }
        let sessions = self.arrived(settled.sessions);
        self.flows_arrived(settled.flows);
        self.take_spares(settled.spares);
        sessions
    }
}

/// Hands over to a process that this one starts.
fn by_child(request: &UpgradeRequest, teller: Teller, log: &Log, reply: Option<UpgradeReply>) {
    let started = NewProcess::start(request.binary.as_deref());
    let (mut process, channel) = match started {
        Ok(started) => started,
        Err(error) => return refused(log, reply, error),
    };
    let talk = Talk(channel);
    let control = Control(teller);
    match give(&talk, &control, request.trial.is_some()) {
        Ok((upgraded, (leave, later))) => {
            process.let_go();
            let next = leave.process;
            let answer = move || {
                if let Some(reply) = reply {
                    let _ = reply.send(Ok(upgraded));
                }
            };
            let Some(trial) = request.trial else {
                // Before this process ends, which it may at once.
                answer();
                control.order(HandOver::Leave(leave));
                return moves::go_on(&talk, &control, (next, &later));
            };
            answer();
            trial::look_after(&talk, &control, (leave, later), trial);
        }
        Err(UpgradeError::Failed(why)) => {
            let why = match process.ended() {
                Some(status) => format!("{why} ({status}; see its standard error)"),
                None => why,
            };
            refused(log, reply, UpgradeError::Failed(why));
        }
        Err(error) => refused(log, reply, error),
    }
}

/// Hands over to a process that somebody else started.
fn by_stranger(channel: Channel, teller: Teller, log: &Log) {
    let talk = Talk(channel);
    let control = Control(teller);
    match give(&talk, &control, false) {
        Ok((_, (leave, later))) => {
            let next = leave.process;
            control.order(HandOver::Leave(leave));
            moves::go_on(&talk, &control, (next, &later));
        }
        Err(error) => refused(log, None, error),
    }
}

fn refused(log: &Log, reply: Option<UpgradeReply>, error: UpgradeError) {
    log.notice(Notice::UpgradeRefused {
        error: error.to_string(),
    });
    if let Some(reply) = reply {
        let _ = reply.send(Err(error));
    }
}
