//! What a program that embeds a forwarder decides about its sessions, in code of its own.
//!
//! Asked once a session, on its reactor's thread, when what comes before the payload is read: so it must not
//! block. What it names is dialled like any other; an answer that cannot be carried out turns the client away.
//! Who does not decide anything pays nothing: without it a forward has no step for it.

use core::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::net::address::Endpoint;

/// A program's own decision about sessions of TCP and of unix sockets. Any closure from [`Caller`] to [`Course`] is
/// one.
///
/// ```
/// use thalweg::reactor::{Caller, Course, Decide};
///
/// fn decision() -> impl Decide {
///     |caller: &Caller<'_>| match caller.client.to_string().starts_with("10.") {
///         true => Course::AsConfigured,
///         false => Course::Refuse,
///     }
/// }
/// # let _ = decision();
/// ```
pub trait Decide: Send + Sync {
    /// Where this session goes, or this client's flow of datagrams, at its first. Called by reactors, several at a time: it answers at once, from memory.
    fn decide(&self, caller: &Caller<'_>) -> Course;

    /// Whether what a client of this forward says first is looked at before it is asked: its ClientHello, or the
    /// Host of its request. Clients that wait for the server to speak are then let through after `sniff_timeout`. Of datagrams it is the hello of QUIC.
    fn looks(&self, _forward: &str) -> bool {
        false
    }
}

impl<F: Fn(&Caller<'_>) -> Course + Send + Sync> Decide for F {
    fn decide(&self, caller: &Caller<'_>) -> Course {
        self(caller)
    }
}

/// What is known of a session when it is decided about.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The forward that it came to.
    pub forward: &'a str,
    /// Who it is: by its address, or as a PROXY header says that the forward believes.
    pub client: &'a Endpoint,
    /// Where it came in, as it is listened on.
    pub listener: &'a Endpoint,
    /// The server that it names in TLS (SNI), if that was looked at: see [`Decide::looks`].
    pub server_name: Option<&'a str>,
    /// The Host of its HTTP request, likewise.
    pub host: Option<&'a str>,
    /// The protocols that it offers in TLS (ALPN), likewise.
    pub protocols: &'a [Vec<u8>],
}

/// Where a session goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Course {
    /// As the configuration says: by its routes, else to the forward's own servers.
    AsConfigured,
    /// To a server of this pool, which some forward or route of the configuration names.
    Pool(Arc<str>),
    /// To the first of these that answers; no health is kept of them. A flow of datagrams cannot go there, and is turned
    /// away: nothing says which of them answers, so its server is one that a pool knows.
    Addresses(Vec<SocketAddr>),
    /// Nowhere: the client is turned away, as by a route with `to = "reject"`.
    Refuse,
}

/// Who decides, for all reactors.
#[derive(Clone)]
pub struct Pilot(Arc<dyn Decide>);

impl Pilot {
    /// This one.
    pub fn new(decide: impl Decide + 'static) -> Self {
        Self(Arc::new(decide))
    }

    /// See [`Decide::looks`].
    pub fn looks(&self, forward: &str) -> bool {
        self.0.looks(forward)
    }

    pub(super) fn decide(&self, caller: &Caller<'_>) -> Course {
        self.0.decide(caller)
    }
}

impl fmt::Debug for Pilot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pilot")
    }
}
