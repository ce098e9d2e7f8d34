//! One thread of the generator that sends and takes streams of datagrams.
//!
//! Upwards it sends as [`Feed`] says; for what is to come down it orders it from the origin, and renews the
//! order until the window ends.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::socket::{setsockopt, sockopt};

use super::plan::{LoadCounters, LoadPlan, ThreadResult, Window, histogram};
use super::shape::{Pace, Stream};
use super::thread::Share;
use crate::bench::datagram::{Header, Kind, Order};
use crate::bench::mmsg::Arrivals;
use crate::bench::preface::Preface;
use crate::bench::socket;
use crate::bench::streaming::{Feed, Pacing};
use crate::bench::traffic::Traffic;

/// An order is renewed far more often than it ends, so that a lost one does not matter.
const RENEW: Duration = Duration::from_millis(100);
const HOLDS: u64 = 500;

const WAKE: Token = Token(usize::MAX);
const TIMER: Token = Token(usize::MAX - 1);

pub(super) struct Streamer {
    poll: Poll,
    waker: Arc<Waker>,
    pacing: Pacing,
    plan: Arc<LoadPlan>,
    stream: Stream,
    share: Share,
    order: Order,
    traffic: Arc<Traffic>,
    counters: Arc<LoadCounters>,
    stop: Arc<AtomicBool>,
    sockets: Vec<UdpSocket>,
    /// Each with its number, and connected.
    flows: Vec<(u32, Option<SocketAddr>)>,
    arrivals: Arrivals,
    result: ThreadResult,
}

impl Streamer {
    pub(super) fn new(
        plan: Arc<LoadPlan>,
        stream: Stream,
        share: Share,
        counters: Arc<LoadCounters>,
        stop: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let pacing = Pacing::new()?;
        let timer = pacing.as_fd().as_raw_fd();
        let readable = Interest::READABLE;
        poll.registry()
            .register(&mut SourceFd(&timer), TIMER, readable)?;
        let traffic = plan.traffic.clone().ok_or_else(|| {
            io::Error::other("a stream of datagrams needs the origin's count of it")
        })?;
        let (rate, window) = match stream.pace {
            Pace::Rate(rate) => ((rate / stream.flows.max(1) as u64).max(1), 0),
            Pace::Window(window) => (0, window),
            Pace::Flood => (0, 0),
        };
        Ok(Self {
            poll,
            waker,
            pacing,
            share,
            order: Order {
                size: stream.size as u16,
                train: stream.train as u16,
                rate: u32::try_from(rate).unwrap_or(u32::MAX),
                window: window as u32,
            },
            traffic,
            counters,
            stop,
            sockets: Vec::new(),
            flows: Vec::new(),
            arrivals: Arrivals::new(),
            result: ThreadResult::default(),
            plan,
            stream,
        })
    }

    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// There is nothing to wait for: a datagram asks nobody before it is sent.
    pub(super) fn connect(&mut self) -> Result<(), String> {
        if self.plan.preface != Preface::Nothing {
            return Err("a proxy for connections forwards no datagrams".to_owned());
        }
        let target = self.plan.target;
        for index in 0..self.share.of_flows(self.stream.flows) {
            let open = || {
                let mut socket = socket::connect_datagrams(target)?;
                if self.stream.train > 1 {
                    setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
                }
                let interest = Interest::READABLE | Interest::WRITABLE;
                self.poll
                    .registry()
                    .register(&mut socket, Token(index), interest)?;
                Ok::<_, io::Error>(socket)
            };
            let socket = open().map_err(|error| format!("cannot send to {target}: {error}"))?;
            self.sockets.push(socket);
            self.flows.push((self.flow(index), None));
        }
        Ok(())
    }

    /// Numbers of flows, each of one thread only.
    fn flow(&self, index: usize) -> u32 {
        (index * self.share.of + self.share.index) as u32
    }

    pub(super) fn run(mut self, go: &mpsc::Receiver<Window>) -> ThreadResult {
        if let Err(error) = self.drive(go) {
            self.result.fail(error);
        }
        self.result.latency = Some(histogram());
        self.result
    }

    fn drive(&mut self, go: &mpsc::Receiver<Window>) -> Result<(), String> {
        let mut events = Events::with_capacity(256);
        let window = loop {
            if let Ok(window) = go.try_recv() {
                break window;
            }
            if self.stop.load(Relaxed) {
                return Ok(());
            }
            self.wait(&mut events, Duration::from_millis(100))?;
        };
        let mut feed = Feed::new(self.order, Instant::now());
        let mut next_order = Instant::now();
        let mut quiet_since = None;
        let mut again = true;
        while !self.stop.load(Relaxed) {
            let now = Instant::now();
            let stopping = now >= window.end;
            if stopping && quiet_since.is_none() && self.stream.goes_down() {
                self.order(0);
            }
            if stopping && self.is_over(now, &mut quiet_since) {
                break;
            }
            if !stopping && self.stream.goes_down() && now >= next_order {
                next_order = now + RENEW;
                self.order(HOLDS);
            }
            if !stopping && self.stream.goes_up() {
                let sockets = |at| &self.sockets[at];
                again = feed
                    .send(
                        &sockets,
                        &self.flows,
                        &self.traffic.up,
                        &mut self.pacing,
                        now,
                    )
                    .map_err(|error| format!("cannot send a datagram: {error}"))?;
            }
            let timeout = if again && !stopping && self.stream.goes_up() {
                Duration::ZERO
            } else if stopping {
                Duration::from_millis(10)
            } else {
                RENEW.min(window.end.saturating_duration_since(now))
            };
            self.wait(&mut events, timeout)?;
            self.pacing.clear();
            for event in &events {
                if let Token(index) = event.token()
                    && index < self.sockets.len()
                {
                    self.take(index)?;
                }
            }
        }
        Ok(())
    }

    /// What is on its way at the end has its time to arrive: until nothing has for a while.
    fn is_over(&self, now: Instant, quiet_since: &mut Option<(u64, Instant)>) -> bool {
        let arrived = self.traffic.up.arrived() + self.traffic.down.arrived();
        let (before, since) = *quiet_since.get_or_insert((arrived, now));
        if before != arrived {
            *quiet_since = Some((arrived, now));
            return false;
        }
        now.duration_since(since) >= self.plan.answer_timeout / 2
    }

    fn order(&self, milliseconds: u64) {
        for (index, socket) in self.sockets.iter().enumerate() {
            // A refusal is of an earlier one, and what is lost comes again.
            let _ = socket.send(&self.order.datagram(self.flow(index), milliseconds));
        }
    }

    /// Everything that has come to a socket: its events tell of new datagrams only.
    fn take(&mut self, index: usize) -> Result<(), String> {
        let flow = self.flow(index);
        loop {
            let count = match self.arrivals.receive(&self.sockets[index]) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(format!("cannot take a datagram: {error}")),
            };
            let (mut arrived, mut bytes, mut wrong) = (0, 0, 0);
            for at in 0..count {
                let arrival = self.arrivals.get(at);
                for datagram in arrival.datagrams() {
                    let header = Header::read(datagram).filter(|it| it.kind == Kind::Stream);
                    let Some(header) = header else {
                        wrong += 1;
                        continue;
                    };
                    if header.flow != flow {
                        self.result.strayed += 1;
                    }
                    arrived += 1;
                    bytes += datagram.len() as u64;
                    wrong += u64::from(arrival.cut || !header.fits(datagram));
                }
            }
            self.counters.received.fetch_add(bytes, Relaxed);
            self.counters.checked.fetch_add(bytes, Relaxed);
            self.traffic.down.count_arrived(arrived, wrong);
        }
    }

    fn wait(&mut self, events: &mut Events, timeout: Duration) -> Result<(), String> {
        match self.poll.poll(events, Some(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            other => other.map_err(|error| error.to_string()),
        }
    }
}
