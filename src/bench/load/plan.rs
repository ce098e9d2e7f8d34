//! What a load is told and what it brings home: plain data.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::shape::Shape;
use crate::bench::precedence::Precedence;
use crate::bench::preface::Preface;
use crate::bench::traffic::Traffic;
use crate::bench::watch::Watch;
use crate::net::options::OptionPlan;

/// Enough for what is on its way over loopback.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// An answer in a datagram that takes longer over loopback has been lost.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// What to do to whom.
#[derive(Debug, Clone)]
pub struct LoadPlan {
    /// The subject's listener, or the origin itself.
    pub target: SocketAddr,
    /// What every connection says before its traffic.
    pub preface: Preface,
    /// The traffic.
    pub shape: Shape,
    /// Threads that make it.
    pub threads: usize,
    /// Exchanges have as many threads of their own, here and at the origin, so that none
    /// waits for the harness's own bulk. `None`: all flows share the threads.
    pub exchanges_apart: Option<Precedence>,
    /// CPUs they may run on; empty: wherever.
    pub cpus: Vec<usize>,
    /// Congestion control of the generator's sockets; `None`: the system's.
    pub congestion: Option<String>,
    /// What else they are given: the options of a leg towards upstreams.
    pub options: Option<OptionPlan>,
    /// Whoever wants to look at them meanwhile: at the bulk flows, or where there are
    /// none, at the exchanges that keep their connection.
    pub watch: Option<Arc<Watch>>,
    /// Bulk flows are made and taken as cheaply as the kernel can, and of so many of
    /// their bytes one is compared with what was sent, in stretches of
    /// [`STRETCH`](crate::bench::sampling::STRETCH); with 1 all of them, with 0 none.
    /// `None`: they are written and read as by an application, and not compared. Exchanges
    /// are always compared.
    pub compare_one_in: Option<usize>,
    /// Of a stream of datagrams: the origin's count of it.
    pub traffic: Option<Arc<Traffic>>,
    /// A question in a datagram is lost when its answer has not come after so long, and another is asked.
    pub answer_timeout: Duration,
    /// All connections must stand after so long.
    pub connect_timeout: Duration,
    /// How long flows may take to come to their end after the window: what is on its
    /// way still has to arrive. [`PATIENCE`] is enough where it does so at once.
    pub patience: Duration,
}

/// The measured time, after the warm-up.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// Counted from here on.
    pub begin: Instant,
    /// Up to here.
    pub end: Instant,
}

/// What the threads count as they go; payload, without command lines.
#[derive(Debug, Default)]
pub struct LoadCounters {
    /// Bytes handed to the kernel.
    pub sent: AtomicU64,
    /// Bytes read.
    pub received: AtomicU64,
    /// Bytes compared with what was sent.
    pub checked: AtomicU64,
    /// Exchanges completed.
    pub exchanges: AtomicU64,
    /// Questions asked in datagrams.
    pub asked: AtomicU64,
}

/// What one thread brings home.
#[derive(Debug, Default)]
pub(super) struct ThreadResult {
    pub(super) latency: Option<Histogram<u64>>,
    /// Requests due in the window and not answered in it (open loop).
    pub(super) unanswered: u64,
    /// Questions in datagrams that were not answered in time.
    pub(super) lost: u64,
    /// Datagrams that came to somebody else than whom they were for.
    pub(super) strayed: u64,
    /// Flows that ended early when only their upload had ended.
    pub(super) cut_short: u64,
    /// Flows that did not come to their end in time.
    pub(super) unfinished: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
}

impl ThreadResult {
    pub(super) fn fail(&mut self, error: String) {
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }
}

/// What a load came to.
#[derive(Debug)]
pub struct LoadResult {
    /// Of every answer in the window, in nanoseconds.
    pub latency: Histogram<u64>,
    /// Payload bytes handed to the kernel from the start to the end.
    pub sent: u64,
    /// Bytes compared with what was sent.
    pub checked: u64,
    /// Requests due in the window and not answered in it (open loop only).
    pub unanswered: u64,
    /// Questions in datagrams that were not answered in time, from the start to the end.
    pub lost: u64,
    /// Of how many.
    pub asked: u64,
    /// Datagrams that came to somebody else than whom they were for.
    pub strayed: u64,
    /// Flows whose other direction was cut when the upload ended: the subject does
    /// not keep half-closed connections.
    pub cut_short: u64,
    /// Flows that had not come to their end seconds after the window.
    pub unfinished: u64,
    /// Connections that broke, or brought other bytes than were sent.
    pub errors: u64,
    /// The first of these.
    pub first_error: Option<String>,
}

impl LoadResult {
    /// Of no thread.
    pub fn nothing() -> Self {
        Self {
            latency: histogram(),
            sent: 0,
            checked: 0,
            unanswered: 0,
            lost: 0,
            asked: 0,
            strayed: 0,
            cut_short: 0,
            unfinished: 0,
            errors: 0,
            first_error: None,
        }
    }
}

/// An empty histogram of nanoseconds, up to a minute, three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(100, 60_000_000_000, 3)
        .expect("the bounds are constants that hdrhistogram accepts")
}
