//! Sockets that their flows have no use for any more.
//!
//! ```text
//!            an open question: 1 s ─────────────────────────────► closed
//!  flow ends                                                        ▲ 1 s, or too many
//!            all answers have come: 100 ms,
//!            or 10 while many do ───────────► rested, in line ──────┘
//!                                               │ a flow to the same server
//!                                               └─ another port ─► another flow's
//! ```
//! A socket outlives its flow a little, so that a late answer finds nobody else on its port; what comes
//! meanwhile is dropped and counted. One that has rested after every answer had come is as good as a new
//! one to the same server, without the calls that make, register and close one: of those that a
//! question from a new port takes, the half. So it waits in a line for the next flow there, for a second.
//! The last one in goes first: the kernel has it in the cache, and those that are too many grow old.
//!
//! Whose turn it is gets the socket, and never its port: that goes back to the kernel, and the socket is
//! connected from another one. So an answer that comes however late, or once more, for a flow that is
//! over meets no other flow for being served by the same socket. What is left is what any new socket has: the
//! kernel draws ports at random, and may draw one that was somebody else's a while ago.
//!
//! Who was refused, or ended with an open question, is not used again, and nobody for longer than
//! ten seconds.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Flows;
use super::table::{Lead, Owner, QUIET_FLOW_TRAINS};
use crate::engine::datagrams::Received;
use crate::engine::{DatagramKey, Datagrams, Target};
use crate::reactor::context::Ctx;
use crate::relay::flow::{SECOND_ANSWERS, SECOND_ANSWERS_LEAST};
use crate::relay::time::Time;

use super::why::Why;

/// Sockets that may outlive their flows at once. Each is a descriptor.
const RETIRED_MAX: usize = 4096;

/// Sockets that may wait for a second answer for as long as one may take. While there are more, the
/// first of them has rested after [`SECOND_ANSWERS_LEAST`]: at 30,000 questions a second 3,000 would rest,
/// whose memory, 2 KiB of the kernel's for each, no cache near the processor holds, so that each question
/// had to fetch it: 4 to 7 % of what it takes.
const QUICK_MAX: usize = 256;

/// Flows that make room at a time when sessions have no descriptor: for eight of them.
const STARVED: usize = 16;

/// How long one that has rested waits for another flow.
const WAITS: Duration = Duration::from_secs(1);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Resting {
    /// Until when they rest, in order: those that wait for a second answer only, and those
    /// with an open question.
    retired: [VecDeque<(Time, DatagramKey)>; 2],
    /// Those that have rested, by where they lead, with when they are closed.
    lines: BTreeMap<Lead, VecDeque<(Time, DatagramKey)>>,
    /// All that were ever put into a line and may be there still, in order.
    waiting: VecDeque<(Time, DatagramKey, Lead)>,
    /// Sockets in all lines.
    in_line: usize,
}

impl Resting {
    /// When it has something to do.
    pub(super) fn due(&self) -> Time {
        let retired = self.retired.iter().filter_map(|queue| queue.front());
        let retired = retired.map(|(until, _)| *until);
        let waiting = self.waiting.front().map(|it| it.0);
        retired.chain(waiting).min().unwrap_or(Time::NEVER)
    }

    fn len(&self) -> usize {
        self.in_line + self.retired.iter().map(VecDeque::len).sum::<usize>()
    }

    /// The first of those with or without an open question, if it has rested long enough.
    fn take_rested(&mut self, is_open: bool, now: Time) -> Option<DatagramKey> {
        let queue = &mut self.retired[usize::from(is_open)];
        let (until, _) = *queue.front()?;
        let spared = if !is_open && queue.len() > QUICK_MAX {
            SECOND_ANSWERS.saturating_sub(SECOND_ANSWERS_LEAST)
        } else {
            Duration::ZERO
        };
        if until.since(now) > spared {
            return None;
        }
        queue.pop_front().map(|it| it.1)
    }

    fn put_in_line(&mut self, socket: DatagramKey, line: Lead, now: Time) {
        let until = now + WAITS;
        self.lines
            .entry(line)
            .or_default()
            .push_back((until, socket));
        self.waiting.push_back((until, socket, line));
        self.in_line += 1;
    }

    fn take(&mut self, line: &Lead) -> Option<DatagramKey> {
        let (_, socket) = self.lines.get_mut(line)?.pop_back()?;
        self.in_line -= 1;
        Some(socket)
    }

    /// One that has waited longest, if it has waited until then.
    fn take_oldest(&mut self, then: Time) -> Option<DatagramKey> {
        while let Some((until, socket, line)) = self.waiting.front().copied() {
            if until > then {
                return None;
            }
            self.waiting.pop_front();
            let Some(queue) = self.lines.get_mut(&line) else {
                continue;
            };
            // Whoever was taken meanwhile is not there: those behind came later.
            let is_there = queue.front() == Some(&(until, socket));
            if is_there {
                queue.pop_front();
                self.in_line -= 1;
            }
            if queue.is_empty() {
                self.lines.remove(&line);
            }
            if is_there {
                return Some(socket);
            }
        }
        None
    }
}

impl Flows {
    /// A socket that its flow has no use for rests until answers that may be on their way to
    /// it are not any more; a time that has passed: it is closed now.
    pub(super) fn retire<E: Datagrams>(
        &mut self,
        socket: DatagramKey,
        until: Time,
        now: Time,
        ctx: &mut Ctx<E>,
    ) {
        if until <= now || self.draining {
            return self.hang_up(socket, ctx);
        }
        if let Some(its) = self.owners.get_mut(socket) {
            its.owner = Owner::Over;
        }
        // Of all others a question was open.
        let is_open = until.since(now) != SECOND_ANSWERS;
        if is_open && let Some(its) = self.owners.get_mut(socket) {
            its.line = None;
        }
        self.resting.retired[usize::from(is_open)].push_back((until, socket));
        self.spare_descriptors(ctx);
    }

    /// Flows and sockets that outlive them have the descriptors that are flows' between them.
    pub(super) fn spare_descriptors<E: Datagrams>(&mut self, ctx: &mut Ctx<E>) {
        let left = self.gate.max().saturating_sub(self.gate.live()) as usize;
        while self.resting.len() > RETIRED_MAX.min(left) {
            self.close_oldest_retired(ctx);
        }
    }

    /// Whether any socket outlives its flow.
    pub(super) fn has_resting(&self) -> bool {
        self.resting.len() > 0
    }

    /// Descriptors have run out, whoever's: these can be done without. Where there are none, flows
    /// without an answer make room: a flood of them would keep sessions out for as long as it lasts.
    pub(in crate::reactor) fn starve<E: Datagrams>(&mut self, ctx: &mut Ctx<E>) {
        if !self.has_resting() {
            for _ in 0..STARVED {
                if self.make_room(ctx, None).is_err() {
                    break;
                }
            }
        }
        while self.resting.len() > 0 {
            self.close_oldest_retired(ctx);
        }
    }

    /// Whoever has rested long enough is put in line, or closed.
    pub(super) fn close_retired<E: Datagrams>(&mut self, ctx: &mut Ctx<E>) {
        let now = ctx.now();
        let then = if self.draining { Time::NEVER } else { now };
        for is_open in [false, true] {
            while let Some(socket) = self.resting.take_rested(is_open, then) {
                let its = self.owners.get_mut(socket);
                match its.and_then(|it| it.serves_again(now)) {
                    Some(line) if !self.draining => self.resting.put_in_line(socket, line, now),
                    _ => self.hang_up(socket, ctx),
                }
            }
        }
        while let Some(socket) = self.resting.take_oldest(then) {
            self.hang_up(socket, ctx);
        }
    }

    /// A socket that has rested and leads there, with another port.
    pub(super) fn take_rested<E: Datagrams>(
        &mut self,
        line: &Lead,
        target: Target<'_>,
        ctx: &mut Ctx<E>,
    ) -> Option<DatagramKey> {
        while let Some(socket) = self.resting.take(line) {
            let is_fit = self
                .owners
                .get_mut(socket)
                .is_some_and(|it| it.line.is_some());
            if is_fit && let Ok(late) = ctx.engine.call_anew(socket, target) {
                ctx.counters.udp_received_down.add(u64::from(late));
                Why::Late.count(&ctx.counters, late);
                return Some(socket);
            }
            self.hang_up(socket, ctx);
        }
        None
    }

    /// Descriptors are short, or there are too many of these.
    pub(super) fn close_oldest_retired<E: Datagrams>(&mut self, ctx: &mut Ctx<E>) {
        let oldest = self.resting.take_oldest(Time::NEVER).or_else(|| {
            let mut queues = self.resting.retired.iter_mut();
            queues.find_map(|queue| Some(queue.pop_front()?.1))
        });
        if let Some(socket) = oldest {
            self.hang_up(socket, ctx);
        }
    }

    /// What has come for a flow that is over: a late answer is nobody's.
    pub(super) fn read_retired<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        socket: DatagramKey,
    ) -> Received {
        let received = ctx.engine.receive(socket, QUIET_FLOW_TRAINS);
        for index in received.first..received.first + received.count {
            let datagrams = ctx.engine.train(index).datagrams();
            ctx.counters.udp_received_down.add(u64::from(datagrams));
            Why::Late.count(&ctx.counters, datagrams);
        }
        if received.refusals > 0
            && let Some(its) = self.owners.get_mut(socket)
        {
            its.line = None;
        }
        received
    }

    /// Closes a socket of a flow. What its receive queue has lost is known now at the latest.
    pub(super) fn hang_up<E: Datagrams>(&mut self, socket: DatagramKey, ctx: &mut Ctx<E>) {
        self.count_queue_drops(socket, ctx);
        self.owners.remove(socket);
        ctx.engine.hang_up(socket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::id::{PoolId, ServerId};

    fn line(server: u32) -> Lead {
        Lead {
            pool: PoolId::new(1),
            version: 0,
            server: ServerId::new(server),
            never_fragment: false,
        }
    }

    fn socket(slot: u32) -> DatagramKey {
        DatagramKey {
            slot,
            generation: 1,
        }
    }

    #[test]
    fn the_last_in_line_goes_first_and_the_others_grow_old() {
        let mut resting = Resting::default();
        let begun = Time::ZERO;
        for n in 0..3 {
            resting.put_in_line(
                socket(n),
                line(1),
                begun + Duration::from_millis(u64::from(n)),
            );
        }
        resting.put_in_line(socket(9), line(2), begun + Duration::from_millis(5));
        assert_eq!(resting.take(&line(3)), None, "leads elsewhere");
        assert_eq!(resting.take(&line(1)), Some(socket(2)));
        assert_eq!(resting.due(), begun + WAITS);
        assert_eq!(resting.take_oldest(begun), None, "nobody is old");
        let later = begun + WAITS + Duration::from_millis(3);
        assert_eq!(resting.take_oldest(later), Some(socket(0)));
        assert_eq!(resting.take_oldest(later), Some(socket(1)));
        assert_eq!(resting.take_oldest(later), None, "that one is in use");
        assert_eq!(resting.len(), 1);
        assert_eq!(resting.take_oldest(Time::NEVER), Some(socket(9)));
        assert_eq!((resting.len(), resting.lines.len()), (0, 0));
        assert_eq!(resting.due(), Time::NEVER);
    }

    #[test]
    fn b99_while_many_rest_for_a_second_answer_each_rests_for_less_and_none_for_an_open_question() {
        let mut resting = Resting::default();
        let begun = Time::ZERO + Duration::from_secs(1);
        let many = QUICK_MAX as u32 + 3;
        for n in 0..many {
            resting.retired[0].push_back((begun + SECOND_ANSWERS, socket(n)));
            let late = begun + crate::relay::flow::LATE_ANSWERS;
            resting.retired[1].push_back((late, socket(many + n)));
        }
        let least = begun + SECOND_ANSWERS_LEAST;
        let before = begun + SECOND_ANSWERS_LEAST * 9 / 10;
        assert_eq!(resting.take_rested(false, before), None);
        for n in 0..3 {
            assert_eq!(resting.take_rested(false, least), Some(socket(n)));
        }
        assert_eq!(resting.take_rested(false, least), None, "not many any more");
        let whole = begun + SECOND_ANSWERS;
        assert_eq!(resting.take_rested(false, whole), Some(socket(3)));
        assert_eq!(resting.take_rested(true, whole), None);
        let late = begun + crate::relay::flow::LATE_ANSWERS;
        assert_eq!(resting.take_rested(true, late), Some(socket(many)));
    }

    #[test]
    fn one_that_rests_again_is_not_closed_for_its_first_time() {
        let mut resting = Resting::default();
        resting.put_in_line(socket(1), line(1), Time::ZERO);
        assert_eq!(resting.take(&line(1)), Some(socket(1)));
        let again = Time::ZERO + WAITS / 2;
        resting.put_in_line(socket(1), line(1), again);
        assert_eq!(resting.take_oldest(Time::ZERO + WAITS), None);
        assert_eq!(resting.take_oldest(again + WAITS), Some(socket(1)));
    }
}
