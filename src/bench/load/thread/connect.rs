//! How a thread's connections come to stand: all of them before the traffic begins,
//! a bounded number at a time, or one by one as they are needed.

use std::io;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Token};

use super::{BulkFlow, CONNECTING_MAX, Flow, Generator, QuestionFlow, text};
use crate::bench::load::bulk::Ends;
use crate::bench::load::shape::{Bulk, ConnectionLife, Exchange, Over};
use crate::bench::preface::Preface;
use crate::bench::sampling::Sampling;
use crate::bench::socket;

impl Generator {
    /// Connects every flow.
    ///
    /// # Errors
    /// What went wrong first, or that the deadline has passed.
    pub(in crate::bench::load) fn connect(&mut self, deadline: Instant) -> Result<(), String> {
        let bulk = self.share.bulk(&self.plan.shape);
        let exchange = self.share.exchange(&self.plan.shape);
        let bulk_flows = bulk.map_or(0, |bulk| self.share.of_flows(bulk.flows));
        let exchanges = exchange.map_or(0, |e| self.share.of_flows(e.flows));
        self.flows = (0..bulk_flows + exchanges).map(|_| Flow::Gone).collect();
        let kept = exchange.is_none_or(|it| it.connection == ConnectionLife::Kept);
        if let Some(exchange) = exchange.filter(|it| it.over == Over::Datagrams) {
            return self.open_ports(exchange, kept);
        }
        let tunnel = match self.plan.preface {
            Preface::Tunnel(origin) => Some(origin),
            Preface::Nothing | Preface::Bytes(_) => None,
        };
        if tunnel.is_some() && !kept {
            return Err("exchanges on fresh connections are not made through a proxy".to_owned());
        }
        let mut streams = self.connect_all(bulk_flows, exchange, deadline)?;
        if let Some(origin) = tunnel {
            for stream in streams.iter().flatten() {
                socket::ask_for_tunnel(stream, origin)
                    .map_err(|error| format!("no tunnel to {origin}: {error}"))?;
            }
        }
        for (index, stream) in streams.iter_mut().enumerate() {
            let Some(stream) = stream.take() else {
                // Fresh connections are made when they are needed.
                continue;
            };
            self.live += 1;
            self.seed += 7_919;
            self.flows[index] = match (bulk, exchange) {
                (Some(Bulk { direction, .. }), _) if index < bulk_flows => {
                    let ends = self.plan.compare_one_in.map_or(Ends::Plain, |one_in| {
                        Ends::Cheap(Sampling::new(one_in as u64))
                    });
                    let preface = self.plan.preface.bytes();
                    Flow::Bulk(BulkFlow::new(stream, direction, self.seed, ends, preface))
                }
                (_, Some(exchange)) => Flow::Exchange(self.exchange_flow(stream, exchange)),
                _ => Flow::Gone,
            };
        }
        Ok(())
    }

    /// Connects the flows that live from the start, a bounded number at a time.
    fn connect_all(
        &mut self,
        bulk_flows: usize,
        exchange: Option<Exchange>,
        deadline: Instant,
    ) -> Result<Vec<Option<TcpStream>>, String> {
        let wanted = match exchange {
            Some(exchange) if exchange.connection == ConnectionLife::Kept => self.flows.len(),
            _ => bulk_flows,
        };
        let mut streams: Vec<Option<TcpStream>> = (0..self.flows.len()).map(|_| None).collect();
        let (mut started, mut standing) = (0, 0);
        let mut stands = vec![false; wanted];
        let mut events = Events::with_capacity(256);
        while standing < wanted {
            while started < wanted && started - standing < CONNECTING_MAX {
                streams[started] = Some(self.start_connect(started)?);
                started += 1;
            }
            if Instant::now() >= deadline || self.stop.load(Relaxed) {
                return Err(format!(
                    "only {standing} of {wanted} connections to {} stood in time",
                    self.plan.target
                ));
            }
            self.wait(&mut events, Duration::from_millis(100))?;
            for event in &events {
                let Token(index) = event.token();
                let Some(Some(stream)) = streams.get(index) else {
                    continue;
                };
                if let Some(error) = stream.take_error().map_err(text)? {
                    return Err(format!("cannot connect to {}: {error}", self.plan.target));
                }
                if event.is_writable() && !stands[index] && stream.peer_addr().is_ok() {
                    let congestion = self.plan.congestion.as_deref();
                    socket::connected(stream, congestion, self.plan.options.as_ref())
                        .map_err(text)?;
                    stands[index] = true;
                    standing += 1;
                }
            }
        }
        if let Some(watch) = &self.plan.watch {
            let shown = if bulk_flows > 0 { bulk_flows } else { wanted };
            let streams = streams.iter().take(shown).flatten();
            streams.for_each(|stream| watch.show(stream));
        }
        Ok(streams)
    }

    /// There is nothing to wait for: a datagram asks nobody before it is sent.
    fn open_ports(&mut self, exchange: Exchange, kept: bool) -> Result<(), String> {
        if self.plan.preface != Preface::Nothing {
            return Err("a proxy for connections forwards no datagrams".to_owned());
        }
        for index in 0..if kept { self.flows.len() } else { 0 } {
            self.flows[index] = Flow::Question(self.question_flow(index, exchange)?);
            self.live += 1;
        }
        Ok(())
    }

    pub(super) fn question_flow(
        &mut self,
        index: usize,
        exchange: Exchange,
    ) -> Result<QuestionFlow, String> {
        let target = self.plan.target;
        let open = || {
            let mut socket = socket::connect_datagrams(target)?;
            let readable = Interest::READABLE;
            self.poll
                .registry()
                .register(&mut socket, Token(index), readable)?;
            Ok::<_, io::Error>(socket)
        };
        let socket = open().map_err(|error| format!("cannot send to {target}: {error}"))?;
        self.seed += 7_919;
        // Unique among the flows of all threads, and among those before at this place.
        let flow = (self.seed as u32) ^ ((self.share.index as u32) << 24);
        Ok(QuestionFlow::new(socket, exchange.size, flow))
    }

    pub(super) fn start_connect(&self, index: usize) -> Result<TcpStream, String> {
        let connect = || {
            let mut stream = socket::connect(
                self.plan.target,
                self.plan.congestion.as_deref(),
                self.plan.options.as_ref(),
            )?;
            self.poll.registry().register(
                &mut stream,
                Token(index),
                Interest::READABLE | Interest::WRITABLE,
            )?;
            Ok::<_, io::Error>(stream)
        };
        connect().map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRNOTAVAIL) => format!(
                "no free local port to connect to {} (net.ipv4.ip_local_port_range)",
                self.plan.target
            ),
            _ => format!("cannot connect to {}: {error}", self.plan.target),
        })
    }
}
