//! What every kind of flow shares: what its thread lends it for one pump, and what a
//! pump and a system call come to.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::plan::{LoadCounters, Window};

/// What a pump came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    /// Wait for an event.
    Wait,
    /// The budget ended: there is more to do.
    Again,
    /// A response is whole.
    Answered,
    /// The flow has come to its end.
    Finished,
}

/// What a pump borrows from its thread.
pub(super) struct FlowContext<'a> {
    pub(super) scratch: &'a mut [u8],
    pub(super) counters: &'a LoadCounters,
    pub(super) stopping: bool,
    pub(super) cut_short: u64,
    pub(super) strayed: u64,
    pub(super) window: Option<Window>,
    pub(super) latency: &'a mut Histogram<u64>,
}

impl FlowContext<'_> {
    /// Records the answer to a request that was due at `due`, if both lie in the
    /// measured window.
    pub(super) fn answered(&mut self, due: Instant) {
        let now = Instant::now();
        if let Some(window) = self.window
            && due >= window.begin
            && now < window.end
        {
            record(self.latency, now.duration_since(due));
        }
    }
}

pub(super) fn record(latency: &mut Histogram<u64>, took: Duration) {
    // Saturating: a value above the histogram's ceiling counts as the ceiling.
    latency.saturating_record(took.as_nanos() as u64);
}

/// What one attempt to read or write came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Moved(usize),
    Blocked,
    Ended,
}

impl Step {
    pub(super) fn len(self) -> usize {
        match self {
            Self::Moved(len) => len,
            Self::Blocked | Self::Ended => 0,
        }
    }
}

/// One system call, again when interrupted.
pub(super) fn attempt(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<Step> {
    loop {
        match call() {
            Ok(len) => return Ok(Step::Moved(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Step::Blocked),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
