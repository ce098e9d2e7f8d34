//! One thread of the generator: a readiness loop over its flows.
//!
//! ```text
//! connecting ─all stand─► ready ─go─► running ─window ends─► stopping ─► results
//! ```
//! An open loop sleeps on a timerfd, because epoll's own timeout counts in
//! milliseconds.

mod connect;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::time::TimeSpec;
use nix::sys::timer::Expiration;
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::bulk::BulkFlow;
use super::exchange::ExchangeFlow;
use super::flow::{FlowContext, Progress, record};
use super::plan::{LoadCounters, LoadPlan, ThreadResult, Window, histogram};
use super::question::QuestionFlow;
use super::schedule::Schedule;
use super::shape::{Bulk, ConnectionLife, Exchange, Over, Shape};

const SCRATCH: usize = 256 * 1024;
const WAKE: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);

/// Connects under way at a time: below the smallest listen queue among the
/// subjects (nginx: 511), so that no SYN is dropped and retried a second later.
const CONNECTING_MAX: usize = 100;

/// How often questions in datagrams are looked for that were not answered.
const LOOK: Duration = Duration::from_millis(50);

enum Flow {
    Bulk(BulkFlow),
    Exchange(ExchangeFlow),
    Question(QuestionFlow),
    /// Its place is free: not yet connected, or ended.
    Gone,
}

/// Which of a shape's flows a thread drives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drives {
    All,
    Bulk,
    Exchanges,
}

/// Which part of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub(super) drives: Drives,
    pub(super) index: usize,
    pub(super) of: usize,
}

impl Share {
    /// The shares of all threads of a load.
    pub(super) fn of_plan(plan: &LoadPlan) -> Vec<Self> {
        let shares = |drives, flows: usize| {
            let of = plan.threads.clamp(1, flows.max(1));
            (0..of).map(move |index| Self { drives, index, of })
        };
        match (plan.exchanges_apart, plan.shape.bulk, plan.shape.exchange) {
            (Some(_), Some(bulk), Some(exchange)) => shares(Drives::Bulk, bulk.flows)
                .chain(shares(Drives::Exchanges, exchange.flows))
                .collect(),
            _ => shares(Drives::All, plan.shape.flows()).collect(),
        }
    }

    pub(super) fn of_flows(self, flows: usize) -> usize {
        flows / self.of + usize::from(self.index < flows % self.of)
    }

    fn bulk(self, shape: &Shape) -> Option<Bulk> {
        shape.bulk.filter(|_| self.drives != Drives::Exchanges)
    }

    fn exchange(self, shape: &Shape) -> Option<Exchange> {
        shape.exchange.filter(|_| self.drives != Drives::Bulk)
    }
}

pub(super) struct Generator {
    poll: Poll,
    waker: Arc<Waker>,
    timer: TimerFd,
    plan: Arc<LoadPlan>,
    share: Share,
    counters: Arc<LoadCounters>,
    stop: Arc<AtomicBool>,
    flows: Vec<Flow>,
    /// Flows that are to be pumped without waiting for an event.
    run_queue: VecDeque<usize>,
    /// Open loop: flows without a request.
    idle: VecDeque<usize>,
    schedule: Option<Schedule>,
    window: Option<Window>,
    stopping: bool,
    next_look: Instant,
    live: usize,
    scratch: Vec<u8>,
    latency: Histogram<u64>,
    result: ThreadResult,
    seed: u64,
}

impl Generator {
    pub(super) fn new(
        plan: Arc<LoadPlan>,
        share: Share,
        counters: Arc<LoadCounters>,
        stop: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let timer = TimerFd::new(
            ClockId::CLOCK_MONOTONIC,
            TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
        )?;
        poll.registry().register(
            &mut SourceFd(&timer.as_fd().as_raw_fd()),
            TIMER,
            Interest::READABLE,
        )?;
        Ok(Self {
            poll,
            waker,
            timer,
            share,
            counters,
            stop,
            flows: Vec::new(),
            run_queue: VecDeque::new(),
            idle: VecDeque::new(),
            schedule: None,
            window: None,
            stopping: false,
            next_look: Instant::now(),
            live: 0,
            scratch: vec![0; SCRATCH],
            latency: histogram(),
            result: ThreadResult::default(),
            seed: (share.index as u64 + 1) * 1_000_003,
            plan,
        })
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    fn wait(&mut self, events: &mut Events, timeout: Duration) -> Result<(), String> {
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            other => other.map_err(text),
        }
    }

    /// Waits for the word to go, then drives the flows to the end of the window.
    pub(super) fn run(mut self, go: &mpsc::Receiver<Window>) -> ThreadResult {
        if let Err(error) = self.drive(go) {
            self.result.fail(error);
        }
        self.result.latency = Some(self.latency);
        self.result
    }

    fn drive(&mut self, go: &mpsc::Receiver<Window>) -> Result<(), String> {
        let mut events = Events::with_capacity(1024);
        let window = loop {
            if let Ok(window) = go.try_recv() {
                break window;
            }
            if self.stop.load(Relaxed) {
                return Ok(());
            }
            self.wait(&mut events, Duration::from_millis(100))?;
        };
        if let Some(precedence) = self.plan.exchanges_apart
            && self.share.exchange(&self.plan.shape).is_some()
        {
            // Whoever asked for it has tried whether it is permitted.
            precedence.take().map_err(text)?;
        }
        self.start(window);
        let mut deadline = window.end;
        loop {
            let now = Instant::now();
            if self.stop.load(Relaxed) || (self.stopping && (self.live == 0 || now >= deadline)) {
                break;
            }
            if !self.stopping && now >= window.end {
                self.begin_stopping(window.end);
                deadline = now + self.plan.patience;
                continue;
            }
            self.issue(now);
            let mut timeout = if self.run_queue.is_empty() {
                deadline.saturating_duration_since(now)
            } else {
                Duration::ZERO
            };
            if self.plan.shape.is_datagrams() {
                self.give_up_lost(now);
                timeout = timeout.min(LOOK);
            }
            let queued = self.run_queue.len();
            self.wait(&mut events, timeout)?;
            for event in &events {
                match event.token() {
                    WAKE => {}
                    // Only a write re-arms it; the level need not be read away.
                    TIMER => {
                        let _ = self.timer.wait();
                    }
                    Token(index) => self.pump(index),
                }
            }
            for _ in 0..queued {
                if let Some(index) = self.run_queue.pop_front() {
                    self.pump(index);
                }
            }
        }
        if self.stopping && self.live > 0 && !self.stop.load(Relaxed) {
            self.result.unfinished += self.live as u64;
        }
        Ok(())
    }

    fn start(&mut self, window: Window) {
        self.window = Some(window);
        let exchange = self.share.exchange(&self.plan.shape);
        let now = Instant::now();
        if let Some(rate) = exchange.and_then(|exchange| exchange.rate) {
            self.schedule = Some(Schedule::new(now, rate, self.share.index, self.share.of));
        }
        for index in 0..self.flows.len() {
            match &self.flows[index] {
                Flow::Bulk(_) => self.run_queue.push_back(index),
                _ if self.schedule.is_some() => self.idle.push_back(index),
                _ => self.exchange_next(index, now),
            }
        }
    }

    /// Begins the next exchange of a flow that has any; one that is gone is made anew for it.
    fn exchange_next(&mut self, index: usize, now: Instant) {
        match &mut self.flows[index] {
            Flow::Exchange(flow) => {
                flow.begin(now);
                self.run_queue.push_back(index);
            }
            Flow::Question(flow) => {
                flow.begin(now);
                self.run_queue.push_back(index);
            }
            Flow::Gone => {
                if let Err(error) = self.renew(index, now) {
                    self.result.fail(error);
                }
            }
            Flow::Bulk(_) => {}
        }
    }

    /// Hands every request that is due to a flow that is free, and arms the timer
    /// for the next one.
    fn issue(&mut self, now: Instant) {
        let Some(mut schedule) = self.schedule.take() else {
            return;
        };
        while !self.stopping
            && let Some(&index) = self.idle.front()
        {
            let Some(due) = schedule.take(now) else {
                let wait = schedule
                    .next_due()
                    .saturating_duration_since(Instant::now());
                // Zero would disarm it.
                let wait = TimeSpec::from_duration(wait.max(Duration::from_nanos(1)));
                let armed = self
                    .timer
                    .set(Expiration::OneShot(wait), TimerSetTimeFlags::empty());
                if let Err(error) = armed {
                    self.result.fail(format!("timerfd_settime: {error}"));
                }
                break;
            };
            self.idle.pop_front();
            self.begin(index, due);
        }
        self.schedule = Some(schedule);
    }

    fn begin(&mut self, index: usize, due: Instant) {
        match &mut self.flows[index] {
            Flow::Exchange(flow) => {
                flow.begin(due);
                self.pump(index);
            }
            Flow::Question(flow) => {
                flow.begin(due);
                self.pump(index);
            }
            Flow::Gone => {
                if let Err(error) = self.renew(index, due) {
                    self.result.fail(error);
                } else {
                    self.pump(index);
                }
            }
            Flow::Bulk(_) => {}
        }
    }

    /// A fresh connection with a request.
    fn renew(&mut self, index: usize, due: Instant) -> Result<(), String> {
        let Some(exchange) = self.plan.shape.exchange else {
            return Ok(());
        };
        self.flows[index] = if exchange.over == Over::Datagrams {
            let mut flow = self.question_flow(index, exchange)?;
            flow.begin(due);
            Flow::Question(flow)
        } else {
            let stream = self.start_connect(index)?;
            self.seed += 7_919;
            let mut flow = self.exchange_flow(stream, exchange);
            flow.begin(due);
            Flow::Exchange(flow)
        };
        self.live += 1;
        // On loopback the connection often stands already: the request can go at once.
        self.run_queue.push_back(index);
        Ok(())
    }

    fn exchange_flow(&self, stream: TcpStream, exchange: Exchange) -> ExchangeFlow {
        let apart = self.plan.exchanges_apart.is_some();
        let preface = self.plan.preface.bytes();
        ExchangeFlow::new(stream, exchange, self.seed, apart, preface)
    }

    fn pump(&mut self, index: usize) {
        let Some(flow) = self.flows.get_mut(index) else {
            return;
        };
        let mut context = FlowContext {
            scratch: &mut self.scratch,
            counters: &self.counters,
            stopping: self.stopping,
            cut_short: 0,
            strayed: 0,
            window: self.window,
            latency: &mut self.latency,
        };
        let progress = match flow {
            Flow::Bulk(flow) => flow.pump(&mut context),
            Flow::Exchange(flow) => flow.pump(&mut context),
            Flow::Question(flow) => flow.pump(&mut context),
            // Ended earlier in the same batch of events.
            Flow::Gone => return,
        };
        self.result.cut_short += context.cut_short;
        self.result.strayed += context.strayed;
        match progress {
            Ok(Progress::Wait) => {}
            Ok(Progress::Again) => self.run_queue.push_back(index),
            Ok(Progress::Answered) => self.answered(index),
            Ok(Progress::Finished) => self.end(index),
            Err(error) => {
                // While stopping, an abrupt end loses nothing that was asked for.
                if !self.stopping {
                    self.result.fail(error.to_string());
                }
                self.end(index);
            }
        }
    }

    fn answered(&mut self, index: usize) {
        let fresh = self
            .plan
            .shape
            .exchange
            .is_some_and(|exchange| exchange.connection == ConnectionLife::Fresh);
        if fresh || self.stopping {
            self.end(index);
        }
        if self.stopping {
            return;
        }
        if self.schedule.is_some() {
            self.idle.push_back(index);
            return;
        }
        self.exchange_next(index, Instant::now());
    }

    /// What a datagram asked for so long ago is lost, and the flow goes on.
    fn give_up_lost(&mut self, now: Instant) {
        if now < self.next_look {
            return;
        }
        self.next_look = now + LOOK;
        for index in 0..self.flows.len() {
            let Flow::Question(flow) = &mut self.flows[index] else {
                continue;
            };
            if flow.give_up(now, self.plan.answer_timeout) {
                self.result.lost += 1;
                self.answered(index);
            }
        }
    }

    fn end(&mut self, index: usize) {
        if !matches!(self.flows[index], Flow::Gone) {
            // Dropping the stream closes it, and with that leaves the poll.
            self.flows[index] = Flow::Gone;
            self.live -= 1;
        }
    }

    /// No new requests; bulk flows shut down and read what is under way. What an
    /// open loop still owed counts with the time it has waited so far.
    fn begin_stopping(&mut self, end: Instant) {
        self.stopping = true;
        let Some(window) = self.window else { return };
        let mut owed: Vec<Instant> = Vec::new();
        if let Some(schedule) = &mut self.schedule {
            owed.extend(schedule.rest_until(end));
        }
        for index in 0..self.flows.len() {
            match &self.flows[index] {
                Flow::Exchange(flow) => match flow.outstanding() {
                    Some(due) => owed.push(due),
                    None => self.end(index),
                },
                Flow::Question(flow) => match flow.outstanding() {
                    Some(due) => owed.push(due),
                    None => self.end(index),
                },
                Flow::Bulk(_) => self.run_queue.push_back(index),
                Flow::Gone => {}
            }
        }
        if self.schedule.is_none() {
            // In a closed loop a request that is under way is not late.
            return;
        }
        for due in owed.into_iter().filter(|due| *due >= window.begin) {
            self.result.unanswered += 1;
            record(&mut self.latency, end.duration_since(due));
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
