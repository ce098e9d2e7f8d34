//! A check over a connection, or by a datagram and its answer: connect, send what there is to send, and judge the
//! answer byte by byte. Never blocks; whoever owns it waits and keeps the deadline.
//!
//! ```text
//! connecting ──► connected ──► sent ──► answer judged
//!      │ refused      └────── reset, end ──────┴─► judged by what came before it
//!      ▼
//!    failed
//! ```
//! Invariant: what has arrived is read before an error is believed. A server that
//! answers and resets at once has answered, and one that accepts and resets has
//! accepted (behaviour 31).

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use socket2::SockRef;

use super::answer::{ANSWER_MAX, Expectation, Judgement};
use super::hello::client_hello;
use super::{CheckPlan, Outcome};
use crate::balance::Random;
use crate::config::CheckKind;
use crate::net::address::Endpoint;
use crate::net::datagram::{self, Call};
use crate::net::dial::{self, Connecting, Early, Local};
use crate::net::errno::{Failure, Operation};
use crate::net::options::plan::send_delayed_ack;
use crate::proto::proxy;

/// A check on its way.
#[derive(Debug)]
pub(super) struct Connection {
    /// Of any family: reads and writes are the same for a unix socket.
    socket: TcpStream,
    phase: Phase,
    /// The port, where the kernel may have connected the socket to itself.
    suspect: Option<u16>,
    to_send: Vec<u8>,
    sent: usize,
    answer: Vec<u8>,
    expectation: Expectation,
    /// What is sent is one datagram, and so is an answer.
    is_datagram: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Connected,
}

impl Connection {
    /// Starts to connect. An error is the outcome of the check.
    pub(super) fn open(
        plan: &CheckPlan,
        ephemeral_ports: &RangeInclusive<u16>,
        random: &mut Random,
    ) -> Result<Self, Outcome> {
        let target = plan.target();
        let (question, expectation) = exchange(plan, &target, random);
        let mut to_send = Vec::new();
        if let Some(version) = plan.send_proxy {
            proxy::local(version, &mut to_send);
        }
        to_send.extend(question);
        if matches!(plan.check.kind, CheckKind::Udp { .. }) {
            return Self::ask(plan, &target, &to_send, expectation);
        }
        // Without bytes in the SYN, even of those that have some to send: what is
        // asked is whether the server accepts.
        let opened = dial::open_for_connect(&target, &plan.options, Early::Nothing);
        let fd = opened.map_err(outcome_of)?.fd;
        let phase = match dial::connect(fd.as_fd(), &target).map_err(outcome_of)? {
            Connecting::Done => Phase::Connected,
            Connecting::InProgress | Connecting::Deferred => Phase::Connecting,
        };
        Ok(Self {
            socket: fd.into(),
            phase,
            suspect: dial::may_self_connect(&target, ephemeral_ports),
            to_send,
            sent: 0,
            answer: Vec::new(),
            expectation,
            is_datagram: false,
        })
    }

    /// A question in a datagram. A connected socket hears of nobody else, and of a refusal.
    fn ask(
        plan: &CheckPlan,
        target: &Endpoint,
        question: &[u8],
        expectation: Expectation,
    ) -> Result<Self, Outcome> {
        let Endpoint::Inet(server) = target else {
            return Err(Outcome::Failed(
                "a unix socket takes no datagrams".to_owned(),
            ));
        };
        let call = Call {
            server: *server,
            options: &plan.options,
            local: Local::Plan,
            never_fragment: false,
            ports: None,
        };
        let socket: TcpStream = datagram::connect(&call).map_err(outcome_of)?.fd.into();
        // An error is told by the read: that nobody listens, maybe.
        let _ = (&socket).write(question);
        Ok(Self {
            socket,
            phase: Phase::Connected,
            suspect: None,
            to_send: Vec::new(),
            sent: 0,
            answer: Vec::new(),
            expectation,
            is_datagram: true,
        })
    }

    /// The descriptor to wait on, edge-triggered and for both directions.
    pub(super) fn descriptor(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Goes on as far as it can; the outcome, once there is one. To be called after
    /// every event; needless calls do no harm.
    pub(super) fn advance(&mut self) -> Option<Outcome> {
        if self.phase == Phase::Connecting {
            match self.finish_connect() {
                Ok(true) => self.phase = Phase::Connected,
                Ok(false) => return None,
                Err(outcome) => return Some(outcome),
            }
        }
        self.send();
        if self.expectation.judge(&[]) == Judgement::Good {
            return Some(Outcome::Passed);
        }
        self.receive()
    }

    /// What it means that the time is over.
    pub(super) fn timed_out(&self) -> Outcome {
        let reason = match (self.phase, self.answer.is_empty()) {
            (Phase::Connecting, _) => "connect timed out",
            (Phase::Connected, true) => "no answer in time",
            (Phase::Connected, false) => "answer incomplete in time",
        };
        Outcome::Failed(reason.to_owned())
    }

    /// Whether the connect has succeeded.
    fn finish_connect(&mut self) -> Result<bool, Outcome> {
        match dial::pending_error(self.socket.as_fd(), Operation::Connect) {
            // A connect is refused, not reset; so this one had succeeded, and was
            // reset before anybody looked.
            Some(failure) if failure.is_peer_gone() => return Ok(true),
            Some(failure) => return Err(outcome_of(failure)),
            None => {}
        }
        // A socket has a peer from the moment its connect succeeds.
        if SockRef::from(&self.socket).peer_addr().is_err() {
            return Ok(false);
        }
        let fd = self.socket.as_fd();
        if (self.suspect).is_some_and(|port| dial::is_self_connect(fd, port)) {
            return Err(outcome_of(Failure::Refused));
        }
        if self.to_send.is_empty() {
            // A server that speaks first would wait for it. What cannot be sent now
            // the kernel sends by itself, later.
            let _ = send_delayed_ack(self.socket.as_fd());
        }
        Ok(true)
    }

    /// Sends on. An error is not the outcome: the answer may be there already.
    fn send(&mut self) {
        while self.sent < self.to_send.len() {
            let is_first = self.sent == 0;
            match self.socket.write(&self.to_send[self.sent..]) {
                Ok(count) => {
                    self.sent += count;
                    if is_first {
                        // An answer in two writes would wait for the ACK of the first.
                        let _ = send_delayed_ack(self.socket.as_fd());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn receive(&mut self) -> Option<Outcome> {
        let mut buffer = [0; 4096];
        loop {
            let failure = match self.socket.read(&mut buffer) {
                Ok(0) if !self.is_datagram => "connection ended".to_owned(),
                Ok(count) => {
                    self.answer.extend_from_slice(&buffer[..count]);
                    match self.expectation.judge(&self.answer) {
                        Judgement::Good => return Some(Outcome::Passed),
                        Judgement::Bad(reason) => return Some(Outcome::Failed(reason)),
                        Judgement::More if self.is_datagram => {
                            let reason = "answer is shorter than expected".to_owned();
                            return Some(Outcome::Failed(reason));
                        }
                        Judgement::More if self.answer.len() < ANSWER_MAX => continue,
                        Judgement::More => {
                            let reason = format!("no good answer in {ANSWER_MAX} bytes");
                            return Some(Outcome::Failed(reason));
                        }
                    }
                }
                Err(error) => match Failure::of_io(Operation::Transfer, &error) {
                    Failure::WouldBlock => return None,
                    Failure::Interrupted => continue,
                    failure if self.is_datagram => {
                        return Some(Outcome::Failed(format!("question {failure}")));
                    }
                    failure => format!("connection failed ({failure})"),
                },
            };
            let when = if self.answer.is_empty() {
                "before an answer"
            } else {
                "within the answer"
            };
            return Some(Outcome::Failed(format!("{failure} {when}")));
        }
    }
}

/// What is sent, and what has to come back.
fn exchange(plan: &CheckPlan, target: &Endpoint, random: &mut Random) -> (Vec<u8>, Expectation) {
    match &plan.check.kind {
        CheckKind::Tcp | CheckKind::Command { .. } => (Vec::new(), Expectation::Connect),
        CheckKind::Exchange { send, expect } | CheckKind::Udp { send, expect } => {
            (send.clone(), Expectation::Start(expect.clone()))
        }
        CheckKind::Http {
            path,
            host,
            statuses,
        } => {
            let host = host.clone().unwrap_or_else(|| plan.host_header(target));
            let request = format!(
                "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: thalweg-check\r\n\
                 Accept: */*\r\nConnection: close\r\n\r\n"
            );
            (request.into_bytes(), Expectation::Status(statuses.clone()))
        }
        CheckKind::Tls { server_name } => {
            let name = server_name.as_deref().or(plan.host.as_deref());
            let noise = std::array::from_fn(|_| random.draw());
            (client_hello(name, noise), Expectation::ServerHello)
        }
    }
}

/// Of a connect that failed. What this host lacks is no server's fault.
fn outcome_of(failure: Failure) -> Outcome {
    if failure.blames_server() {
        Outcome::Failed(format!("connect {failure}"))
    } else {
        Outcome::Unable(format!("connect {failure}"))
    }
}
