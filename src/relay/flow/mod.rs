//! A flow: the datagrams between one client's address and port and one server.
//!
//! A flow is no session: it has no beginning but its first datagram and no end but silence,
//! so what it is asked is different. Pure: time is a parameter, and what is sent and lost is
//! told. Which flow makes room when there are too many is [`crowd`]'s.
//!
//! ```text
//!   first datagram               an answer
//!  ───────────────► unanswered ──────────────► answered
//!                       │ silence                 │ silence (longer), or every answer has come
//!                       ▼                         ▼
//!                     over: its socket may stay a while, so that a late answer finds
//!                           nobody who came after
//! ```
//! Invariants: answers that pass are never more than the rules expect; a flow that is over
//! passes nothing.

pub mod crowd;
pub mod frozen;

use std::time::Duration;

use super::ending::{Cause, Ending, Stage, Who};
use super::time::Time;
use super::{Direction, Side};

/// Refusals in a row, without an answer between, that speak against the server: one may be
/// forged, or of a moment.
const REFUSALS_MAX: u32 = 3;

/// A socket that may have answers on their way to it is closed so long after the last
/// question at the earliest: its port would be somebody else's at once.
pub const LATE_ANSWERS: Duration = Duration::from_secs(1);

/// Likewise after all answers that are expected have come: one more is dropped and counted.
pub const SECOND_ANSWERS: Duration = Duration::from_millis(100);

/// Of that the part that no socket is spared. What the network makes two of comes within it.
pub const SECOND_ANSWERS_LEAST: Duration = Duration::from_millis(10);

/// What the flows of a forward go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowRules {
    /// Silence that ends a flow that was answered.
    pub idle: Duration,
    /// Silence that ends one that never was.
    pub unanswered: Duration,
    /// Datagrams of the client that are one flow.
    pub requests: Option<u32>,
    /// Answers to each of them.
    pub responses: Option<u32>,
    /// Bytes that go to a client for each byte of it, until it has shown that it gets them.
    pub reply_factor: Option<u32>,
}

/// A flow. See the module's documentation.
#[derive(Debug, Clone)]
pub struct Flow {
    started: Time,
    first_answer: Option<Time>,
    /// When the last datagram passed, either way.
    last: Time,
    last_asked: Time,
    /// Datagrams that came from the client, and from the server and were passed on.
    asked: u64,
    answered: u64,
    /// Bytes that the client has sent.
    paid: u64,
    /// Bytes of answers that were to pass, whether or not they were sent by now.
    replied: u64,
    sent: [Traffic; 2],
    refusals: u32,
    /// The client has sent again after an answer.
    proven: bool,
}

/// What went one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Datagrams that were sent on.
    pub datagrams: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Datagrams that were not.
    pub lost: u64,
}

/// What becomes of datagrams of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// So many of them pass; those behind them are more than were asked for.
    Pass(u32),
    /// None passes: the client would get more than it has earned.
    Unearned,
}

impl Flow {
    /// One whose first datagram has come.
    pub const fn new(now: Time) -> Self {
        let nothing = Traffic {
            datagrams: 0,
            bytes: 0,
            lost: 0,
        };
        Self {
            started: now,
            first_answer: None,
            last: now,
            last_asked: now,
            asked: 0,
            answered: 0,
            paid: 0,
            replied: 0,
            sent: [nothing; 2],
            refusals: 0,
            proven: false,
        }
    }

    /// So many more datagrams of the client belong to it.
    pub fn may_ask(&self, rules: &FlowRules) -> u32 {
        rules.requests.map_or(u32::MAX, |most| {
            let left = u64::from(most).saturating_sub(self.asked);
            u32::try_from(left).unwrap_or(u32::MAX)
        })
    }

    /// Datagrams of the client have come.
    pub const fn asks(&mut self, datagrams: u32, bytes: u64, now: Time) {
        self.asked += datagrams as u64;
        self.paid += bytes;
        self.proven |= self.answered > 0;
        self.last = now;
        self.last_asked = now;
    }

    /// Datagrams of the server have come: what becomes of them.
    pub fn answers(&mut self, datagrams: u32, bytes: u64, now: Time, rules: &FlowRules) -> Answers {
        self.refusals = 0;
        self.last = now;
        if let Some(factor) = rules.reply_factor
            && !self.proven
        {
            let earned = self.paid.saturating_mul(u64::from(factor));
            if self.replied + bytes > earned {
                return Answers::Unearned;
            }
        }
        let due = rules.responses.map_or(u64::MAX, |each| {
            let all = self.asked.saturating_mul(u64::from(each));
            all.saturating_sub(self.answered)
        });
        let pass = u64::from(datagrams).min(due);
        self.answered += pass;
        self.replied += if pass > 0 { bytes } else { 0 };
        self.first_answer = self.first_answer.or((pass > 0).then_some(now));
        Answers::Pass(pass as u32)
    }

    /// Datagrams left for the other side.
    pub const fn sent(&mut self, direction: Direction, datagrams: u32, bytes: u64) {
        let traffic = &mut self.sent[direction.index()];
        traffic.datagrams += datagrams as u64;
        traffic.bytes += bytes;
    }

    /// Datagrams for the other side did not leave.
    pub const fn lost(&mut self, direction: Direction, datagrams: u32) {
        self.sent[direction.index()].lost += datagrams as u64;
    }

    /// Somebody said that the server is not there. Whether that was said often enough to
    /// be believed.
    pub const fn is_refused(&mut self, times: u32) -> bool {
        self.refusals += times;
        let believed = self.refusals >= REFUSALS_MAX;
        if believed {
            self.refusals = 0;
        }
        believed
    }

    /// Whether it was answered so far.
    pub const fn is_answered(&self) -> bool {
        self.answered > 0
    }

    /// Whether every answer that is expected has come, and no question is.
    pub fn is_complete(&self, rules: &FlowRules) -> bool {
        let all = rules
            .responses
            .map(|each| self.asked.saturating_mul(u64::from(each)));
        let no_more = rules
            .requests
            .is_none_or(|most| self.asked >= u64::from(most));
        no_more && all.is_some_and(|all| self.answered >= all)
    }

    /// When it ends unless something passes.
    pub fn deadline(&self, rules: &FlowRules) -> Time {
        let patience = if self.is_answered() {
            rules.idle
        } else {
            rules.unanswered
        };
        self.last + patience
    }

    /// Until when its socket stays for answers that come late; a time that has passed: it
    /// need not.
    pub fn lingers_until(&self, rules: &FlowRules, now: Time) -> Time {
        if self.asked == 0 || rules.responses == Some(0) {
            return Time::ZERO;
        }
        if self.is_complete(rules) {
            return now + SECOND_ANSWERS;
        }
        self.last_asked + LATE_ANSWERS
    }

    /// How it ends of silence.
    pub const fn silence(&self) -> Ending {
        // As a session's: who was to say something and did not.
        let (who, cause) = if self.is_answered() {
            (Who::Peer(Side::Client), Cause::IdleTimeout)
        } else {
            (Who::Peer(Side::Upstream), Cause::Unanswered)
        };
        Ending {
            who,
            stage: Stage::Data,
            cause,
        }
    }

    /// When it began.
    pub const fn started(&self) -> Time {
        self.started
    }

    /// From its first datagram to the first answer.
    pub fn first_answer_time(&self) -> Option<Duration> {
        self.first_answer.map(|at| at.since(self.started))
    }

    /// What went one way.
    pub const fn traffic(&self, direction: Direction) -> Traffic {
        self.sent[direction.index()]
    }
}

#[cfg(test)]
mod tests;
