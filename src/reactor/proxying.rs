//! A session whose client says where to go: its request, who judges it, the answer.
//!
//! ```text
//! Action::Listen  ─► peek, parse, take ──────────────► Requested | Rejected | Vanished
//! Action::Consult ─► the concierge, elsewhere … Reactor::answered ─► Admitted | Rejected
//! Action::Dial    ─► the addresses that it named, raced (reactor/dialling.rs)
//! Action::Answer  ─► 200, or why not ────────────────► Answered
//! ```
//! Invariants: exactly the bytes of the header are taken off the client's socket; a
//! request is consulted about once; an answer is begun once and counted once.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Reactor;
use super::upstream::server::{Server, ServerSettings};
use crate::config::AdminState;
use crate::engine::{Engine, Peeked, SessionKey};
use crate::net::address::Endpoint;
use crate::observe::counters::Counters;
use crate::observe::metrics::cell::Counter;
use crate::observe::record::escaped;
use crate::proto::connect::{self, Parse, Refusal, Request, Status};
use crate::relay::Side;
use crate::relay::ending::Cause;
use crate::relay::id::{ForwardId, ServerId};
use crate::relay::session::{Answered, Event as SessionEvent};

/// Addresses of one target that are dialled. A race opens four of them at a time, and
/// a client must not make the forwarder work through hundreds.
pub const ADDRESSES_MAX: usize = 16;

/// What a forward needs to serve requests.
#[derive(Debug, Clone)]
pub struct ProxySetup {
    /// Bytes of a request's header at the most.
    pub header_max: usize,
    /// What a 407 says the credentials are for.
    pub realm: Arc<str>,
}

/// Judges requests; asked once a session, by the reactor's thread.
pub trait Concierge: Debug + Send {
    /// Finds out whether and where a request may go, without blocking. The verdict is
    /// handed to [`Reactor::answered`] with this key, later.
    fn ask(&self, key: SessionKey, forward: ForwardId, request: Request);
}

/// What a concierge found.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// Who asks, if the credentials were looked at; shown in records.
    pub user: Option<String>,
    /// The addresses to dial, all of them allowed, in order and never none; or why the
    /// request goes nowhere.
    pub outcome: Result<Vec<SocketAddr>, Cause>,
}

/// What a session has besides, because it serves a request: little, for it is kept as
/// long as the session.
#[derive(Debug)]
pub(super) struct Proxying {
    /// Until the client is answered.
    asking: Option<Box<Asking>>,
    /// For the record, escaped.
    pub(super) target: Option<Box<str>>,
    pub(super) user: Option<Box<str>>,
    pub(super) status: Option<Status>,
}

/// A request that is being read, judged or answered.
#[derive(Debug, Default)]
struct Asking {
    /// What was taken of the header so far.
    header: Vec<u8>,
    request: Option<Request>,
    refusal: Option<Refusal>,
    /// The addresses that are dialled.
    servers: Vec<Arc<Server>>,
    /// What of the answer is still to be written.
    unsaid: Vec<u8>,
}

impl Proxying {
    /// Of a session whose request is awaited.
    pub(super) fn new() -> Self {
        Self {
            asking: Some(Box::default()),
            target: None,
            user: None,
            status: None,
        }
    }

    /// The addresses to dial; once.
    pub(super) fn take_servers(&mut self) -> Vec<Arc<Server>> {
        let asking = self.asking.as_mut();
        asking.map_or_else(Vec::new, |asking| std::mem::take(&mut asking.servers))
    }
}

impl<E: Engine> Reactor<E> {
    /// Carries out `Action::Listen`.
    pub(super) fn listen(&mut self, key: SessionKey) -> Option<SessionEvent> {
        let entry = self.ctx.sessions.get_mut(key)?;
        let max = entry.listener.forward.proxy.as_ref()?.header_max;
        let proxying = entry.proxying.as_mut()?;
        let asking = proxying.asking.as_mut()?;
        // Each round takes something, so there are no more rounds than bytes.
        loop {
            let seen = asking.header.len();
            self.header.resize(max - seen, 0);
            let len = match self.ctx.engine.peek(key, Side::Client, &mut self.header) {
                Peeked::Bytes(len) => len,
                Peeked::Empty => return None,
                Peeked::Ended => return Some(SessionEvent::Vanished(Cause::NoRequest)),
                Peeked::Failed(cause) => return Some(SessionEvent::Vanished(cause)),
            };
            asking.header.extend_from_slice(&self.header[..len]);
            let taken = match connect::parse(&asking.header, max) {
                Parse::More => len,
                Parse::Found { len, request } => {
                    proxying.target = Some(escaped(request.target.to_string().as_bytes()).into());
                    asking.request = Some(request);
                    len - seen
                }
                Parse::Invalid(refusal) => {
                    let target = connect::target_of(&asking.header);
                    proxying.target = (!target.is_empty()).then(|| escaped(target).into());
                    asking.refusal = Some(refusal);
                    asking.header = Vec::new();
                    // What is left in the socket is never parsed: it is discarded.
                    return Some(SessionEvent::Rejected(Cause::BadRequest));
                }
            };
            if let Err(cause) = self.ctx.engine.take(key, Side::Client, taken) {
                return Some(SessionEvent::Vanished(cause));
            }
            if asking.request.is_some() {
                asking.header = Vec::new();
                return Some(SessionEvent::Requested);
            }
        }
    }

    /// Carries out `Action::Consult`.
    pub(super) fn consult(&mut self, key: SessionKey) -> Option<SessionEvent> {
        let entry = self.ctx.sessions.get_mut(key)?;
        let request = entry.proxying.as_mut()?.asking.as_mut()?.request.take()?;
        match &self.concierge {
            Some(concierge) => {
                concierge.ask(key, entry.listener.forward.id, request);
                None
            }
            None => Some(SessionEvent::Rejected(Cause::Stopped)),
        }
    }

    /// The verdict of the concierge about a request. One that comes too late is
    /// dropped.
    pub fn answered(&mut self, key: SessionKey, verdict: Verdict) {
        let Some(entry) = self.ctx.sessions.get_mut(key) else {
            self.ctx.counters.stale_events.add(1);
            return;
        };
        let Some(proxying) = &mut entry.proxying else {
            return;
        };
        if !entry.session.is_consulting() {
            return;
        }
        let Some(asking) = &mut proxying.asking else {
            return;
        };
        proxying.user = verdict.user.map(|user| escaped(user.as_bytes()).into());
        let event = match verdict.outcome {
            Ok(addresses) => {
                let pool = &entry.listener.forward.name;
                let addresses = addresses.into_iter().take(ADDRESSES_MAX);
                asking.servers = addresses.map(|it| lone_server(it, pool)).collect();
                SessionEvent::Admitted
            }
            Err(cause) => SessionEvent::Rejected(cause),
        };
        self.deliver(key, event);
    }

    /// Carries out `Action::Answer`.
    pub(super) fn answer(&mut self, key: SessionKey) -> Option<SessionEvent> {
        let entry = self.ctx.sessions.get_mut(key)?;
        let forward = &entry.listener.forward;
        let (proxying, setup) = (entry.proxying.as_mut()?, forward.proxy.as_ref()?);
        let asking = proxying.asking.as_mut()?;
        if proxying.status.is_none() {
            let cause = entry.session.ending().map(|ending| ending.cause);
            let (status, why) = match (asking.refusal, cause) {
                (Some(refusal), _) => (refusal.status, refusal.why),
                (None, Some(cause)) => (status_of(cause), why(cause)),
                (None, None) => (Status::Established, ""),
            };
            proxying.status = Some(status);
            asking.unsaid = connect::answer(status, &setup.realm, why);
            counter_of(&self.ctx.counters, status).add(1);
        }
        let answered = match self.ctx.engine.say(key, Side::Client, &asking.unsaid) {
            Ok(said) if said == asking.unsaid.len() => {
                // Nothing is kept of it but what the record says.
                proxying.asking = None;
                Answered::Whole
            }
            Ok(said) => {
                asking.unsaid.drain(..said);
                Answered::Part
            }
            Err(cause) => Answered::Failed(cause),
        };
        Some(SessionEvent::Answered(answered))
    }
}

/// A server of no pool: what one session dials, and nobody else has.
fn lone_server(address: SocketAddr, pool: &Arc<str>) -> Arc<Server> {
    let server = Server::new(ServerSettings {
        id: ServerId::new(u32::MAX),
        endpoint: Endpoint::Inet(address),
        host: None,
        pool: pool.clone(),
        max_connections: None,
        admin: AdminState::Active,
        max_fails: 0,
        fail_timeout: Duration::ZERO,
    });
    server.set_alone(true);
    Arc::new(server)
}

/// The status that tells a client of a cause (RFC 9110, section 15).
const fn status_of(cause: Cause) -> Status {
    match cause {
        Cause::BadRequest | Cause::NoRequest => Status::BadRequest,
        Cause::Denied => Status::Forbidden,
        Cause::Unauthorised => Status::AuthenticationRequired,
        Cause::RequestTimeout => Status::RequestTimeout,
        Cause::ConnectTimeout | Cause::PeerTimeout | Cause::NameTimeout => Status::GatewayTimeout,
        cause if cause.is_local_shortage() => Status::Unavailable,
        Cause::NoServer
        | Cause::QueueFull
        | Cause::QueueTimeout
        | Cause::ServerDown
        | Cause::DrainTimeout
        | Cause::Stopped => Status::Unavailable,
        _ => Status::BadGateway,
    }
}

/// A cause in words that a client may know: nothing of the network behind the proxy.
const fn why(cause: Cause) -> &'static str {
    match cause {
        Cause::Denied => "this destination is not allowed",
        Cause::Unauthorised => "credentials are needed, or are wrong",
        Cause::RequestTimeout => "the request was not complete in time",
        Cause::ConnectTimeout | Cause::PeerTimeout => "the destination did not answer in time",
        Cause::NameTimeout => "the name could not be resolved in time",
        Cause::NameFailed => "the name cannot be resolved",
        Cause::Refused | Cause::SelfConnect => "the destination refused the connection",
        Cause::Unreachable => "the destination cannot be reached",
        Cause::Busy => "too many requests are being looked into; try again",
        cause if cause.is_local_shortage() => "the proxy is short of resources; try again",
        Cause::Stopped | Cause::DrainTimeout => "the proxy is ending",
        _ => "the connection to the destination failed",
    }
}

const fn counter_of(counters: &Counters, status: Status) -> &Counter {
    match status {
        Status::Established => &counters.http_connect_200,
        Status::BadRequest => &counters.http_connect_400,
        Status::Forbidden => &counters.http_connect_403,
        Status::MethodNotAllowed => &counters.http_connect_405,
        Status::AuthenticationRequired => &counters.http_connect_407,
        Status::RequestTimeout => &counters.http_connect_408,
        Status::HeaderTooLarge => &counters.http_connect_431,
        Status::BadGateway => &counters.http_connect_502,
        Status::Unavailable => &counters.http_connect_503,
        Status::GatewayTimeout => &counters.http_connect_504,
    }
}
