//! Provided buffers: the memory that receives land in, shared with the kernel.
//!
//! Owns one mapping: the ring of buffer descriptors, then the buffers. A buffer is
//! the kernel's until a completion names it; then it is a [`Piece`], which is
//! given back by [`Buffers::recycle`]. There is no other way to make one, so that
//! a buffer cannot be read while the kernel writes it.
//!
//! Invariant: the mapping outlives every operation that can touch it; the ring
//! that owns this sees to that.
#![allow(unsafe_code)]
#![allow(
    clippy::needless_pass_by_value,
    reason = "who gives a piece back has it no more"
)]

use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// Bytes of a buffer. A receive that fills one tells of bulk, which goes another
/// way. A record of TLS, 16 KiB and its frame, does not (see `CALM_BYTES`). Only pages that bytes were received into
/// take memory.
pub(super) const BUFFER_SIZE: u32 = 20 * 1024;

const _: () = assert!(BUFFER_SIZE <= u16::MAX as u32, "a piece has 16 bits for it");

const NONE: u16 = u16::MAX;
const PAGE: usize = 4096;

/// A buffer that the kernel filled, `len` bytes of it.
#[derive(Debug)]
pub(super) struct Piece {
    id: u16,
    len: u16,
}

/// Pieces in the order they were received: a list through [`Buffers::next`], so
/// that an empty one costs a session four bytes.
#[derive(Debug)]
pub(super) struct Inbox {
    first: u16,
    last: u16,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            first: NONE,
            last: NONE,
        }
    }
}

impl Inbox {
    pub(super) const fn is_empty(&self) -> bool {
        self.first == NONE
    }
}

impl Piece {
    pub(super) const fn len(&self) -> u32 {
        self.len as u32
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Buffers {
    map: NonNull<u8>,
    map_len: usize,
    count: u16,
    tail: u16,
    /// The piece behind each in its inbox, and how long each is.
    links: Box<[(u16, u16)]>,
}

impl Buffers {
    /// `count` buffers, a power of two.
    pub(super) fn new(count: u16) -> io::Result<Self> {
        debug_assert!(count.is_power_of_two());
        let map_len = Self::entries_len(count) + usize::from(count) * BUFFER_SIZE as usize;
        // SAFETY: a fresh anonymous mapping, at an address that the kernel picks.
        let map = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                map_len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = NonNull::new(map.cast::<u8>())
            .ok_or_else(|| io::Error::other("mmap returned the null page"))?;
        let mut buffers = Self {
            map,
            map_len,
            count,
            tail: 0,
            links: vec![(NONE, 0); usize::from(count)].into_boxed_slice(),
        };
        for id in 0..count {
            buffers.recycle(Piece { id, len: 0 });
        }
        Ok(buffers)
    }

    /// Where the ring of descriptors is, for its registration.
    pub(super) fn address(&self) -> u64 {
        self.map.as_ptr() as u64
    }

    /// How many there are.
    pub(super) const fn count(&self) -> u16 {
        self.count
    }

    /// The buffer that a completion names, with the bytes it reports.
    pub(super) fn piece(&self, id: u16, len: u32) -> Piece {
        assert!(
            id < self.count && len <= BUFFER_SIZE,
            "the kernel named a buffer that was never provided"
        );
        Piece {
            id,
            len: len as u16,
        }
    }

    /// What is in it.
    pub(super) fn bytes(&self, piece: &Piece) -> &[u8] {
        // SAFETY: the range lies inside the mapping (`id` and `len` were checked
        // when the piece was made) and the kernel wrote it before it posted the
        // completion. It does not touch the buffer again before `recycle`, which
        // takes the piece.
        unsafe { std::slice::from_raw_parts(self.start(piece.id), usize::from(piece.len)) }
    }

    /// Gives the buffer back to the kernel.
    pub(super) fn recycle(&mut self, piece: Piece) {
        let Piece { id, .. } = piece;
        let index = usize::from(self.tail & (self.count - 1));
        #[allow(clippy::cast_ptr_alignment, reason = "mappings start at a page")]
        let entries = self.map.as_ptr().cast::<BufRingEntry>();
        // SAFETY: `index` is below `count`, the entries are the first part of the
        // mapping, page-aligned. The kernel reads entries only up to the tail, and
        // this one is published below.
        let entry = unsafe { &mut *entries.add(index) };
        entry.set_addr(self.start(id) as u64);
        entry.set_len(BUFFER_SIZE);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the tail lies in a reserved field of the first entry, which
        // nobody else writes; aligned to 2.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Appends a piece.
    pub(super) fn push(&mut self, inbox: &mut Inbox, piece: Piece) {
        self.links[usize::from(piece.id)] = (NONE, piece.len);
        if inbox.first == NONE {
            inbox.first = piece.id;
        } else {
            self.links[usize::from(inbox.last)].0 = piece.id;
        }
        inbox.last = piece.id;
    }

    /// Takes the first piece.
    pub(super) fn pop(&mut self, inbox: &mut Inbox) -> Option<Piece> {
        if inbox.first == NONE {
            return None;
        }
        let id = inbox.first;
        let (next, len) = self.links[usize::from(id)];
        inbox.first = next;
        Some(Piece { id, len })
    }

    const fn entries_len(count: u16) -> usize {
        (count as usize * size_of::<BufRingEntry>()).next_multiple_of(PAGE)
    }

    fn start(&self, id: u16) -> *mut u8 {
        let offset = Self::entries_len(self.count) + usize::from(id) * BUFFER_SIZE as usize;
        // SAFETY: `id` is below `count`: the offset lies inside the mapping.
        unsafe { self.map.as_ptr().add(offset) }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; nothing refers to it any more: slices
        // borrow `self`, and the ring reaped every operation before.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.map_len) };
    }
}
