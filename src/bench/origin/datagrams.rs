//! The thread of an origin that serves datagrams: it sends back, swallows, and streams to whom it was
//! ordered to.
//!
//! ```text
//!   receive a batch ─► questions go back ─► streams are counted ─► orders are noted
//!        ▲                                                              │
//!        └──── sleep: a datagram, room in the window, the next due ◄── send what may be sent
//! ```

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};
use nix::sys::socket::{setsockopt, sockopt};

use super::options::{Counters, DatagramOptions};
use crate::bench::datagram::{Header, Kind, Order};
use crate::bench::mmsg::Arrivals;
use crate::bench::socket;
use crate::bench::streaming::{Feed, Pacing};
use crate::bench::traffic::Traffic;
use crate::observe::aside::aside;

/// Batches before what is to be sent gets its turn.
const BATCHES: usize = 8;

/// The longest that an order holds unless it is renewed.
const ORDER: Duration = Duration::from_millis(500);

const SOCKET: Token = Token(0);
const WAKE: Token = Token(1);
const TIMER: Token = Token(2);

/// A bound socket.
pub(super) struct Server {
    socket: UdpSocket,
    options: DatagramOptions,
}

/// What it shares with the rest of the origin.
pub(super) struct Shared {
    pub(super) counters: Arc<Counters>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) stop: Arc<AtomicBool>,
}

impl Server {
    pub(super) fn bind(options: DatagramOptions) -> io::Result<Self> {
        let address = options
            .address
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
        let bind = || {
            let socket = socket::bind_datagrams(address)?;
            if options.in_trains {
                setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
            }
            Ok::<_, io::Error>(socket)
        };
        let socket = bind().map_err(|error| {
            let text = format!("cannot take datagrams at {address}: {error}");
            io::Error::new(error.kind(), text)
        })?;
        Ok(Self { socket, options })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(super) fn share(mut self, shared: Shared) -> io::Result<Serving> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        let registry = poll.registry();
        registry.register(
            &mut self.socket,
            SOCKET,
            Interest::READABLE | Interest::WRITABLE,
        )?;
        let pacing = Pacing::new()?;
        registry.register(
            &mut SourceFd(&pacing.as_fd().as_raw_fd()),
            TIMER,
            Interest::READABLE,
        )?;
        Ok(Serving {
            own: self.socket.local_addr()?,
            arrivals: Arrivals::new(),
            socket: self.socket,
            streams: self.options.streams,
            poll,
            waker,
            pacing,
            shared,
            orders: Vec::new(),
            feed: None,
        })
    }
}

/// Somebody who wants a stream.
#[derive(Debug, Clone, Copy)]
struct Ordered {
    to: SocketAddr,
    flow: u32,
    order: Order,
    until: Instant,
}

pub(super) struct Serving {
    socket: UdpSocket,
    own: SocketAddr,
    streams: bool,
    arrivals: Arrivals,
    poll: Poll,
    waker: Arc<Waker>,
    pacing: Pacing,
    shared: Shared,
    orders: Vec<Ordered>,
    /// Made anew when an order is another one.
    feed: Option<Feed>,
}

impl Serving {
    pub(super) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(8);
        let mut again = false;
        while !self.shared.stop.load(Relaxed) {
            let timeout = if again { Duration::ZERO } else { ORDER / 2 };
            match self.poll.poll(&mut events, Some(timeout)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Nothing but a bug makes epoll_wait fail on a valid descriptor.
                Err(error) => panic!("epoll_wait: {error}"),
            }
            self.pacing.clear();
            again = self.receive();
            again |= self.send(Instant::now());
        }
    }

    /// True: there may be more.
    fn receive(&mut self) -> bool {
        for _ in 0..BATCHES {
            match self.arrivals.receive(&self.socket) {
                Ok(0) => return false,
                Ok(count) => self.serve(count),
                // The error of a datagram that was sent: whoever it went to is gone.
                Err(_) => {}
            }
        }
        true
    }

    fn serve(&mut self, count: usize) {
        let mut back = Vec::with_capacity(count);
        let (mut arrived, mut bytes, mut wrong, mut questions) = (0_u64, 0_u64, 0_u64, 0_u64);
        for index in 0..count {
            let arrival = self.arrivals.get(index);
            let mut echoes = false;
            for datagram in arrival.datagrams() {
                match Header::read(datagram) {
                    Some(header) if header.kind == Kind::Stream => {
                        bytes += datagram.len() as u64;
                        arrived += 1;
                        wrong += u64::from(arrival.cut || !header.fits(datagram));
                    }
                    Some(header) if header.kind == Kind::Order && self.streams => {
                        let to = arrival.from;
                        if let Some(order) = Order::read(datagram) {
                            let until =
                                Instant::now() + Duration::from_millis(header.number).min(ORDER);
                            let flow = header.flow;
                            take(
                                &mut self.orders,
                                Ordered {
                                    to,
                                    flow,
                                    order,
                                    until,
                                },
                            );
                        }
                    }
                    _ => {
                        questions += 1;
                        bytes += datagram.len() as u64;
                        echoes = !arrival.cut;
                    }
                }
            }
            if echoes && arrival.from.port() != 0 && arrival.from != self.own {
                back.push(index);
            }
        }
        let counters = &self.shared.counters;
        counters.received.fetch_add(bytes, Relaxed);
        if arrived > 0 {
            self.shared.traffic.up.count_arrived(arrived, wrong);
        }
        if questions > 0 {
            counters.datagrams.fetch_add(questions, Relaxed);
            let sent = self.arrivals.send_back(&self.socket, &back) as u64;
            let unanswered = questions.saturating_sub(sent);
            counters.datagrams_unanswered.fetch_add(unanswered, Relaxed);
        }
    }

    /// Sends what the orders allow; true: more at once.
    fn send(&mut self, now: Instant) -> bool {
        self.orders.retain(|it| it.until > now);
        let Some(first) = self.orders.first() else {
            self.feed = None;
            return false;
        };
        let order = first.order;
        if self.feed.as_ref().is_none_or(|feed| feed.order() != order) {
            self.shared
                .traffic
                .down
                .set_senders(vec![Arc::clone(&self.waker)]);
            self.feed = Some(Feed::new(order, now));
        }
        let Some(feed) = &mut self.feed else {
            return false;
        };
        let flows: Vec<(u32, Option<SocketAddr>)> = self
            .orders
            .iter()
            .map(|it| (it.flow, Some(it.to)))
            .collect();
        let sockets = |_| &self.socket;
        match feed.send(
            &sockets,
            &flows,
            &self.shared.traffic.down,
            &mut self.pacing,
            now,
        ) {
            Ok(again) => again,
            Err(error) => {
                aside(&format!("thalweg: cannot send a datagram: {error}\n"));
                self.orders.clear();
                false
            }
        }
    }
}

/// An order holds for as long as it is renewed.
fn take(orders: &mut Vec<Ordered>, new: Ordered) {
    const ORDERS_MAX: usize = 100_000;
    let is_it = |it: &Ordered| it.to == new.to && it.flow == new.flow;
    match orders.iter().position(is_it) {
        Some(known) => orders[known] = new,
        None if orders.len() < ORDERS_MAX => orders.push(new),
        None => {}
    }
}
