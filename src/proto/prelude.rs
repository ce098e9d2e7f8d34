//! What a client says before its payload, as far as anybody needs to know who does not
//! read it: that more is needed, that it is complete, what was found out, and what the
//! client is owed for it.
//!
//! Invariants: a prelude holds a bounded number of bytes; each byte is fed once, but for
//! one that only looks ([`Read::Wait`]); what follows the last byte of a prelude is none
//! of its business.

use core::net::IpAddr;
use std::fmt;

use super::proxy;
use super::sniff::Sniffed;
use super::target::Target;
use crate::relay::ending::Cause;

/// What the bytes so far are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// All of them belong to the prelude, and more are needed.
    More,
    /// It is complete; so many of the bytes that were fed last belong to it.
    Taken(usize),
    /// None of them is to be taken, and more are needed: what is fed next begins with
    /// them again.
    Wait,
    /// None of them is to be taken, and it is complete.
    Seen,
    /// It is none that is served, whatever follows.
    Invalid(Cause),
}

/// What was found out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// Who asks, as far as shares and bounds for each client go; `None`: a unix socket.
    pub client: Option<IpAddr>,
    /// Where the client wants to go.
    pub target: Option<Target>,
    /// What it wrote for that, valid or not, for a log to escape; without secrets.
    pub asked: Option<Vec<u8>>,
    /// How it says who it is.
    pub authorization: Option<Authorization>,
    /// What the proxy says that it came by.
    pub announced: Option<Box<proxy::Header>>,
    /// What its first bytes are, which are still to come.
    pub sniffed: Option<Box<Sniffed>>,
    /// What is wrong with what it said.
    pub wrong: Option<&'static str>,
}

/// What a client is owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// For the record and the counters.
    pub status: u16,
    /// To be said to it.
    pub bytes: Vec<u8>,
}

/// A reader of one kind of prelude.
pub trait Prelude: fmt::Debug + Send {
    /// Takes what came behind that which was fed before.
    fn feed(&mut self, seen: &[u8], facts: &mut Facts) -> Read;

    /// The client has ended, and this is all of what it was to be fed yet.
    fn end(&mut self, seen: &[u8], facts: &mut Facts) -> Read {
        let _ = (seen, facts);
        Read::Invalid(Cause::NoRequest)
    }

    /// Bytes that may be fed yet; more are of no use.
    fn room(&self) -> usize;

    /// What the client is owed once its upstream stands, or, `refused`, because it gets
    /// none, by this cause. `None`: nothing.
    fn answer(&self, refused: Option<Cause>) -> Option<Answer>;
}

/// How a client says who it is: the value of a header, which no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorization(Vec<u8>);

impl Authorization {
    /// As the client wrote it.
    pub fn new(value: &[u8]) -> Self {
        Self(value.to_vec())
    }

    /// What follows the scheme `Basic`, in base64; `None` for any other scheme.
    pub fn basic(&self) -> Option<&[u8]> {
        let space = self.0.iter().position(|byte| *byte == b' ')?;
        let (scheme, rest) = self.0.split_at(space);
        scheme
            .eq_ignore_ascii_case(b"basic")
            .then(|| rest.trim_ascii())
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization(…)")
    }
}
