//! The PROXY protocol: the header by which one proxy tells the next whom it speaks
//! for. <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>
//!
//! ```text
//! v1   PROXY TCP4 192.0.2.1 198.51.100.1 40000 443\r\n
//! v2   signature (12) │ 2,command │ family,transport │ length (2) │ addresses │ TLVs
//! ```
//! Strict, because who writes a header decides who the client is: what the
//! specification does not allow is refused, and a header is never guessed. Bounded: a
//! header of version 1 has 107 bytes at the most, one of version 2 [`V2_MAX`]; a length
//! beyond that is refused before a byte of the rest has come.
//!
//! | file | what |
//! | --- | --- |
//! | `v1.rs`, `v2.rs` | reading |
//! | `tlv.rs` | what stands behind the addresses of version 2, and its checksum |
//! | `write.rs` | writing |

mod tlv;
mod v1;
mod v2;
mod write;

#[cfg(test)]
mod tests;

use core::net::SocketAddr;
use std::fmt;

pub use tlv::{ALPN, AUTHORITY, CRC32C, Tlv, UNIQUE_ID, UNIQUE_ID_MAX};
pub use write::{Outgoing, local, write, write_for_datagram};

/// Bytes of a header of version 1, its line end included.
pub const V1_MAX: usize = 107;

/// Bytes of a header of version 2 that are taken. The longest that anybody sends hold a
/// client's certificate; HAProxy's own buffer is as large.
pub const V2_MAX: usize = 16 * 1024;

/// What a header of version 2 begins with.
pub const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// What a header of version 1 begins with.
pub const WORD: &[u8; 6] = b"PROXY ";

/// Which of the two a header is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

/// Which headers a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Version 1.
    pub v1: bool,
    /// Version 2.
    pub v2: bool,
}

impl Settings {
    /// Whether headers of this version are.
    pub(super) const fn takes(self, version: Version) -> bool {
        match version {
            Version::V1 => self.v1,
            Version::V2 => self.v2,
        }
    }
}

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// How it was written.
    pub version: Version,
    /// Whom the sender speaks for.
    pub announced: Announced,
    /// What it says besides, in its order. Empty with version 1.
    pub tlvs: Vec<Tlv>,
}

/// Whom the sender of a header speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Announced {
    /// For itself (`LOCAL`): a health check.
    Local,
    /// For somebody whom it cannot name (`UNKNOWN`, `UNSPEC`), or who comes by the other
    /// transport.
    Unknown,
    /// For a client of an internet address.
    Inet {
        /// The client.
        source: SocketAddr,
        /// Where it connected to.
        destination: SocketAddr,
    },
    /// For a client of a unix socket; names without trailing NULs, empty for none.
    Unix {
        /// The client.
        source: Vec<u8>,
        /// Where it connected to.
        destination: Vec<u8>,
    },
}

/// Why bytes are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// They begin like none: it is missing.
    Missing,
    /// They are malformed.
    Malformed(&'static str),
}

/// What the bytes so far are.
pub type Parsed = Result<Option<(Header, usize)>, Fault>;

/// Reads a header from the front of a stream: `None`, they may become one; else the
/// header and its length.
pub fn parse(bytes: &[u8]) -> Parsed {
    if starts(bytes, WORD) {
        v1::parse(bytes)
    } else if starts(bytes, SIGNATURE) {
        v2::parse(bytes, v2::Carrier::Stream)
    } else {
        Err(Fault::Missing)
    }
}

/// Reads the header at the front of a datagram, which has all of it: the header and its length.
///
/// # Errors
/// It is missing, of version 1, which has no word for datagrams, or malformed.
pub fn parse_datagram(bytes: &[u8]) -> Result<(Header, usize), Fault> {
    if !bytes.starts_with(SIGNATURE) {
        return Err(Fault::Missing);
    }
    let read = v2::parse(bytes, v2::Carrier::Datagram)?;
    read.ok_or(Fault::Malformed("the datagram ends within the header"))
}

/// Whether bytes begin with these, as far as either goes.
pub fn starts(bytes: &[u8], with: &[u8]) -> bool {
    let len = bytes.len().min(with.len());
    bytes[..len] == with[..len]
}

impl Header {
    /// The value of the first TLV of a kind.
    pub fn tlv(&self, kind: u8) -> Option<&[u8]> {
        let found = self.tlvs.iter().find(|it| it.kind == kind)?;
        Some(&found.value)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}
