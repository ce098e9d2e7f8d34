//! The payload of every test: bytes that depend on their position in a stream.
//!
//! Owns one immutable block of pseudo-random bytes. Sending is a slice of it and
//! checking is a `memcmp` with it, so neither costs a pass of its own over the
//! data.
//!
//! The period is a prime just above 64 KiB: a chunk that goes missing, comes
//! twice or changes places shifts the pattern by the size of a buffer or a pipe
//! (multiples of 4096), and no such shift is a multiple of the period.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;

use crate::balance::Random;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::sendfile::sendfile;

/// Bytes after which the pattern repeats.
pub const PERIOD: usize = 65_537;

/// The longest slice [`slice()`] hands out, in bytes.
pub const CHUNK_MAX: usize = 128 * 1024;

static BLOCK: OnceLock<Box<[u8]>> = OnceLock::new();

/// The longest piece [`send`] hands to the kernel, in bytes.
const SEND_MAX: usize = 1024 * 1024;

static FILE: OnceLock<Option<File>> = OnceLock::new();

/// `len` bytes of the stream from `position` on; at most [`CHUNK_MAX`] of them.
pub fn slice(position: u64, len: usize) -> &'static [u8] {
    let start = (position % PERIOD as u64) as usize;
    &block()[start..start + len.min(CHUNK_MAX)]
}

/// Sends up to `len` bytes of the stream from `position` on, from memory that the kernel
/// refers to instead of copying it: the cheapest sender there is. Where there is no such
/// memory it copies.
///
/// # Errors
/// As write(2) to the socket.
pub(crate) fn send(mut socket: impl Write + AsFd, position: u64, len: usize) -> io::Result<usize> {
    let Some(file) = FILE.get_or_init(|| file().ok()) else {
        return socket.write(slice(position, len));
    };
    let mut at = (position % PERIOD as u64) as libc::off_t;
    let sent = sendfile(&socket, file, Some(&mut at), len.min(SEND_MAX))?;
    Ok(sent)
}

fn file() -> io::Result<File> {
    let mut file = File::from(memfd_create("pattern", MFdFlags::MFD_CLOEXEC)?);
    let mut written = 0;
    while written < PERIOD + SEND_MAX {
        written += file.write(slice(written as u64, CHUNK_MAX))?;
    }
    Ok(file)
}

/// Compares what was received at `position` with what was sent there.
///
/// # Errors
/// The offset in `received` of the first byte that differs.
pub fn check(position: u64, received: &[u8]) -> Result<(), usize> {
    let mut at = 0;
    for piece in received.chunks(CHUNK_MAX) {
        let expected = slice(position + at as u64, piece.len());
        if piece != expected {
            let differs = piece.iter().zip(expected).position(|(a, b)| a != b);
            return Err(at + differs.unwrap_or(0));
        }
        at += piece.len();
    }
    Ok(())
}

fn block() -> &'static [u8] {
    BLOCK.get_or_init(|| {
        let mut random = Random::new(0x7468_616c_7765_6721);
        let mut bytes: Vec<u8> = Vec::with_capacity(PERIOD + CHUNK_MAX);
        while bytes.len() < PERIOD {
            bytes.extend_from_slice(&random.draw().to_le_bytes());
        }
        bytes.truncate(PERIOD);
        for at in 0..CHUNK_MAX {
            bytes.push(bytes[at]);
        }
        bytes.into_boxed_slice()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_cut_anywhere_checks() {
        let mut position = 12_345_u64;
        for len in [1, 64, 4096, 65_536, 65_537, CHUNK_MAX, 3] {
            assert_eq!(check(position, slice(position, len)), Ok(()));
            position += len as u64;
        }
        let long: Vec<u8> = [slice(7, CHUNK_MAX), slice(7 + CHUNK_MAX as u64, 1000)].concat();
        assert_eq!(check(7, &long), Ok(()));
    }

    #[test]
    fn a_lost_page_a_lost_pipe_and_one_flipped_bit_are_seen() {
        for lost in [1_u64, 4096, 65_536, 262_144, 1 << 20] {
            assert!(check(lost, slice(0, 4096)).is_err(), "{lost} bytes lost");
        }
        let mut bytes = slice(99, 5000).to_vec();
        bytes[4321] ^= 0x10;
        assert_eq!(check(99, &bytes), Err(4321));
    }
}
