//! A session as plain data, on its way to another reactor or another process.
//!
//! What is an instant here is an age there: the clocks of two reactors need not agree, and
//! an idle session is as idle behind the move as it was before. Only a session between its
//! two sides is moved. One that is being opened or dialled becomes such a session soon, or
//! ends, and waits for that; so does one with a side that is being closed.
//!
//! Invariant: `thaw ∘ freeze` changes nothing, at whatever moment (checked in the
//! simulator, through the text that processes exchange). What is thawed comes from
//! outside: what cannot have been is an error.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::common::{Common, Marks};
use super::relaying::{Delivery, LINGER_LOOK_MAX, Phase, Relaying};
use super::{Session, Stage};
use crate::relay::Side;
use crate::relay::age::Age;
use crate::relay::ending::Ending;
use crate::relay::lane::{Lane, LaneState};
use crate::relay::time::{Lapse, Time};

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionState {
    /// Up and down.
    lanes: [LaneState; 2],
    started: Age,
    connected: Age,
    first_byte: Option<Age>,
    ending: Option<Ending>,
    attempts: u8,
    waited: bool,
    phase: PhaseState,
    /// By side.
    delivery: [DeliveryState; 2],
    looked: Age,
    last_activity: Age,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PhaseState {
    Relaying,
    Flushing {
        gone: Side,
    },
    Lingering {
        left: Side,
        /// Microseconds until the next look, which `looked` and `step` say as well: only for
        /// a process that knows less of them.
        #[serde(default)]
        look_in: u64,
        step: u16,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct DeliveryState {
    unsent: u32,
    since: Age,
}

/// How far a session has come of which only an earlier state is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Bytes that have crossed its lanes; nothing of them is held.
    pub bytes: [u64; 2],
    /// How long that state is ago.
    pub later: Duration,
    /// How long the first byte from the upstream is ago, if it came since.
    pub first: Option<Duration>,
    /// How long it is silent, if it was not all the time.
    pub silent: Option<Duration>,
}

impl SessionState {
    /// Whether there is a connection on this side.
    pub fn has(&self, side: Side) -> bool {
        match self.phase {
            PhaseState::Relaying | PhaseState::Flushing { .. } => true,
            PhaseState::Lingering { left, .. } => left == side,
        }
    }

    /// The lanes, up and down.
    pub const fn lanes(&self) -> &[LaneState; 2] {
        &self.lanes
    }

    /// Whether [`Self::found`] may come to anything.
    pub fn may_be_found(&self) -> bool {
        self.phase == PhaseState::Relaying && self.ending.is_none()
    }

    /// The same some time later, as it was found; `None` if nobody can go on with it: a side had
    /// failed, or what was found cannot have been.
    pub fn found(&self, found: &Found) -> Option<Self> {
        if !self.may_be_found() {
            return None;
        }
        let micros = |duration: Duration| Age(duration.as_micros() as u64);
        let later = |age: Age| Age(age.0.saturating_add(micros(found.later).0));
        let [up, down] = &self.lanes;
        let silent = found.silent.map_or(later(self.last_activity), micros);
        Some(Self {
            lanes: [
                up.crossed_by(found.bytes[0])?,
                down.crossed_by(found.bytes[1])?,
            ],
            started: later(self.started),
            connected: later(self.connected),
            first_byte: self.first_byte.map(later).or(found.first.map(micros)),
            // What the kernel has still to deliver it does by itself; it is looked at anew.
            delivery: Side::BOTH.map(|_| DeliveryState {
                unsent: 0,
                since: silent,
            }),
            looked: later(self.looked),
            last_activity: silent,
            ..self.clone()
        })
    }

    /// Since it was accepted.
    pub const fn age(&self) -> Duration {
        Duration::from_micros(self.started.0)
    }
}

impl Session {
    /// Whether [`Session::freeze`] would do it.
    pub const fn may_be_frozen(&self) -> bool {
        matches!(self.stage, Stage::Relaying(_)) && self.common.marks.hung_up() == 0
    }

    /// Whether both its sides are there and none has failed.
    pub const fn is_relaying(&self) -> bool {
        let Stage::Relaying(relaying) = &self.stage else {
            return false;
        };
        matches!(relaying.phase, Phase::Relaying) && self.may_be_frozen()
    }

    /// As it is at `now`; `None` while it may not be moved.
    pub fn freeze(&self, now: Time) -> Option<SessionState> {
        let common = &self.common;
        let Stage::Relaying(relaying) = &self.stage else {
            return None;
        };
        if !self.may_be_frozen() {
            return None;
        }
        let phase = match relaying.phase {
            Phase::Relaying => PhaseState::Relaying,
            Phase::Flushing { gone } => PhaseState::Flushing { gone },
            Phase::Lingering { left, step } => PhaseState::Lingering {
                left,
                look_in: relaying.lingers_until().since(now).as_micros() as u64,
                step,
            },
        };
        let age = |lapse: Lapse| Some(Age::of(common.started + lapse.get()?, now));
        Some(SessionState {
            lanes: common.lanes.each_ref().map(Lane::freeze),
            started: Age::of(common.started, now),
            connected: age(common.connected)?,
            first_byte: age(common.first_byte),
            ending: common.ending,
            attempts: common.attempts,
            waited: common.marks.has_waited(),
            phase,
            delivery: Side::BOTH.map(|side| DeliveryState {
                unsent: relaying.delivery.unsent[side.index()],
                since: Age::of(relaying.delivery.since[side.index()], now),
            }),
            looked: Age::of(relaying.looked, now),
            last_activity: Age::of(relaying.last_activity, now),
        })
    }

    /// As it was, by a clock that says `now`. A clock that has begun later than the session
    /// gives it no more age than it has itself.
    pub fn thaw(state: &SessionState, now: Time) -> Result<Self, &'static str> {
        let phase = match state.phase {
            PhaseState::Relaying => Phase::Relaying,
            PhaseState::Flushing { gone } => Phase::Flushing { gone },
            PhaseState::Lingering { .. } if state.ending.is_none() => {
                return Err("a session lingers without a reason");
            }
            PhaseState::Lingering { left, step, .. } => Phase::Lingering {
                left,
                step: step.clamp(1, LINGER_LOOK_MAX),
            },
        };
        let [up, down] = &state.lanes;
        let open = Side::BOTH.into_iter().filter(|side| state.has(*side));
        let mut marks = open.fold(Marks::default(), Marks::opened);
        if state.waited {
            marks = marks.having_waited();
        }
        let started = state.started.before(now);
        let lapse = |then: Age| Lapse::between(started, then.before(now));
        Ok(Self {
            common: Common {
                lanes: [Lane::thaw(up)?, Lane::thaw(down)?],
                started,
                connected: lapse(state.connected),
                first_byte: state.first_byte.map_or(Lapse::NEVER, lapse),
                ending: state.ending,
                attempts: state.attempts,
                marks,
            },
            stage: Stage::Relaying(Relaying {
                phase,
                delivery: Delivery {
                    unsent: state.delivery.map(|it| it.unsent),
                    since: state.delivery.map(|it| it.since.before(now)),
                },
                looked: state.looked.before(now),
                last_activity: state.last_activity.before(now),
            }),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::relay::Direction;
    use crate::relay::ending::Cause;
    use crate::relay::lane::PathPolicy;
    use crate::relay::session::{Close, Deadlines, Event, Pumped, Readiness, Rules};

    const RULES: Rules = Rules {
        deadlines: Deadlines {
            connect: Duration::from_secs(1),
            idle: Duration::from_secs(10),
            half_close: Duration::from_secs(10),
            write_stall: Duration::MAX,
        },
        attempts_max: 1,
        retry: Duration::MAX,
        queue: Duration::ZERO,
        opening: None,
        path: PathPolicy::Auto,
        turn_away: Close::Reset,
        fill_limits: [65_536; 2],
    };

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    /// Accepted at 100 s, its last byte at 101 s.
    fn session() -> Session {
        let mut actions = Vec::new();
        let mut session = Session::new(&RULES, at(100), &mut actions);
        assert!(session.freeze(at(100)).is_none(), "it is being connected");
        session.on(Event::Connected, at(100), &RULES, &mut actions);
        let lane = session.lane_mut(Direction::Up);
        lane.source_ready();
        lane.filled(10);
        lane.drained(10);
        let pumped = Pumped {
            moved: true,
            ..Pumped::default()
        };
        let direction = Direction::Up;
        session.on(
            Event::Pumped { direction, pumped },
            at(101),
            &RULES,
            &mut actions,
        );
        session
    }

    fn through_text(session: &Session, now: Time) -> SessionState {
        let text = serde_json::to_string(&session.freeze(now).unwrap()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn b131_time_goes_on_by_another_clock() {
        // Idle for 8 s of 10; the next process began 30 s ago.
        let state = through_text(&session(), at(109));
        assert_eq!(state.age(), Duration::from_secs(9));
        let thawed = Session::thaw(&state, at(30)).unwrap();
        thawed.check_invariants();
        assert_eq!(thawed.started(), at(21));
        assert_eq!(thawed.connect_time(), Some(Duration::ZERO));
        let mut later = thawed;
        let mut actions = Vec::new();
        let look = Event::Looked { unsent: [0; 2] };
        later.on(look, at(31), &RULES, &mut actions);
        assert!(actions.is_empty(), "a second too early: {actions:?}");
        assert_eq!(later.deadline(&RULES), at(32));
        later.on(look, at(32), &RULES, &mut actions);
        assert_eq!(later.ending().unwrap().cause, Cause::IdleTimeout);
    }

    /// Behaviour 160: a session whose process was killed goes on where it was.
    #[test]
    fn b160_one_that_is_found_again_has_its_bytes_and_its_age() {
        // Written down at 103 s; 7 bytes more went up and 5 came down, the last at 108 s; found at
        // 110 s.
        let state = through_text(&session(), at(103));
        let found = Found {
            bytes: [17, 5],
            later: Duration::from_secs(7),
            first: Some(Duration::from_secs(4)),
            silent: Some(Duration::from_secs(2)),
        };
        let thawed = Session::thaw(&state.found(&found).unwrap(), at(110)).unwrap();
        thawed.check_invariants();
        let bytes = |it| (thawed.lane(it).bytes_in(), thawed.lane(it).bytes_out());
        assert_eq!(bytes(Direction::Up), (17, 17));
        assert_eq!(bytes(Direction::Down), (5, 5));
        assert_eq!(thawed.started(), at(100));
        assert_eq!(thawed.first_byte_time(), Some(Duration::from_secs(6)));
        // Idle since 108 s, for 10 s.
        let mut later = thawed;
        let mut actions = Vec::new();
        let look = Event::Looked { unsent: [0; 2] };
        later.on(look, at(113), &RULES, &mut actions);
        assert!(actions.is_empty(), "too early: {actions:?}");
        assert_eq!(later.deadline(&RULES), at(118));
        // Nothing has crossed since: idle since 101 s.
        let still = Found {
            bytes: [10, 0],
            first: None,
            silent: None,
            ..found
        };
        let mut later = Session::thaw(&state.found(&still).unwrap(), at(110)).unwrap();
        later.on(look, at(110), &RULES, &mut actions);
        assert!(actions.is_empty(), "too early: {actions:?}");
        assert_eq!(later.deadline(&RULES), at(111));
        // Bytes do not become fewer, and a failure is not forgotten.
        let fewer = Found {
            bytes: [9, 5],
            ..found
        };
        assert!(state.found(&fewer).is_none());
        let mut failed = session();
        let mut actions = Vec::new();
        let event = Event::Ready {
            side: Side::Client,
            readiness: Readiness {
                failed: true,
                ..Readiness::default()
            },
        };
        failed.on(event, at(102), &RULES, &mut actions);
        let failed = failed.freeze(at(103)).unwrap();
        assert!(failed.found(&found).is_none());
    }

    #[test]
    fn one_that_is_flushed_goes_on_being_flushed() {
        let mut session = session();
        let mut actions = Vec::new();
        let failed = Event::Ready {
            side: Side::Upstream,
            readiness: Readiness {
                failed: true,
                ..Readiness::default()
            },
        };
        session.on(failed, at(102), &RULES, &mut actions);
        assert_eq!(session.phase(), "Flushing");
        let state = through_text(&session, at(103));
        let thawed = Session::thaw(&state, at(103)).unwrap();
        assert_eq!(thawed.phase(), "Flushing");
        assert_eq!(thawed.deadline(&RULES), session.deadline(&RULES));
        assert_eq!(thawed.freeze(at(103)).unwrap(), state);
    }

    #[test]
    fn b128_what_cannot_have_been_is_refused_and_what_is_new_is_passed_over() {
        let state = session().freeze(at(101)).unwrap();
        let mut value = serde_json::to_value(&state).unwrap();
        value["of_a_later_version"] = true.into();
        assert_eq!(
            serde_json::from_value::<SessionState>(value.clone()).unwrap(),
            state
        );
        for (pointer, wrong) in [
            ("/lanes/0/held", 5.into()),
            ("/lanes/0/fill_max", 0.into()),
            ("/lanes/0/filled", u64::MAX.into()),
            ("/lanes/1/sink", "shut".into()),
            (
                "/phase",
                serde_json::json!({"lingering": {"left": "client", "look_in": 0, "step": 0}}),
            ),
        ] {
            let mut wrong_value = value.clone();
            *wrong_value.pointer_mut(pointer).unwrap() = wrong;
            let state: SessionState = serde_json::from_value(wrong_value).unwrap();
            assert!(Session::thaw(&state, at(101)).is_err(), "{pointer}");
        }
    }
}
