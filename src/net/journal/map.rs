//! A file in memory, as words that several processes see, one after the other.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

/// The mapping of a file that cannot shrink: see [`Map::of`].
#[derive(Debug)]
pub(super) struct Map {
    at: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: all that is done with the memory is done by atomic words, which any thread may.
unsafe impl Send for Map {}
// SAFETY: likewise.
unsafe impl Sync for Map {}

impl Map {
    /// Of the first `words` words of a file that is as long and is sealed against shrinking, or
    /// a look at it would end the process.
    pub(super) fn of(file: BorrowedFd<'_>, words: usize) -> io::Result<Self> {
        // SAFETY: a fresh shared mapping, at an address that the kernel picks.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                words * size_of::<u64>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let at = NonNull::new(map.cast::<AtomicU64>())
            .ok_or_else(|| io::Error::other("mmap returned the null page"))?;
        Ok(Self { at, words })
    }

    /// One of its words.
    pub(super) fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at < self.words, "a word beyond the end of a journal");
        // SAFETY: it lies within the mapping, which is aligned to a page, is of zeroes or of
        // words that were stored, and lives as long as `self`; nobody refers to it otherwise.
        unsafe { self.at.add(at).as_ref() }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the very mapping that was made, to which no reference is left.
        unsafe {
            libc::munmap(self.at.as_ptr().cast(), self.words * size_of::<u64>());
        }
    }
}
