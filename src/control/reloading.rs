//! Which reload is next: one at a time, and those that ask for the same are one.

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

/// A reload that somebody asks for.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) request: ReloadRequest,
    pub(super) replies: Vec<ReloadReply>,
    /// A forward that was drained is to let clients in again; nothing else is to change.
    pub(super) listen_again: Option<ForwardId>,
    /// Not asked for by anybody: the configuration before comes back.
    pub(super) is_return: bool,
}

impl Job {
    /// Nobody waits for an answer: a signal, or a file that changed.
    pub(super) fn unasked() -> Self {
        Self {
            request: ReloadRequest::default(),
            replies: Vec::new(),
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
#[derive(Debug, Default)]
pub(super) struct Queue(VecDeque<Job>);

impl Queue {
    /// One more. Two in a row that only read again are one: neither has begun to read.
    pub(super) fn push(&mut self, job: Job) {
        match self
            .0
            .back_mut()
            .filter(|last| last.is_plain() && job.is_plain())
        {
            Some(last) => last.replies.extend(job.replies),
            None => self.0.push_back(job),
        }
    }

    pub(super) fn pop(&mut self) -> Option<Job> {
        self.0.pop_front()
    }
}

/// A configuration that has to be confirmed.
#[derive(Debug)]
pub(super) struct OnTrial {
    pub(super) back_to: Arc<Config>,
    pub(super) until: Instant,
}
