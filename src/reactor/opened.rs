//! What a session has besides because its client said something before its payload: what
//! was found, what is still to be said, and what goes along when it moves. [`super::openings`]
//! does the reading and the saying.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::destination::Destinations;
use super::{Entry, Forward};
use crate::net::address::{Endpoint, UnixName};
use crate::policy::route::Protocol;
use crate::proto::opening::Opening;
use crate::proto::proxy::{self, Announced};
use crate::proto::sniff::Sniffed;

/// What a session has besides, because it had an opening: little, for it is kept as
/// long as the session.
#[derive(Debug)]
pub(super) struct Opened {
    /// Until the client is answered.
    pub(super) under_way: Option<Box<UnderWay>>,
    /// For the record, escaped.
    pub(super) target: Option<Box<str>>,
    pub(super) user: Option<Box<str>>,
    /// What the client was answered.
    pub(super) status: Option<u16>,
    learnt: Option<Box<Learnt>>,
    /// The route that turned it away.
    pub(super) rejected_by: Option<u16>,
    /// The client has said something, be it only a part of what is awaited.
    pub(super) heard: bool,
    /// It goes to addresses that were decided upon, and to no server of a pool.
    pub(super) aimed: bool,
}

/// What a PROXY header or a look at the first bytes told.
#[derive(Debug, Default)]
struct Learnt {
    /// Who sent the header: the client is another.
    peer: Option<Endpoint>,
    header: Option<Box<proxy::Header>>,
    sniffed: Option<Box<Sniffed>>,
}

/// An opening that is being read, decided upon or answered.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) opening: Opening,
    /// Which way it goes is decided.
    pub(super) routed: bool,
    /// More was awaited than what was looked at.
    pub(super) awaits: bool,
    /// What the client has said is not acknowledged by itself; see [`Forward::holds_acks`].
    pub(super) holds_acks: bool,
    pub(super) destinations: Destinations,
    /// What of the answer is still to be said.
    pub(super) unsaid: Vec<u8>,
    /// The decider was asked, and has not answered.
    pub(super) asked: bool,
}

impl Opened {
    /// Of a new session; `None`: nothing comes before its payload.
    pub(super) fn begin(forward: &Forward) -> Option<Self> {
        forward.rules.opening?;
        let under_way = UnderWay {
            opening: Opening::begin(&forward.steps),
            routed: false,
            awaits: false,
            holds_acks: forward.holds_acks(),
            destinations: Destinations::default(),
            unsaid: Vec::new(),
            asked: false,
        };
        Some(Self {
            under_way: Some(Box::new(under_way)),
            target: None,
            user: None,
            status: None,
            learnt: None,
            rejected_by: None,
            heard: false,
            aimed: false,
        })
    }

    /// Whether it goes where was decided upon for it alone.
    pub(super) fn is_aimed(&self, forward: &Forward) -> bool {
        self.aimed || !forward.request.is_empty()
    }

    /// Where the session goes, if that was decided upon; once.
    pub(super) fn take_destinations(&mut self) -> Destinations {
        let under_way = self.under_way.as_mut();
        under_way.map_or_else(Destinations::default, |it| {
            std::mem::take(&mut it.destinations)
        })
    }

    /// Who sent a PROXY header, where the client is another.
    pub(super) fn peer(&self) -> Option<&Endpoint> {
        self.learnt.as_ref()?.peer.as_ref()
    }

    /// The route by which it went, or that turned it away.
    pub(super) fn route(&self, entry: &Entry) -> Option<Arc<str>> {
        let forward = &entry.listener.forward;
        match (&forward.route, self.rejected_by) {
            (Some((_, name)), _) => Some(name.clone()),
            (None, Some(at)) => {
                let way = forward.routing.as_ref()?.ways.get(usize::from(at))?;
                Some(way.name.clone())
            }
            (None, None) => None,
        }
    }

    /// Whether the client has said something, besides a PROXY header.
    pub(super) const fn has_heard(&self) -> bool {
        self.heard
    }

    /// The PROXY header that came.
    pub(super) fn header(&self) -> Option<&proxy::Header> {
        self.learnt.as_ref()?.header.as_deref()
    }

    /// What the first bytes are.
    pub(super) fn sniffed(&self) -> Option<&Sniffed> {
        self.learnt.as_ref()?.sniffed.as_deref()
    }

    /// Where the client connected to, as a PROXY header says.
    pub(super) fn destination(&self) -> Option<Endpoint> {
        match &self.header()?.announced {
            Announced::Inet { destination, .. } => Some(Endpoint::Inet(*destination)),
            Announced::Unix { destination, .. } => Some(unix(destination)),
            Announced::Local | Announced::Unknown => None,
        }
    }

    /// Keeps what a step found; the client that was announced.
    pub(super) fn keep(&mut self, client: &Endpoint) -> Option<Endpoint> {
        let facts = &mut self.under_way.as_mut()?.opening.facts;
        let (header, sniffed) = (facts.announced.take(), facts.sniffed.take());
        if header.is_none() && sniffed.is_none() {
            return None;
        }
        let learnt = self.learnt.get_or_insert_default();
        if sniffed.is_some() {
            learnt.sniffed = sniffed;
        }
        let announced = match &header.as_ref()?.announced {
            Announced::Inet { source, .. } => {
                let ip = source.ip().to_canonical();
                Some(Endpoint::Inet(SocketAddr::new(ip, source.port())))
            }
            Announced::Unix { source, .. } => Some(unix(source)),
            Announced::Local | Announced::Unknown => None,
        };
        learnt.header = header;
        learnt.peer = announced.is_some().then(|| client.clone());
        announced
    }
}

/// What of an opening goes along with a session that moves: what its record says of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct OpenedNote {
    target: Option<String>,
    user: Option<String>,
    status: Option<u16>,
    /// Who sent a PROXY header.
    peer: Option<Endpoint>,
    /// Of a ClientHello.
    server_name: Option<String>,
}

impl Opened {
    /// What goes along.
    pub(super) fn note(&self) -> OpenedNote {
        let text = |it: &Option<Box<str>>| it.as_deref().map(str::to_owned);
        OpenedNote {
            target: text(&self.target),
            user: text(&self.user),
            status: self.status,
            peer: self.peer().cloned(),
            server_name: self.sniffed().and_then(|it| it.server_name.clone()),
        }
    }

    /// Of a session that has come.
    pub(super) fn noted(note: OpenedNote) -> Self {
        let sniffed = note.server_name.map(|name| {
            Box::new(Sniffed {
                protocol: Protocol::Tls,
                server_name: Some(name),
                protocols: Vec::new(),
                host: None,
            })
        });
        let learnt = (note.peer.is_some() || sniffed.is_some()).then(|| {
            Box::new(Learnt {
                peer: note.peer,
                header: None,
                sniffed,
            })
        });
        Self {
            under_way: None,
            target: note.target.map(Into::into),
            user: note.user.map(Into::into),
            status: note.status,
            learnt,
            rejected_by: None,
            heard: true,
            aimed: false,
        }
    }
}

/// A name as `sun_path` has it.
fn unix(name: &[u8]) -> Endpoint {
    match name {
        [] => Endpoint::Unnamed,
        [0, name @ ..] => Endpoint::Unix(UnixName::Abstract(name.to_vec())),
        path => Endpoint::Unix(UnixName::Path(OsStr::from_bytes(path).into())),
    }
}
