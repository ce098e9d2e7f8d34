//! The threads that carry packets from one TUN device to the other, one for each
//! direction, as the [`Model`] says.
//!
//! A turn: deliver what is due, read what has come, sleep until the next packet is
//! due or comes. Packets on their way are kept in the order of arrival; their number
//! is bounded by what the queue and the line hold.
//!
//! Two things keep a busy line from waking its thread for every packet: a packet may be
//! delivered early by the tolerance, half a per cent of the round trip time; and while
//! the line has enough to send, nobody looks for more, since what comes would wait
//! behind it anyway. The latter lets the queue take somewhat more than its bound: what
//! the line sends in a nap.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, Release},
};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

use super::PathError;
use super::model::{Fate, Model};
use crate::bench::sys;

/// Packets read before the clock is read again and what is due delivered.
const BATCH: usize = 32;

/// Longest sleep, so that no error of the arithmetic lasts.
const SLEEP_MAX: u64 = 1_000_000_000;

/// Longest that a packet is delivered early.
const TOLERANCE_MAX: u64 = 100_000;

/// Shorter naps cost more than the wake-ups that they save; longer ones would leave
/// too much to the device's queue.
const NAP_MIN: u64 = 20_000;
const NAP_MAX: u64 = 100_000;

/// A packet of any size, and one byte to tell that it was larger.
const PACKET_MAX: usize = 65_536;

/// What a direction has counted so far, shared with whoever looks.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) packets: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) queue_peak: AtomicU64,
    pub(super) late_peak: AtomicU64,
    pub(super) late_sum: AtomicU64,
}

/// A direction that runs; dropping it stops its thread.
#[derive(Debug)]
pub(super) struct Carrier {
    tally: Arc<Tally>,
    stop: Arc<AtomicBool>,
    wake: Arc<EventFd>,
    thread_id: i32,
    thread: Option<JoinHandle<()>>,
}

impl Carrier {
    /// Carries from `source` to `sink` from now on.
    pub(super) fn start(
        name: &str,
        source: &Arc<File>,
        sink: &Arc<File>,
        model: Model,
        tolerance: Duration,
    ) -> Result<Self, PathError> {
        let system = |what: &str, error: io::Error| PathError::system(what, &error);
        let wake = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
            .map_err(|errno| system("make an eventfd", errno.into()))?;
        let wake = Arc::new(wake);
        let tally = Arc::new(Tally::default());
        let stop = Arc::new(AtomicBool::new(false));
        let line = Transmission {
            source: Arc::clone(source),
            sink: Arc::clone(sink),
            wake: Arc::clone(&wake),
            stop: Arc::clone(&stop),
            tally: Arc::clone(&tally),
            model,
            tolerance: (tolerance.as_nanos() as u64).min(TOLERANCE_MAX),
            begin: Instant::now(),
            under_way: VecDeque::new(),
            scratch: vec![0; PACKET_MAX].into_boxed_slice(),
        };
        let (id, its_id) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name(format!("path-{name}"))
            .spawn(move || {
                // The receiver waits below for exactly this.
                let _ = id.send(nix::unistd::gettid().as_raw());
                line.run();
            })
            .map_err(|error| system("start a thread", error))?;
        let thread_id = its_id.recv().map_err(|_| PathError::Panicked)?;
        Ok(Self {
            tally,
            stop,
            wake,
            thread_id,
            thread: Some(thread),
        })
    }

    /// Kernel thread id, for CPU time.
    pub(super) fn thread_id(&self) -> i32 {
        self.thread_id
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        // It fails only when the counter is full, and then the thread wakes anyway.
        let _ = self.wake.write(1);
        if let Some(thread) = self.thread.take() {
            // A panic was printed where it happened.
            let _ = thread.join();
        }
    }
}

struct Packet {
    arrives: u64,
    bytes: Box<[u8]>,
}

/// The state of a direction's thread.
struct Transmission {
    source: Arc<File>,
    sink: Arc<File>,
    wake: Arc<EventFd>,
    stop: Arc<AtomicBool>,
    tally: Arc<Tally>,
    model: Model,
    tolerance: u64,
    begin: Instant,
    under_way: VecDeque<Packet>,
    scratch: Box<[u8]>,
}

impl Transmission {
    fn run(mut self) {
        // A line does not wait for a CPU. Refused without privilege, or where a cgroup
        // has no real-time share: then lateness says what that cost.
        let _ = sys::run_first();
        // The default of 50 µs would be added to every packet.
        let _ = nix::sys::prctl::set_timerslack(1);
        while !self.stop.load(Relaxed) {
            let now = self.now();
            self.deliver(now);
            match self.take_in(now) {
                Ok(true) => {}
                Ok(false) => self.sleep(),
                // The device is gone, and so is the path.
                Err(_) => return,
            }
        }
    }

    fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    /// Hands over what is due.
    fn deliver(&mut self, now: u64) {
        while let Some(packet) = self.under_way.front() {
            if packet.arrives > now + self.tolerance {
                break;
            }
            let late = now.saturating_sub(packet.arrives);
            let written = (&*self.sink).write(&packet.bytes);
            if written.is_ok() {
                let len = packet.bytes.len() as u64;
                self.tally.bytes.fetch_add(len, Relaxed);
                // Last: whoever sees a packet counted sees its bytes.
                self.tally.packets.fetch_add(1, Release);
            } else {
                // No memory, or an interface that was set down.
                self.tally.refused.fetch_add(1, Relaxed);
            }
            self.tally.late_peak.fetch_max(late, Relaxed);
            self.tally.late_sum.fetch_add(late, Relaxed);
            self.under_way.pop_front();
        }
    }

    /// Reads a batch of what was sent; says whether there may be more.
    fn take_in(&mut self, now: u64) -> io::Result<bool> {
        for _ in 0..BATCH {
            let len = match (&*self.source).read(&mut self.scratch) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            match self.model.offer(len as u32, now) {
                Fate::Arrives(arrives) => self.under_way.push_back(Packet {
                    arrives,
                    bytes: self.scratch[..len].into(),
                }),
                Fate::Dropped => {
                    self.tally.dropped.fetch_add(1, Relaxed);
                }
                Fate::Lost => {
                    self.tally.lost.fetch_add(1, Relaxed);
                }
            }
            let waiting = self.model.waiting(now);
            self.tally.queue_peak.fetch_max(waiting, Relaxed);
        }
        Ok(true)
    }

    fn sleep(&self) {
        let next = self.under_way.front().map(|packet| packet.arrives);
        let now = self.now();
        let sleep = next.map_or(SLEEP_MAX, |next| next.saturating_sub(now));
        if sleep == 0 {
            return;
        }
        let mut watched = [
            PollFd::new(self.wake.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.source.as_fd(), PollFlags::POLLIN),
        ];
        let busy = self.model.busy(now);
        let (watched, longest) = if busy < NAP_MIN {
            (&mut watched[..], SLEEP_MAX)
        } else {
            (&mut watched[..1], busy.min(NAP_MAX))
        };
        let timeout = TimeSpec::from_duration(Duration::from_nanos(sleep.min(longest)));
        // Whatever ends the sleep, the next turn looks at everything.
        let _ = ppoll(watched, Some(timeout), None);
    }
}
