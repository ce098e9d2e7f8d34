//! The thread that verifies passwords: a hash that is worth its name takes
//! milliseconds, which no reactor has.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::users::{Credentials, Users};

/// Credentials that may wait to be verified. With hashes of 50 ms the last of them
/// waits some three seconds; whoever comes then is told to try again.
const QUEUE_MAX: usize = 64;

/// Credentials to be verified, and what is done with the outcome.
pub(super) struct Verification {
    pub(super) users: Arc<Users>,
    pub(super) credentials: Credentials,
    pub(super) then: Box<dyn FnOnce(bool) + Send>,
}

impl fmt::Debug for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verification")
    }
}

/// The way to the thread, which ends with the last of these.
#[derive(Debug)]
pub(super) struct Verifier(SyncSender<Verification>);

impl Verifier {
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, inbox) = sync_channel(QUEUE_MAX);
        std::thread::Builder::new()
            .name("credentials".into())
            .spawn(move || work(&inbox))?;
        Ok(Self(jobs))
    }

    /// `false`: too many wait already.
    pub(super) fn submit(&self, job: Verification) -> bool {
        self.0.try_send(job).is_ok()
    }
}

fn work(inbox: &Receiver<Verification>) {
    for job in inbox {
        // A client that asks several times at once is verified once.
        let right = job.users.remembers(&job.credentials) || job.users.verify(&job.credentials);
        (job.then)(right);
    }
}
