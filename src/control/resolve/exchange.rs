//! One question to one name server: over UDP, and over TCP where a datagram will not do.
//!
//! ```text
//!  UDP with EDNS0 ── an answer ───────────────────────────► done
//!     │  ├── truncated, or no message at all ─► TCP ──────► done
//!     │  └── FORMERR, NOTIMP ─► UDP without EDNS0 ────────► done
//!     └ silence: sent again after 1 s, then every 2 s, from the third time on without
//!       EDNS0, which some middleboxes drop
//! ```
//! Invariants: an answer is one to this very question, from the server that was asked,
//! with a number that cannot be guessed and from a port that the kernel drew. Nothing
//! here ends by itself while the server is silent: whoever asks has the deadline.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, Query, ResponseCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::error::LookupError;

/// What an answer may have over UDP: what passes everywhere in one piece (DNS flag day
/// 2020).
const PAYLOAD: u16 = 1232;

/// The largest datagram. Some servers send more than they were allowed, without saying
/// that it is cut.
const DATAGRAM_MAX: usize = 65_535;

/// How long an answer may take before the question is sent again: the first time, and
/// from then on. One that was lost must not cost the server's whole turn.
const FIRST_RESEND: Duration = Duration::from_secs(1);
const RESEND: Duration = Duration::from_secs(2);

/// Sendings with EDNS0, before one is tried without.
const EXTENDED_SENDINGS: u32 = 2;

/// A name server, and what was learnt of it.
#[derive(Debug)]
pub(super) struct NameServer {
    pub(super) address: SocketAddr,
    /// It has refused or swallowed EDNS0.
    plain: AtomicBool,
    /// It answers late, and the log has said so.
    slow: AtomicBool,
}

impl NameServer {
    pub(super) const fn new(address: SocketAddr) -> Self {
        Self {
            address,
            plain: AtomicBool::new(false),
            slow: AtomicBool::new(false),
        }
    }

    /// Remembers whether it is slow; whether that is news.
    pub(super) fn is_newly_slow(&self, slow: bool) -> bool {
        !self.slow.swap(slow, Ordering::Relaxed) && slow
    }

    /// Asks it; waits for ever.
    pub(super) async fn exchange(
        &self,
        query: &Query,
        over_tcp: bool,
    ) -> Result<Message, LookupError> {
        if !over_tcp
            && let Some(answer) = self
                .over_udp(query)
                .await
                .map_err(|error| self.lost(&error))?
        {
            return Ok(answer);
        }
        match self.over_tcp(query).await {
            Ok(answer) => Ok(answer),
            Err(error) if error.kind() == ErrorKind::InvalidData => {
                Err(LookupError::Answer(format!("{}: {error}", self.address)))
            }
            Err(error) => Err(LookupError::Unreachable(format!(
                "{} over TCP: {error}",
                self.address
            ))),
        }
    }

    fn lost(&self, error: &io::Error) -> LookupError {
        LookupError::Unreachable(format!("{}: {error}", self.address))
    }

    /// `None`: a datagram will not do.
    async fn over_udp(&self, query: &Query) -> io::Result<Option<Message>> {
        let any: SocketAddr = match self.address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).await?;
        // Only it can answer, and that nobody is there is known at once.
        socket.connect(self.address).await?;
        let (extended, plain) = (question(query, true), question(query, false));
        let mut sendings = 0;
        loop {
            let is_plain = self.plain.load(Ordering::Relaxed) || sendings >= EXTENDED_SENDINGS;
            let asked = if is_plain { &plain } else { &extended };
            socket
                .send(&asked.to_vec().map_err(io::Error::other)?)
                .await?;
            let patience = if sendings == 0 { FIRST_RESEND } else { RESEND };
            sendings += 1;
            let ids = [extended.metadata.id, plain.metadata.id];
            let Ok(received) = timeout(patience, receive(&socket, query, ids)).await else {
                continue;
            };
            let (id, answer) = received?;
            let was_plain = id == plain.metadata.id;
            if was_plain {
                self.plain.store(true, Ordering::Relaxed);
            }
            let Some(answer) = answer else {
                return Ok(None);
            };
            if !was_plain && is_not_understood(&answer) {
                self.plain.store(true, Ordering::Relaxed);
                sendings = 0;
                continue;
            }
            return Ok(Some(answer));
        }
    }

    async fn over_tcp(&self, query: &Query) -> io::Result<Message> {
        let mut stream = TcpStream::connect(self.address).await?;
        loop {
            let is_plain = self.plain.load(Ordering::Relaxed);
            let asked = question(query, !is_plain);
            let bytes = asked.to_vec().map_err(io::Error::other)?;
            let framed = [&(bytes.len() as u16).to_be_bytes()[..], &bytes].concat();
            stream.write_all(&framed).await?;
            let len = stream.read_u16().await?;
            let mut bytes = vec![0; usize::from(len)];
            stream.read_exact(&mut bytes).await?;
            let invalid = |why: String| io::Error::new(ErrorKind::InvalidData, why);
            let answer = Message::from_vec(&bytes).map_err(|error| invalid(error.to_string()))?;
            if answer.metadata.id != asked.metadata.id || !is_answer(&answer, query) {
                return Err(invalid("it is no answer to the question".to_owned()));
            }
            if is_plain || !is_not_understood(&answer) {
                return Ok(answer);
            }
            self.plain.store(true, Ordering::Relaxed);
        }
    }
}

fn question(query: &Query, extended: bool) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(query.clone());
    if extended {
        let mut edns = Edns::new();
        edns.set_max_payload(PAYLOAD);
        message.set_edns(edns);
    }
    message
}

/// An answer, and the number of the question; `None`: it is cut, or no message.
async fn receive(
    socket: &UdpSocket,
    query: &Query,
    ids: [u16; 2],
) -> io::Result<(u16, Option<Message>)> {
    loop {
        // That nobody is there is an error and no datagram.
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
        if ready.is_error() {
            let error = socket.try_io(Interest::ERROR, || {
                let none = io::Error::from(ErrorKind::WouldBlock);
                socket.take_error()?.ok_or(none)
            });
            match error {
                Ok(error) => return Err(error),
                Err(none) if none.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        // Not before there is something: most of the time is spent on waiting.
        let mut bytes = vec![0; DATAGRAM_MAX];
        match socket.try_recv(&mut bytes) {
            Ok(len) => bytes.truncate(len),
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        let id = bytes.first_chunk().map(|it| u16::from_be_bytes(*it));
        let Some(id) = id.filter(|id| ids.contains(id)) else {
            continue;
        };
        match Message::from_vec(&bytes) {
            Ok(answer) if !is_answer(&answer, query) => {}
            Ok(answer) if answer.metadata.truncation => return Ok((id, None)),
            Ok(answer) => return Ok((id, Some(answer))),
            Err(_) => return Ok((id, None)),
        }
    }
}

/// Whether it answers this question. Some say an error and leave the question out.
fn is_answer(answer: &Message, query: &Query) -> bool {
    let same = match answer.queries.as_slice() {
        [asked] => asked == query,
        [] => answer.metadata.response_code != ResponseCode::NoError,
        _ => false,
    };
    answer.metadata.message_type == MessageType::Response && same
}

/// Whether it may be EDNS0 that the server has refused (RFC 6891, section 7).
fn is_not_understood(answer: &Message) -> bool {
    matches!(
        answer.metadata.response_code,
        ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS
    )
}
