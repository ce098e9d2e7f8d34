//! A script: steps that both ends take in turn, then one of several endings. And
//! what the two observe.

use std::thread::sleep;
use std::time::Duration;

use crate::duplex::{Chance, Leg, Pair, Seen, Who};
use crate::kit::{KIB, MIB, PATIENCE, wait_until};

/// Names of all steps and endings, sorted.
pub(crate) const KINDS: [&str; 12] = [
    "CloseUnread",
    "EndThenReset",
    "Ends",
    "Exchange",
    "HalfClose",
    "Pause",
    "ResetAcknowledged",
    "ResetIdle",
    "ResetMidway",
    "Send",
    "SendPieces",
    "Stall",
];

/// Before the ending. After each, all that was sent has arrived.
#[derive(Debug, Clone, Copy)]
enum Step {
    Pause(Duration),
    Send(Who, u64),
    /// So many writes of so many bytes each.
    SendPieces(Who, u64, u64),
    /// So many bytes from this side, and so many to it, at the same time.
    Exchange(Who, u64, u64),
    /// This side sends while the other does not read; then it does.
    Stall(Who, u64),
    /// Once for each side at the most; it sends nothing after it.
    HalfClose(Who),
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    /// What is open yet is ended in good order, this side first.
    Ends(Who),
    ResetIdle(Who),
    /// Sends so many bytes, waits until they are acknowledged and have arrived,
    /// then resets; the other reads only then.
    ResetAcknowledged(Who, u64),
    /// Ends its direction, and resets when the other has seen that.
    EndThenReset(Who),
    /// The other sends so many bytes; closes when some have arrived, without
    /// reading them.
    CloseUnread(Who, u64),
    /// Resets while it sends so many bytes and receives as many.
    ResetMidway(Who, u64),
}

#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    steps: Vec<Step>,
    ending: Ending,
}

/// Received bytes and ends seen, of the client and the server.
type Both = [(u64, Option<Seen>); 2];

/// What both ends observe.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Observed {
    /// After each step.
    steps: Vec<Both>,
    ending: Last,
}

#[derive(Debug, PartialEq, Eq)]
enum Last {
    /// Both lived to see the other's end.
    Ended(Both),
    /// One was gone; what the other received, how it saw the end, and that it is
    /// refused to send.
    Cut { received: u64, seen: Seen },
    /// As `Cut`; the exception.
    CutMidway,
}

impl Script {
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let mut open = [true; 2];
        let mut steps = Vec::new();
        for _ in 0..chance.below(8) {
            let who = chance.side();
            let len = chance.size(256 * KIB);
            let step = match chance.below(12) {
                0 => Step::Pause(Duration::from_millis(chance.below(6))),
                1..=3 => Step::Send(who, len),
                4 | 5 => Step::SendPieces(who, 1 + chance.below(50), chance.size(2_000)),
                6 | 7 => Step::Exchange(who, len, chance.size(MIB)),
                8 | 9 => Step::Stall(who, chance.size(4 * MIB)),
                _ => Step::HalfClose(who),
            };
            if step.senders().iter().all(|who| open[*who as usize]) {
                steps.push(step);
            }
            if let Step::HalfClose(who) = step {
                open[who as usize] = false;
            }
        }
        let who = chance.side();
        let ending = match (chance.below(6), open) {
            (1, _) => Ending::ResetIdle(who),
            (2, [true, true]) => Ending::ResetAcknowledged(who, chance.size(48 * KIB)),
            (3, [true, true]) => Ending::EndThenReset(who),
            (4, [true, true]) => Ending::CloseUnread(who, chance.size(48 * KIB)),
            (5, [true, true]) => Ending::ResetMidway(who, chance.size(2 * MIB)),
            _ => Ending::Ends(who),
        };
        Self {
            seed,
            steps,
            ending,
        }
    }

    /// Which steps and endings it has, by name.
    pub(crate) fn kinds(&self) -> Vec<String> {
        let name = |debug: String| debug.split('(').next().unwrap_or("").to_owned();
        let mut kinds: Vec<_> = self.steps.iter().map(|s| name(format!("{s:?}"))).collect();
        kinds.push(name(format!("{:?}", self.ending)));
        kinds
    }

    /// Plays it to its end.
    pub(crate) fn play(&self, mut pair: Pair) -> Observed {
        let mut steps = Vec::new();
        for step in &self.steps {
            step.play(&mut pair);
            steps.push(both(&mut pair));
        }
        Observed {
            steps,
            ending: self.ending.play(pair),
        }
    }
}

fn both(pair: &mut Pair) -> Both {
    Who::BOTH.map(|who| (pair.leg(who).received(), pair.leg(who).seen))
}

impl Step {
    /// Whose direction must be open.
    fn senders(self) -> Vec<Who> {
        match self {
            Self::Pause(_) => Vec::new(),
            Self::Exchange(who, _, _) => vec![who, who.other()],
            Self::Send(who, _)
            | Self::SendPieces(who, _, _)
            | Self::Stall(who, _)
            | Self::HalfClose(who) => vec![who],
        }
    }

    fn play(self, pair: &mut Pair) {
        match self {
            Self::Pause(time) => sleep(time),
            Self::Send(who, len) => send(pair, who, len),
            Self::SendPieces(who, pieces, len) => {
                // Read only behind the last: so they pile up.
                for _ in 0..pieces {
                    pair.leg(who).to_send = len;
                    pair.run();
                }
                pair.leg(who.other()).to_read = pieces * len;
                pair.run();
            }
            Self::Exchange(who, there, back) => {
                pair.leg(who).to_read = back;
                pair.leg(who.other()).to_send = back;
                send(pair, who, there);
            }
            Self::Stall(who, len) => {
                pair.leg(who).to_send = len;
                let _ = pair.try_run(Duration::from_millis(10));
                pair.leg(who.other()).to_read = len;
                pair.run();
            }
            Self::HalfClose(who) => {
                pair.leg(who).half_close();
                pair.read_to_end(who.other());
            }
        }
    }
}

fn send(pair: &mut Pair, who: Who, len: u64) {
    pair.leg(who).to_send = len;
    pair.leg(who.other()).to_read = len;
    pair.run();
}

impl Ending {
    fn play(self, mut pair: Pair) -> Last {
        match self {
            Self::Ends(first) => {
                for who in [first, first.other()] {
                    if pair.leg(who.other()).seen.is_none() {
                        pair.leg(who).half_close();
                        pair.read_to_end(who.other());
                    }
                }
                Last::Ended(both(&mut pair))
            }
            Self::ResetIdle(who) => cut(&mut pair, who, Leg::reset),
            Self::ResetAcknowledged(who, len) => {
                pair.leg(who).to_send = len;
                pair.run();
                wait_until("the bytes are acknowledged", PATIENCE, || {
                    pair.leg(who).unacknowledged() == 0 && pair.leg(who.other()).arrived() == len
                });
                cut(&mut pair, who, Leg::reset)
            }
            Self::EndThenReset(who) => {
                Step::HalfClose(who).play(&mut pair);
                cut(&mut pair, who, Leg::reset)
            }
            Self::CloseUnread(who, len) => {
                pair.leg(who.other()).to_send = len;
                pair.run();
                wait_until("bytes arrive", PATIENCE, || pair.leg(who).arrived() > 0);
                cut(&mut pair, who, drop)
            }
            Self::ResetMidway(who, len) => {
                for side in Who::BOTH {
                    pair.leg(side).to_send = len;
                    pair.leg(side).to_read = len / 2;
                }
                let _ = pair.try_run(Duration::from_millis(3));
                let sent = pair.leg(who).sent();
                cut(&mut pair, who, Leg::reset);
                assert!(
                    pair.leg(who.other()).received() <= sent,
                    "more than was sent"
                );
                Last::CutMidway
            }
        }
    }
}

/// `who` goes in this way; what the other sees of it.
fn cut(pair: &mut Pair, who: Who, how: impl FnOnce(Leg)) -> Last {
    how(pair.take(who));
    let other = who.other();
    pair.leg(other).to_send = 0;
    let seen = pair.read_to_end(other);
    if !pair.leg(other).ended {
        pair.send_until_refused(other);
    }
    Last::Cut {
        received: pair.leg(other).received(),
        seen,
    }
}
