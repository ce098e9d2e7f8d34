//! A journal that outlives its process: how far connections have come, for whoever gets their
//! descriptors when this process was killed.
//!
//! It is a file in memory of fixed slots, one for each connection, which a service manager keeps
//! together with the descriptors. A process that is killed leaves its stores in the order in
//! which it made them, so the order is all there is to it:
//!
//! ```text
//!  a lane reads    dirty ─► read … write … read … write ─► bytes, since ─► clean
//!  an end          spoilt ─► close, reset ─► free
//!  another one     slot dirty ─► text ─► bytes ─► clean ─► valid
//! ```
//! What is dirty when the process dies may have been read and not written, or written and not
//! counted: nobody can go on there. What is clean holds nothing, and its count is that of both
//! sides. That holds for a process that dies; a machine that does takes the descriptors along.
//!
//! Owns the file and which slots are taken. Knows no sessions: a text is whatever its owner wants
//! to read again, and a lane is one of two.

mod map;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{Ordering, compiler_fence};
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;

use map::Map;

/// Slots. The names of two descriptors for each have to fit into one variable of the environment
/// (`LISTEN_FDNAMES`, 128 KiB): without a bound a service could not be started again.
pub const SLOTS: u32 = 1024;

/// Words of a slot, and of what stands before the first one: a page each.
const SLOT_WORDS: usize = 512;

/// Words of a slot before its text.
const TEXT_AT: usize = 16;

/// Bytes of a text at the most.
pub const TEXT_MAX: usize = (SLOT_WORDS - TEXT_AT) * size_of::<u64>();

const WORDS: usize = SLOT_WORDS * (1 + SLOTS as usize);

/// "thalwegj", and of which layout it is.
const MAGIC: u64 = u64::from_le_bytes(*b"thalwegj");
const LAYOUT: u64 = 1;

/// The words before the first slot.
#[derive(Clone, Copy)]
enum Head {
    Magic,
    Layout,
    Id,
    Origin,
}

/// The words of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// A [`Hold`].
    Hold,
    /// How many times the slot was taken.
    Generation,
    /// When the text was written.
    Written,
    /// When the first byte came down; 0: it has not.
    First,
    /// Bytes of the text.
    TextLen,
    /// Of each lane: whether it is dirty, its bytes, and when the last of them crossed it; 0: none
    /// has since the text was written.
    Dirty(usize),
    Bytes(usize),
    Since(usize),
}

impl Word {
    const fn offset(self) -> usize {
        match self {
            Self::Hold => 0,
            Self::Generation => 1,
            Self::Written => 2,
            Self::First => 3,
            Self::TextLen => 4,
            Self::Dirty(lane) => 5 + 3 * lane,
            Self::Bytes(lane) => 6 + 3 * lane,
            Self::Since(lane) => 7 + 3 * lane,
        }
    }
}

/// What a slot says of itself.
#[derive(Clone, Copy)]
enum Hold {
    /// Nobody has it.
    Free,
    /// Somebody has it, and its lanes say what may be done.
    Valid,
    /// Somebody had it, and nobody can go on there.
    Spoilt,
}

/// Where the words of one slot are stored. Not always a file: what is proven of the order is
/// proven with a record of the stores.
trait Page {
    fn store(&self, word: Word, value: u64);
    fn load(&self, word: Word) -> u64;
}

/// What is stored, in which order.
mod steps {
    use super::{Hold, Page, Word};

    pub(super) fn valid(page: &impl Page, bytes: [Option<u64>; 2], (written, first): (u64, u64)) {
        page.store(Word::Written, written);
        page.store(Word::First, first);
        for (lane, bytes) in bytes.into_iter().enumerate() {
            page.store(Word::Since(lane), 0);
            match bytes {
                Some(bytes) => clean(page, lane, bytes, None),
                None => dirty(page, lane),
            }
        }
        page.store(Word::Hold, Hold::Valid as u64);
    }

    pub(super) fn dirty(page: &impl Page, lane: usize) {
        page.store(Word::Dirty(lane), 1);
    }

    pub(super) fn clean(page: &impl Page, lane: usize, bytes: u64, now: Option<u64>) {
        page.store(Word::Bytes(lane), bytes);
        if let Some(now) = now {
            page.store(Word::Since(lane), now);
        }
        page.store(Word::Dirty(lane), 0);
    }
}

/// What the connection of a slot is called where its descriptors are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotName {
    /// Of the journal.
    pub journal: u64,
    /// Which slot.
    pub slot: u32,
    /// Which of those that have had it.
    pub generation: u64,
}

/// What begins the name of a descriptor that belongs to a journal.
const JOURNAL: &str = "thalweg-journal.";
const SESSION: &str = "thalweg-session.";

/// Whether a text has room in a slot.
pub const fn may_have(text: &[u8]) -> bool {
    text.len() <= TEXT_MAX
}

/// What a service manager calls a journal.
pub fn journal_name(id: u64) -> String {
    format!("{JOURNAL}{id:x}")
}

/// Which journal a name means.
pub fn journal_named(name: &str) -> Option<u64> {
    u64::from_str_radix(name.strip_prefix(JOURNAL)?, 16).ok()
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            journal,
            slot,
            generation,
        } = self;
        write!(f, "{SESSION}{journal:x}.{slot}.{generation}")
    }
}

impl SlotName {
    /// Which connection a name means.
    pub fn named(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix(SESSION)?.split('.');
        let found = Self {
            journal: u64::from_str_radix(parts.next()?, 16).ok()?,
            slot: parts.next()?.parse().ok()?,
            generation: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(found)
    }
}

/// What was noted of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Noted {
    /// What it is called.
    pub name: SlotName,
    /// Bytes that crossed each lane when nothing of it was held.
    pub bytes: [u64; 2],
    /// When the last of them crossed either, if that was after the text was written; all times in
    /// microseconds since the origin.
    pub since: Option<u64>,
    /// When the text was written.
    pub written: u64,
    /// When the first byte came down.
    pub first: Option<u64>,
    /// Nothing of either lane was held.
    pub clean: bool,
    /// What its owner wrote.
    pub text: Vec<u8>,
}

/// Is told when a slot is free again: what is kept under its name is nobody's.
pub type Released = Box<dyn Fn(SlotName) + Send + Sync>;

/// See the module's documentation.
pub struct Journal {
    file: OwnedFd,
    map: Map,
    id: u64,
    /// Slots that nobody has.
    free: Mutex<Vec<u32>>,
    released: Released,
}

impl Journal {
    /// One without an entry. `id` tells it from others; `origin`: what its times count from, in
    /// microseconds of `CLOCK_MONOTONIC`.
    pub fn new((id, origin): (u64, u64), released: Released) -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = memfd_create("thalweg-journal", flags)?;
        ftruncate(&file, (WORDS * size_of::<u64>()) as i64)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
        let map = Map::of(file.as_fd(), WORDS)?;
        let head = |word: Head, value| map.word(word as usize).store(value, Ordering::Relaxed);
        head(Head::Layout, LAYOUT);
        head(Head::Id, id);
        head(Head::Origin, origin);
        head(Head::Magic, MAGIC);
        Ok(Self {
            file,
            map,
            id,
            free: Mutex::new((0..SLOTS).rev().collect()),
            released,
        })
    }

    /// That of a process before, to go on with; an error is what it is not.
    pub fn open(file: OwnedFd, released: Released) -> io::Result<Self> {
        let foreign = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
        let seals = fcntl(&file, FcntlArg::F_GET_SEALS)?;
        let seals = SealFlag::from_bits_truncate(seals);
        if !seals.contains(SealFlag::F_SEAL_SHRINK) {
            return Err(foreign("it can be cut short"));
        }
        if fstat(&file)?.st_size != (WORDS * size_of::<u64>()) as i64 {
            return Err(foreign("it is of another size"));
        }
        let map = Map::of(file.as_fd(), WORDS)?;
        let head = |word: Head| map.word(word as usize).load(Ordering::Relaxed);
        if head(Head::Magic) != MAGIC || head(Head::Layout) != LAYOUT {
            return Err(foreign("it is of another layout"));
        }
        let id = head(Head::Id);
        let journal = Self {
            file,
            map,
            id,
            free: Mutex::default(),
            released,
        };
        let free = (0..SLOTS).rev();
        let free = free.filter(|slot| journal.slot(*slot).load(Word::Hold) == Hold::Free as u64);
        let free: Vec<u32> = free.collect();
        *journal.lock() = free;
        Ok(journal)
    }

    /// What tells it from others.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Whether nobody has some slot of it.
    pub fn has_free(&self) -> bool {
        !self.lock().is_empty()
    }

    /// What its times count from, in microseconds of `CLOCK_MONOTONIC`.
    pub fn origin(&self) -> u64 {
        let word = self.map.word(Head::Origin as usize);
        word.load(Ordering::Relaxed)
    }

    /// Takes a slot for a connection that this is told of; `None`: there is none, or the text is
    /// too long. It is dirty until [`Mark::valid`].
    pub fn take(self: &Arc<Self>, text: &[u8]) -> Option<Mark> {
        if !may_have(text) {
            return None;
        }
        let slot = self.lock().pop()?;
        let page = self.slot(slot);
        let generation = page.load(Word::Generation) + 1;
        page.store(Word::Hold, Hold::Spoilt as u64);
        page.store(Word::Generation, generation);
        page.store(Word::TextLen, text.len() as u64);
        for (at, chunk) in text.chunks(size_of::<u64>()).enumerate() {
            let mut word = [0; size_of::<u64>()];
            word[..chunk.len()].copy_from_slice(chunk);
            page.text(at)
                .store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
        Some(self.mark(slot, generation))
    }

    /// What the process before has noted of those that it had: each with its slot, which is free
    /// again once that is dropped.
    pub fn noted(self: &Arc<Self>) -> Vec<(Noted, Mark)> {
        let taken = |slot: &u32| self.slot(*slot).load(Word::Hold) != Hold::Free as u64;
        let slots = (0..SLOTS).filter(taken);
        slots
            .map(|slot| {
                let page = self.slot(slot);
                let generation = page.load(Word::Generation);
                let len = (page.load(Word::TextLen) as usize).min(TEXT_MAX);
                let words = (0..len.div_ceil(size_of::<u64>())).map(|at| page.text(at));
                let mut text: Vec<u8> = words
                    .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
                    .collect();
                text.truncate(len);
                let mark = self.mark(slot, generation);
                let first = page.load(Word::First);
                let since = [0, 1].map(|lane| page.load(Word::Since(lane)));
                let since = since[0].max(since[1]);
                let noted = Noted {
                    name: mark.name(),
                    bytes: [0, 1].map(|lane| page.load(Word::Bytes(lane))),
                    since: (since != 0).then_some(since),
                    written: page.load(Word::Written),
                    first: (first != 0).then_some(first),
                    clean: page.is_clean(),
                    text,
                };
                (noted, mark)
            })
            .collect()
    }

    fn mark(self: &Arc<Self>, slot: u32, generation: u64) -> Mark {
        Mark {
            journal: self.clone(),
            slot,
            generation,
        }
    }

    fn slot(&self, slot: u32) -> Slot<'_> {
        Slot {
            map: &self.map,
            at: SLOT_WORDS * (1 + slot as usize),
        }
    }

    /// Whoever panicked while it held the lock left a whole list behind.
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Journal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.id;
        f.debug_struct("Journal")
            .field("id", &id)
            .finish_non_exhaustive()
    }
}

/// One slot of the file.
struct Slot<'a> {
    map: &'a Map,
    at: usize,
}

impl<'a> Slot<'a> {
    fn text(&self, word: usize) -> &'a std::sync::atomic::AtomicU64 {
        self.map.word(self.at + TEXT_AT + word)
    }

    fn is_clean(&self) -> bool {
        let valid = self.load(Word::Hold) == Hold::Valid as u64;
        valid && [0, 1].iter().all(|lane| self.load(Word::Dirty(*lane)) == 0)
    }
}

impl Page for Slot<'_> {
    fn store(&self, word: Word, value: u64) {
        let word = self.map.word(self.at + word.offset());
        word.store(value, Ordering::Release);
        // Before whatever comes next, system calls as well: whoever looks at it after a kill sees
        // what this thread had stored until then, in order, for it is the same memory.
        compiler_fence(Ordering::SeqCst);
    }

    fn load(&self, word: Word) -> u64 {
        self.map
            .word(self.at + word.offset())
            .load(Ordering::Acquire)
    }
}

/// The slot of a connection, for whoever moves its bytes. Dropped, the slot is free.
#[derive(Debug)]
pub struct Mark {
    journal: Arc<Journal>,
    slot: u32,
    generation: u64,
}

impl Mark {
    /// What the connection is called.
    pub fn name(&self) -> SlotName {
        SlotName {
            journal: self.journal.id,
            slot: self.slot,
            generation: self.generation,
        }
    }

    /// Whoever finds it from now on may go on there. `bytes`: of each lane, `None` if something of
    /// it is held; `times`: now, and when the first byte came down, in microseconds.
    pub fn valid(&self, bytes: [Option<u64>; 2], (now, first): (u64, Option<u64>)) {
        steps::valid(&self.page(), bytes, (now, first.unwrap_or(0)));
    }

    /// Before a lane reads anything.
    pub fn dirty(&self, lane: usize) {
        steps::dirty(&self.page(), lane);
    }

    /// Nothing of a lane is held, and so many bytes have crossed it; `now`, if some have only now.
    pub fn clean(&self, lane: usize, bytes: u64, now: Option<u64>) {
        steps::clean(&self.page(), lane, bytes, now);
    }

    /// The first byte has come down, unless that is known.
    pub fn first(&self, now: u64) {
        let page = self.page();
        if page.load(Word::First) == 0 {
            page.store(Word::First, now);
        }
    }

    /// Nobody can go on there any more.
    pub fn spoil(&self) {
        self.page().store(Word::Hold, Hold::Spoilt as u64);
    }

    fn page(&self) -> Slot<'_> {
        self.journal.slot(self.slot)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.page().store(Word::Hold, Hold::Free as u64);
        self.journal.lock().push(self.slot);
        (self.journal.released)(self.name());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
