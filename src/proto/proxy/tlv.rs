//! What stands behind the addresses of version 2: type, length, value.

use crc::{CRC_32_ISCSI, Crc};

use super::Fault;

/// The protocol that was agreed on with the client (ALPN).
pub const ALPN: u8 = 0x01;
/// The host name that the client asked for (SNI).
pub const AUTHORITY: u8 = 0x02;
/// A checksum of the whole header.
pub const CRC32C: u8 = 0x03;
/// What the connection is called.
pub const UNIQUE_ID: u8 = 0x05;
/// What is known of the client's TLS: has TLVs within.
const SSL: u8 = 0x20;

/// Bytes of a unique id.
pub const UNIQUE_ID_MAX: usize = 128;

/// Of what SSL has before its own TLVs: which it is, and whether it was verified.
const SSL_FIXED: usize = 5;

const CASTAGNOLI: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tlv {
    /// What it is.
    pub kind: u8,
    /// Its value, as it was sent.
    pub value: Vec<u8>,
}

/// Those of a header that begin at `at`. The checksum is verified where there is one.
pub(super) fn parse(header: &[u8], at: usize) -> Result<Vec<Tlv>, Fault> {
    let mut found = Vec::new();
    let mut checksum = None;
    let mut left = &header[at..];
    while !left.is_empty() {
        let (kind, value, rest) = split(left)?;
        let offset = header.len() - rest.len() - value.len();
        match kind {
            CRC32C => {
                let value: [u8; 4] = value
                    .try_into()
                    .map_err(|_| Fault::Malformed("a checksum has not 4 bytes"))?;
                if checksum.replace((offset, value)).is_some() {
                    return Err(Fault::Malformed("there are two checksums"));
                }
            }
            UNIQUE_ID if value.len() > UNIQUE_ID_MAX => {
                return Err(Fault::Malformed("a unique id has more than 128 bytes"));
            }
            SSL => check_ssl(value)?,
            _ => {}
        }
        found.push(Tlv {
            kind,
            value: value.to_vec(),
        });
        left = rest;
    }
    if let Some((offset, value)) = checksum
        && u32::from_be_bytes(value) != checksum_of(header, offset)
    {
        return Err(Fault::Malformed("the checksum is wrong"));
    }
    Ok(found)
}

/// Of a header whose checksum stands at `at`, counted as zeros.
pub(super) fn checksum_of(header: &[u8], at: usize) -> u32 {
    let mut digest = CASTAGNOLI.digest();
    digest.update(&header[..at]);
    digest.update(&[0; 4]);
    digest.update(&header[at + 4..]);
    digest.finalize()
}

fn check_ssl(value: &[u8]) -> Result<(), Fault> {
    let mut left = value
        .get(SSL_FIXED..)
        .ok_or(Fault::Malformed("what is said of TLS is cut short"))?;
    while !left.is_empty() {
        let (_, _, rest) = split(left)?;
        left = rest;
    }
    Ok(())
}

/// The first: its type, its value, and what follows.
fn split(bytes: &[u8]) -> Result<(u8, &[u8], &[u8]), Fault> {
    let overrun = Fault::Malformed("a TLV is longer than the header");
    let [kind, high, low, rest @ ..] = bytes else {
        return Err(overrun);
    };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let (value, rest) = rest.split_at_checked(length).ok_or(overrun)?;
    Ok((*kind, value, rest))
}
