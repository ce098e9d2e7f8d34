//! When sessions are given away, and which: pure, with what was seen as parameters.
//!
//! ```text
//!   even ──one busy, another not──► uneven 1 ─► 2 ─► 3 ─► seen twice ─► chosen ─► moved
//!    ▲      in any look not any more │     ask for the sessions'        │           │
//!    └───────────────────────────────┘     bytes, and again             │ none fits │
//!    ▲                                                                  ▼           ▼
//!    └────────────────────────── nothing for PAUSE ─────────────────────┴───────────┘
//! ```
//! Nothing is moved that would make the other reactor the busy one: a session that is alone
//! the cause stays where it is.

use std::cmp::Reverse;
use std::time::Duration;

/// Between looks.
pub(in crate::control) const LOOK: Duration = Duration::from_millis(500);

/// A reactor that was on a CPU for less than this share of the time is not worth relieving.
const BUSY: f64 = 0.05;

/// How much less than the busiest the idlest one does.
const APART: f64 = 0.5;

/// Looks in a row that say the same.
const LOOKS: u32 = 3;

/// Looks without a move after one: until it is seen what came of it.
const PAUSE: u32 = 6;

/// Sessions that are moved at once, at the most.
pub(in crate::control) const MOVES_MAX: usize = 16;

/// How far above the share that is to move a choice may be.
const SLACK: f64 = 1.3;

/// What a reactor did between two looks.
#[derive(Debug, Clone, Copy)]
pub(in crate::control) struct Load {
    pub(in crate::control) reactor: u16,
    /// The share of the time that it was on a CPU.
    pub(in crate::control) busy: f64,
}

/// From whom to whom, and how much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::control) struct Relief {
    pub(in crate::control) from: u16,
    pub(in crate::control) to: u16,
    /// Of what it does, the part that is to move.
    pub(in crate::control) share: f64,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(in crate::control) struct Hysteresis {
    between: Option<(u16, u16)>,
    looks: u32,
    pause: u32,
}

impl Hysteresis {
    /// One more look; what is to be done, if it has been so for long enough.
    pub(in crate::control) fn look(&mut self, loads: &[Load]) -> Option<Relief> {
        if self.pause > 0 {
            self.pause -= 1;
            return None;
        }
        let Some(relief) = relief(loads) else {
            *self = Self::default();
            return None;
        };
        let between = Some((relief.from, relief.to));
        // Which of several idle ones is idlest does not matter.
        if self.between.map(|it| it.0) != Some(relief.from) {
            self.looks = 0;
        }
        self.between = between;
        self.looks += 1;
        (self.looks >= LOOKS).then_some(relief)
    }

    /// Something was done, or nothing could be.
    pub(in crate::control) fn pause(&mut self) {
        *self = Self {
            pause: PAUSE,
            ..Self::default()
        };
    }
}

fn relief(loads: &[Load]) -> Option<Relief> {
    let by_load = |a: &&Load, b: &&Load| a.busy.total_cmp(&b.busy);
    let hot = loads.iter().max_by(by_load)?;
    let cold = loads.iter().min_by(by_load)?;
    (hot.busy >= BUSY && cold.busy <= hot.busy * APART).then(|| Relief {
        from: hot.reactor,
        to: cold.reactor,
        share: (hot.busy - cold.busy) / hot.busy / 2.0,
    })
}

/// Which sessions make up about this share of all bytes that were moved, the largest first.
pub(in crate::control) fn choose<K: Copy>(mut moved: Vec<(K, u64)>, share: f64) -> Vec<K> {
    moved.sort_by_key(|(_, bytes)| Reverse(*bytes));
    let all: u64 = moved.iter().map(|(_, bytes)| bytes).sum();
    let mut left = all as f64 * share * SLACK;
    let mut chosen = Vec::new();
    for (key, bytes) in moved {
        if bytes == 0 || chosen.len() == MOVES_MAX {
            break;
        }
        if bytes as f64 <= left {
            left -= bytes as f64;
            chosen.push(key);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(busy: &[f64]) -> Vec<Load> {
        let each = (0..).zip(busy);
        each.map(|(reactor, busy)| Load {
            reactor,
            busy: *busy,
        })
        .collect()
    }

    #[test]
    fn what_is_uneven_for_long_enough_is_relieved_and_then_left_alone() {
        let mut it = Hysteresis::default();
        let uneven = loads(&[0.9, 0.1]);
        assert_eq!([it.look(&uneven), it.look(&uneven)], [None, None]);
        let relief = it.look(&uneven).expect("the third look");
        assert_eq!((relief.from, relief.to), (0, 1));
        assert!((relief.share - 0.444).abs() < 0.001, "{relief:?}");
        it.pause();
        for _ in 0..PAUSE + LOOKS - 1 {
            assert_eq!(it.look(&uneven), None);
        }
        assert!(it.look(&uneven).is_some());
    }

    #[test]
    fn a_look_that_says_otherwise_begins_anew() {
        let mut it = Hysteresis::default();
        for busy in [[0.9, 0.1], [0.9, 0.1], [0.5, 0.4], [0.9, 0.1], [0.1, 0.9]] {
            assert_eq!(it.look(&loads(&busy)), None);
        }
        // Next to nothing is not worth it, however uneven.
        for _ in 0..10 {
            assert_eq!(it.look(&loads(&[0.04, 0.0])), None);
            assert_eq!(it.look(&loads(&[])), None);
        }
    }

    #[test]
    fn as_much_as_evens_out_and_no_session_that_is_the_cause_alone() {
        assert_eq!(choose(vec![('a', 50), ('b', 50)], 0.5), ['a']);
        assert!(choose(vec![('a', 100)], 0.5).is_empty());
        assert!(choose(vec![('a', 100), ('b', 0)], 0.5).is_empty());
        assert_eq!(choose(vec![('a', 90), ('b', 10)], 0.5), ['b']);
        assert_eq!(
            choose(vec![('a', 0), ('b', 10), ('c', 30), ('d', 20)], 0.4),
            ['c']
        );
        let many: Vec<(u32, u64)> = (0..1000).map(|it| (it, 1)).collect();
        assert_eq!(choose(many, 0.5).len(), MOVES_MAX);
    }
}
