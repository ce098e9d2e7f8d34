//! The load generator: threads that drive connections in a given shape, count
//! what moves, time every answer, and compare bytes with what was sent.
//!
//! What it owns: client sockets and threads. What it does not do: start subjects,
//! read CPU time, decide anything. The measured window is agreed on beforehand as
//! two instants, so that threads need not meet; whoever measures reads
//! [`Load::counters`] at these instants.

mod bulk;
mod exchange;
mod flow;
pub mod idle;
mod plan;
mod question;
mod schedule;
pub mod shape;
mod streamer;
mod thread;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

use plan::ThreadResult;
pub use plan::{ANSWER_TIMEOUT, LoadCounters, LoadPlan, LoadResult, PATIENCE, Window, histogram};
use streamer::Streamer;
use thread::{Generator, Share};

/// A running load. Dropping it stops its threads.
#[derive(Debug)]
pub struct Load {
    counters: Vec<Arc<LoadCounters>>,
    thread_ids: Vec<i32>,
    stop: Arc<AtomicBool>,
    wakers: Vec<Arc<mio::Waker>>,
    go: Vec<mpsc::Sender<Window>>,
    threads: Vec<JoinHandle<ThreadResult>>,
}

impl Load {
    /// Starts the threads and waits until every connection stands.
    ///
    /// # Errors
    /// Why they do not, in words.
    pub fn start(plan: LoadPlan) -> Result<Self, String> {
        let shares = Share::of_plan(&plan);
        let threads = shares.len();
        let deadline = Instant::now() + plan.connect_timeout;
        let plan = Arc::new(plan);
        let mut load = Self {
            counters: Vec::new(),
            thread_ids: Vec::new(),
            stop: Arc::new(AtomicBool::new(false)),
            wakers: Vec::new(),
            go: Vec::new(),
            threads: Vec::new(),
        };
        let (ready, is_ready) = mpsc::channel();
        for share in shares {
            load.spawn(&plan, share, deadline, ready.clone())?;
        }
        drop(ready);
        for _ in 0..threads {
            // A thread that died without a word hangs up.
            let (id, connected) = is_ready
                .recv_timeout(plan.connect_timeout + Duration::from_secs(2))
                .map_err(|_| "a thread of the generator did not get ready".to_owned())?;
            load.thread_ids.push(id);
            connected?;
        }
        if let Some(traffic) = &plan.traffic {
            traffic.up.set_senders(load.wakers.clone());
        }
        Ok(load)
    }

    fn spawn(
        &mut self,
        plan: &Arc<LoadPlan>,
        share: Share,
        deadline: Instant,
        ready: mpsc::Sender<(i32, Result<(), String>)>,
    ) -> Result<(), String> {
        let counters = Arc::new(LoadCounters::default());
        self.counters.push(Arc::clone(&counters));
        let mut generator = Driver::new(Arc::clone(plan), share, counters, Arc::clone(&self.stop))
            .map_err(|error| format!("cannot start the generator: {error}"))?;
        self.wakers.push(generator.waker());
        let (go, may_go) = mpsc::channel();
        self.go.push(go);
        let cpus = plan.cpus.clone();
        let thread = std::thread::Builder::new()
            .name(format!("load-{}", self.threads.len()))
            .spawn(move || {
                let id = nix::unistd::gettid();
                let connected = pin(Pid::from_raw(0), &cpus).and_then(|()| {
                    // 50 µs of slack would be most of a loopback round trip.
                    let _ = nix::sys::prctl::set_timerslack(1);
                    generator.connect(deadline)
                });
                let failed = connected.is_err();
                let told = ready.send((id.as_raw(), connected)).is_ok();
                drop(ready);
                if failed || !told {
                    return ThreadResult::default();
                }
                generator.run(&may_go)
            })
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Lets the traffic begin: `warm_up` first, which is not measured, then `duration`.
    pub fn go(&self, warm_up: Duration, duration: Duration) -> Window {
        let begin = Instant::now() + warm_up;
        let window = Window {
            begin,
            end: begin + duration,
        };
        for (go, waker) in self.go.iter().zip(&self.wakers) {
            // A thread that has already failed tells so in its result.
            let _ = go.send(window);
            let _ = waker.wake();
        }
        window
    }

    /// The sum over the threads so far.
    pub fn counters(&self) -> LoadCounters {
        let total = LoadCounters::default();
        for counters in &self.counters {
            total.sent.fetch_add(counters.sent.load(Relaxed), Relaxed);
            total
                .received
                .fetch_add(counters.received.load(Relaxed), Relaxed);
            total
                .checked
                .fetch_add(counters.checked.load(Relaxed), Relaxed);
            total
                .exchanges
                .fetch_add(counters.exchanges.load(Relaxed), Relaxed);
            total.asked.fetch_add(counters.asked.load(Relaxed), Relaxed);
        }
        total
    }

    /// Kernel thread ids, for CPU time.
    pub fn thread_ids(&self) -> &[i32] {
        &self.thread_ids
    }

    /// Ends the threads now, in the middle of what they do, and says what the load
    /// came to. Flows that were cut count neither as errors nor as unfinished.
    pub fn cut(self) -> LoadResult {
        self.tell_to_stop();
        self.finish()
    }

    fn tell_to_stop(&self) {
        self.stop.store(true, Relaxed);
        for waker in &self.wakers {
            // A waker fails only when its poll is gone, and then so is the thread.
            let _ = waker.wake();
        }
    }

    /// Waits for the threads to come to their end, which they do within seconds of
    /// the window's.
    pub fn finish(mut self) -> LoadResult {
        let mut total = LoadResult::nothing();
        for thread in self.threads.drain(..) {
            let Ok(result) = thread.join() else {
                total.errors += 1;
                total
                    .first_error
                    .get_or_insert("a thread of the generator panicked".to_owned());
                continue;
            };
            if let Some(latency) = result.latency {
                total
                    .latency
                    .add(latency)
                    .expect("every thread's histogram has the same bounds");
            }
            total.unanswered += result.unanswered;
            total.lost += result.lost;
            total.strayed += result.strayed;
            total.cut_short += result.cut_short;
            total.unfinished += result.unfinished;
            total.errors += result.errors;
            total.first_error = total.first_error.or(result.first_error);
        }
        let counters = self.counters();
        total.sent = counters.sent.into_inner();
        total.checked = counters.checked.into_inner();
        total.asked = counters.asked.into_inner();
        total
    }
}

/// What a thread does.
enum Driver {
    Flows(Box<Generator>),
    Stream(Box<Streamer>),
}

impl Driver {
    fn new(
        plan: Arc<LoadPlan>,
        share: Share,
        counters: Arc<LoadCounters>,
        stop: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        Ok(match plan.shape.stream {
            Some(stream) => {
                let streamer = Streamer::new(plan, stream, share, counters, stop)?;
                Self::Stream(Box::new(streamer))
            }
            None => Self::Flows(Box::new(Generator::new(plan, share, counters, stop)?)),
        })
    }

    fn waker(&self) -> Arc<mio::Waker> {
        match self {
            Self::Flows(generator) => generator.waker(),
            Self::Stream(streamer) => streamer.waker(),
        }
    }

    fn connect(&mut self, deadline: Instant) -> Result<(), String> {
        match self {
            Self::Flows(generator) => generator.connect(deadline),
            Self::Stream(streamer) => streamer.connect(),
        }
    }

    fn run(self, go: &mpsc::Receiver<Window>) -> ThreadResult {
        match self {
            Self::Flows(generator) => generator.run(go),
            Self::Stream(streamer) => streamer.run(go),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.tell_to_stop();
        for thread in self.threads.drain(..) {
            // A panic was printed where it happened.
            let _ = thread.join();
        }
    }
}

/// Lets a thread run on these CPUs only; an empty list changes nothing.
pub(crate) fn pin(thread: Pid, cpus: &[usize]) -> Result<(), String> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu).map_err(|_| format!("no CPU {cpu}"))?;
    }
    sched_setaffinity(thread, &set).map_err(|error| format!("cannot pin to CPUs {cpus:?}: {error}"))
}
