//! The threads that verify passwords: a hash that is worth its name takes milliseconds,
//! which no reactor has.
//!
//! There is one for each core that this process may use. They run at a lower priority
//! than reactors: on a machine that is busy, forwarding goes first.

use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::fair::{Client, FairQueue, Next, Pushed};
use super::users::{Credentials, Users};
use crate::engine::SessionKey;
use crate::net::limits;
use crate::observe::log::Log;

/// Threads at the most.
const THREADS_MAX: usize = 16;

/// Lower than a reactor's by so much (nice(2)).
const NICE: i32 = 10;

/// Whose question it is: a session of a reactor.
pub(super) type JobId = (u16, SessionKey);

/// What came of a verification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// They are right.
    Right,
    /// They are wrong.
    Wrong,
    /// It was not verified: too many wait, or the client has failed too often.
    Busy,
}

/// Credentials to be verified, and what is done with the verdict.
pub(super) struct Verification {
    pub(super) users: Arc<Users>,
    pub(super) credentials: Credentials,
    pub(super) then: Box<dyn FnOnce(Verdict) + Send>,
}

impl fmt::Debug for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verification")
    }
}

/// The way to the threads, which end with it.
#[derive(Debug)]
pub(super) struct Verifier(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<Verifications>,
    more: Condvar,
    log: Log,
}

#[derive(Debug)]
struct Verifications {
    queue: FairQueue<JobId, Verification>,
    ended: bool,
}

impl Verifier {
    pub(super) fn start(log: Log) -> io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_threads(cores.min(THREADS_MAX), log)
    }

    fn with_threads(threads: usize, log: Log) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(Verifications {
                queue: FairQueue::new(),
                ended: false,
            }),
            more: Condvar::new(),
            log,
        });
        let verifier = Self(shared);
        for _ in 0..threads {
            let shared = verifier.0.clone();
            std::thread::Builder::new()
                .name("credentials".into())
                .spawn(move || {
                    // It is a favour to others, and no more.
                    let _ = limits::lower_priority(NICE);
                    shared.work();
                })?;
        }
        Ok(verifier)
    }

    /// Takes credentials of a client; sooner or later there is a verdict, unless the
    /// session goes before ([`Verifier::cancel`]).
    pub(super) fn submit(&self, client: Client, id: JobId, job: Verification) {
        let pushed = self.0.lock().queue.push(client, id, job, Instant::now());
        match pushed {
            Pushed::Waits => self.0.more.notify_one(),
            Pushed::InPlaceOf(other) => {
                self.0.more.notify_one();
                (other.then)(Verdict::Busy);
            }
            Pushed::Refused(job) => (job.then)(Verdict::Busy),
        }
    }

    /// The session is gone.
    pub(super) fn cancel(&self, id: JobId) {
        // Dropped behind the lock.
        let _job = self.0.lock().queue.cancel(id);
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.more.notify_all();
    }
}

impl Shared {
    /// Whoever panicked while it held the lock left a whole queue behind.
    fn lock(&self) -> MutexGuard<'_, Verifications> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some((client, job)) = self.take() {
            let (verdict, failed) = self.verify(&job);
            self.lock().queue.done(client, failed, Instant::now());
            // Its client may have more.
            self.more.notify_one();
            (job.then)(verdict);
        }
    }

    /// The next to be verified, once there is one; `None`: that is all.
    fn take(&self) -> Option<(Client, Verification)> {
        let mut state = self.lock();
        loop {
            if state.ended {
                return None;
            }
            state = match state.queue.next(Instant::now()) {
                Next::Work(client, job) => return Some((client, job)),
                Next::Late(job) => {
                    drop(state);
                    (job.then)(Verdict::Busy);
                    self.lock()
                }
                Next::Wait(wait) => {
                    let woken = self.more.wait_timeout(state, wait);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
                Next::Idle => {
                    let woken = self.more.wait(state);
                    woken.unwrap_or_else(PoisonError::into_inner)
                }
            };
        }
    }

    /// The verdict, and whether it counts against the client: a pair that is known to be
    /// wrong was no guess. A panic of what verifies costs this one its verdict.
    fn verify(&self, job: &Verification) -> (Verdict, bool) {
        let known = job.users.known(&job.credentials);
        let verified = self.log.guard("credentials", || {
            known.unwrap_or_else(|| job.users.verify(&job.credentials))
        });
        match verified {
            Some(true) => (Verdict::Right, false),
            Some(false) => (Verdict::Wrong, known.is_none()),
            None => (Verdict::Busy, false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use super::super::users::tests::{credentials, users};
    use super::*;
    use crate::config::{LogFormat, LogLevel, LogTarget};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn verifier(threads: usize) -> Verifier {
        let null = LogTarget::File("/dev/null".into());
        let (log, _) = Log::start(LogLevel::Error, LogFormat::Text, &null).expect("a log");
        Verifier::with_threads(threads, log).expect("threads")
    }

    fn client(last: u8) -> Client {
        Client::from(Some(IpAddr::from([10, 0, 0, last])))
    }

    fn id(number: u32) -> JobId {
        let slot = number;
        let generation = 1;
        (0, SessionKey { slot, generation })
    }

    fn ask(
        verifier: &Verifier,
        users: &Arc<Users>,
        (client, number): (Client, u32),
        (user, password): (&str, &str),
    ) -> Receiver<Verdict> {
        let (told, verdict) = channel();
        let job = Verification {
            users: users.clone(),
            credentials: credentials(user, password),
            then: Box::new(move |verdict| {
                let _ = told.send(verdict);
            }),
        };
        verifier.submit(client, id(number), job);
        verdict
    }

    /// Many addresses guess, each as fast as it may; somebody who knows his password is let in.
    #[test]
    fn guessers_do_not_lock_out_somebody_who_knows_his_password() {
        let (verifier, users) = (verifier(1), Arc::new(users()));
        let mut guesses = Vec::new();
        for address in 0..8 {
            for number in 0..100 {
                let guess = format!("{address}-{number}");
                let number = u32::from(address) * 100 + number;
                guesses.push(ask(
                    &verifier,
                    &users,
                    (client(address), number),
                    ("six", &guess),
                ));
            }
        }
        let right = ask(&verifier, &users, (client(99), 10_000), ("five", "secret"));
        assert_eq!(right.recv_timeout(PATIENCE), Ok(Verdict::Right));
        // Most of them were told at once to come again, and none was right.
        let verdicts = guesses.iter().map(Receiver::try_recv);
        let busy = verdicts.filter(|it| *it == Ok(Verdict::Busy)).count();
        assert!(busy >= 8 * 80, "{busy}");
        // In the memory of the users: both are told without a hash.
        assert_eq!(users.known(&credentials("five", "secret")), Some(true));
    }

    #[test]
    fn a_session_that_is_gone_costs_no_hash() {
        let (verifier, users) = (verifier(0), Arc::new(users()));
        let verdict = ask(&verifier, &users, (client(1), 1), ("six", "secret"));
        verifier.cancel(id(1));
        // Nobody will ever tell.
        assert!(verdict.recv_timeout(PATIENCE).is_err());
        assert_eq!(users.known(&credentials("six", "secret")), None);
    }
}
