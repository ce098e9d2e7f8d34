use proptest::prelude::*;

use super::*;
use crate::relay::ending::{self, Cause, Who};
use crate::relay::lane::PathPolicy;

/// Bytes of a session: thousands of idle ones are kept.
const SESSION_MAX: usize = 136;

const CONNECT: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(60);
const HALF_CLOSE: Duration = Duration::from_secs(10);
const QUEUE: Duration = Duration::from_secs(3);
const OPENING: Duration = Duration::from_secs(7);

const PLAIN: Rules = Rules {
    deadlines: Deadlines {
        connect: CONNECT,
        idle: IDLE,
        half_close: HALF_CLOSE,
        write_stall: Duration::from_secs(5),
    },
    attempts_max: 3,
    retry: Duration::from_secs(30),
    queue: QUEUE,
    opening: None,
    path: PathPolicy::Copy,
    turn_away: Close::Reset,
    fill_limits: [1 << 16; 2],
};

/// Of a session whose client says something first.
const ASKING: Rules = Rules {
    opening: Some(OPENING),
    ..PLAIN
};

const UPSTREAM_RESET: Action = close(Side::Upstream, Close::Reset);
const CLIENT_RESET: Action = close(Side::Client, Close::Reset);

const fn close(side: Side, how: Close) -> Action {
    Action::Close { side, how }
}

fn failed(side: Side) -> Event {
    let readiness = Readiness {
        failed: true,
        ..Readiness::default()
    };
    Event::Ready { side, readiness }
}

fn looked() -> Event {
    Event::Looked { unsent: [0, 0] }
}

/// A session and its time.
#[derive(Debug)]
struct Life {
    session: Session,
    rules: Rules,
    now: Time,
}

impl Life {
    fn new(rules: Rules) -> (Self, Vec<Action>) {
        let mut actions = Vec::new();
        let now = Time::from_micros(1_000);
        let session = Session::new(&rules, now, &mut actions);
        let life = Self {
            session,
            rules,
            now,
        };
        (life, actions)
    }

    /// One that is connected.
    fn relaying() -> Self {
        let (mut life, _) = Self::new(PLAIN);
        life.on(Event::Connected);
        life
    }

    #[track_caller]
    fn on(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.session.on(event, self.now, &self.rules, &mut actions);
        self.session.check_invariants();
        actions
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    fn deadline(&self) -> Time {
        self.session.deadline(&self.rules)
    }

    #[track_caller]
    fn ended(&self, who: Who, stage: ending::Stage, cause: Cause) {
        let ending = self.session.ending().expect("it is ending");
        assert_eq!(
            (ending.who, ending.stage, ending.cause),
            (who, stage, cause)
        );
    }

    /// Both closes that were asked for are complete.
    #[track_caller]
    fn over(&mut self, open: &[Side]) {
        for (nth, side) in open.iter().enumerate() {
            let last = nth + 1 == open.len();
            let expected = if last { vec![Action::End] } else { vec![] };
            assert_eq!(self.on(Event::Closed(*side)), expected);
        }
        assert!(self.session.total_time(self.now).is_some());
        assert_eq!(self.deadline(), Time::NEVER);
    }
}

#[test]
fn a_session_is_small() {
    let size = size_of::<Session>();
    assert!(size <= SESSION_MAX, "{size} bytes");
}

// Opening.

#[test]
fn what_the_client_says_first_is_read_decided_upon_and_answered() {
    let (mut life, actions) = Life::new(ASKING);
    assert_eq!(actions, [Action::Read]);
    assert_eq!(life.deadline(), life.now + OPENING);
    assert_eq!(life.on(Event::Read(Read::Whole)), [Action::Decide]);
    assert!(life.session.is_deciding());
    assert_eq!(
        life.on(Event::Decided(Decided::Dial)),
        [Action::Dial { attempt: 0 }]
    );
    assert_eq!(life.on(Event::Connected), [Action::Say]);
    assert_eq!(life.on(Event::Said(Said::Part)), []);
    assert!(!life.session.wants_pump(Direction::Up));
    assert_eq!(life.on(Event::Said(Said::Whole)), []);
    assert_eq!(life.deadline(), life.now + IDLE / 2, "it relays");
}

#[test]
fn a_client_that_says_nothing_is_told_so_and_left() {
    let (mut life, _) = Life::new(ASKING);
    life.pass(OPENING);
    assert_eq!(life.on(looked()), [Action::Say]);
    life.ended(
        Who::Peer(Side::Client),
        ending::Stage::Request,
        Cause::RequestTimeout,
    );
    // What was on its way comes too late.
    assert_eq!(life.on(Event::Read(Read::Whole)), []);
    assert_eq!(life.on(Event::Decided(Decided::Dial)), []);
    let parting = [Action::Conclude, Action::Pump(Direction::Up)];
    assert_eq!(life.on(Event::Said(Said::Whole)), parting);
    assert!(life.session.wants_pump(Direction::Up));
    life.pass(Duration::from_secs(2));
    let orderly = close(Side::Client, Close::Orderly);
    assert_eq!(life.on(looked()), [orderly]);
    life.over(&[Side::Client]);
}

#[test]
fn a_client_that_goes_before_it_has_said_all_is_let_go() {
    let (mut life, _) = Life::new(ASKING);
    let orderly = close(Side::Client, Close::Orderly);
    assert_eq!(
        life.on(Event::Read(Read::Ended(Cause::NoRequest))),
        [orderly]
    );
    life.ended(
        Who::Peer(Side::Client),
        ending::Stage::Request,
        Cause::NoRequest,
    );
    life.over(&[Side::Client]);
}

#[test]
fn who_may_not_go_on_is_told_why() {
    for (cause, who, stage) in [
        (Cause::Denied, Who::Forwarder, ending::Stage::Request),
        (
            Cause::NameFailed,
            Who::Peer(Side::Upstream),
            ending::Stage::Connect,
        ),
    ] {
        let (mut life, _) = Life::new(ASKING);
        life.on(Event::Read(Read::Whole));
        assert_eq!(
            life.on(Event::Decided(Decided::Refused(cause))),
            [Action::Say]
        );
        life.ended(who, stage, cause);
        // A client that takes nothing of it is cut off.
        life.pass(Duration::from_secs(5));
        assert_eq!(life.on(looked()), [CLIENT_RESET]);
        life.over(&[Side::Client]);
    }
}

// Dialling.

#[test]
fn another_server_is_tried_within_the_bounds() {
    let (mut life, actions) = Life::new(PLAIN);
    assert_eq!(actions, [Action::Dial { attempt: 0 }]);
    let refused = Event::ConnectFailed(Cause::Refused);
    assert_eq!(life.on(refused), [Action::Dial { attempt: 1 }]);
    assert_eq!(life.on(refused), [Action::Dial { attempt: 2 }]);
    assert_eq!(life.on(refused), [CLIENT_RESET]);
    assert_eq!(life.session.attempts(), 3);
    life.ended(
        Who::Peer(Side::Upstream),
        ending::Stage::Connect,
        Cause::Refused,
    );
    life.over(&[Side::Client]);

    let (mut life, _) = Life::new(PLAIN);
    let shortage = Event::ConnectFailed(Cause::NoDescriptors);
    assert_eq!(life.on(shortage), [CLIENT_RESET], "no other has more");
    let (mut life, _) = Life::new(PLAIN);
    life.pass(PLAIN.retry);
    assert_eq!(life.on(refused), [CLIENT_RESET], "too late for another");
}

#[test]
fn a_connect_that_takes_too_long_is_closed_before_the_next() {
    let (mut life, _) = Life::new(PLAIN);
    life.pass(CONNECT);
    assert_eq!(life.on(looked()), [UPSTREAM_RESET]);
    // The outcome crosses the close.
    assert_eq!(life.on(Event::Connected), []);
    let closed = Event::Closed(Side::Upstream);
    assert_eq!(life.on(closed), [Action::Dial { attempt: 1 }]);
    assert!(life.session.is_dialing());
}

#[test]
fn who_is_sent_back_to_the_queue_keeps_the_time_he_has_waited() {
    let (mut life, _) = Life::new(PLAIN);
    let end = life.now + QUEUE;
    life.on(Event::Queued);
    assert_eq!((life.session.attempts(), life.deadline()), (0, end));
    life.pass(QUEUE / 2);
    assert_eq!(life.on(Event::Dequeued), [Action::Dial { attempt: 0 }]);
    life.on(Event::Queued);
    assert_eq!(life.deadline(), end);
    life.pass(QUEUE / 2);
    assert_eq!(life.on(looked()), [CLIENT_RESET]);
    life.ended(
        Who::Peer(Side::Upstream),
        ending::Stage::Queue,
        Cause::QueueTimeout,
    );
    assert!(life.session.has_waited());
}

#[test]
fn a_client_that_fails_meanwhile_ends_it() {
    let (mut life, _) = Life::new(PLAIN);
    let actions = life.on(failed(Side::Client));
    assert_eq!(actions, [CLIENT_RESET, UPSTREAM_RESET]);
    life.ended(
        Who::Peer(Side::Client),
        ending::Stage::Connect,
        Cause::Reset,
    );
    life.over(&Side::BOTH);
}

// Relaying.

#[test]
fn what_a_side_had_delivered_outlives_its_failure() {
    let mut life = Life::relaying();
    let lost = Action::Drop(Direction::Up);
    let left = Action::Pump(Direction::Down);
    assert_eq!(life.on(failed(Side::Upstream)), [lost, left]);
    let lane = life.session.lane_mut(Direction::Down);
    lane.filled(100);
    lane.drained(100);
    lane.source_failed();
    let pumped = Pumped {
        moved: true,
        ..Pumped::default()
    };
    let actions = life.on(Event::Pumped {
        direction: Direction::Down,
        pumped,
    });
    let gone = close(Side::Upstream, Close::Orderly);
    assert_eq!(actions[1..], [gone, Action::Look]);
    // The kernel has it yet: the client is not reset before it has it all.
    let unsent = [100, 0];
    assert_eq!(life.on(Event::Looked { unsent }), []);
    life.on(Event::Closed(Side::Upstream));
    assert_eq!(life.on(looked()), [CLIENT_RESET]);
    life.over(&[Side::Client]);
}

#[test]
fn silence_ends_it_and_a_slow_reader_is_not_silent() {
    let mut life = Life::relaying();
    life.pass(IDLE / 2);
    let unsent = [50, 0];
    assert_eq!(life.on(Event::Looked { unsent }), []);
    life.pass(IDLE / 2);
    assert_eq!(life.on(Event::Looked { unsent: [20, 0] }), []);
    assert!(life.deadline() > life.now, "it has just taken some");
    life.pass(IDLE);
    let actions = life.on(Event::Looked { unsent: [20, 0] });
    assert_eq!(actions, [CLIENT_RESET, UPSTREAM_RESET], "not all is told");
    life.ended(
        Who::Peer(Side::Client),
        ending::Stage::Data,
        Cause::IdleTimeout,
    );
}

// Closing.

#[test]
fn a_cut_claims_completeness_only_where_it_is_complete() {
    let cut = |cause, unsent| {
        let mut life = Life::relaying();
        let actions = life.on(Event::Cut { cause, unsent });
        assert_eq!(life.on(Event::Cut { cause, unsent }), [], "once is enough");
        life.over(&Side::BOTH);
        actions
    };
    let orderly = Side::BOTH.map(|side| close(side, Close::Orderly));
    let reset = [CLIENT_RESET, UPSTREAM_RESET];
    assert_eq!(cut(Cause::Stopped, [0, 0]), orderly);
    assert_eq!(cut(Cause::Stopped, [0, 1]), reset);
    assert_eq!(cut(Cause::ServerDown, [0, 0]), reset);
}

// Any life at all.

/// What the world owes a session: answers to what it asked for.
#[derive(Debug, Default)]
struct Owed {
    read: bool,
    decision: bool,
    answer: bool,
    connect: bool,
    prefix: bool,
    pumps: Vec<Direction>,
    closes: Vec<Side>,
    ended: bool,
}

impl Owed {
    fn take_note(&mut self, actions: &[Action]) {
        for action in actions {
            assert!(!self.ended, "{action:?} after the end");
            match *action {
                Action::Read => self.read = true,
                Action::Decide => self.decision = true,
                Action::Say => self.answer = true,
                Action::Dial { .. } => {
                    assert!(!self.connect, "two connects at a time");
                    self.connect = true;
                }
                Action::Pump(direction) => self.pumps.push(direction),
                Action::Close { side, .. } => {
                    assert!(!self.closes.contains(&side), "closed twice");
                    self.closes.push(side);
                    if side == Side::Upstream {
                        // An engine reports one of the two: here, the close.
                        self.connect = false;
                    }
                }
                Action::End => {
                    assert!(self.closes.is_empty(), "over before it is closed");
                    self.ended = true;
                }
                Action::Prefix => self.prefix = true,
                Action::Conclude | Action::Drop(_) | Action::Look => {}
            }
        }
    }
}

/// An engine's pump, as the dice have it.
fn pump(lane: &mut Lane, direction: Direction, dice: u8) -> Pumped {
    let mut pumped = Pumped::default();
    let fails = |side| {
        Some(Failure {
            side,
            cause: [Cause::Reset, Cause::BrokenPipe, Cause::NoMemory][usize::from(dice) % 3],
        })
    };
    match (lane.next(), dice % 5) {
        (Next::Fill { .. }, 0) => lane.source_eof(),
        (Next::Fill { .. }, 1) => lane.fill_blocked(),
        (Next::Fill { .. }, 2) => {
            lane.source_failed();
            pumped.failure = fails(direction.source());
        }
        (Next::Fill { max, .. }, _) => {
            lane.filled((u32::from(dice) + 1).min(max));
            pumped.moved = true;
        }
        (Next::Drain { .. }, 0) => lane.drain_blocked(),
        (Next::Drain { .. }, 1) => {
            lane.sink_failed();
            pumped.failure = fails(direction.sink());
        }
        (Next::Drain { len }, _) => {
            lane.drained(len.div_ceil(2));
            pumped.moved = true;
        }
        (Next::ShutSink, _) => lane.sink_shut(),
        (Next::Discard { .. }, 0) => lane.source_eof(),
        (Next::Discard { .. }, 1) => lane.fill_blocked(),
        (Next::Discard { max }, _) => {
            lane.discarded((u32::from(dice) + 1).min(max));
            pumped.moved = true;
        }
        (Next::Park | Next::Done, _) => {}
    }
    pumped
}

/// What comes of telling the upstream something first.
fn prefixed(dice: u8) -> Event {
    Event::Prefixed(match dice % 4 {
        0 => Said::Failed(Cause::Reset),
        1 | 2 => Said::Part,
        _ => Said::Whole,
    })
}

/// The next event that this world may report.
fn event(life: &mut Life, owed: &mut Owed, what: u8, dice: u8) -> Event {
    let some = dice.is_multiple_of(2);
    match what % 12 {
        0 if std::mem::take(&mut owed.read) => match dice % 5 {
            4 => {
                owed.read = true;
                Event::Read(Read::Step(Duration::from_secs(1)))
            }
            0 => Event::Read(Read::Ended(Cause::NoRequest)),
            1 => Event::Read(Read::Refused(Cause::BadRequest)),
            _ => Event::Read(Read::Whole),
        },
        1 if std::mem::take(&mut owed.decision) => match dice % 3 {
            0 => Event::Decided(Decided::Refused(Cause::Denied)),
            _ => Event::Decided(Decided::Dial),
        },
        2 if std::mem::take(&mut owed.answer) => match dice % 4 {
            0 => Event::Said(Said::Failed(Cause::BrokenPipe)),
            1 => Event::Said(Said::Part),
            2 => Event::Said(Said::Nothing),
            _ => Event::Said(Said::Whole),
        },
        3 if std::mem::take(&mut owed.connect) => match dice % 5 {
            0 => Event::ConnectFailed(Cause::Refused),
            1 => Event::Queued,
            2 => Event::NoServer(Cause::NoServer),
            _ if dice > 200 => prefixed(dice),
            _ => Event::Connected,
        },
        10 if std::mem::take(&mut owed.prefix) => prefixed(dice),
        4 if life.session.is_queued() => Event::Dequeued,
        5 if !owed.closes.is_empty() => {
            let at = usize::from(dice) % owed.closes.len();
            Event::Closed(owed.closes.swap_remove(at))
        }
        6 => {
            let due = life.deadline();
            if due != Time::NEVER {
                life.now = life.now.max(due);
            }
            Event::Looked {
                unsent: [u32::from(dice / 128), u32::from(dice % 2)],
            }
        }
        7 if dice > 250 => Event::Cut {
            cause: Cause::Stopped,
            unsent: [0, 0],
        },
        8 if dice > 230 => failed(if some { Side::Client } else { Side::Upstream }),
        9 => Event::Ready {
            side: if some { Side::Client } else { Side::Upstream },
            readiness: Readiness {
                readable: !dice.is_multiple_of(3),
                writable: !dice.is_multiple_of(5),
                failed: false,
            },
        },
        _ => {
            life.pass(Duration::from_millis(u64::from(dice)));
            match owed.pumps.pop() {
                Some(direction) if life.session.wants_pump(direction) => Event::Pumped {
                    direction,
                    pumped: pump(life.session.lane_mut(direction), direction, dice),
                },
                _ => looked(),
            }
        }
    }
}

/// How far a session has come.
fn stage(life: &Life) -> u8 {
    match life.session.stage {
        Stage::Opening(_) => 0,
        Stage::Dialling(_) => 1,
        Stage::Relaying(_) => 2,
        Stage::Closing(_) => 3,
    }
}

proptest! {
    /// Whatever happens in whatever order, a session goes from stage to stage and never
    /// back, asks for nothing twice, has a deadline while it waits for a peer, and ends
    /// once, with both sides closed.
    #[test]
    fn any_life_ends_once(
        asks in any::<bool>(),
        steps in prop::collection::vec((any::<u8>(), any::<u8>()), 0..150),
    ) {
        let (mut life, actions) = Life::new(if asks { ASKING } else { PLAIN });
        let mut owed = Owed::default();
        owed.take_note(&actions);
        for (what, dice) in steps {
            if owed.ended {
                break;
            }
            let before = stage(&life);
            let event = event(&mut life, &mut owed, what, dice);
            let actions = life.on(event);
            owed.take_note(&actions);
            prop_assert!(stage(&life) >= before, "back from stage {}", before);
            let waits = owed.closes.is_empty() && !owed.ended;
            prop_assert!(!waits || life.deadline() < Time::NEVER, "waits for ever");
        }
        let actions = life.on(Event::Cut { cause: Cause::Stopped, unsent: [0, 0] });
        owed.take_note(&actions);
        while let Some(side) = owed.closes.pop() {
            let actions = life.on(Event::Closed(side));
            owed.take_note(&actions);
        }
        prop_assert!(owed.ended);
        prop_assert!(life.session.ending().is_some());
    }
}
