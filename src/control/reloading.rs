//! Which reload is next, and when: one at a time, and those that ask for the same are one.
//!
//! ```text
//!   signal, file  ─► at once, if none has begun for `SPACING` ──► one reload
//!                 └► else they gather until then ───────────────► one reload for all of them
//!   ctl, the API  ─► at once, and with it what has gathered
//! ```
//! While more than one gathers each time, the time doubles, up to `SPACING_MAX`: a program that
//! signals without an end costs two or three reloads a second, and who signals less than ten
//! times a second is heard each time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use crate::config::Config;
use crate::relay::id::ForwardId;

use super::reload::{ReloadError, Reloaded};
use super::request::ReloadRequest;

/// Who waits for what comes of it.
pub(super) type ReloadReply = Sender<Result<Reloaded, ReloadError>>;

/// A preparation that takes longer is told of to whoever asks for another one.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Between the beginnings of two reloads that nobody waits for.
const SPACING: Duration = Duration::from_millis(100);

/// Likewise at the most.
const SPACING_MAX: Duration = Duration::from_millis(400);

/// A reload that somebody asks for.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: ReloadRequest,
    pub(super) replies: Vec<ReloadReply>,
    /// Signals and changes of files that it is for.
    pub(super) unasked: u32,
    /// A forward that was drained is to let clients in again; nothing else is to change.
    pub(super) listen_again: Option<ForwardId>,
    /// Not asked for by anybody: the configuration before comes back.
    pub(super) is_return: bool,
}

impl Job {
    /// Nobody waits for an answer: a signal, or a file that changed.
    pub(super) fn unasked() -> Self {
        Self {
            unasked: 1,
            ..Self::of(ReloadRequest::default(), Vec::new())
        }
    }

    /// Somebody asks for it, and waits for the answer.
    pub(super) fn asked(request: ReloadRequest, reply: ReloadReply) -> Self {
        Self::of(request, vec![reply])
    }

    /// A forward is to listen again.
    pub(super) fn listen_again(forward: ForwardId, reply: ReloadReply) -> Self {
        Self {
            listen_again: Some(forward),
            ..Self::of(ReloadRequest::default(), vec![reply])
        }
    }

    /// This configuration comes back.
    pub(super) fn return_to(config: Arc<Config>) -> Self {
        let request = ReloadRequest {
            config: Some(config),
            ..ReloadRequest::default()
        };
        Self {
            is_return: true,
            ..Self::of(request, Vec::new())
        }
    }

    const fn of(request: ReloadRequest, replies: Vec<ReloadReply>) -> Self {
        Self {
            request,
            replies,
            unasked: 0,
            listen_again: None,
            is_return: false,
        }
    }

    pub(super) fn answer(&self, outcome: &Result<Reloaded, ReloadError>) {
        for reply in &self.replies {
            let _ = reply.send(outcome.clone());
        }
    }

    /// Whether it reads what is there now and changes to that.
    fn is_plain(&self) -> bool {
        let ReloadRequest {
            config,
            dry_run,
            confirm,
        } = &self.request;
        let is_all = self.listen_again.is_none() && !self.is_return;
        config.is_none() && !dry_run && confirm.is_none() && is_all
    }
}

/// Those that wait, in the order in which they were asked for.
#[derive(Debug)]
pub(super) struct Queue {
    jobs: VecDeque<Job>,
    /// When the last one for a signal or a file began.
    began: Option<Instant>,
    /// How long it is from there to the next one.
    spacing: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            jobs: VecDeque::new(),
            began: None,
            spacing: SPACING,
        }
    }
}

impl Queue {
    /// One more. Two in a row that only read again are one: neither has begun to read.
    pub(super) fn push(&mut self, job: Job) {
        match self
            .jobs
            .back_mut()
            .filter(|last| last.is_plain() && job.is_plain())
        {
            Some(last) => {
                last.replies.extend(job.replies);
                last.unasked += job.unasked;
            }
            None => self.jobs.push_back(job),
        }
    }

    /// The next one, if it is to begin now.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Job> {
        if self.due().is_some_and(|due| now < due) {
            return None;
        }
        let job = self.jobs.pop_front()?;
        if job.unasked > 0 {
            self.began = Some(now);
            self.spacing = match job.unasked {
                1 => SPACING,
                _ => (self.spacing * 2).min(SPACING_MAX),
            };
        }
        Some(job)
    }

    /// Until when one waits for others like it; whoever stands behind it waits for none.
    pub(super) fn due(&self) -> Option<Instant> {
        let first = self.jobs.front().filter(|_| self.jobs.len() == 1)?;
        let waits = first.unasked > 0 && first.replies.is_empty();
        Some(self.began.filter(|_| waits)? + self.spacing)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }
}

/// A configuration that has to be confirmed.
#[derive(Debug)]
pub(super) struct OnTrial {
    pub(super) back_to: Arc<Config>,
    pub(super) until: Instant,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    /// When reloads begin, in milliseconds, if signals come at these.
    fn begins(signals: impl Iterator<Item = u64>) -> Vec<u64> {
        let signals: Vec<u64> = signals.collect();
        let zero = Instant::now();
        let mut queue = Queue::default();
        let mut begun = Vec::new();
        for now in 0..=signals.last().unwrap() + 1_000 {
            for _ in signals.iter().filter(|at| **at == now) {
                queue.push(Job::unasked());
            }
            if queue.pop(zero + Duration::from_millis(now)).is_some() {
                begun.push(now);
            }
        }
        assert!(queue.is_empty());
        begun
    }

    #[test]
    fn b117_fifty_signals_in_a_second_are_five_reloads() {
        assert_eq!(begins((0..50).map(|at| at * 20)), [0, 100, 300, 700, 1100]);
    }

    #[test]
    fn b117_signals_that_come_now_and_then_are_a_reload_each() {
        let seldom = [0, 150, 300, 2_000, 2_100];
        assert_eq!(begins(seldom.into_iter()), seldom);
        // After two at a time they are so again.
        assert_eq!(
            begins([0, 10, 20, 400, 600].into_iter()),
            [0, 100, 400, 600]
        );
    }

    #[test]
    fn b117_whoever_waits_for_an_answer_waits_for_nothing_else() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.push(Job::unasked());
        assert!(queue.pop(now).is_some());
        queue.push(Job::unasked());
        assert!(queue.pop(now).is_none() && queue.due() == Some(now + SPACING));
        // It reads what the signal was for, too.
        let (reply, _answer) = channel();
        queue.push(Job::asked(ReloadRequest::default(), reply.clone()));
        let both = queue.pop(now).unwrap();
        assert_eq!((both.unasked, both.replies.len()), (1, 1));
        assert!(queue.is_empty());
        // A dry run is another thing: what is before it does not wait any more.
        queue.push(Job::unasked());
        let dry = ReloadRequest {
            dry_run: true,
            ..ReloadRequest::default()
        };
        queue.push(Job::asked(dry, reply));
        assert_eq!(queue.pop(now).unwrap().unasked, 1);
        assert!(queue.pop(now).unwrap().request.dry_run);
    }
}
