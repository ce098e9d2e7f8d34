//! Version 2: binary, with a length, so that what is not known can be skipped.

use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Announced, Fault, Header, Parsed, SIGNATURE, V2_MAX, Version, tlv};

/// Signature, version and command, family and transport, length.
pub(super) const FIXED: usize = 16;

/// Bytes of the name of a unix socket, and of both.
pub(super) const UNIX_NAME: usize = 108;

pub(super) const LOCAL: u8 = 0x20;
pub(super) const PROXY: u8 = 0x21;
pub(super) const STREAM_4: u8 = 0x11;
pub(super) const STREAM_6: u8 = 0x21;
pub(super) const STREAM_UNIX: u8 = 0x31;
const DATAGRAM_4: u8 = 0x12;
const DATAGRAM_6: u8 = 0x22;

/// What a header comes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    Stream,
    Datagram,
}

pub(super) fn parse(bytes: &[u8], carrier: Carrier) -> Parsed {
    // What is wrong is said as soon as it is seen, in the order of the bytes.
    if let Some(command) = bytes.get(SIGNATURE.len()) {
        match *command {
            LOCAL | PROXY => {}
            it if it >> 4 != 2 => return Err(Fault::Malformed("the version is not 2")),
            _ => return Err(Fault::Malformed("the command is neither LOCAL nor PROXY")),
        }
    }
    let Some(fixed) = bytes.get(..FIXED) else {
        return Ok(None);
    };
    let (command, kind) = (fixed[12], fixed[13]);
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    let addresses = if command == LOCAL {
        0
    } else {
        addresses_len(kind)?
    };
    if length < addresses {
        return Err(Fault::Malformed(
            "the length is too short for the addresses",
        ));
    }
    let len = FIXED + length;
    if len > V2_MAX {
        return Err(Fault::Malformed("the header is longer than 16 KiB"));
    }
    let Some(whole) = bytes.get(..len) else {
        return Ok(None);
    };
    // Of LOCAL and UNSPEC everything is to be ignored, whatever stands there.
    let ignored = command == LOCAL || kind >> 4 == 0;
    let (announced, tlvs) = if ignored {
        let announced = if command == LOCAL {
            Announced::Local
        } else {
            Announced::Unknown
        };
        (announced, Vec::new())
    } else {
        let (block, _) = whole[FIXED..].split_at(addresses);
        (
            announced(kind, block, carrier),
            tlv::parse(whole, FIXED + addresses)?,
        )
    };
    let header = Header {
        version: Version::V2,
        announced,
        tlvs,
    };
    Ok(Some((header, len)))
}

/// How many bytes of addresses a family has.
const fn addresses_len(kind: u8) -> Result<usize, Fault> {
    if kind & 0x0f > 2 {
        return Err(Fault::Malformed(
            "the transport is neither stream nor datagram",
        ));
    }
    match kind >> 4 {
        0 => Ok(0),
        1 => Ok(12),
        2 => Ok(36),
        3 => Ok(2 * UNIX_NAME),
        _ => Err(Fault::Malformed("the family is none that there is")),
    }
}

fn announced(kind: u8, block: &[u8], carrier: Carrier) -> Announced {
    let port = |at: usize| u16::from_be_bytes([block[at], block[at + 1]]);
    match (carrier, kind) {
        (Carrier::Stream, STREAM_4) | (Carrier::Datagram, DATAGRAM_4) => {
            let ip = |at: usize| {
                let mut octets = [0; 4];
                octets.copy_from_slice(&block[at..at + 4]);
                Ipv4Addr::from(octets)
            };
            Announced::Inet {
                source: SocketAddr::new(ip(0).into(), port(8)),
                destination: SocketAddr::new(ip(4).into(), port(10)),
            }
        }
        (Carrier::Stream, STREAM_6) | (Carrier::Datagram, DATAGRAM_6) => {
            let ip = |at: usize| {
                let mut octets = [0; 16];
                octets.copy_from_slice(&block[at..at + 16]);
                Ipv6Addr::from(octets)
            };
            Announced::Inet {
                source: SocketAddr::new(ip(0).into(), port(32)),
                destination: SocketAddr::new(ip(16).into(), port(34)),
            }
        }
        (Carrier::Stream, STREAM_UNIX) => {
            let (source, destination) = block.split_at(UNIX_NAME);
            Announced::Unix {
                source: name(source),
                destination: name(destination),
            }
        }
        // The other transport, or a family without one: nobody who comes here.
        _ => Announced::Unknown,
    }
}

/// Without the NULs that fill it up; one in front belongs to an abstract name.
fn name(block: &[u8]) -> Vec<u8> {
    let end = block.iter().rposition(|byte| *byte != 0);
    end.map_or_else(Vec::new, |last| block[..=last].to_vec())
}
