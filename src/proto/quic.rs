//! The first packets of QUIC as far as a decision needs them: the ClientHello in the Initials of a client,
//! and the connection ids that a server's long headers tell. RFC 8999, 9000, 9001, 9369.
//!
//! ```text
//!   datagram ─► headers ─► keys of the first id ─► opened ─► frames ─► Assembly ─► Hello
//!               (plain)    (public salt)                     CRYPTO    in any order
//! ```
//! The keys of Initials follow from what stands in the datagram itself, so anybody on the path can read
//! them: they protect from chance, and from nobody. Nothing else of QUIC is opened here, and nothing is
//! changed.
//!
//! Strict in what decides: bytes of the hello that come twice and differ, frames that no Initial has, and
//! lengths that do not add up are refused. Lenient in what does not: a packet that does not open is
//! skipped, as an endpoint does, for it may be a stranger's.
//!
//! Bounded: a hello has [`HELLO_MAX`](super::hello::HELLO_MAX) bytes, in [`assembly::PIECES_MAX`] pieces with holes between
//! them, from [`DATAGRAMS_MAX`] datagrams.

pub mod assembly;
pub mod header;
pub mod ids;
mod keys;
#[cfg(test)]
mod tests;

use super::hello::Hello;
use assembly::Assembly;
use header::{Form, Long, Packet, Version};
use keys::Keys;

/// Datagrams in which a hello has to be complete. One of a client with post-quantum keys takes two, and
/// one that is sent again as often.
pub const DATAGRAMS_MAX: u32 = 16;

/// What the datagrams of a client so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// QUIC, and more are needed.
    More,
    /// This is asked for.
    Found(Hello),
    /// QUIC of a version that nobody here can open.
    UnknownVersion(u32),
    /// No QUIC, or a connection that has begun elsewhere.
    Other,
    /// QUIC, and wrong, whatever follows.
    Invalid(&'static str),
}

/// Looks at the datagrams of one client until it is known what they ask for.
#[derive(Debug, Clone, Default)]
pub struct Initials {
    /// Of the connection that is looked at.
    connection: Option<Connection>,
    looked_at: u32,
}

#[derive(Debug, Clone)]
struct Connection {
    version: Version,
    /// The id that the client chose for the server, whose keys these are.
    id: Vec<u8>,
    keys: Keys,
    hello: Assembly,
}

impl Initials {
    /// Looks at one more datagram, which is left as it is. Each is shown once.
    pub fn look(&mut self, datagram: &[u8]) -> Seen {
        let first = match header::read(datagram) {
            Some(Form::Long(long)) => long,
            // Nothing begins with a short header, and nothing with one that is malformed.
            Some(Form::Short) | None => return self.not_a_beginning(),
        };
        let Some(version) = first.version() else {
            return match first.version {
                // Servers say so, and no client does.
                0 => Seen::Other,
                unknown => Seen::UnknownVersion(unknown),
            };
        };
        if !first.is_fixed() {
            return self.not_a_beginning();
        }
        self.looked_at += 1;
        let mut begins = false;
        let mut rest = datagram;
        while let Some((packet, after)) = header::packet(rest) {
            rest = after;
            begins |= packet != Packet::Other;
            let Packet::Initial(initial) = packet else {
                continue;
            };
            if initial.long.version() != Some(version) {
                continue;
            }
            let connection = self.connection(version, &initial.long);
            let Some(frames) = connection.keys.open(&initial) else {
                continue;
            };
            match connection.hello.take(&frames) {
                Ok(None) => {}
                Ok(Some(hello)) => return Seen::Found(hello),
                Err(why) => return Seen::Invalid(why),
            }
        }
        if !begins && self.connection.is_none() {
            return Seen::Other;
        }
        if self.looked_at >= DATAGRAMS_MAX {
            return Seen::Invalid("the hello is not complete within 16 datagrams");
        }
        Seen::More
    }

    /// Of a flow whose hello has begun it is a packet that overtook, else it is something else.
    fn not_a_beginning(&mut self) -> Seen {
        if self.connection.is_none() {
            return Seen::Other;
        }
        self.looked_at += 1;
        if self.looked_at >= DATAGRAMS_MAX {
            return Seen::Invalid("the hello is not complete within 16 datagrams");
        }
        Seen::More
    }

    /// The connection with this id. Another id is another attempt of the client: it begins anew, within the
    /// same bounds.
    fn connection(&mut self, version: Version, long: &Long<'_>) -> &mut Connection {
        let is_it = |it: &Connection| it.version == version && it.id == long.destination;
        let known = self.connection.take().filter(is_it);
        self.connection.insert(known.unwrap_or_else(|| Connection {
            version,
            id: long.destination.to_vec(),
            keys: Keys::of_client(version, long.destination),
            hello: Assembly::default(),
        }))
    }
}
