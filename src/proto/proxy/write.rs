//! Writing a header.

use core::fmt::{self, Write as _};
use core::net::{IpAddr, SocketAddr};

use super::v2::{FIXED, LOCAL, PROXY, STREAM_4, STREAM_6, STREAM_UNIX, UNIX_NAME};
use super::{Announced, CRC32C, SIGNATURE, Version, tlv};

/// What a header is to say.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// How it is written.
    pub version: Version,
    /// Whom it speaks for.
    pub announced: &'a Announced,
    /// What it says besides, of version 2: type and value, fewer than 64 KiB in all. A
    /// value that does not fit is left out.
    pub tlvs: &'a [(u8, &'a [u8])],
    /// A checksum as well, of version 2.
    pub checksum: bool,
}

/// Appends a header.
pub fn write(header: &Outgoing<'_>, out: &mut Vec<u8>) {
    match header.version {
        Version::V1 => write_v1(header.announced, out),
        Version::V2 => write_v2(header, STREAM, out),
    }
}

/// Appends a header of version 2, whatever it says, that stands in a datagram.
pub fn write_for_datagram(header: &Outgoing<'_>, out: &mut Vec<u8>) {
    write_v2(header, DATAGRAM, out);
}

/// Appends the header of a connection that is the sender's own, a health check.
pub fn local(version: Version, out: &mut Vec<u8>) {
    let header = Outgoing {
        version,
        announced: &Announced::Local,
        tlvs: &[],
        checksum: false,
    };
    write(&header, out);
}

/// Version 1 has no word for LOCAL, nor for unix sockets: UNKNOWN stands for both.
fn write_v1(announced: &Announced, out: &mut Vec<u8>) {
    let mut out = Ascii(out);
    // Writing to a vector cannot fail.
    let _ = match announced {
        Announced::Inet {
            source,
            destination,
        } => {
            let (source, destination) = of_one_family(*source, *destination);
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            write!(
                out,
                "PROXY {family} {} {} {} {}\r\n",
                source.ip(),
                destination.ip(),
                source.port(),
                destination.port()
            )
        }
        Announced::Local | Announced::Unknown | Announced::Unix { .. } => {
            write!(out, "PROXY UNKNOWN\r\n")
        }
    };
}

/// Text, as bytes.
struct Ascii<'a>(&'a mut Vec<u8>);

impl fmt::Write for Ascii<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// The transport, in the lower half of a byte whose upper one is the family.
const STREAM: u8 = 1;
const DATAGRAM: u8 = 2;

fn write_v2(header: &Outgoing<'_>, transport: u8, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(SIGNATURE);
    match header.announced {
        Announced::Local => out.extend_from_slice(&[LOCAL, 0, 0, 0]),
        Announced::Unknown => out.extend_from_slice(&[PROXY, 0, 0, 0]),
        Announced::Inet {
            source,
            destination,
        } => {
            let (source, destination) = of_one_family(*source, *destination);
            let family = if source.is_ipv4() { STREAM_4 } else { STREAM_6 };
            out.extend_from_slice(&[PROXY, family & 0xf0 | transport, 0, 0]);
            for address in [source, destination] {
                match address.ip() {
                    IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
                    IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
                }
            }
            for address in [source, destination] {
                out.extend_from_slice(&address.port().to_be_bytes());
            }
        }
        Announced::Unix {
            source,
            destination,
        } => {
            out.extend_from_slice(&[PROXY, STREAM_UNIX, 0, 0]);
            for name in [source, destination] {
                let mut block = [0; UNIX_NAME];
                let len = name.len().min(UNIX_NAME);
                block[..len].copy_from_slice(&name[..len]);
                out.extend_from_slice(&block);
            }
        }
    }
    let mut room = usize::from(u16::MAX) - (out.len() - start - FIXED);
    let checksum = if header.checksum { 3 + 4 } else { 0 };
    for (kind, value) in header.tlvs {
        if 3 + value.len() + checksum <= room {
            room -= 3 + value.len();
            append(*kind, value, out);
        }
    }
    if header.checksum {
        append(CRC32C, &[0; 4], out);
    }
    let length = (out.len() - start - FIXED) as u16;
    out[start + 14..start + FIXED].copy_from_slice(&length.to_be_bytes());
    if header.checksum {
        let at = out.len() - start - 4;
        let sum = tlv::checksum_of(&out[start..], at);
        out[start + at..].copy_from_slice(&sum.to_be_bytes());
    }
}

fn append(kind: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&(value.len() as u16).to_be_bytes());
    out.extend_from_slice(value);
}

/// Both as IPv4 or both as IPv6: a header has one family. An IPv4-mapped address is an
/// IPv4 address unless the other one is none.
fn of_one_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let (from, to) = (source.ip().to_canonical(), destination.ip().to_canonical());
    let mapped = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        IpAddr::V6(_) => ip,
    };
    let (from, to) = if from.is_ipv4() == to.is_ipv4() {
        (from, to)
    } else {
        (mapped(from), mapped(to))
    };
    (
        SocketAddr::new(from, source.port()),
        SocketAddr::new(to, destination.port()),
    )
}
