//! The life of one forwarded connection, as a pure state machine.
//!
//! Purpose: given what happened and when, say what the engine does next.
//! Owns: the phase, both lanes, the clocks. Never a descriptor or a byte.
//! Deliberately not here: which server is dialled (the caller counts attempts
//! off against its balancer), and the timer wheel ([`Session::deadline`] is
//! asked after each event).
//!
//! ```text
//!  Sniffing ─request─► Consulting ─may go─► Dialing …           request rules only
//!     └────────┬───────────┴─────────────────┘ no, or no server
//!              ▼
//!           Refusing ─answered─► Parting ─the client ended─► Closing
//!
//!  Queued: every server is full
//!   ▲  │
//!   │  ▼
//!  Dialing ──connected──► Relaying ──both lanes finished──────────────► Closing
//!   │  ▲        └►Greeting─►┘ (the answer to a request comes first)        ▲
//!   │  ▲ refused, next      │ one side failed                              ▲
//!   ▼  │                    ▼                                              │
//!  Redialing             Flushing: what the failed side had delivered      │
//!                           │      still goes to the other, while it moves │
//!                           ▼                                              │
//!                        Lingering: one leg left; it is reset only when ───┘
//!                                   the kernel has delivered every byte
//! ```
//!
//! Invariants: a session ends in exactly one place ([`Action::End`], once, with
//! no side open); every phase but `Relaying` without timeouts has a deadline; a
//! peer learns of a failure as a reset, and only after it was given all that had
//! arrived for it; as an orderly end only if it did not take that in time.

mod clock;
mod events;
mod request;

use std::time::Duration;

pub use events::{Action, Answered, Close, Deadlines, Event, Failure, Pumped, Readiness, Rules};

use super::ending::{Cause, Ending, Stage, Who};
use super::lane::{Lane, Next, Progress};
use super::probe::{self, Mutation};
use super::time::Time;
use super::{Direction, Side};

/// How long bytes of a client that failed may wait for an upstream that takes
/// none: half of the second within which behaviour 12 wants it told. Bytes of an
/// upstream that failed wait for a slow client as long as any other silence
/// after an end, `half_close_timeout`: what was delivered is not thrown away
/// because an error followed it (behaviour 10).
const FLUSH_PATIENCE: Duration = Duration::from_millis(500);

/// First interval in milliseconds between looks at what the kernel has still to deliver to the
/// leg that is left; doubles up to [`LINGER_LOOK_MAX`].
const LINGER_LOOK: u16 = 5;

/// Longest interval between such looks, milliseconds.
const LINGER_LOOK_MAX: u16 = 500;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The client's request is awaited.
    Sniffing {
        deadline: Time,
    },
    /// Whether and where it may go is being found out.
    Consulting {
        deadline: Time,
    },
    Dialing {
        attempt: u8,
        deadline: Time,
    },
    Redialing {
        attempt: u8,
    },
    Queued {
        attempt: u8,
        deadline: Time,
    },
    /// The upstream stands, and the client is being told.
    Greeting {
        deadline: Time,
    },
    Relaying,
    Flushing {
        gone: Side,
    },
    Lingering {
        left: Side,
        look: Time,
        /// Milliseconds.
        step: u16,
    },
    /// The client is being told why it gets no upstream.
    Refusing {
        deadline: Time,
    },
    /// It was told; what it still sends is dropped until it ends: bytes that nobody
    /// read would make the close a reset, and that may cost the answer.
    Parting {
        deadline: Time,
    },
    Closing,
}

impl Phase {
    const fn name(self) -> &'static str {
        match self {
            Self::Sniffing { .. } => "Sniffing",
            Self::Consulting { .. } => "Consulting",
            Self::Greeting { .. } => "Greeting",
            Self::Refusing { .. } => "Refusing",
            Self::Parting { .. } => "Parting",
            Self::Dialing { .. } => "Dialing",
            Self::Redialing { .. } => "Redialing",
            Self::Queued { .. } => "Queued",
            Self::Relaying => "Relaying",
            Self::Flushing { .. } => "Flushing",
            Self::Lingering { .. } => "Lingering",
            Self::Closing => "Closing",
        }
    }
}

/// When each side last took bytes, as far as the kernel told.
#[derive(Debug, Clone, Copy, Default)]
struct Delivery {
    unsent: u32,
    since: Time,
}

/// A forwarded connection. See the module's documentation.
#[derive(Debug, Clone)]
pub struct Session {
    phase: Phase,
    lanes: [Lane; 2],
    delivery: [Delivery; 2],
    looked: Time,
    last_activity: Time,
    started: Time,
    connected: Time,
    first_byte: Time,
    /// When waiting for a server with room ends; `NEVER` before it began.
    queue_end: Time,
    ending: Option<Ending>,
    attempts: u8,
    /// Sides with a descriptor, bit by side.
    open: u8,
    /// Sides whose close was asked for.
    hung_up: u8,
    /// [`Action::End`] was pushed.
    over: bool,
}

impl Session {
    /// A session whose client was accepted at `now`; the first action is pushed.
    pub fn new(rules: &Rules, now: Time, actions: &mut Vec<Action>) -> Self {
        let lane = || Lane::new(rules.path, rules.fill_limit);
        let mut session = Self {
            phase: Phase::Redialing { attempt: 0 },
            lanes: [lane(), lane()],
            delivery: [Delivery::default(); 2],
            looked: now,
            last_activity: now,
            started: now,
            connected: Time::NEVER,
            first_byte: Time::NEVER,
            over: false,
            queue_end: Time::NEVER,
            ending: None,
            attempts: 0,
            open: bit(Side::Client),
            hung_up: 0,
        };
        match rules.request {
            Some(patience) => session.sniff(patience, now, actions),
            None => session.dial(0, rules, now, actions),
        }
        session
    }

    /// Takes what happened, pushes what is to be done.
    pub fn on(&mut self, event: Event, now: Time, rules: &Rules, actions: &mut Vec<Action>) {
        match event {
            Event::Requested => self.requested(now, actions),
            Event::Vanished(cause) => self.vanished(cause, actions),
            Event::Admitted => self.admitted(now, rules, actions),
            Event::Rejected(cause) => self.rejected(cause, now, actions),
            Event::Answered(answered) => self.answered(answered, now, actions),
            Event::Connected => self.connected(now, rules, actions),
            Event::ConnectFailed(cause) => self.connect_failed(cause, now, rules, actions),
            Event::Queued => self.queued(now, rules),
            Event::Dequeued => self.dequeued(now, rules, actions),
            Event::NoServer(cause) => self.no_server(cause, now, rules, actions),
            Event::Ready { side, readiness } => self.ready(side, readiness, now, actions),
            Event::Pumped { direction, pumped } => self.pumped(direction, pumped, now, actions),
            Event::Looked { unsent } => self.looked(unsent, now, rules, actions),
            Event::Cut { cause, unsent } => {
                self.take_note(unsent, now);
                self.cut(Who::Forwarder, cause, actions);
            }
            Event::Closed(side) => self.closed(side, now, rules, actions),
        }
    }

    /// When [`Event::Looked`] is due. It moves away with every byte: a caller may
    /// keep an earlier timer and ask again when that fires.
    pub fn deadline(&self, rules: &Rules) -> Time {
        match self.phase {
            Phase::Sniffing { deadline }
            | Phase::Consulting { deadline }
            | Phase::Greeting { deadline }
            | Phase::Refusing { deadline }
            | Phase::Parting { deadline }
            | Phase::Dialing { deadline, .. }
            | Phase::Queued { deadline, .. } => deadline,
            Phase::Redialing { .. } | Phase::Closing => Time::NEVER,
            Phase::Relaying => self.silence_deadline(rules).min(self.stall_deadline(rules)),
            Phase::Flushing { gone } => {
                self.looked.max(self.last_activity) + flush_patience(gone, rules) / 4
            }
            Phase::Lingering { look, .. } => look,
        }
    }

    /// A lane, for the engine to pump.
    pub const fn lane_mut(&mut self, direction: Direction) -> &mut Lane {
        &mut self.lanes[direction.index()]
    }

    /// A lane.
    pub const fn lane(&self, direction: Direction) -> &Lane {
        &self.lanes[direction.index()]
    }

    /// How it ended, once it is ending.
    pub const fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Attempts to connect that were made.
    pub const fn attempts(&self) -> u8 {
        self.attempts
    }

    /// Whether the next event of interest is the outcome of a connect.
    pub const fn is_dialing(&self) -> bool {
        matches!(self.phase, Phase::Dialing { .. })
    }

    /// Whether it waits to be told whether and where its request may go.
    pub const fn is_consulting(&self) -> bool {
        matches!(self.phase, Phase::Consulting { .. })
    }

    /// Whether it waits for a server that has room.
    pub const fn is_queued(&self) -> bool {
        matches!(self.phase, Phase::Queued { .. })
    }

    /// Whether it waits or has waited for a server that has room.
    pub fn has_waited(&self) -> bool {
        self.queue_end != Time::NEVER
    }

    /// Whether pumping this lane is of use: its sides are open and it would not
    /// just park. What was queued a moment ago may have lost its point.
    pub fn wants_pump(&self, direction: Direction) -> bool {
        let allowed = match self.phase {
            Phase::Relaying => true,
            Phase::Flushing { gone: side } | Phase::Lingering { left: side, .. } => {
                direction.index() == side.outgoing().index()
            }
            Phase::Parting { .. } => direction.index() == Direction::Up.index(),
            Phase::Sniffing { .. }
            | Phase::Consulting { .. }
            | Phase::Greeting { .. }
            | Phase::Refusing { .. }
            | Phase::Dialing { .. }
            | Phase::Redialing { .. }
            | Phase::Queued { .. }
            | Phase::Closing => false,
        };
        allowed && !matches!(self.lane(direction).next(), Next::Park | Next::Done)
    }

    /// When the client was accepted.
    pub const fn started(&self) -> Time {
        self.started
    }

    /// From accept to upstream connected; `None` before.
    pub fn connect_time(&self) -> Option<Duration> {
        elapsed(self.started, self.connected)
    }

    /// From accept to the first byte of the upstream handed to the client.
    pub fn first_byte_time(&self) -> Option<Duration> {
        elapsed(self.started, self.first_byte)
    }

    /// From accept to the end, which is `now`; `None` while it lives.
    pub fn total_time(&self, now: Time) -> Option<Duration> {
        self.over.then(|| now.since(self.started))
    }

    /// Panics when a state is inconsistent. For tests and the simulator.
    pub fn check_invariants(&self) {
        assert_eq!(
            self.hung_up & !self.open,
            0,
            "a closed side was hung up again"
        );
        for lane in &self.lanes {
            assert_eq!(
                lane.bytes_in(),
                lane.bytes_out() + u64::from(lane.held()) + lane.bytes_lost(),
                "bytes of a lane do not add up"
            );
        }
        if matches!(self.phase, Phase::Closing) {
            assert!(self.ending.is_some(), "closing without a reason");
            assert_eq!(self.hung_up, self.open, "closing, but a side was left open");
        }
        if let Phase::Lingering { left, .. } = self.phase {
            assert_ne!(
                self.open & bit(left),
                0,
                "lingering for a side that is closed"
            );
        }
    }

    // Connecting.

    fn dial(&mut self, attempt: u8, rules: &Rules, now: Time, actions: &mut Vec<Action>) {
        self.attempts = attempt + 1;
        self.open |= bit(Side::Upstream);
        self.enter(Phase::Dialing {
            attempt,
            deadline: now + rules.deadlines.connect,
        });
        actions.push(Action::Dial { attempt });
    }

    fn connected(&mut self, now: Time, rules: &Rules, actions: &mut Vec<Action>) {
        if !self.is_dialing() {
            // The outcome crossed a cut on its way: the close is already asked for.
            return;
        }
        self.connected = now;
        if rules.request.is_some() {
            self.greet(now, actions);
        } else {
            self.relay(now, actions);
        }
    }

    fn relay(&mut self, now: Time, actions: &mut Vec<Action>) {
        self.enter(Phase::Relaying);
        self.last_activity = now;
        for direction in Direction::BOTH {
            self.pump_if_wanted(direction, actions);
        }
    }

    fn connect_failed(
        &mut self,
        cause: Cause,
        now: Time,
        rules: &Rules,
        actions: &mut Vec<Action>,
    ) {
        self.open &= !bit(Side::Upstream);
        self.hung_up &= !bit(Side::Upstream);
        match self.phase {
            // Another server may have ports left; descriptors and memory are no
            // more plentiful for it.
            Phase::Dialing { attempt, .. }
                if self.may_retry(attempt, now, rules)
                    && !matches!(cause, Cause::NoDescriptors | Cause::NoMemory) =>
            {
                self.dial(attempt + 1, rules, now, actions);
            }
            Phase::Dialing { .. } => self.give_up(cause, now, rules, actions),
            Phase::Redialing { attempt } => self.dial(attempt, rules, now, actions),
            Phase::Closing => self.finish_if_closed(actions),
            // It crossed the close that the refusal asked for.
            Phase::Refusing { .. } | Phase::Parting { .. } => {}
            Phase::Sniffing { .. }
            | Phase::Consulting { .. }
            | Phase::Queued { .. }
            | Phase::Greeting { .. }
            | Phase::Relaying
            | Phase::Flushing { .. }
            | Phase::Lingering { .. } => {
                unreachable!("a connect failed that was not being made")
            }
        }
    }

    fn may_retry(&self, attempt: u8, now: Time, rules: &Rules) -> bool {
        attempt + 1 < rules.attempts_max && now < self.started + rules.retry
    }

    fn queued(&mut self, now: Time, rules: &Rules) {
        if let Phase::Dialing { attempt, .. } = self.phase {
            self.not_dialled(attempt);
            // Whoever is sent back to the queue keeps the time he has waited.
            self.queue_end = self.queue_end.min(now + rules.queue);
            self.enter(Phase::Queued {
                attempt,
                deadline: self.queue_end,
            });
        }
    }

    fn dequeued(&mut self, now: Time, rules: &Rules, actions: &mut Vec<Action>) {
        if let Phase::Queued { attempt, .. } = self.phase {
            self.dial(attempt, rules, now, actions);
        }
    }

    fn no_server(&mut self, cause: Cause, now: Time, rules: &Rules, actions: &mut Vec<Action>) {
        if let Phase::Dialing { attempt, .. } = self.phase {
            self.not_dialled(attempt);
            self.give_up(cause, now, rules, actions);
        }
    }

    /// No connect came of this attempt.
    const fn not_dialled(&mut self, attempt: u8) {
        self.attempts = attempt;
        self.open &= !bit(Side::Upstream);
    }

    /// No server could be had.
    fn give_up(&mut self, cause: Cause, now: Time, rules: &Rules, actions: &mut Vec<Action>) {
        let who = culprit(cause, Side::Upstream);
        self.end(who, cause);
        if rules.request.is_some() {
            self.refuse(now, actions);
        } else {
            self.close_all(Close::Reset, actions);
        }
    }

    // Relaying.

    fn ready(&mut self, side: Side, readiness: Readiness, now: Time, actions: &mut Vec<Action>) {
        if readiness.readable || readiness.failed {
            self.lane_mut(side.outgoing()).source_ready();
        }
        if readiness.writable || readiness.failed {
            self.lane_mut(side.incoming()).sink_ready();
        }
        match self.phase {
            Phase::Sniffing { .. }
            | Phase::Consulting { .. }
            | Phase::Dialing { .. }
            | Phase::Redialing { .. }
            | Phase::Queued { .. }
            | Phase::Greeting { .. }
            | Phase::Refusing { .. }
            | Phase::Parting { .. }
                if readiness.failed && side == Side::Client =>
            {
                self.end(Who::Peer(Side::Client), Cause::Reset);
                self.close_all(Close::Reset, actions);
            }
            Phase::Sniffing { .. } => {
                if side == Side::Client && readiness.readable {
                    actions.push(Action::Listen);
                }
            }
            Phase::Greeting { .. } | Phase::Refusing { .. } => {
                if side == Side::Client && readiness.writable {
                    actions.push(Action::Answer);
                }
            }
            Phase::Parting { .. } => {
                self.pump_if_wanted(Direction::Up, actions);
            }
            Phase::Consulting { .. }
            | Phase::Dialing { .. }
            | Phase::Redialing { .. }
            | Phase::Queued { .. } => {}
            Phase::Relaying => {
                if readiness.failed {
                    self.flush(side, now, actions);
                } else {
                    for direction in Direction::BOTH {
                        self.pump_if_wanted(direction, actions);
                    }
                }
            }
            Phase::Flushing { gone } => {
                if readiness.failed && side != gone {
                    self.abort(gone, actions);
                } else {
                    self.pump_if_wanted(gone.outgoing(), actions);
                }
            }
            Phase::Lingering { left, .. } => {
                let over = self.lane(left.outgoing()).source_ended();
                if side == left && readiness.failed && over {
                    // Nobody is left to deliver to.
                    self.close_all(Close::Reset, actions);
                } else if side == left {
                    self.pump_if_wanted(left.outgoing(), actions);
                }
            }
            Phase::Closing => {}
        }
    }

    fn pumped(
        &mut self,
        direction: Direction,
        pumped: Pumped,
        now: Time,
        actions: &mut Vec<Action>,
    ) {
        if pumped.moved {
            let refreshes =
                !(probe::mutated(Mutation::IdleTimerNotRefreshed) && direction == Direction::Down);
            if refreshes {
                self.last_activity = now;
            }
            let lane = &self.lanes[direction.index()];
            if direction == Direction::Down
                && self.first_byte == Time::NEVER
                && lane.bytes_out() > 0
            {
                self.first_byte = now;
            }
        }
        let lane = &self.lanes[direction.index()];
        if lane.is_stalled() && pumped.moved || !lane.is_stalled() {
            self.delivery[direction.sink().index()].since = now;
        }
        if let Some(Failure { side, cause }) = pumped.failure {
            let who = culprit(cause, side);
            self.end(who, cause);
            // A peer that takes no more (EPIPE) may still have bytes for us, and
            // an orderly end; after any other error an end is only its echo. One
            // that lives on has no end to wait for: nothing more is read from it.
            if side == direction.sink() && !cause.is_fatal() {
                self.lane_mut(side.outgoing()).source_failed();
            } else if side == direction.sink() && cause != Cause::BrokenPipe {
                self.lane_mut(side.outgoing()).doom();
                self.lane_mut(side.outgoing()).source_ready();
            }
        }
        self.settle(pumped, now, actions);
    }

    /// The one place that judges whether a session is finished, half-open or
    /// aborted; called after each pump.
    fn settle(&mut self, pumped: Pumped, now: Time, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Relaying => {
                let failed = pumped
                    .failure
                    .filter(|f| f.cause != Cause::BrokenPipe)
                    .map(|f| f.side);
                let progress = self.lanes.each_ref().map(Lane::progress);
                match (failed, progress) {
                    (Some(side), _) => self.flush(side, now, actions),
                    (None, [Progress::Finished, Progress::Finished]) => {
                        self.end(Who::Both, Cause::Finished);
                        self.close_all(Close::Orderly, actions);
                    }
                    (None, [up, down]) => {
                        if probe::mutated(Mutation::HalfCloseAsFullClose)
                            && (up == Progress::Finished || down == Progress::Finished)
                        {
                            self.end(Who::Both, Cause::Finished);
                            return self.close_all(Close::Orderly, actions);
                        }
                        // A side that takes no more and has said all: done with it.
                        if up == Progress::SinkFailed && over(down) {
                            self.leave(Side::Upstream, now, actions);
                        } else if down == Progress::SinkFailed && over(up) {
                            self.leave(Side::Client, now, actions);
                        }
                    }
                }
            }
            Phase::Flushing { gone } => self.settle_flushing(gone, now, actions),
            Phase::Lingering { left, .. } => {
                if self.lane(left.outgoing()).source_ended() && pumped.failure.is_some() {
                    self.close_all(Close::Reset, actions);
                }
            }
            Phase::Parting { .. } => {
                if self.lane(Direction::Up).source_ended() || pumped.failure.is_some() {
                    self.close_all(Close::Orderly, actions);
                }
            }
            Phase::Sniffing { .. }
            | Phase::Consulting { .. }
            | Phase::Dialing { .. }
            | Phase::Redialing { .. }
            | Phase::Queued { .. }
            | Phase::Greeting { .. }
            | Phase::Refusing { .. }
            | Phase::Closing => {}
        }
    }

    /// `gone` has failed: nothing more goes to it, what it had delivered still
    /// goes to the other side.
    fn flush(&mut self, gone: Side, now: Time, actions: &mut Vec<Action>) {
        self.lane_mut(gone.incoming()).sink_failed();
        drop_held(gone.incoming(), actions);
        self.enter(Phase::Flushing { gone });
        self.last_activity = now;
        self.lane_mut(gone.outgoing()).source_ready();
        if !self.pump_if_wanted(gone.outgoing(), actions) {
            self.settle_flushing(gone, now, actions);
        }
    }

    fn settle_flushing(&mut self, gone: Side, now: Time, actions: &mut Vec<Action>) {
        match self.lane(gone.outgoing()).progress() {
            Progress::Open | Progress::Ending | Progress::Flushing => {}
            Progress::SinkFailed => self.abort(gone, actions),
            Progress::Finished | Progress::SourceFailed => self.leave(gone, now, actions),
        }
    }

    /// Resets both sides because `gone` failed and the other cannot be served.
    fn abort(&mut self, gone: Side, actions: &mut Vec<Action>) {
        self.end(Who::Peer(gone), Cause::Reset);
        self.close_all(Close::Reset, actions);
    }

    /// Closes one side for good and lingers over the other.
    fn leave(&mut self, gone: Side, now: Time, actions: &mut Vec<Action>) {
        self.end(Who::Peer(gone), Cause::Reset);
        let left = gone.other();
        self.lane_mut(left.outgoing()).sink_failed();
        drop_held(left.outgoing(), actions);
        // To a peer that is there yet, an orderly end would claim completeness.
        let how = match self.ending {
            Some(ending) if !ending.cause.is_fatal() => Close::Reset,
            _ => Close::Orderly,
        };
        self.hang_up(gone, how, actions);
        self.enter(Phase::Lingering {
            left,
            look: now + millis(LINGER_LOOK),
            step: LINGER_LOOK,
        });
        self.delivery[left.index()] = Delivery {
            unsent: u32::MAX,
            since: now,
        };
        self.pump_if_wanted(left.outgoing(), actions);
        actions.push(Action::Look);
    }

    // Time.

    fn looked(&mut self, unsent: [u32; 2], now: Time, rules: &Rules, actions: &mut Vec<Action>) {
        match self.phase {
            Phase::Sniffing { deadline }
            | Phase::Consulting { deadline }
            | Phase::Greeting { deadline }
            | Phase::Refusing { deadline }
            | Phase::Parting { deadline } => {
                if now >= deadline {
                    self.request_expired(now, actions);
                }
            }
            Phase::Dialing { attempt, deadline } => {
                if now >= deadline {
                    self.connect_timed_out(attempt, now, rules, actions);
                }
            }
            Phase::Queued { deadline, .. } => {
                if now >= deadline {
                    self.give_up(Cause::QueueTimeout, now, rules, actions);
                }
            }
            Phase::Relaying => {
                self.take_note(unsent, now);
                self.expire(now, rules, actions);
            }
            Phase::Flushing { gone } => {
                self.take_note(unsent, now);
                let delivered = self.delivery[gone.other().index()].since;
                if now >= self.last_activity.max(delivered) + flush_patience(gone, rules) {
                    self.abort(gone, actions);
                }
            }
            Phase::Lingering { left, step, .. } => {
                self.take_note(unsent, now);
                let delivery = self.delivery[left.index()];
                if delivery.unsent == 0 {
                    self.close_all(self.linger_close(left), actions);
                } else if now >= delivery.since + rules.deadlines.half_close {
                    self.close_all(Close::Orderly, actions);
                } else {
                    let step = (step * 2).min(LINGER_LOOK_MAX);
                    self.phase = Phase::Lingering {
                        left,
                        look: now + millis(step),
                        step,
                    };
                }
            }
            Phase::Redialing { .. } | Phase::Closing => {}
        }
    }

    /// A leg that had both ends in good order is closed so; any other is told
    /// by a reset that its peer failed.
    fn linger_close(&self, left: Side) -> Close {
        let told = self.lane(left.incoming()).progress() == Progress::Finished;
        if told && self.lane(left.outgoing()).source_ended() {
            Close::Orderly
        } else {
            Close::Reset
        }
    }

    fn connect_timed_out(
        &mut self,
        attempt: u8,
        now: Time,
        rules: &Rules,
        actions: &mut Vec<Action>,
    ) {
        if self.may_retry(attempt, now, rules) {
            self.enter(Phase::Redialing {
                attempt: attempt + 1,
            });
            self.hang_up(Side::Upstream, Close::Reset, actions);
        } else {
            self.give_up(Cause::ConnectTimeout, now, rules, actions);
        }
    }

    // Ending.

    fn end(&mut self, who: Who, cause: Cause) {
        let stage = match self.phase {
            _ if cause.is_refusal() => Stage::Request,
            Phase::Sniffing { .. } => Stage::Request,
            Phase::Queued { .. } => Stage::Queue,
            Phase::Consulting { .. }
            | Phase::Dialing { .. }
            | Phase::Redialing { .. }
            | Phase::Greeting { .. } => Stage::Connect,
            _ if self.lanes.iter().any(Lane::source_finished) => Stage::HalfClosed,
            _ => Stage::Data,
        };
        // The first reason is the reason; what follows is its echo.
        self.ending.get_or_insert(Ending { who, stage, cause });
    }

    /// Ends a session that did not end by itself. An orderly end must not claim
    /// completeness: with bytes still on their way, it is a reset.
    fn cut(&mut self, who: Who, cause: Cause, actions: &mut Vec<Action>) {
        if matches!(self.phase, Phase::Closing) {
            return;
        }
        self.end(who, cause);
        let complete = self.lanes.iter().all(|lane| lane.held() == 0)
            && self.delivery.iter().all(|delivery| delivery.unsent == 0);
        // That a server is down is a failure, and told as one.
        let orderly = complete && cause != Cause::ServerDown;
        let how = if orderly {
            Close::Orderly
        } else {
            Close::Reset
        };
        self.close_all(how, actions);
    }

    fn close_all(&mut self, how: Close, actions: &mut Vec<Action>) {
        self.enter(Phase::Closing);
        for side in Side::BOTH {
            self.hang_up(side, how, actions);
        }
        for direction in Direction::BOTH {
            if self.lane(direction).held() > 0 {
                self.lane_mut(direction).sink_failed();
                drop_held(direction, actions);
            }
        }
        self.finish_if_closed(actions);
    }

    /// The one place where the phase changes to another.
    fn enter(&mut self, phase: Phase) {
        probe::visit(self.phase.name(), phase.name());
        self.phase = phase;
    }

    fn hang_up(&mut self, side: Side, how: Close, actions: &mut Vec<Action>) {
        let again = probe::mutated(Mutation::DoubleClose);
        if self.open & bit(side) != 0 && (self.hung_up & bit(side) == 0 || again) {
            self.hung_up |= bit(side);
            actions.push(Action::Close { side, how });
        }
    }

    fn closed(&mut self, side: Side, now: Time, rules: &Rules, actions: &mut Vec<Action>) {
        self.open &= !bit(side);
        self.hung_up &= !bit(side);
        match self.phase {
            Phase::Redialing { attempt } if side == Side::Upstream => {
                self.dial(attempt, rules, now, actions);
            }
            Phase::Closing => self.finish_if_closed(actions),
            _ => {}
        }
    }

    fn finish_if_closed(&mut self, actions: &mut Vec<Action>) {
        if self.open == 0 && !self.over {
            self.over = true;
            actions.push(Action::End);
        }
    }

    fn pump_if_wanted(&self, direction: Direction, actions: &mut Vec<Action>) -> bool {
        let wanted = self.wants_pump(direction);
        if wanted {
            actions.push(Action::Pump(direction));
        }
        wanted
    }
}

fn drop_held(direction: Direction, actions: &mut Vec<Action>) {
    if !probe::mutated(Mutation::BufferLeakedOnReset) {
        actions.push(Action::Drop(direction));
    }
}

fn flush_patience(gone: Side, rules: &Rules) -> Duration {
    match gone {
        Side::Client => FLUSH_PATIENCE.min(rules.deadlines.half_close),
        Side::Upstream => rules.deadlines.half_close,
    }
}

const fn bit(side: Side) -> u8 {
    1 << side.index()
}

const fn over(progress: Progress) -> bool {
    matches!(
        progress,
        Progress::Finished | Progress::SourceFailed | Progress::SinkFailed
    )
}

/// Who is to blame for a failure on the way to a peer.
const fn culprit(cause: Cause, peer: Side) -> Who {
    if cause.is_local_shortage() {
        Who::Forwarder
    } else {
        Who::Peer(peer)
    }
}

const fn millis(count: u16) -> Duration {
    Duration::from_millis(count as u64)
}

fn elapsed(from: Time, to: Time) -> Option<Duration> {
    (to != Time::NEVER).then(|| to.since(from))
}
