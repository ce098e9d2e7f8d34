//! A flow as plain data, on its way to another process. Instants are ages there, and what
//! is thawed was not checked: whatever numbers it has, they are counted on from there.

use serde::{Deserialize, Serialize};

use super::{Flow, Traffic};
use crate::relay::age::Age;
use crate::relay::time::Time;

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowState {
    started: Age,
    first_answer: Option<Age>,
    last: Age,
    last_asked: Age,
    asked: u64,
    answered: u64,
    paid: u64,
    replied: u64,
    /// Up and down: datagrams, bytes, lost.
    sent: [[u64; 3]; 2],
    refusals: u32,
    proven: bool,
}

impl Flow {
    /// As it is at `now`.
    pub fn freeze(&self, now: Time) -> FlowState {
        FlowState {
            started: Age::of(self.started, now),
            first_answer: self.first_answer.map(|it| Age::of(it, now)),
            last: Age::of(self.last, now),
            last_asked: Age::of(self.last_asked, now),
            asked: self.asked,
            answered: self.answered,
            paid: self.paid,
            replied: self.replied,
            sent: self.sent.map(|it| [it.datagrams, it.bytes, it.lost]),
            refusals: self.refusals,
            proven: self.proven,
        }
    }

    /// As it was, by a clock that says `now`.
    pub fn thaw(state: &FlowState, now: Time) -> Self {
        Self {
            started: state.started.before(now),
            first_answer: state.first_answer.map(|it| it.before(now)),
            last: state.last.before(now),
            last_asked: state.last_asked.before(now),
            asked: state.asked,
            answered: state.answered,
            paid: state.paid,
            replied: state.replied,
            sent: state.sent.map(|[datagrams, bytes, lost]| Traffic {
                datagrams,
                bytes,
                lost,
            }),
            refusals: state.refusals,
            proven: state.proven,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::relay::Direction;
    use crate::relay::flow::{Answers, FlowRules};

    const RULES: FlowRules = FlowRules {
        idle: Duration::from_secs(10),
        unanswered: Duration::from_secs(3),
        requests: Some(4),
        responses: Some(2),
        reply_factor: Some(3),
    };

    fn at(seconds: u64) -> Time {
        Time::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn b133_a_flow_is_the_same_by_another_clock() {
        let mut flow = Flow::new(at(100));
        flow.asks(2, 50, at(101));
        assert_eq!(flow.answers(1, 20, at(102), &RULES), Answers::Pass(1));
        flow.sent(Direction::Up, 2, 50);
        flow.lost(Direction::Down, 1);
        flow.is_refused(2);
        let text = serde_json::to_string(&flow.freeze(at(104))).unwrap();
        let state: FlowState = serde_json::from_str(&text).unwrap();
        let mut other = Flow::thaw(&state, at(4));
        assert_eq!(other.freeze(at(4)), flow.freeze(at(104)));
        // It was silent for two of its ten seconds, and three answers are open.
        assert_eq!(other.deadline(&RULES), at(12));
        assert_eq!(other.answers(9, 30, at(5), &RULES), Answers::Pass(3));
        assert_eq!(other.may_ask(&RULES), 2);
        assert!(other.is_refused(3), "the count of refusals goes on");
        assert_eq!(other.traffic(Direction::Up), flow.traffic(Direction::Up));
    }
}
