//! The record of a session: what is known of it when it ended.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use crate::config::{self, Sample, SessionLog};
use crate::net::address::Endpoint;
use crate::net::tcp_info::TcpInfo;
use crate::net::word::Text;
use crate::observe::timestamp::timestamp;
use crate::relay::ending::{Cause, Ending, Who};
use crate::relay::lane::{Fallback, Lane};

/// Which records are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Records {
    /// Of which moments.
    pub which: SessionLog,
    /// Of which sessions, beside those that fail.
    pub sample: Sample,
}

impl From<SessionLog> for Records {
    /// Those of all sessions.
    fn from(which: SessionLog) -> Self {
        let sample = Sample { part: 1, of: 1 };
        Self { which, sample }
    }
}

impl From<&config::Log> for Records {
    fn from(log: &config::Log) -> Self {
        Self {
            which: log.sessions,
            sample: log.sample,
        }
    }
}

impl Records {
    /// Whether any are.
    pub fn any(&self) -> bool {
        self.which != SessionLog::Off
    }

    /// Whether the beginning of the session with this number has one.
    pub fn begin(&self, id: u64) -> bool {
        self.which == SessionLog::All && self.sample.takes(id)
    }

    /// Whether its end has one. A flow of datagrams ends well by silence: it has no other end.
    pub fn end(&self, id: u64, ending: Option<Ending>, is_flow: bool) -> bool {
        let well = ending.is_some_and(|ending| {
            ending.who == Who::Both || is_flow && ending.cause == Cause::IdleTimeout
        });
        self.any() && (!well || self.sample.takes(id))
    }
}

/// A session, at its end (or at its start, with `ending` absent).
#[derive(Debug, Clone)]
pub struct SessionRecord {
    /// When it ended, by the wall clock.
    pub at: SystemTime,
    /// The forward's name.
    pub forward: Arc<str>,
    /// Which reactor.
    pub reactor: u16,
    /// Its number on that reactor, from 1.
    pub id: u64,
    /// The client's address; behind a PROXY header, the one that it announced.
    pub client: Endpoint,
    /// Who sent that header.
    pub peer: Option<Endpoint>,
    /// The address of the listener.
    pub listener: Endpoint,
    /// Which address the client has reached, where the listener is on all of them.
    pub reached: Option<Endpoint>,
    /// The route by which it went, or was turned away.
    pub route: Option<Arc<str>>,
    /// The server that TLS asked for (SNI), a [`Word`](crate::net::word::Word).
    pub sni: Option<String>,
    /// Where the client's request wanted to go, a [`Word`](crate::net::word::Word).
    pub target: Option<String>,
    /// Who the client's credentials say it is, a [`Word`](crate::net::word::Word).
    pub user: Option<String>,
    /// The status that its request was answered with.
    pub status: Option<u16>,
    /// The server that was dialled last.
    pub server: Option<Endpoint>,
    /// Servers that could not be had, and why.
    pub tried: Vec<(Endpoint, Cause)>,
    /// The connection to the server stood before the client came.
    pub warm: bool,
    /// Attempts to connect.
    pub attempts: u8,
    /// How it ended.
    pub ending: Option<Ending>,
    /// From accept to upstream connected.
    pub connect: Option<Duration>,
    /// From accept to the first byte handed to the client.
    pub first_byte: Option<Duration>,
    /// From accept to the end.
    pub total: Option<Duration>,
    /// How long byte rates held it back, both ways together, if it has any.
    pub held_back: Option<Duration>,
    /// Client to upstream.
    pub up: LaneRecord,
    /// Upstream to client.
    pub down: LaneRecord,
    /// The kernel's view of the client leg.
    pub client_tcp: Option<TcpInfo>,
    /// The kernel's view of the upstream leg.
    pub upstream_tcp: Option<TcpInfo>,
    /// Its datagrams, if it is a flow of such.
    pub flow: Option<FlowRecord>,
}

/// What a flow of datagrams has besides, up and down.
#[derive(Debug, Clone, Copy, Default)]
pub struct FlowRecord {
    /// Datagrams that were sent on.
    pub datagrams: [u64; 2],
    /// Datagrams that were not.
    pub dropped: [u64; 2],
}

/// One direction of a session.
#[derive(Debug, Clone, Copy, Default)]
pub struct LaneRecord {
    /// Bytes delivered to the receiver's socket.
    pub bytes: u64,
    /// Bytes read and never delivered.
    pub lost: u64,
    /// Whether any crossed by splice.
    pub spliced: bool,
    /// Why it copied although it wanted to splice.
    pub fallback: Option<Fallback>,
}

impl From<&Lane> for LaneRecord {
    fn from(lane: &Lane) -> Self {
        Self {
            bytes: lane.bytes_out(),
            lost: lane.bytes_lost(),
            spliced: lane.has_spliced(),
            fallback: lane.fallback(),
        }
    }
}

impl LaneRecord {
    const fn path(&self) -> &'static str {
        if self.spliced { "splice" } else { "copy" }
    }

    const fn fallback_name(&self) -> Option<&'static str> {
        match self.fallback {
            None => None,
            Some(Fallback::NoPipe) => Some("no_pipe"),
            Some(Fallback::BufferLimit) => Some("buffer_limit"),
            Some(Fallback::Unsupported) => Some("unsupported"),
        }
    }
}

/// The record as JSON sees it: flat names, units last, absent when unknown.
#[derive(Serialize)]
struct Json<'a> {
    time: String,
    kind: &'static str,
    forward: &'a str,
    reactor: u16,
    id: u64,
    client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    listener: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reached: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sni: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    attempts: u8,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tried: Vec<TriedJson>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    warm: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    held_back_us: Option<u64>,
    bytes_up: u64,
    bytes_down: u64,
    lost_up: u64,
    lost_down: u64,
    path_up: &'static str,
    path_down: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback_up: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fallback_down: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_tcp: Option<LegJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_tcp: Option<LegJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datagrams_up: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datagrams_down: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped_up: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dropped_down: Option<u64>,
}

/// A server that could not be had.
#[derive(Serialize)]
struct TriedJson {
    server: String,
    cause: &'static str,
}

#[derive(Serialize)]
struct LegJson {
    rtt_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_rtt_us: Option<u64>,
    retransmits: u32,
    delivery_rate_bytes_per_second: u64,
    limited_by: &'static str,
}

impl LegJson {
    fn new(info: &TcpInfo, lifetime: Duration) -> Self {
        Self {
            rtt_us: micros(info.rtt),
            min_rtt_us: info.min_rtt.map(micros),
            retransmits: info.retransmits,
            delivery_rate_bytes_per_second: info.delivery_rate,
            limited_by: info.limited_by(lifetime).name(),
        }
    }
}

impl SessionRecord {
    /// One line of JSON, without the newline.
    pub fn to_json(&self) -> String {
        let json = Json {
            time: timestamp(self.at),
            kind: self.kind(),
            forward: &self.forward,
            reactor: self.reactor,
            id: self.id,
            client: self.client.to_string(),
            peer: self.peer.as_ref().map(ToString::to_string),
            listener: self.listener.to_string(),
            reached: self.reached.as_ref().map(ToString::to_string),
            route: self.route.as_deref(),
            sni: self.sni.as_deref(),
            target: self.target.as_deref(),
            user: self.user.as_deref(),
            status: self.status,
            server: self.server.as_ref().map(ToString::to_string),
            attempts: self.attempts,
            tried: self
                .tried
                .iter()
                .map(|(server, cause)| TriedJson {
                    server: server.to_string(),
                    cause: cause.name(),
                })
                .collect(),
            warm: self.warm,
            code: self.ending.map(Ending::code),
            cause: self.ending.map(|ending| ending.cause.name()),
            connect_us: self.connect.map(micros),
            first_byte_us: self.first_byte.map(micros),
            total_us: self.total.map(micros),
            held_back_us: self.held_back.map(micros),
            bytes_up: self.up.bytes,
            bytes_down: self.down.bytes,
            lost_up: self.up.lost,
            lost_down: self.down.lost,
            path_up: self.up.path(),
            path_down: self.down.path(),
            fallback_up: self.up.fallback_name(),
            fallback_down: self.down.fallback_name(),
            client_tcp: self
                .client_tcp
                .as_ref()
                .map(|info| LegJson::new(info, self.lifetime())),
            upstream_tcp: self
                .upstream_tcp
                .as_ref()
                .map(|info| LegJson::new(info, self.lifetime())),
            protocol: self.flow.map(|_| "udp"),
            datagrams_up: self.flow.map(|it| it.datagrams[0]),
            datagrams_down: self.flow.map(|it| it.datagrams[1]),
            dropped_up: self.flow.map(|it| it.dropped[0]),
            dropped_down: self.flow.map(|it| it.dropped[1]),
        };
        // Strings, numbers and options always serialise.
        serde_json::to_string(&json).unwrap_or_default()
    }

    fn lifetime(&self) -> Duration {
        self.total.unwrap_or_default()
    }

    const fn kind(&self) -> &'static str {
        if self.ending.is_some() {
            "session_end"
        } else {
            "session_start"
        }
    }
}

impl fmt::Display for SessionRecord {
    /// `key=value` text. Names given by users are escaped where they are shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.ending.is_some() {
            "end"
        } else {
            "start"
        };
        write!(
            f,
            "session {word} forward={} id={}.{}",
            Text(&self.forward),
            self.reactor,
            self.id
        )?;
        write!(f, " client={}", self.client)?;
        if let Some(peer) = &self.peer {
            write!(f, " peer={peer}")?;
        }
        write!(f, " listener={}", self.listener)?;
        if let Some(reached) = &self.reached {
            write!(f, " reached={reached}")?;
        }
        if let Some(route) = &self.route {
            write!(f, " route={}", Text(route))?;
        }
        for (name, text) in [
            ("sni", &self.sni),
            ("target", &self.target),
            ("user", &self.user),
        ] {
            if let Some(text) = text {
                write!(f, " {name}={text}")?;
            }
        }
        if let Some(status) = self.status {
            write!(f, " status={status}")?;
        }
        if let Some(server) = &self.server {
            write!(f, " server={server} attempts={}", self.attempts)?;
        }
        for (index, (server, cause)) in self.tried.iter().enumerate() {
            let lead = if index == 0 { " tried=" } else { "," };
            write!(f, "{lead}{server}:{}", cause.name())?;
        }
        if self.warm {
            f.write_str(" warm=yes")?;
        }
        let Some(ending) = self.ending else {
            return Ok(());
        };
        write!(f, " code={} cause={}", ending.code(), ending.cause.name())?;
        for (name, duration) in [
            ("connect", self.connect),
            ("first_byte", self.first_byte),
            ("total", self.total),
        ] {
            match duration {
                Some(duration) => write!(f, " {name}={:.3}ms", duration.as_secs_f64() * 1e3)?,
                None => write!(f, " {name}=-")?,
            }
        }
        if let Some(flow) = &self.flow {
            let [up, down] = flow.datagrams;
            write!(f, " protocol=udp datagrams_up={up} datagrams_down={down}")?;
            for (name, dropped) in ["up", "down"].iter().zip(flow.dropped) {
                if dropped > 0 {
                    write!(f, " dropped_{name}={dropped}")?;
                }
            }
        }
        if let Some(held_back) = self.held_back {
            write!(f, " held_back={:.3}ms", held_back.as_secs_f64() * 1e3)?;
        }
        for (name, lane) in [("up", &self.up), ("down", &self.down)] {
            write!(f, " {name}={} path_{name}={}", lane.bytes, lane.path())?;
            if lane.lost > 0 {
                write!(f, " lost_{name}={}", lane.lost)?;
            }
            if let Some(fallback) = lane.fallback_name() {
                write!(f, " fallback_{name}={fallback}")?;
            }
        }
        for (name, info) in [
            ("client", &self.client_tcp),
            ("upstream", &self.upstream_tcp),
        ] {
            if let Some(info) = info {
                write!(
                    f,
                    " {name}_rtt={:.3}ms {name}_min_rtt={:.3}ms {name}_retransmits={} {name}_rate={} {name}_limited_by={}",
                    info.rtt.as_secs_f64() * 1e3,
                    info.min_rtt.unwrap_or_default().as_secs_f64() * 1e3,
                    info.retransmits,
                    info.delivery_rate,
                    info.limited_by(self.lifetime()).name(),
                )?;
            }
        }
        Ok(())
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::address::UnixName;

    /// A client's socket may have any name that fits.
    #[test]
    fn b72_the_name_of_a_unix_client_forges_no_field() {
        let name = b"x listener=10.0.0.1:1 code=--\ncause=finished,\x1b[2J".to_vec();
        let record = SessionRecord {
            at: SystemTime::UNIX_EPOCH,
            forward: "web".into(),
            reactor: 0,
            id: 1,
            client: Endpoint::Unix(UnixName::Abstract(name)),
            peer: None,
            listener: Endpoint::Unnamed,
            reached: None,
            route: None,
            sni: None,
            target: None,
            user: None,
            status: None,
            server: None,
            tried: Vec::new(),
            warm: false,
            attempts: 0,
            ending: None,
            connect: None,
            first_byte: None,
            total: None,
            held_back: None,
            up: LaneRecord::default(),
            down: LaneRecord::default(),
            client_tcp: None,
            upstream_tcp: None,
            flow: None,
        };
        let text = record.to_string();
        let fields: Vec<&str> = text.split(' ').skip(2).collect();
        assert_eq!(fields.len(), 4, "{text}");
        for (field, name) in fields.iter().zip(["forward", "id", "client", "listener"]) {
            let (key, value) = field.split_once('=').expect("a pair");
            assert_eq!(key, name, "{text}");
            assert!(!value.contains('='), "{text}");
            assert!(value.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
        }
    }
}
