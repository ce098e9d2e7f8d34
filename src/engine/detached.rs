//! A connection that no engine looks after: its descriptors and what its lanes held, on
//! the way to another engine, of this process or of another.
//!
//! Nothing that the kernel does for it is under way, so whoever has this has all of it.
//! Dropped, it closes the descriptors; bytes that were held are lost then.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::chunks::{Chunks, Tail};
use crate::net::journal::Mark;
use crate::net::pipe::Pipe;
use crate::net::shared;
use crate::observe::tap::{Closing, Feed};
use crate::relay::{Direction, Side};

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Detached {
    /// Client and upstream.
    pub sides: [Option<LooseSide>; 2],
    /// What waits to be written, up and down.
    pub held: [Held; 2],
    /// Whoever looks at what its lanes read; stays in the process.
    pub(super) tap: Option<Box<Feed>>,
    /// Where it was noted how far its lanes have come: only of one that comes back after its
    /// process was killed. One that leaves a reactor is noted no more.
    pub(super) mark: Option<Box<Mark>>,
}

/// A side without an engine.
#[derive(Debug)]
pub struct LooseSide {
    /// Connected, non-blocking.
    pub fd: OwnedFd,
    /// A short read does not prove it empty.
    pub exhaustive: bool,
    /// Its write side was shut down.
    pub shut: bool,
    /// Another process may have a copy of the descriptor: see `net::shared`.
    pub shared: bool,
}

/// Bytes of a lane that were read and not written yet.
#[derive(Debug, Default)]
pub enum Held {
    /// None.
    #[default]
    Nothing,
    /// In user memory.
    Tail(Tail),
    /// In a pipe, which is never empty.
    Pipe(Pipe),
}

impl Held {
    /// These bytes; none are nothing.
    pub fn bytes(bytes: &[u8]) -> Self {
        if bytes.is_empty() {
            Self::Nothing
        } else {
            Self::Tail(Chunks::default().park(bytes))
        }
    }

    /// These, and then those. What is in a pipe is taken out of it if more follows.
    #[must_use]
    pub fn followed_by(self, more: &[u8]) -> Self {
        let mut all = match self {
            Self::Nothing => return Self::bytes(more),
            Self::Tail(mut tail) => {
                if tail.append(more) {
                    return Self::Tail(tail);
                }
                tail.unsent().to_vec()
            }
            Self::Pipe(pipe) => pipe.rescue(),
        };
        all.extend_from_slice(more);
        Self::bytes(&all)
    }

    /// How many.
    pub fn len(&self) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Tail(tail) => tail.unsent().len() as u32,
            Self::Pipe(pipe) => pipe.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Detached {
    /// One that has come from somewhere.
    pub fn new(sides: [Option<LooseSide>; 2], held: [Held; 2]) -> Self {
        Self {
            sides,
            held,
            tap: None,
            mark: None,
        }
    }

    /// Goes on being noted there.
    #[must_use]
    pub fn with_mark(mut self, mark: Mark) -> Self {
        self.mark = Some(Box::new(mark));
        self
    }

    /// Where it is noted how far its lanes have come, if that is so.
    pub fn mark(&self) -> Option<&Mark> {
        self.mark.as_deref()
    }

    /// Its descriptors, in the order in which [`Detached::new`]'s arguments have them: the
    /// sides, then both ends of each pipe, that for reading first.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let sides = self.sides.iter().flatten().map(|it| it.fd.as_fd());
        let pipes = self.held.iter().flat_map(|held| match held {
            Held::Pipe(pipe) => pipe.ends().to_vec(),
            Held::Nothing | Held::Tail(_) => Vec::new(),
        });
        sides.chain(pipes).collect()
    }

    /// The descriptor of a side.
    pub fn fd(&self, side: Side) -> Option<BorrowedFd<'_>> {
        self.sides[side.index()].as_ref().map(|it| it.fd.as_fd())
    }

    /// Its peers are told that it has failed, whoever has copies of its descriptors.
    pub fn reset(&self) {
        for side in self.sides.iter().flatten() {
            shared::tell_reset(side.fd.as_fd());
        }
    }

    /// Another process has, or is about to have, copies of its descriptors.
    pub fn share(&mut self) {
        for side in self.sides.iter_mut().flatten() {
            side.shared = true;
        }
    }

    /// Whoever looks at what its lanes read is told that it goes on elsewhere, after so many
    /// bytes up and down.
    pub fn tell_taps(&mut self, process: u32, totals: [u64; 2]) {
        if let Some(feed) = self.tap.take() {
            feed.close(Closing {
                ending: None,
                totals,
                moved_to: Some(process),
            });
        }
    }

    /// What a direction holds in user memory.
    pub fn tail(&self, direction: Direction) -> &[u8] {
        match &self.held[direction.index()] {
            Held::Tail(tail) => tail.unsent(),
            Held::Nothing | Held::Pipe(_) => &[],
        }
    }
}

/// What is told of a detached connection, without it.
pub trait Baggage: std::fmt::Debug + Send {
    /// Its sides.
    fn sides(&self) -> [Option<SideNote>; 2];

    /// What its lanes hold, up and down.
    fn held(&self) -> [HeldNote; 2];
}

/// A connection that its engine looks after still, of which nothing is held.
#[derive(Debug)]
pub struct Uncut([Option<SideNote>; 2]);

impl Uncut {
    /// With these descriptors, of client and upstream.
    pub fn of(sides: &[OwnedFd; 2]) -> Self {
        Self(sides.each_ref().map(|fd| {
            Some(SideNote {
                cookie: shared::cookie(fd.as_fd()).unwrap_or(0),
                // Whoever goes on finds both out by itself.
                exhaustive: true,
                shut: false,
            })
        }))
    }
}

impl Baggage for Uncut {
    fn sides(&self) -> [Option<SideNote>; 2] {
        self.0
    }

    fn held(&self) -> [HeldNote; 2] {
        [HeldNote::Nothing; 2]
    }
}

/// What is told of a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SideNote {
    /// The kernel's name of its socket, the same in every process.
    pub cookie: u64,
    /// See [`LooseSide::exhaustive`].
    #[serde(default)]
    pub exhaustive: bool,
    /// See [`LooseSide::shut`].
    #[serde(default)]
    pub shut: bool,
}

/// What is told of bytes that are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeldNote {
    /// There are none.
    Nothing,
    /// So many, in user memory.
    Tail(u32),
    /// So many, in a pipe of this capacity.
    Pipe {
        /// Bytes in it.
        len: u32,
        /// Bytes it takes.
        capacity: u32,
    },
}

impl HeldNote {
    /// How many.
    pub const fn len(self) -> u32 {
        match self {
            Self::Nothing => 0,
            Self::Tail(len) | Self::Pipe { len, .. } => len,
        }
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// How many in user memory.
    pub const fn tail(self) -> u32 {
        match self {
            Self::Tail(len) => len,
            Self::Nothing | Self::Pipe { .. } => 0,
        }
    }

    /// Whether they are in a pipe.
    pub const fn is_piped(self) -> bool {
        matches!(self, Self::Pipe { .. })
    }
}

impl Baggage for Detached {
    fn sides(&self) -> [Option<SideNote>; 2] {
        self.sides.each_ref().map(|side| {
            let side = side.as_ref()?;
            Some(SideNote {
                // Zero is nobody's: whoever compares refuses it.
                cookie: shared::cookie(side.fd.as_fd()).unwrap_or(0),
                exhaustive: side.exhaustive,
                shut: side.shut,
            })
        })
    }

    fn held(&self) -> [HeldNote; 2] {
        self.held.each_ref().map(|held| match held {
            Held::Nothing => HeldNote::Nothing,
            Held::Tail(tail) => HeldNote::Tail(tail.unsent().len() as u32),
            Held::Pipe(pipe) => HeldNote::Pipe {
                len: pipe.len(),
                capacity: pipe.capacity(),
            },
        })
    }
}

impl Detached {
    /// Of what has come from another process; `None` if it is not what was told.
    pub fn put_together(
        sides: [Option<SideNote>; 2],
        held: [HeldNote; 2],
        descriptors: Vec<OwnedFd>,
        bytes: &[u8],
    ) -> io::Result<Option<Self>> {
        let mut descriptors = descriptors.into_iter();
        let mut detached = Self::default();
        for (note, side) in sides.iter().zip(&mut detached.sides) {
            let Some(note) = note else { continue };
            let Some(fd) = descriptors.next() else {
                return Ok(None);
            };
            if shared::cookie(fd.as_fd())? != note.cookie {
                return Ok(None);
            }
            *side = Some(LooseSide {
                fd,
                exhaustive: note.exhaustive,
                shut: note.shut,
                shared: true,
            });
        }
        let mut bytes = bytes;
        for (note, held) in held.iter().zip(&mut detached.held) {
            match *note {
                HeldNote::Nothing => {}
                HeldNote::Tail(len) => {
                    let Some((tail, rest)) = bytes.split_at_checked(len as usize) else {
                        return Ok(None);
                    };
                    *held = Held::bytes(tail);
                    bytes = rest;
                }
                HeldNote::Pipe { len, capacity } => {
                    let (Some(read), Some(write)) = (descriptors.next(), descriptors.next()) else {
                        return Ok(None);
                    };
                    if shared::piped(read.as_fd())? != len {
                        return Ok(None);
                    }
                    *held = Held::Pipe(Pipe::from_parts([read, write], capacity, len));
                }
            }
        }
        let all = descriptors.next().is_none() && bytes.is_empty();
        Ok(all.then_some(detached))
    }
}
