//! What an upstream is told before the payload: the PROXY header of a server that is sent one.
//!
//! ```text
//!  connected ─► written, and it waits for the payload to ride with it ─► Prefixed(Whole)
//!                 └─ a part: the rest once there is room ─► Prefixed(Part) … Prefixed(Whole)
//! ```
//! Invariants: a header is begun once for each connection that a session is given, raced
//! and spare ones included, and nothing stands before it; a server that was tried and
//! refused was told nothing. A header that no payload follows at once is sent alone, when
//! the handshake's last ACK would be.

use super::Entry;
use super::attempts::Dialling;
use super::context::Ctx;
use super::destination::Destination;
use super::dialling::Dialler;
use super::opened::Opened;
use crate::config::SendProxy;
use crate::engine::{Engine, SessionKey};
use crate::net::address::{Endpoint, UnixName};
use crate::proto::proxy::{self, Announced, Outgoing};
use crate::relay::Side;
use crate::relay::session::{Event as SessionEvent, Said};

impl Dialler {
    /// What a session is told of its connection that stands.
    pub(super) fn connected<E: Engine>(
        &mut self,
        ctx: &mut Ctx<E>,
        key: SessionKey,
    ) -> SessionEvent {
        let Some(entry) = ctx.sessions.get(key) else {
            return SessionEvent::Connected;
        };
        let Some(send) = self.header_for(entry) else {
            return SessionEvent::Connected;
        };
        let local = ctx.engine.local_address(key, Side::Client);
        self.header.clear();
        write(entry, send, local, ctx.reactor, &mut self.header);
        let said = ctx.engine.say_first(key, Side::Upstream, &self.header);
        if let Ok(taken) = said
            && taken < self.header.len()
            && let Some(entry) = ctx.sessions.get_mut(key)
        {
            let dialling: &mut Dialling = entry.aside.dialling_or_new();
            dialling.unsaid = self.header.split_off(taken);
            return SessionEvent::Prefixed(Said::Part);
        }
        SessionEvent::Prefixed(said.map_or_else(Said::Failed, |_| Said::Whole))
    }

    /// What the connection of a session begins with: as its server has it, or, where it goes to
    /// none of a pool, as its pool has it.
    fn header_for(&self, entry: &Entry) -> Option<SendProxy> {
        match entry.destination.as_ref().and_then(Destination::account) {
            Some(server) => server.send_proxy(),
            None => self.pools[entry.listener.forward.pool].setup.send_proxy,
        }
    }

    /// Carries out `Action::Prefix`: goes on with a header that was cut short.
    pub(super) fn prefix<E: Engine>(ctx: &mut Ctx<E>, key: SessionKey) -> Option<SessionEvent> {
        let dialling = ctx.sessions.get_mut(key)?.aside.dialling_mut()?;
        let said = match ctx.engine.say_first(key, Side::Upstream, &dialling.unsaid) {
            Ok(taken) => {
                dialling.unsaid.drain(..taken);
                if dialling.unsaid.is_empty() {
                    Said::Whole
                } else {
                    Said::Part
                }
            }
            Err(cause) => Said::Failed(cause),
        };
        Some(SessionEvent::Prefixed(said))
    }

    /// Nothing has come to ride with what a session's upstream was told first: it is sent.
    pub(super) fn flush<E: Engine>(&self, ctx: &mut Ctx<E>, key: SessionKey) {
        if let Some(entry) = ctx.sessions.get(key)
            && self.header_for(entry).is_some()
        {
            ctx.engine.flush(key, Side::Upstream);
        }
    }
}

/// `local` is this end of the client's connection.
fn write(entry: &Entry, send: SendProxy, local: Option<Endpoint>, reactor: u16, out: &mut Vec<u8>) {
    let known = entry.aside.opened();
    let destination = known.and_then(Opened::destination);
    let destination = destination.or(local);
    let announced = announced(&entry.client.get(), destination.as_ref());
    let header = known.and_then(Opened::header);
    let sniffed = known.and_then(Opened::sniffed);
    // What the proxy before said of it goes on where nothing else is known.
    let passed = |kind| header.and_then(|header| header.tlv(kind));
    let id = unique_id(reactor, entry.id.id());
    let name = sniffed.and_then(|it| it.server_name.as_deref().map(str::as_bytes));
    let first = sniffed.and_then(|it| it.protocols.first().map(Vec::as_slice));
    let id = passed(proxy::UNIQUE_ID).unwrap_or(id.as_bytes());
    let tlvs = [
        (send.alpn, proxy::ALPN, first.or(passed(proxy::ALPN))),
        (
            send.authority,
            proxy::AUTHORITY,
            name.or(passed(proxy::AUTHORITY)),
        ),
        (send.unique_id, proxy::UNIQUE_ID, Some(id)),
    ];
    let mut list = [(0, &[][..]); 3];
    let mut count = 0;
    for (wanted, kind, value) in tlvs {
        if let (true, Some(value)) = (wanted, value) {
            list[count] = (kind, value);
            count += 1;
        }
    }
    let header = Outgoing {
        version: send.version,
        announced: &announced,
        tlvs: &list[..count],
        checksum: send.crc32c,
    };
    proxy::write(&header, out);
}

fn announced(client: &Endpoint, destination: Option<&Endpoint>) -> Announced {
    match (client, destination) {
        (Endpoint::Inet(source), Some(Endpoint::Inet(destination))) => Announced::Inet {
            source: *source,
            destination: *destination,
        },
        (
            Endpoint::Unix(_) | Endpoint::Unnamed,
            Some(destination @ (Endpoint::Unix(_) | Endpoint::Unnamed)),
        ) => Announced::Unix {
            source: unix_name(client),
            destination: unix_name(destination),
        },
        // A client of the one kind at an address of the other: no header can say that.
        _ => Announced::Unknown,
    }
}

/// As `sun_path` has it: an abstract name begins with NUL.
fn unix_name(endpoint: &Endpoint) -> Vec<u8> {
    match endpoint {
        Endpoint::Unix(UnixName::Path(path)) => path.as_os_str().as_encoded_bytes().to_vec(),
        Endpoint::Unix(UnixName::Abstract(name)) => [&[0], name.as_slice()].concat(),
        Endpoint::Inet(_) | Endpoint::Unnamed => Vec::new(),
    }
}

/// What a session is called beyond this process: its start, the reactor, its number there,
/// as records have them.
pub(super) fn unique_id(reactor: u16, id: u64) -> String {
    use std::sync::OnceLock;
    use std::time::{SystemTime, UNIX_EPOCH};
    static STARTED: OnceLock<u64> = OnceLock::new();
    let started = STARTED.get_or_init(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.unwrap_or_default().as_micros() as u64
    });
    format!("{started:x}-{reactor:x}-{id:x}")
}
