//! How fast bytes may flow: buckets that sessions take their shares from, in turn.
//!
//! A [`Bucket`] is one instant: when all that was taken from it is paid for. Whoever
//! takes moves it on by what that costs, and may go when it has come: at once while there
//! is credit, which is never more than the burst, otherwise in its turn. So a bucket is a
//! line without a list: with many takers each has as much as the others, on whichever
//! reactor it is, none of them polls, and no lock is taken: one atomic step for a share.
//!
//! ```text
//!        burst                          taken, not yet paid for
//!   ├───────────────┤ now ├──────────┬──────────┬──────────┤ paid
//!    credit, at most            A may go     B may go    the next may go
//! ```
//! Shares are about what flows in ten milliseconds, and smaller the longer the line is,
//! so that a turn comes round soon. What a taker had no use for it gives back; one that reads
//! in pieces smaller than a share keeps the rest for a moment (`KEEP`), or it would have less
//! than others in as many turns.
//!
//! A session has [`Meters`]: its own bucket, that of its client, that of the server it is
//! on, that of its forward, and of each one for each direction. It takes from the narrower one first, and from the next
//! when its turn there has come, so that what many share does not wait for one.
//!
//! Invariants: in any time `t` no more than `burst + rate · t` is granted by a bucket;
//! what was taken is used, given back, or given back by the drop of its meters.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::relay::Direction;
use crate::relay::time::Time;

/// Instants of a bucket in a microsecond: a byte at 100 Gbit/s costs five of them, and
/// the numbers last for nine years.
const TICKS_PER_MICRO: u64 = 64_000;

/// Where the instants of a bucket begin: there is credit from the start of a process on.
const START: u64 = 3_600 * 1_000_000 * TICKS_PER_MICRO;

/// What a share takes to flow, while nobody waits.
const SHARE_TICKS: u64 = 10_000 * TICKS_PER_MICRO;

/// A line longer than this makes shares smaller.
const LINE_TICKS: u64 = 40_000 * TICKS_PER_MICRO;

/// Shares are no smaller than this unless the burst is: a segment.
const SHARE_MIN: u64 = 1_460;

/// Nor larger than this, so that one lane moves no more at a time than others wait for.
const SHARE_MAX: u64 = 256 * 1024;

/// How long what is left of a share is kept for the next piece. A source on the same host
/// has more within microseconds; one that has not gives room to others.
const KEEP: Duration = Duration::from_millis(2);

/// The most pieces of a share: who reads less at once is no bulk transfer.
const PIECES: u64 = 8;

/// Bytes in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Bytes in a second; 0: any number.
    pub per_second: u64,
    /// What nobody has used in this time may be had at once.
    pub burst: Duration,
}

/// See the module's documentation. Shared by all that go by it.
#[derive(Debug)]
pub struct Bucket {
    /// When all that was taken is paid for, in ticks.
    paid: AtomicU64,
    /// Bytes in a second.
    per_second: AtomicU64,
    /// In ticks.
    burst: AtomicU64,
}

/// A bucket for each direction.
#[derive(Debug)]
pub struct Buckets([Bucket; 2]);

impl Bucket {
    /// A full one.
    pub const fn new(rate: Rate) -> Self {
        Self {
            paid: AtomicU64::new(0),
            per_second: AtomicU64::new(rate.per_second),
            burst: AtomicU64::new(ticks(rate.burst)),
        }
    }

    /// Another rate from now on; what was taken stays taken.
    pub fn set_rate(&self, rate: Rate) {
        self.per_second.store(rate.per_second, Ordering::Relaxed);
        self.burst.store(ticks(rate.burst), Ordering::Relaxed);
    }

    /// Bytes in a second; 0: any number.
    pub fn per_second(&self) -> u64 {
        self.per_second.load(Ordering::Relaxed)
    }

    /// Takes so many bytes: when they may flow; at once if that is not later than `now`.
    pub fn take(&self, bytes: u64, now: Time) -> Time {
        let now = instant(now);
        let paid = self.pay(now, bytes, u64::MAX);
        let paid = paid.unwrap_or(now).saturating_sub(START);
        Time::from_micros(paid.div_ceil(TICKS_PER_MICRO))
    }

    /// Takes so many bytes only if they may flow at once.
    pub fn try_take(&self, bytes: u64, now: Time) -> bool {
        let now = instant(now);
        self.pay(now, bytes, now).is_some()
    }

    /// Takes the bytes of a datagram unless something is owed already: it has nothing to wait
    /// with, and may be larger than what flows in a burst.
    fn take_whole(&self, bytes: u64, now: Time) -> bool {
        let now = instant(now);
        let cost = self.cost(bytes);
        let burst = self.burst.load(Ordering::Relaxed);
        let next = |paid: u64| {
            let from = paid.max(now.saturating_sub(burst));
            (from <= now).then(|| from.saturating_add(cost))
        };
        let taken = self
            .paid
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        taken.is_ok()
    }

    /// Takes back that so many bytes were taken.
    pub fn give_back(&self, bytes: u64) {
        let cost = self.cost(bytes);
        // Never below what others took: each of them has moved it on by its own cost.
        let given = |paid: u64| Some(paid.saturating_sub(cost));
        let _ = self
            .paid
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, given);
    }

    /// What one taker should take now.
    pub fn share(&self, now: Time) -> u64 {
        let per_second = self.per_second();
        if per_second == 0 {
            return SHARE_MAX;
        }
        let (now, burst) = (instant(now), self.burst.load(Ordering::Relaxed));
        let paid = self.paid.load(Ordering::Relaxed);
        let paid = paid.max(now.saturating_sub(burst));
        let line = paid.saturating_sub(now);
        let ticks = if line <= LINE_TICKS {
            // Credit that grew while it waited elsewhere is had at once: else who waits
            // for two would never have as much as the narrower one lets through.
            SHARE_TICKS.max(now.saturating_sub(paid))
        } else {
            let shorter = u128::from(SHARE_TICKS) * u128::from(LINE_TICKS) / u128::from(line);
            shorter as u64
        };
        let burst = self.worth(burst);
        let least = SHARE_MIN.min(burst / 2).max(1);
        self.worth(ticks).clamp(least, SHARE_MAX.max(least))
    }

    /// How far what was taken is ahead of what is paid for, or, below 0, how much credit
    /// there is: for who hands a session on. In microseconds.
    pub fn debt(&self, now: Time) -> i64 {
        let (now, burst) = (instant(now), self.burst.load(Ordering::Relaxed));
        let paid = self.paid.load(Ordering::Relaxed);
        let paid = paid.max(now.saturating_sub(burst));
        let debt = i128::from(paid) - i128::from(now);
        (debt / i128::from(TICKS_PER_MICRO)) as i64
    }

    /// As it was when it had this debt.
    pub fn set_debt(&self, debt: i64, now: Time) {
        let ticks = i128::from(debt) * i128::from(TICKS_PER_MICRO);
        let paid = (i128::from(instant(now)) + ticks).max(0);
        self.paid.store(paid as u64, Ordering::Relaxed);
    }

    /// Moves the instant on by what so many bytes cost, unless it comes later than `last`
    /// by that; where it is then. `None`: nothing was taken, or nothing costs anything.
    fn pay(&self, now: u64, bytes: u64, last: u64) -> Option<u64> {
        let cost = self.cost(bytes);
        let burst = self.burst.load(Ordering::Relaxed);
        let next = |paid: u64| {
            let from = paid.max(now.saturating_sub(burst));
            Some(from.saturating_add(cost)).filter(|next| *next <= last)
        };
        let before = self
            .paid
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        before.ok().and_then(next)
    }

    /// In ticks.
    fn cost(&self, bytes: u64) -> u64 {
        let second = u128::from(TICKS_PER_MICRO) * 1_000_000;
        let cost = u128::from(bytes) * second;
        match u128::from(self.per_second()) {
            0 => 0,
            per_second => u64::try_from(cost / per_second).unwrap_or(u64::MAX),
        }
    }

    /// Bytes that flow in so many ticks.
    fn worth(&self, ticks: u64) -> u64 {
        let second = u128::from(TICKS_PER_MICRO) * 1_000_000;
        (u128::from(ticks) * u128::from(self.per_second()) / second) as u64
    }
}

impl Buckets {
    /// Full ones: up, down.
    pub const fn new([up, down]: [Rate; 2]) -> Self {
        Self([Bucket::new(up), Bucket::new(down)])
    }

    /// That of a direction.
    pub const fn of(&self, direction: Direction) -> &Bucket {
        &self.0[direction.index()]
    }

    /// The longer of the two bursts: in that time both are full, if nobody takes.
    pub fn burst(&self) -> Duration {
        let burst = |bucket: &Bucket| bucket.burst.load(Ordering::Relaxed);
        let ticks = self.0.iter().map(burst).max().unwrap_or(0);
        Duration::from_micros(ticks / TICKS_PER_MICRO)
    }

    /// How far each is ahead, up and down: see [`Bucket::debt`].
    pub fn debts(&self, now: Time) -> [i64; 2] {
        self.0.each_ref().map(|it| it.debt(now))
    }

    /// As they were when they had these debts.
    pub fn set_debts(&self, debts: [i64; 2], now: Time) {
        for (bucket, debt) in self.0.iter().zip(debts) {
            bucket.set_debt(debt, now);
        }
    }

    /// Other rates from now on.
    pub fn set_rates(&self, rates: [Rate; 2]) {
        for (bucket, rate) in self.0.iter().zip(rates) {
            bucket.set_rate(rate);
        }
    }
}

const fn ticks(time: Duration) -> u64 {
    (time.as_micros() as u64).saturating_mul(TICKS_PER_MICRO)
}

const fn instant(time: Time) -> u64 {
    let since_start = time.as_micros().saturating_mul(TICKS_PER_MICRO);
    since_start.saturating_add(START)
}

/// Whose rate it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The session's own.
    Session,
    /// That of all sessions of its client, at its forward.
    Client,
    /// That of all sessions on its server.
    Server,
    /// That of all sessions of its forward.
    Forward,
}

impl Level {
    /// In the order in which shares are taken.
    pub const ALL: [Self; 4] = [Self::Session, Self::Client, Self::Server, Self::Forward];

    /// A word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Client => "client",
            Self::Server => "server",
            Self::Forward => "forward",
        }
    }
}

/// What a lane is told that wants to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// So many bytes may flow.
    Flow(u32),
    /// None before this time, by the rate of this level.
    Wait(Time, Level),
}

/// What holds the two lanes of a session back. See the module's documentation.
#[derive(Debug)]
pub struct Meters {
    /// Of each level, if it has a rate; the session's own is nobody else's.
    levels: [Option<Arc<Buckets>>; 4],
    ways: [Way; 2],
    /// Nothing is held back; what would be is told.
    dry_run: bool,
    /// How long its lanes were held back, together.
    held: Duration,
}

/// One direction.
#[derive(Debug, Clone, Copy, Default)]
struct Way {
    /// What it takes from each level at this turn; 0: it has not begun to.
    share: u32,
    /// Levels that it has taken from.
    taken: u8,
    /// When its turn comes at the last of them.
    turn: Time,
    /// Since when its lane is held back.
    held_since: Option<Time>,
    /// It has read a piece of its share: until when the rest is kept.
    kept_until: Option<Time>,
}

impl Meters {
    /// Of these levels.
    pub fn new(levels: [Option<Arc<Buckets>>; 4], dry_run: bool) -> Self {
        Self {
            levels,
            ways: [Way::default(); 2],
            dry_run,
            held: Duration::ZERO,
        }
    }

    /// It is on this server now, or on one without a rate: what it took and has not used, it
    /// takes anew.
    pub fn set_server(&mut self, buckets: Option<Arc<Buckets>>) {
        let server = &self.levels[Level::Server as usize];
        let same = match (server, &buckets) {
            (Some(before), Some(after)) => Arc::ptr_eq(before, after),
            (None, None) => true,
            _ => false,
        };
        if same {
            return;
        }
        self.give_back_unused();
        for way in &mut self.ways {
            way.share = 0;
            way.taken = 0;
            way.turn = Time::ZERO;
            way.kept_until = None;
        }
        self.levels[Level::Server as usize] = buckets;
    }

    /// Whether any level has a rate.
    pub fn any(&self) -> bool {
        self.levels.iter().any(Option::is_some)
    }

    /// How many bytes of at most `max` a lane may read now. After [`Grant::Flow`]
    /// follows [`Meters::flowed`].
    pub fn ask(&mut self, direction: Direction, max: u32, now: Time) -> Grant {
        if self.dry_run {
            return Grant::Flow(max);
        }
        self.give_up_kept(direction, now);
        let way = &mut self.ways[direction.index()];
        way.kept_until = None;
        if way.share == 0 {
            let shares = self.levels.iter().flatten();
            let shares = shares.map(|it| it.of(direction).share(now));
            way.share = shares.min().unwrap_or(SHARE_MAX) as u32;
            way.turn = Time::ZERO;
        }
        while way.turn <= now {
            let Some(level) = self.levels.get(usize::from(way.taken)) else {
                return Grant::Flow(way.share.min(max));
            };
            way.taken += 1;
            if let Some(buckets) = level {
                let bucket = buckets.of(direction);
                way.turn = bucket.take(u64::from(way.share), now);
            }
        }
        way.held_since.get_or_insert(now);
        Grant::Wait(way.turn, Level::ALL[usize::from(way.taken) - 1])
    }

    /// A lane that was told [`Grant::Flow`] has read so many bytes: what it took is set
    /// right by that. In a dry run: the level that would have held it back.
    pub fn flowed(&mut self, direction: Direction, bytes: u64, now: Time) -> Option<Level> {
        let levels = Level::ALL.into_iter().zip(&self.levels);
        let levels = levels.filter_map(|(level, it)| Some((level, it.as_ref()?.of(direction))));
        if self.dry_run {
            let over = |(level, bucket): (Level, &Bucket)| {
                (bytes > 0 && !bucket.try_take(bytes, now)).then_some(level)
            };
            return levels.filter_map(over).next_back();
        }
        let way = &mut self.ways[direction.index()];
        let share = u64::from(way.share);
        let rest = share.saturating_sub(bytes);
        if rest >= SHARE_MIN && bytes * PIECES >= share {
            way.share = rest as u32;
            way.kept_until = Some(now + KEEP);
            return None;
        }
        for (_, bucket) in levels {
            match bytes.checked_sub(share) {
                // An engine may have had more at hand than it was to read.
                Some(more) if more > 0 => {
                    bucket.take(more, now);
                }
                Some(_) => {}
                None => bucket.give_back(share - bytes),
            }
        }
        way.share = 0;
        way.taken = 0;
        None
    }

    /// Takes the bytes of a datagram from every level; or from none, and says whose rate it is too
    /// much for.
    ///
    /// # Errors
    /// That level. In a dry run the datagram passes nevertheless ([`Meters::is_dry_run`]).
    pub fn pass(&self, direction: Direction, bytes: u64, now: Time) -> Result<(), Level> {
        for (at, level) in self.levels.iter().enumerate() {
            let bucket = level.as_ref().map(|it| it.of(direction));
            if bucket.is_none_or(|it| it.take_whole(bytes, now)) {
                continue;
            }
            for taken in self.levels[..at].iter().flatten() {
                taken.of(direction).give_back(bytes);
            }
            return Err(Level::ALL[at]);
        }
        Ok(())
    }

    /// Whether what would be held back is only told.
    pub const fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// When the next lane that is held back may go on, or what is kept for one is given up;
    /// [`Time::NEVER`]: neither.
    pub fn due(&self) -> Time {
        let due = |way: &Way| way.held_since.map(|_| way.turn).or(way.kept_until);
        self.ways
            .iter()
            .filter_map(due)
            .min()
            .unwrap_or(Time::NEVER)
    }

    /// Whether this lane was held back and may go on; asked again, it is told how far.
    pub fn release(&mut self, direction: Direction, now: Time) -> bool {
        self.give_up_kept(direction, now);
        let way = &mut self.ways[direction.index()];
        let Some(since) = way.held_since.take_if(|_| way.turn <= now) else {
            return false;
        };
        self.held += now.since(since);
        true
    }

    /// Gives back what was kept for the next piece, if that did not come.
    fn give_up_kept(&mut self, direction: Direction, now: Time) {
        let way = &mut self.ways[direction.index()];
        if way.kept_until.take_if(|until| *until <= now).is_none() {
            return;
        }
        for buckets in self.levels.iter().flatten() {
            buckets.of(direction).give_back(u64::from(way.share));
        }
        way.share = 0;
        way.taken = 0;
    }

    /// How long its lanes were held back, together.
    pub fn held(&self, now: Time) -> Duration {
        let under_way = self.ways.iter().filter_map(|way| way.held_since);
        under_way.fold(self.held, |sum, since| sum + now.since(since))
    }

    /// The rates of a level, in bytes a second up and down, if it has any.
    pub fn rates(&self, level: Level) -> Option<[u64; 2]> {
        let buckets = self.levels[level as usize].as_ref()?;
        Some(Direction::BOTH.map(|direction| buckets.of(direction).per_second()))
    }

    /// How far the session's own buckets are ahead: see [`Bucket::debt`]. All that is to
    /// be kept of a session that is handed on: what it has taken and not used is not.
    pub fn debts(&self, now: Time) -> [i64; 2] {
        let own = self.levels[Level::Session as usize].as_ref();
        Direction::BOTH.map(|direction| {
            let unused = self.unused(direction, Level::Session);
            own.map_or(0, |own| {
                let bucket = own.of(direction);
                let micros = bucket.cost(unused) / TICKS_PER_MICRO;
                bucket.debt(now) - micros as i64
            })
        })
    }

    /// The session's own buckets as they were.
    pub fn set_debts(&self, debts: [i64; 2], now: Time) {
        if let Some(own) = &self.levels[Level::Session as usize] {
            own.set_debts(debts, now);
        }
    }

    /// What was taken and not used goes back to where it was taken from.
    fn give_back_unused(&self) {
        for direction in Direction::BOTH {
            for level in Level::ALL {
                let unused = self.unused(direction, level);
                if let Some(buckets) = &self.levels[level as usize]
                    && unused > 0
                {
                    buckets.of(direction).give_back(unused);
                }
            }
        }
    }

    /// What was taken from a level and not used yet.
    fn unused(&self, direction: Direction, level: Level) -> u64 {
        let way = &self.ways[direction.index()];
        let has_taken = usize::from(way.taken) > level as usize;
        if has_taken { u64::from(way.share) } else { 0 }
    }
}

impl Drop for Meters {
    fn drop(&mut self) {
        self.give_back_unused();
    }
}

#[cfg(test)]
mod tests;
