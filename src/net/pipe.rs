//! Pipes for splice(2), pooled, and the splice calls themselves.
//!
//! Invariants:
//! - only an empty pipe is pooled. One with residue is dropped (closed): were it
//!   used again, bytes of one connection would reach another (behaviour 11);
//! - a pipe's capacity is a hint. The kernel counts slots, not bytes: it may
//!   take less than the capacity (many small segments) or, with large frames,
//!   more than a page for each slot.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};

use super::errno::{Failure, Operation, Resource};

/// Smaller pipes are not worth splicing through: measured, a 64 KiB pipe
/// already halves the lead over copying. The kernel hands out 8 KiB ones to a
/// user beyond `fs.pipe-user-pages-soft`.
const CAPACITY_MIN: u32 = 64 * 1024;

/// Asked for when the wanted size is refused.
const CAPACITY_FALLBACK: u32 = 256 * 1024;

/// Empty pipes kept: two descriptors each, and no payload memory.
const POOLED_MAX: usize = 16;

/// A pipe, both ends.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    capacity: u32,
    len: u32,
}

impl Pipe {
    /// A pipe of `wanted` bytes, or as many as the kernel grants.
    fn open(wanted: u32) -> Result<Self, Failure> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
            .map_err(|errno| Failure::of(Operation::Pipe, errno))?;
        let granted = [wanted, CAPACITY_FALLBACK.min(wanted)]
            .into_iter()
            .find_map(|size| fcntl(&write, FcntlArg::F_SETPIPE_SZ(size as i32)).ok())
            .or_else(|| fcntl(&write, FcntlArg::F_GETPIPE_SZ).ok());
        match granted.map(|size| size as u32) {
            Some(capacity) if capacity >= CAPACITY_MIN.min(wanted) => Ok(Self {
                read,
                write,
                capacity,
                len: 0,
            }),
            _ => Err(Failure::Exhausted(Resource::PipePages)),
        }
    }

    /// Bytes it takes, nominally.
    pub const fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Bytes in it.
    pub const fn len(&self) -> u32 {
        self.len
    }

    /// Whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A pipe that has come from another process, with so many bytes in it.
    pub fn from_parts([read, write]: [OwnedFd; 2], capacity: u32, len: u32) -> Self {
        Self {
            read,
            write,
            capacity,
            len,
        }
    }

    /// Both ends, that for reading first.
    pub fn ends(&self) -> [BorrowedFd<'_>; 2] {
        [self.read.as_fd(), self.write.as_fd()]
    }

    /// Moves at most `max` bytes from a socket into the pipe; 0 is the end of
    /// the socket. The pipe must be empty: only then does
    /// [`Failure::WouldBlock`] mean that the socket is.
    pub fn fill(&mut self, source: BorrowedFd<'_>, max: u32) -> Result<u32, Failure> {
        debug_assert!(self.is_empty(), "a pipe is filled only when empty");
        let n = transfer(source, self.write.as_fd(), max)?;
        self.len += n;
        Ok(n)
    }

    /// Moves what is in the pipe, or a part of it, to a socket.
    pub fn drain(&mut self, sink: BorrowedFd<'_>) -> Result<u32, Failure> {
        let n = transfer(self.read.as_fd(), sink, self.len)?;
        self.len -= n;
        Ok(n)
    }

    /// Reads what is left in the pipe into user memory, and closes it.
    pub fn rescue(self) -> Vec<u8> {
        let mut bytes = vec![0; self.len as usize];
        let mut read = 0;
        while read < bytes.len() {
            match nix::unistd::read(&self.read, &mut bytes[read..]) {
                Ok(n) if n > 0 => read += n,
                Err(nix::errno::Errno::EINTR) => {}
                // A pipe that holds bytes and has its writer open gives them.
                Ok(_) | Err(_) => break,
            }
        }
        bytes.truncate(read);
        bytes
    }
}

/// Never `SPLICE_F_MORE`: a hint that more follows, left behind by the last
/// piece of a transfer, holds its tail back for 200 ms.
fn transfer(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: u32) -> Result<u32, Failure> {
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    loop {
        match splice(from, None, to, None, len as usize, flags) {
            Ok(n) => return Ok(n as u32),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(Failure::of(Operation::Splice, errno)),
        }
    }
}

/// What a [`Pool`] keeps: something that must be empty to be used again.
pub trait Reservoir {
    /// Whether nothing is in it.
    fn is_empty(&self) -> bool;
}

impl Reservoir for Pipe {
    fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Empty reservoirs that wait to be used again; the simulator pools its own
/// pipes by the same rule.
#[derive(Debug)]
pub struct Pool<P> {
    idle: Vec<P>,
}

impl<P: Reservoir> Pool<P> {
    /// An empty pool.
    pub const fn new() -> Self {
        Self { idle: Vec::new() }
    }

    /// One that is empty, if any waits.
    pub fn take(&mut self) -> Option<P> {
        self.idle.pop()
    }

    /// Takes one back; one with residue is dropped, and so is one too many.
    pub fn give_back(&mut self, reservoir: P) {
        if reservoir.is_empty() && self.idle.len() < POOLED_MAX {
            self.idle.push(reservoir);
        }
    }

    /// How many wait.
    pub const fn len(&self) -> usize {
        self.idle.len()
    }

    /// Whether none waits.
    pub const fn is_empty(&self) -> bool {
        self.idle.is_empty()
    }

    /// Drops those that wait.
    pub fn clear(&mut self) {
        self.idle.clear();
    }
}

impl<P: Reservoir> Default for Pool<P> {
    fn default() -> Self {
        Self::new()
    }
}

/// The pipes of a reactor.
#[derive(Debug)]
pub struct PipePool {
    pool: Pool<Pipe>,
    wanted: u32,
}

impl PipePool {
    /// A pool of pipes of `wanted` bytes each; opens none yet.
    pub const fn new(wanted: u32) -> Self {
        Self {
            pool: Pool::new(),
            wanted,
        }
    }

    /// A pipe that is empty.
    pub fn take(&mut self) -> Result<Pipe, Failure> {
        match self.pool.take() {
            Some(pipe) => Ok(pipe),
            None => Pipe::open(self.wanted),
        }
    }

    /// Takes a pipe back; one with residue is closed.
    pub fn give_back(&mut self, pipe: Pipe) {
        self.pool.give_back(pipe);
    }

    /// Pipes that wait in the pool.
    pub const fn len(&self) -> usize {
        self.pool.len()
    }

    /// Whether none waits.
    pub const fn is_empty(&self) -> bool {
        self.pool.is_empty()
    }

    /// Closes the pooled pipes, to have their descriptors for something else.
    pub fn clear(&mut self) {
        self.pool.clear();
    }
}
