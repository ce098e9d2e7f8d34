//! What sends a stream of datagrams, at either end: so many flows in turn, at a rate, within a window, or
//! as fast as it goes.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timer::Expiration;
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::datagram::{HEADER, Header, Kind, Order};
use super::mmsg::Departures;
use super::pattern;
use super::traffic::Way;

/// Datagrams of one flow in one call.
const BURST: usize = 16;

/// Calls before whoever has this gets its turn.
const CALLS: usize = 8;

/// Nothing has arrived for so long: what is under way is lost. A path's round trip has to be shorter.
const STALL: Duration = Duration::from_millis(200);

/// A rate is kept by sending what has become due this often, or seldom enough that one has.
const TICK: Duration = Duration::from_micros(100);

/// Wakes a sender when its time has come; epoll's own timeout counts in milliseconds.
pub(super) struct Pacing {
    timer: TimerFd,
    armed: bool,
}

impl Pacing {
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self {
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?,
            armed: false,
        })
    }

    /// Forgets that it went off.
    pub(super) fn clear(&mut self) {
        if self.armed {
            // A level that nobody reads away would only be seen once: the poll is edge-triggered.
            let _ = self.timer.wait();
            self.armed = false;
        }
    }

    fn wake_in(&mut self, time: Duration) -> io::Result<()> {
        // Zero would disarm it.
        let time = TimeSpec::from_duration(time.max(Duration::from_micros(1)));
        self.timer
            .set(Expiration::OneShot(time), TimerSetTimeFlags::empty())?;
        self.armed = true;
        Ok(())
    }
}

impl AsFd for Pacing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

/// A stream that is being sent.
pub(super) struct Feed {
    order: Order,
    departures: Departures,
    /// Of the datagram at each place.
    positions: Vec<u64>,
    numbers: Vec<u64>,
    next: usize,
    /// Of a rate: since when, and how many.
    since: Instant,
    sent: u64,
    /// Of a window: what had arrived when, at the last look.
    moved: (u64, Instant),
}

impl Feed {
    pub(super) fn new(order: Order, now: Instant) -> Self {
        let size = usize::from(order.size);
        let train = usize::from(order.train);
        let count = BURST.max(train);
        let mut departures = Departures::new(count, size, train);
        // The rest of a datagram stays; only its front is written for each.
        let positions: Vec<u64> = (0..count as u64).map(|at| at * 7_919).collect();
        for (index, position) in positions.iter().enumerate() {
            let rest = &mut departures.datagram(index)[HEADER..];
            rest.copy_from_slice(pattern::slice(*position, rest.len()));
        }
        Self {
            order,
            departures,
            positions,
            numbers: Vec::new(),
            next: 0,
            since: now,
            sent: 0,
            moved: (0, now),
        }
    }

    pub(super) fn order(&self) -> Order {
        self.order
    }

    /// Sends what may be sent now. True: call again at once; false: when the timer or the window's
    /// waker says so.
    pub(super) fn send<'a, S: AsFd + 'a>(
        &mut self,
        sockets: &dyn Fn(usize) -> &'a S,
        flows: &[(u32, Option<SocketAddr>)],
        way: &Way,
        pacing: &mut Pacing,
        now: Instant,
    ) -> io::Result<bool> {
        if flows.is_empty() {
            return Ok(false);
        }
        self.numbers.resize(flows.len().max(self.numbers.len()), 0);
        for _ in 0..CALLS {
            let Some(count) = self.allowed(flows.len(), way, pacing, now)? else {
                return Ok(false);
            };
            let at = self.next % flows.len();
            self.next = at + 1;
            let (flow, to) = flows[at];
            for index in 0..count {
                let header = Header {
                    kind: Kind::Stream,
                    flow,
                    number: self.numbers[at] + index as u64,
                    position: self.positions[index],
                    length: self.order.size,
                };
                if let Some(front) = self.departures.front(index) {
                    header.write(front);
                }
            }
            // Counted before: it may have arrived when the call comes back.
            way.count_sent(count as u64);
            let taken = match self.departures.send(sockets(at), to, count) {
                Ok(taken) => taken,
                // Somebody refused an earlier one. What was to be sent now is lost, as on a path.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => count,
                Err(error) => return Err(error),
            };
            way.count_unsent((count - taken) as u64);
            self.numbers[at] += taken as u64;
            self.sent += taken as u64;
            if taken < count {
                // The socket's buffer is full; there is no telling when it will not be.
                pacing.wake_in(TICK)?;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How many of one flow; `None`: none, and a wake-up is arranged.
    fn allowed(
        &mut self,
        flows: usize,
        way: &Way,
        pacing: &mut Pacing,
        now: Instant,
    ) -> io::Result<Option<usize>> {
        let most = self.departures.count();
        if self.order.rate > 0 {
            let rate = f64::from(self.order.rate) * flows as f64;
            let due = (now.duration_since(self.since).as_secs_f64() * rate) as u64 + 1;
            let behind = due.saturating_sub(self.sent);
            // A train waits until it is whole.
            let least = u64::from(self.order.train);
            if behind < least {
                let wait = Duration::from_secs_f64((least - behind) as f64 / rate);
                pacing.wake_in(wait.max(TICK))?;
                return Ok(None);
            }
            // What this machine was too late for by more than this is not made up for.
            let most_behind = (rate / 100.0) as u64 + least;
            self.sent += behind.saturating_sub(most_behind);
            return Ok(Some((behind as usize).min(most).min(self.burst())));
        }
        if self.order.window == 0 {
            return Ok(Some(most.min(self.burst())));
        }
        let room = way.room(u64::from(self.order.window));
        let arrived = way.arrived();
        if room > 0 || arrived != self.moved.0 {
            self.moved = (arrived, now);
        }
        if room == 0 {
            if now.duration_since(self.moved.1) >= STALL {
                way.write_off();
                self.moved = (arrived, now);
                return Ok(Some(self.burst()));
            }
            pacing.wake_in(STALL / 4)?;
            return Ok(None);
        }
        Ok(Some((room as usize).min(self.burst())))
    }

    /// Whole trains.
    fn burst(&self) -> usize {
        let train = usize::from(self.order.train);
        (BURST / train).max(1) * train
    }
}
