//! A queue in which every client has a line of its own, and lines are served in turn: who
//! asks for much waits for himself.
//!
//! ```text
//!  push ─► a client's line, SHARE_MAX long ─┐
//!          another's ───────────────────────┼─ in turn ─► next ─► one at work for each
//!          …  QUEUE_MAX in all ─────────────┘ not before its delay is over
//! ```
//! Invariants: of a client one job at the most is at work; when the queue is full a job
//! of the longest line makes room for a shorter one, so that a newcomer always finds a place;
//! a job waits no longer than [`PATIENCE`], and goes with its session. Pure: the time is
//! given.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

pub(super) use crate::policy::client::Client;

/// Jobs of all clients that may wait.
pub(super) const QUEUE_MAX: usize = 1024;

/// Jobs of one client that may wait. Browsers open six connections to a proxy at once,
/// and curl one.
pub(super) const SHARE_MAX: usize = 16;

/// How long a job may wait: the session that it is for has twelve seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Failures that cost nothing: people mistype, and programs first try what they knew.
const FREE_FAILURES: u32 = 3;

/// The delay after the next one; it doubles with each that follows.
const DELAY: Duration = Duration::from_millis(250);
const DELAY_MAX: Duration = Duration::from_secs(8);

/// Half of the failures are forgotten after so long without one.
const HALF_LIFE: Duration = Duration::from_secs(60);

/// Clients of which failures are remembered; of more they are not.
const CLIENTS_MAX: usize = 64 * 1024;

/// See the module's documentation. `I` names a job, for whoever takes it back.
#[derive(Debug)]
pub(super) struct FairQueue<I, J> {
    lines: HashMap<Client, Line<I, J>>,
    /// Those that have a job to be begun, in their order.
    turn: VecDeque<Client>,
    /// Whose line a job stands in.
    places: HashMap<I, Client>,
    /// How many lines have so many jobs.
    lengths: [usize; SHARE_MAX + 1],
    /// Lines are looked through for those that can go when there are so many.
    sweep_at: usize,
}

#[derive(Debug)]
struct Line<I, J> {
    jobs: VecDeque<Stored<I, J>>,
    /// One of its jobs is at work; it has no turn meanwhile.
    working: bool,
    /// It stands among those that are served in turn.
    in_turn: bool,
    failures: u32,
    failed_at: Instant,
}

#[derive(Debug)]
struct Stored<I, J> {
    id: I,
    since: Instant,
    job: J,
}

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<J> {
    /// This; [`FairQueue::done`] is told of its outcome.
    Work(Client, J),
    /// This has waited for too long.
    Late(J),
    /// Nothing for so long, unless something comes.
    Wait(Duration),
    /// Nothing until something comes.
    Idle,
}

/// What became of a job that was brought.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pushed<J> {
    /// It waits.
    Waits,
    /// It waits in the place of this one, which does not any more.
    InPlaceOf(J),
    /// Its client has as many as it may, or has failed so often that it would come too late.
    Refused(J),
}

impl<I, J> Line<I, J> {
    fn new(now: Instant) -> Self {
        Self {
            jobs: VecDeque::new(),
            working: false,
            in_turn: false,
            failures: 0,
            failed_at: now,
        }
    }

    /// Failures that still count.
    fn failures(&self, now: Instant) -> u32 {
        let quiet = now.saturating_duration_since(self.failed_at).as_secs();
        let halvings = quiet / HALF_LIFE.as_secs();
        self.failures.checked_shr(halvings as u32).unwrap_or(0)
    }

    fn delay(&self, now: Instant) -> Duration {
        match self.failures(now).checked_sub(FREE_FAILURES + 1) {
            None => Duration::ZERO,
            Some(doublings) => (DELAY * (1 << doublings.min(16))).min(DELAY_MAX),
        }
    }

    /// How long it is until the next of its jobs may be begun.
    fn waits(&self, now: Instant) -> Duration {
        let since = now.saturating_duration_since(self.failed_at);
        self.delay(now).saturating_sub(since)
    }

    fn is_forgettable(&self, now: Instant) -> bool {
        self.jobs.is_empty() && !self.working && !self.in_turn && self.failures(now) == 0
    }
}

impl<I: Copy + Eq + std::hash::Hash, J> FairQueue<I, J> {
    pub(super) fn new() -> Self {
        Self {
            lines: HashMap::new(),
            turn: VecDeque::new(),
            places: HashMap::new(),
            lengths: [0; SHARE_MAX + 1],
            sweep_at: 1024,
        }
    }

    /// Takes a job of a client.
    pub(super) fn push(&mut self, client: Client, id: I, job: J, now: Instant) -> Pushed<J> {
        let line = self.lines.get(&client);
        let length = line.map_or(0, |line| line.jobs.len());
        let wait = line.map_or(Duration::ZERO, |line| {
            line.waits(now) + line.delay(now) * length as u32
        });
        if length >= SHARE_MAX || wait >= PATIENCE {
            return Pushed::Refused(job);
        }
        let mut displaced = None;
        if self.places.len() >= QUEUE_MAX {
            displaced = self.displace(length + 1);
            if displaced.is_none() {
                return Pushed::Refused(job);
            }
        }
        self.sweep(now);
        let line = self.lines.entry(client).or_insert_with(|| Line::new(now));
        line.jobs.push_back(Stored {
            id,
            since: now,
            job,
        });
        self.lengths[line.jobs.len() - 1] -= usize::from(line.jobs.len() > 1);
        self.lengths[line.jobs.len()] += 1;
        if !line.working && !line.in_turn {
            line.in_turn = true;
            self.turn.push_back(client);
        }
        self.places.insert(id, client);
        displaced.map_or(Pushed::Waits, Pushed::InPlaceOf)
    }

    /// The last job of the longest line, if that has more than so many.
    fn displace(&mut self, than: usize) -> Option<J> {
        let most = self.lengths.iter().rposition(|lines| *lines > 0)?;
        if most <= than {
            return None;
        }
        let places = self.places.values();
        let longest = places.copied().find(|client| {
            let line = self.lines.get(client);
            line.is_some_and(|line| line.jobs.len() == most)
        })?;
        let last = self.lines.get_mut(&longest)?.jobs.pop_back()?;
        self.shortened(most);
        self.places.remove(&last.id);
        Some(last.job)
    }

    /// A line that had so many jobs has one less.
    const fn shortened(&mut self, before: usize) {
        self.lengths[before] -= 1;
        if before > 1 {
            self.lengths[before - 1] += 1;
        }
    }

    /// Takes a job back that is not begun.
    pub(super) fn cancel(&mut self, id: I) -> Option<J> {
        let client = self.places.remove(&id)?;
        let line = self.lines.get_mut(&client)?;
        let at = line.jobs.iter().position(|it| it.id == id)?;
        let before = line.jobs.len();
        // A line that is empty now is left out when its turn comes.
        let taken = line.jobs.remove(at)?;
        self.shortened(before);
        Some(taken.job)
    }

    /// What is to be done now.
    pub(super) fn next(&mut self, now: Instant) -> Next<J> {
        let mut soonest: Option<Duration> = None;
        for _ in 0..self.turn.len() {
            let Some(client) = self.turn.pop_front() else {
                break;
            };
            let Some(line) = self.lines.get_mut(&client) else {
                continue;
            };
            line.in_turn = false;
            let Some(first) = line.jobs.front() else {
                if line.is_forgettable(now) {
                    self.lines.remove(&client);
                }
                continue;
            };
            let waited = now.saturating_duration_since(first.since);
            let wait = line.waits(now);
            if waited < PATIENCE && wait > Duration::ZERO {
                let next = wait.min(PATIENCE.saturating_sub(waited));
                soonest = Some(soonest.map_or(next, |soonest| soonest.min(next)));
                line.in_turn = true;
                self.turn.push_back(client);
                continue;
            }
            let before = line.jobs.len();
            let Some(first) = line.jobs.pop_front() else {
                continue;
            };
            let late = waited >= PATIENCE;
            line.working = !late;
            line.in_turn = late;
            self.shortened(before);
            self.places.remove(&first.id);
            if late {
                self.turn.push_back(client);
                return Next::Late(first.job);
            }
            return Next::Work(client, first.job);
        }
        soonest.map_or(Next::Idle, Next::Wait)
    }

    /// A job that was at work is done; `failed`: that counts against its client.
    pub(super) fn done(&mut self, client: Client, failed: bool, now: Instant) {
        let known = self.lines.len();
        let Entry::Occupied(mut entry) = self.lines.entry(client) else {
            return;
        };
        let line = entry.get_mut();
        line.working = false;
        if failed && known <= CLIENTS_MAX {
            line.failures = line.failures(now).saturating_add(1);
            line.failed_at = now;
        }
        if !line.jobs.is_empty() {
            line.in_turn = true;
            self.turn.push_back(client);
        } else if line.is_forgettable(now) {
            entry.remove();
        }
    }

    /// Forgets clients of which nothing is known that matters.
    fn sweep(&mut self, now: Instant) {
        if self.lines.len() >= self.sweep_at {
            self.lines.retain(|_, line| !line.is_forgettable(now));
            self.sweep_at = (2 * self.lines.len()).max(1024);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn client(last: u8) -> Client {
        Client::from(Some(IpAddr::from([10, 0, 0, last])))
    }

    type Queue = FairQueue<u32, u32>;

    fn work(queue: &mut Queue, now: Instant) -> u32 {
        match queue.next(now) {
            Next::Work(client, job) => {
                queue.done(client, false, now);
                job
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn lines_are_served_in_turn_and_the_longest_makes_room() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        // A hundred addresses fill it.
        let mut id = 0;
        for last in 0..64 {
            for _ in 0..SHARE_MAX {
                assert_eq!(queue.push(client(last), id, id, now), Pushed::Waits);
                id += 1;
            }
            let one_more = queue.push(client(last), id, id, now);
            assert_eq!(one_more, Pushed::Refused(id));
        }
        assert_eq!(queue.places.len(), QUEUE_MAX);
        // Somebody new finds a place all the same, and comes in turn.
        assert!(matches!(
            queue.push(client(200), 9000, 9000, now),
            Pushed::InPlaceOf(_)
        ));
        let first: Vec<u32> = (0..65).map(|_| work(&mut queue, now)).collect();
        assert_eq!(first.last(), Some(&9000));
        // One for each of the others.
        let mut of: Vec<u32> = first[..64].iter().map(|id| id / SHARE_MAX as u32).collect();
        of.sort_unstable();
        of.dedup();
        assert_eq!(of.len(), 64);
    }

    #[test]
    fn one_job_of_a_client_is_at_work() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        for id in 0..3 {
            queue.push(client(1), id, id, now);
        }
        queue.push(client(2), 3, 3, now);
        assert_eq!(queue.next(now), Next::Work(client(1), 0));
        assert_eq!(queue.next(now), Next::Work(client(2), 3));
        assert_eq!(queue.next(now), Next::Idle);
        queue.done(client(1), false, now);
        assert_eq!(queue.next(now), Next::Work(client(1), 1));
        queue.done(client(2), false, now);
        assert!(!queue.lines.contains_key(&client(2)));
    }

    #[test]
    fn a_job_goes_with_its_session() {
        let (mut queue, now) = (Queue::new(), Instant::now());
        for id in 0..SHARE_MAX as u32 {
            queue.push(client(1), id, id, now);
            assert_eq!(queue.cancel(id), Some(id));
            assert_eq!(queue.cancel(id), None);
        }
        assert_eq!(queue.turn.len(), 1);
        assert_eq!(queue.next(now), Next::Idle);
        assert!(queue.lines.is_empty() && queue.places.is_empty());
        assert_eq!(queue.lengths, [0; SHARE_MAX + 1]);
    }

    #[test]
    fn failures_delay_their_client_more_and_more_and_nobody_else() {
        let (mut queue, mut now) = (Queue::new(), Instant::now());
        let mut waits = Vec::new();
        for id in 0..12 {
            assert_eq!(queue.push(client(1), id, id, now), Pushed::Waits, "{id}");
            let begun = now;
            loop {
                match queue.next(now) {
                    Next::Work(client, _) => break queue.done(client, true, now),
                    Next::Wait(wait) => now += wait,
                    other => panic!("{other:?}"),
                }
            }
            waits.push(now.duration_since(begun).as_millis());
        }
        let expected = [0, 0, 0, 0, 250, 500, 1000, 2000, 4000, 8000, 8000, 8000];
        assert_eq!(waits, expected);
        // The second of two would come too late.
        assert_eq!(queue.push(client(1), 20, 20, now), Pushed::Waits);
        assert_eq!(queue.push(client(1), 21, 21, now), Pushed::Refused(21));
        queue.push(client(2), 22, 22, now);
        assert_eq!(work(&mut queue, now), 22);
        // By and by it is forgotten.
        let later = now + 5 * HALF_LIFE;
        assert_eq!(queue.next(later), Next::Late(20));
        queue.push(client(1), 23, 23, later);
        assert_eq!(work(&mut queue, later), 23);
    }
}
