//! When which address of a server is dialled: the schedule of Happy Eyeballs
//! (RFC 8305), as a pure function of time and of what failed.
//!
//! ```text
//!   address 0  ├──────────────── its share ───────────────┤ abandoned
//!   address 1     ├────────────── … ───────────────┤
//!   address 2        ├──✗ failed
//!   address 3           ├──────── at once ──────────────┤
//!              └──┴ attempt delay                              └ deadline
//! ```
//! The caller dials, and tells what failed; the first attempt that connects wins,
//! and the caller drops the race and closes the attempts still [`in
//! flight`](Race::in_flight). In which order addresses stand is decided before.
//!
//! Invariants: a start is at least the attempt delay after the one before, unless
//! an attempt ended in between; at most [`IN_FLIGHT_MAX`] attempts are open; no
//! attempt starts at or after the deadline, and none outlives it; every address is
//! started at most once, in order.

use std::time::Duration;

use super::time::Time;

/// Attempts open at once. More would win little (four addresses are tried within a
/// second) and cost a server that answers slowly a connection each.
pub const IN_FLIGHT_MAX: usize = 4;

/// The least that an attempt gets of the total, where the total has so much left:
/// two SYNs and one answer over a slow path. As in Go's `net.Dialer`.
pub const ATTEMPT_FLOOR: Duration = Duration::from_secs(2);

/// How a server's addresses are raced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaceRules {
    /// How long an attempt stays alone before the next one joins it; RFC 8305
    /// recommends 250 ms.
    pub attempt_delay: Duration,
    /// For all addresses together. `Duration::MAX`: no deadline of its own, so that
    /// an attempt ends when the kernel gives it up.
    pub total: Duration,
    /// The least that one attempt gets, as far as the total reaches;
    /// [`ATTEMPT_FLOOR`] suits most.
    pub floor: Duration,
}

/// What the dialler does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Start to connect to the address of this index; then ask again.
    Start(u16),
    /// Close this attempt: its share of the time has passed. Then ask again.
    Abandon(u16),
    /// Nothing until then, unless an attempt connects or fails before. Always later
    /// than the time of asking.
    Wait(Time),
    /// No attempt is open, and none will be.
    Lost,
}

/// A dial to one server with all its addresses.
///
/// 72 bytes: a session that dials holds one.
#[derive(Debug, Clone)]
pub struct Race {
    deadline: Time,
    /// When the next address may start; [`Time::ZERO`]: at once.
    next_start: Time,
    /// When the share of each open attempt has passed, in the order of starting.
    ends: [Time; IN_FLIGHT_MAX],
    /// The addresses of the open attempts, as in `ends`.
    open: [u16; IN_FLIGHT_MAX],
    open_count: u8,
    /// The first address not started yet.
    next: u16,
    addresses: u16,
    /// Microseconds: half the size of a `Duration`.
    attempt_delay: u32,
    /// Microseconds.
    floor: u32,
}

impl Race {
    /// A race of so many addresses that begins now. With none it is lost at once.
    pub fn new(addresses: u16, now: Time, rules: &RaceRules) -> Self {
        Self {
            deadline: now + rules.total,
            next_start: Time::ZERO,
            ends: [Time::NEVER; IN_FLIGHT_MAX],
            open: [0; IN_FLIGHT_MAX],
            open_count: 0,
            next: 0,
            addresses,
            attempt_delay: micros(rules.attempt_delay),
            floor: micros(rules.floor),
        }
    }

    /// What to do now. Ask again after [`Step::Start`] and [`Step::Abandon`], at the
    /// time of [`Step::Wait`], and after [`Self::failed`].
    pub fn next(&mut self, now: Time) -> Step {
        if let Some(at) = (0..self.open()).find(|&at| self.ends[at] <= now) {
            let index = self.open[at];
            self.close(at);
            return Step::Abandon(index);
        }
        let may_start =
            self.next < self.addresses && self.open() < IN_FLIGHT_MAX && now < self.deadline;
        if may_start && self.next_start <= now {
            return self.start(now);
        }
        let end = self.ends[..self.open()].iter().min().copied();
        match (end, may_start) {
            (Some(end), true) => Step::Wait(end.min(self.next_start)),
            (Some(end), false) => Step::Wait(end),
            // Ends are never later than the deadline, and an attempt that is over
            // lets the next start at once: so none is open and none is to come.
            (None, _) => Step::Lost,
        }
    }

    /// The attempt has failed: the next address starts at once (RFC 8305, section
    /// 5). One that is not open is ignored.
    pub fn failed(&mut self, index: u16) {
        let at = self.in_flight().position(|open| open == index);
        if let Some(at) = at {
            self.close(at);
        }
    }

    /// The address that was started last could not be dialled for want of something here:
    /// it is started again after the attempt delay, unless all others end before. Only
    /// while others are open.
    pub fn postpone(&mut self, now: Time) {
        debug_assert!(self.open() > 1, "nothing else is under way");
        self.open_count -= 1;
        self.next -= 1;
        self.next_start = now + Duration::from_micros(self.attempt_delay.max(1).into());
    }

    /// The attempts that are open, in the order of starting.
    pub fn in_flight(&self) -> impl Iterator<Item = u16> + '_ {
        self.open[..self.open()].iter().copied()
    }

    fn open(&self) -> usize {
        usize::from(self.open_count)
    }

    fn start(&mut self, now: Time) -> Step {
        let index = self.next;
        let at = self.open();
        self.ends[at] = self.share_end(now);
        self.open[at] = index;
        self.open_count += 1;
        self.next += 1;
        self.next_start = now + Duration::from_micros(self.attempt_delay.into());
        Step::Start(index)
    }

    /// Until when an attempt may last that starts now. As many addresses as can be
    /// open together share the same time, so what is left is divided by how often
    /// that many are still to come: up to four addresses have all of it.
    fn share_end(&self, now: Time) -> Time {
        if self.deadline == Time::NEVER {
            return Time::NEVER;
        }
        let left = self.deadline.since(now);
        let turns = (self.addresses - self.next).div_ceil(IN_FLIGHT_MAX as u16);
        let share = left / u32::from(turns.max(1));
        let floor = Duration::from_micros(self.floor.into());
        (now + share.max(floor)).min(self.deadline)
    }

    fn close(&mut self, at: usize) {
        let open = self.open();
        self.ends.copy_within(at + 1..open, at);
        self.open.copy_within(at + 1..open, at);
        self.open_count -= 1;
        self.next_start = Time::ZERO;
    }
}

/// At most 71 minutes, which is longer than any of these is.
fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Time {
        Time::ZERO + ms(millis)
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn rules(total: u64) -> RaceRules {
        RaceRules {
            attempt_delay: ms(250),
            total: ms(total),
            floor: ATTEMPT_FLOOR,
        }
    }

    #[test]
    fn a_race_is_small() {
        assert!(size_of::<Race>() <= 72);
    }

    #[test]
    fn the_second_address_joins_after_the_attempt_delay() {
        let mut race = Race::new(2, at(0), &rules(5_000));
        assert_eq!(race.next(at(0)), Step::Start(0));
        assert_eq!(race.next(at(0)), Step::Wait(at(250)));
        assert_eq!(race.next(at(249)), Step::Wait(at(250)));
        assert_eq!(race.next(at(250)), Step::Start(1));
        assert_eq!(race.in_flight().collect::<Vec<_>>(), [0, 1]);
        // Both have the whole time: neither stands in the way of another.
        assert_eq!(race.next(at(250)), Step::Wait(at(5_000)));
        assert_eq!(race.next(at(5_000)), Step::Abandon(0));
        assert_eq!(race.next(at(5_000)), Step::Abandon(1));
        assert_eq!(race.next(at(5_000)), Step::Lost);
    }

    #[test]
    fn an_address_that_cannot_be_dialled_yet_is_started_later() {
        let mut race = Race::new(2, at(0), &rules(5_000));
        assert_eq!(race.next(at(0)), Step::Start(0));
        assert_eq!(race.next(at(250)), Step::Start(1));
        race.postpone(at(250));
        assert_eq!(race.in_flight().collect::<Vec<_>>(), [0]);
        assert_eq!(race.next(at(250)), Step::Wait(at(500)));
        race.failed(0);
        assert_eq!(race.next(at(260)), Step::Start(1));
        race.failed(1);
        assert_eq!(race.next(at(260)), Step::Lost);
    }

    #[test]
    fn a_refused_address_lets_the_next_start_at_once() {
        let mut race = Race::new(3, at(0), &rules(5_000));
        assert_eq!(race.next(at(0)), Step::Start(0));
        race.failed(0);
        assert_eq!(race.next(at(1)), Step::Start(1));
        assert_eq!(race.next(at(1)), Step::Wait(at(251)));
        race.failed(1);
        race.failed(1);
        assert_eq!(race.next(at(2)), Step::Start(2));
        race.failed(7);
        assert_eq!(race.next(at(2)), Step::Wait(at(5_000)));
        race.failed(2);
        assert_eq!(race.next(at(3)), Step::Lost);
    }

    #[test]
    fn silent_addresses_make_way_for_those_behind_them() {
        let mut race = Race::new(8, at(0), &rules(8_000));
        for index in 0..4 {
            assert_eq!(race.next(at(u64::from(index) * 250)), Step::Start(index));
        }
        // Half of the time for each half of the addresses.
        assert_eq!(race.next(at(750)), Step::Wait(at(4_000)));
        assert_eq!(race.next(at(4_000)), Step::Abandon(0));
        assert_eq!(race.next(at(4_000)), Step::Start(4));
    }

    #[test]
    fn an_attempt_has_its_floor_as_far_as_the_deadline() {
        let mut race = Race::new(1000, at(0), &rules(3_000));
        for index in 0..4 {
            assert_eq!(race.next(at(u64::from(index) * 250)), Step::Start(index));
        }
        assert_eq!(race.next(at(750)), Step::Wait(at(2_000)));
        assert_eq!(race.next(at(2_000)), Step::Abandon(0));
        assert_eq!(race.next(at(2_000)), Step::Start(4));
        assert_eq!(race.next(at(2_100)), Step::Wait(at(2_250)));
        assert_eq!(race.next(at(2_250)), Step::Abandon(1));
        assert_eq!(race.next(at(2_250)), Step::Start(5));
        // What comes late gets what is left.
        race.failed(2);
        assert_eq!(race.next(at(2_300)), Step::Start(6));
        race.failed(3);
        assert_eq!(race.next(at(2_999)), Step::Start(7));
        for index in [4, 5, 6, 7] {
            assert_eq!(race.next(at(3_000)), Step::Abandon(index));
        }
        assert_eq!(race.next(at(3_000)), Step::Lost);
    }

    #[test]
    fn without_addresses_or_without_time_it_is_lost() {
        assert_eq!(Race::new(0, at(3), &rules(5_000)).next(at(3)), Step::Lost);
        assert_eq!(Race::new(2, at(3), &rules(0)).next(at(3)), Step::Lost);
        assert_eq!(
            Race::new(2, at(3), &rules(5_000)).next(at(9_000)),
            Step::Lost
        );
    }

    #[test]
    fn without_a_deadline_the_kernel_ends_attempts() {
        let rules = RaceRules {
            total: Duration::MAX,
            ..rules(0)
        };
        let mut race = Race::new(2, at(0), &rules);
        assert_eq!(race.next(at(0)), Step::Start(0));
        assert_eq!(race.next(at(250)), Step::Start(1));
        assert_eq!(race.next(at(251)), Step::Wait(Time::NEVER));
        race.failed(0);
        race.failed(1);
        assert_eq!(race.next(at(252)), Step::Lost);
    }

    /// What becomes of an attempt, milliseconds after its start.
    #[derive(Debug, Clone, Copy)]
    enum Fate {
        Fails(u64),
        Silent,
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop_oneof![
            (0..4_000_u64).prop_map(Fate::Fails),
            Just(Fate::Fails(0)),
            Just(Fate::Silent),
        ]
    }

    /// A race that nobody wins, from its start to its end.
    #[derive(Debug, Default)]
    struct Course {
        starts: Vec<(Time, u16)>,
        /// When attempts failed or were abandoned.
        ends: Vec<Time>,
        most_open: usize,
        over: Time,
    }

    fn run(fates: &[Fate], rules: &RaceRules) -> Course {
        let mut race = Race::new(fates.len() as u16, at(1), rules);
        let mut course = Course::default();
        let mut failing: Vec<(Time, u16)> = Vec::new();
        let mut now = at(1);
        // A start and an end for each address, and a wait before each of those.
        for _ in 0..=4 * fates.len() {
            match race.next(now) {
                Step::Start(index) => {
                    course.starts.push((now, index));
                    if let Fate::Fails(after) = fates[usize::from(index)] {
                        failing.push((now + ms(after), index));
                    }
                }
                Step::Abandon(index) => {
                    course.ends.push(now);
                    failing.retain(|(_, it)| *it != index);
                }
                Step::Wait(until) => {
                    assert!(until > now && until <= race.deadline);
                    failing.sort_unstable();
                    match failing.first().copied() {
                        Some((time, index)) if time <= until => {
                            now = now.max(time);
                            failing.remove(0);
                            course.ends.push(now);
                            race.failed(index);
                        }
                        _ => now = until,
                    }
                }
                Step::Lost => {
                    course.over = now;
                    return course;
                }
            }
            course.most_open = course.most_open.max(race.in_flight().count());
        }
        panic!("not over after {} addresses: {course:?}", fates.len());
    }

    proptest! {
        #[test]
        fn a_race_keeps_its_rules(
            fates in prop::collection::vec(fate(), 0..40),
            attempt_delay in 10..2_000_u64,
            total in 0..60_000_u64,
            floor in 0..3_000_u64,
        ) {
            let rules = RaceRules {
                attempt_delay: ms(attempt_delay),
                total: ms(total),
                floor: ms(floor),
            };
            let course = run(&fates, &rules);
            let deadline = at(1) + rules.total;

            let order: Vec<u16> = course.starts.iter().map(|(_, index)| *index).collect();
            let expected: Vec<u16> = (0..order.len() as u16).collect();
            prop_assert_eq!(order, expected);
            prop_assert!(course.starts.iter().all(|(time, _)| *time < deadline));
            prop_assert!(course.over <= deadline);
            prop_assert_eq!(course.ends.len(), course.starts.len());
            prop_assert!(course.most_open <= IN_FLIGHT_MAX);
            for pair in course.starts.windows(2) {
                let (before, this) = (pair[0].0, pair[1].0);
                let ended = course.ends.iter().any(|end| (before..=this).contains(end));
                prop_assert!(ended || this.since(before) >= rules.attempt_delay);
            }
        }

        #[test]
        fn every_address_is_tried_if_time_allows(
            fates in prop::collection::vec(fate(), 1..40),
            attempt_delay in 10..2_000_u64,
            floor in 0..3_000_u64,
        ) {
            // Each turn of four has its floor, and each address its delay.
            let addresses = fates.len() as u64;
            let turns = addresses.div_ceil(IN_FLIGHT_MAX as u64);
            let rules = RaceRules {
                attempt_delay: ms(attempt_delay),
                total: ms(turns * floor + addresses * attempt_delay + 1),
                floor: ms(floor),
            };
            let course = run(&fates, &rules);
            prop_assert_eq!(course.starts.len(), fates.len());
        }
    }
}
