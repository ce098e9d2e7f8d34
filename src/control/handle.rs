//! A forwarder inside another program: on threads of its own, without a signal.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use crate::config::Config;
use crate::net::address::Endpoint;
use crate::observe::counters::Snapshot;

use super::begin::{self, Given};
use super::confine::Confinement;
use super::error::StartError;
use super::inbox::{Inbox, Teller, Told};
use super::reload::{ReloadError, Reloaded};
use super::request::{ReloadRequest, Request};
use super::signals;

/// Starts to forward, beside whatever else this process does. Returns once every listener
/// is served, or with the reason why none is.
///
/// It takes no signal: those are the program's. SIGPIPE is ignored in the whole process,
/// as Rust's start-up does anyway.
pub fn start(config: &Config) -> Result<Handle, StartError> {
    start_with(config, Given::default())
}

/// As [`start`], with what it is given: a decision of the program's own about each session ([`Given::pilot`]), a way to
/// read the configuration again, sockets that it listens on already.
pub fn start_with(config: &Config, given: Given) -> Result<Handle, StartError> {
    let config = config.clone();
    let (ready, begun) = channel();
    let thread = std::thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            signals::block_here();
            let inbox = Inbox::without_signals().map_err(StartError::Signals)?;
            // What the process may do is the program's matter.
            let given = (given, Confinement::default());
            begin::supervise(&config, given, &inbox, || {
                let _ = ready.send(inbox.teller());
            })
        })
        .map_err(StartError::Reactor)?;
    match begun.recv() {
        Ok(teller) => Ok(Handle {
            teller,
            thread: Some(thread),
        }),
        Err(_) => match thread.join() {
            Ok(Err(error)) => Err(error),
            // It ended before anybody could ask it to.
            Ok(Ok(())) | Err(_) => Err(StartError::ReactorLost),
        },
    }
}

/// A running forwarder. Dropped, it is ended at once and waited for.
#[derive(Debug)]
pub struct Handle {
    teller: Teller,
    thread: Option<JoinHandle<Result<(), StartError>>>,
}

impl Handle {
    /// Where it listens: the name of each forward and its addresses, with the ports that
    /// the kernel chose. Empty once it has ended.
    pub fn listeners(&self) -> Vec<(Arc<str>, Endpoint)> {
        self.ask(Request::Listeners)
    }

    /// What it has counted so far, over all reactors; nothing once it has ended.
    pub fn counters(&self) -> Snapshot {
        self.ask(Request::Counters)
    }

    /// Goes by another configuration from now on, and says what that changed. What both
    /// have stays what it is: sockets, sessions, servers' health, counters.
    pub fn reload(&self, request: ReloadRequest) -> Result<Reloaded, ReloadError> {
        let (request, answer) = Request::reload(request);
        self.teller.tell(Told::Asked(request));
        answer.recv().unwrap_or(Err(ReloadError::Ending))
    }

    /// Lets nobody in any more; sessions go on until they end or their forward's
    /// `drain_timeout` has passed. Does not wait: [`Handle::join`] does.
    pub fn drain(&self) {
        self.teller.tell(Told::Asked(Request::Drain));
    }

    /// Ends all sessions now. Does not wait.
    pub fn cut(&self) {
        self.teller.tell(Told::Asked(Request::Cut));
    }

    /// Drains, and waits for the end.
    pub fn stop(self) -> Result<(), StartError> {
        self.drain();
        self.join()
    }

    /// Waits for the end, whoever asks for it.
    pub fn join(mut self) -> Result<(), StartError> {
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(ended) => ended.unwrap_or(Err(StartError::ReactorLost)),
        }
    }

    fn ask<R: Default>(&self, request: impl FnOnce(std::sync::mpsc::Sender<R>) -> Request) -> R {
        let (reply, answer) = channel();
        self.teller.tell(Told::Asked(request(reply)));
        answer.recv().unwrap_or_default()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.cut();
            let _ = thread.join();
        }
    }
}
