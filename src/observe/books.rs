//! The books of a forward: what is counted of its sessions, by each reactor for itself.
//!
//! A session is entered when it begins and when it ends; what it moved meanwhile is
//! entered when somebody asks (`reactor::inspect`). No byte on its way costs anything.
//!
//! Invariants: a reactor writes its own book and no other; what is read only grows, and
//! no session is counted as ended before it is counted as begun.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::observe::counters::{ForwardCells, ForwardSnapshot};
use crate::observe::metrics::cell::Counter;
use crate::relay::ending::Ending;

/// Kinds of endings that are told apart for each forward and reactor: more than a
/// forward was ever seen to have. Those beyond are counted as `other`.
const ENDINGS_MAX: usize = 48;

/// What endings beyond [`ENDINGS_MAX`] count as.
const OTHER: EndingKind = EndingKind {
    code: "other",
    cause: "other",
};

/// The books of one forward, a page for each reactor.
pub struct ForwardBooks {
    /// Made when the reactor has the first session of this forward: thousands of
    /// forwards that nobody uses cost next to nothing.
    pages: Box<[OnceLock<Box<Page>>]>,
}

/// What one reactor has counted.
#[derive(Debug, Default)]
pub struct Page {
    /// Begun sessions, bytes, distributions.
    pub cells: ForwardCells,
    endings: Endings,
}

/// How sessions end, as they are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndingKind {
    /// See [`Ending::code`].
    pub code: &'static str,
    /// See [`crate::relay::ending::Cause::name`].
    pub cause: &'static str,
}

/// How often a forward's sessions ended in which way.
struct Endings([(OnceLock<EndingKind>, Counter); ENDINGS_MAX]);

/// What is known of an ended session besides its bytes.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// How.
    pub ending: Option<Ending>,
    /// From accept to connected.
    pub connect: Option<Duration>,
    /// From accept to the first byte for the client.
    pub first_byte: Option<Duration>,
    /// From accept to the end.
    pub length: Duration,
    /// Bytes written up and down.
    pub bytes: [u64; 2],
}

impl ForwardBooks {
    /// Empty, for so many reactors.
    pub fn new(reactors: usize) -> Self {
        let pages = (0..reactors.max(1)).map(|_| OnceLock::new());
        Self {
            pages: pages.collect(),
        }
    }

    /// The page of a reactor.
    pub fn of(&self, reactor: u16) -> &Page {
        let page = &self.pages[usize::from(reactor) % self.pages.len()];
        page.get_or_init(Box::default)
    }

    /// The sum over the reactors.
    pub fn read(&self) -> (ForwardSnapshot, Vec<(EndingKind, u64)>) {
        let mut endings: Vec<(EndingKind, u64)> = Vec::new();
        let mut sum = ForwardSnapshot::default();
        for page in self.pages.iter().filter_map(OnceLock::get) {
            // Ends before begins: what began meanwhile cannot end uncounted.
            for (kind, count) in page.endings.read() {
                match endings.iter_mut().find(|(known, _)| *known == kind) {
                    Some((_, sum)) => *sum += count,
                    None => endings.push((kind, count)),
                }
            }
            sum = sum.plus(page.cells.snapshot());
        }
        endings.sort_unstable();
        (sum, endings)
    }

    /// Sessions that have begun and not ended.
    pub fn live(&self) -> u64 {
        let (sum, endings) = self.read();
        let ended: u64 = endings.iter().map(|(_, count)| count).sum();
        sum.started.saturating_sub(ended)
    }
}

impl Page {
    /// A session of this reactor has ended.
    pub fn end(&self, ended: &Ended) {
        let micros = |it: Duration| u64::try_from(it.as_micros()).unwrap_or(u64::MAX);
        if let Some(connect) = ended.connect {
            self.cells.connect.record(micros(connect));
        }
        if let Some(first_byte) = ended.first_byte {
            self.cells.first_byte.record(micros(first_byte));
        }
        self.cells.length.record(micros(ended.length));
        self.cells.size_up.record(ended.bytes[0]);
        self.cells.size_down.record(ended.bytes[1]);
        self.endings
            .count(ended.ending.map_or(OTHER, |ending| EndingKind {
                code: ending.code(),
                cause: ending.cause.name(),
            }));
    }
}

impl EndingKind {
    /// One that another process has told of. Words that no ending has here are kept for the
    /// life of the process: there are as many as that one has.
    pub fn told(code: &str, cause: &str) -> Self {
        static WORDS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
        let mut word = |text: &str| {
            if let Some(word) = words.get(text) {
                return *word;
            }
            let word: &'static str = Box::leak(text.to_owned().into_boxed_str());
            words.insert(word);
            word
        };
        Self {
            code: word(code),
            cause: word(cause),
        }
    }
}

impl Page {
    /// What another process has counted. Only ever called by the one writer.
    pub fn absorb(&self, more: &ForwardSnapshot, ended: &[(EndingKind, u64)]) {
        self.cells.absorb(more);
        for (kind, count) in ended {
            self.endings.count_many(*kind, *count);
        }
    }
}

impl Endings {
    /// Only ever called by the one writer.
    fn count(&self, kind: EndingKind) {
        self.count_many(kind, 1);
    }

    fn count_many(&self, kind: EndingKind, times: u64) {
        let (last, others) = (ENDINGS_MAX - 1, &self.0);
        for (known, count) in &others[..last] {
            if *known.get_or_init(|| kind) == kind {
                return count.add(times);
            }
        }
        let (known, count) = &others[last];
        known.get_or_init(|| OTHER);
        count.add(times);
    }

    fn read(&self) -> impl Iterator<Item = (EndingKind, u64)> + '_ {
        let counted = self.0.iter();
        counted.map_while(|(kind, count)| Some((*kind.get()?, count.get())))
    }
}

impl Default for Endings {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Default::default()))
    }
}

impl fmt::Debug for Endings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.read()).finish()
    }
}

impl fmt::Debug for ForwardBooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.pages.iter().filter_map(OnceLock::get))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::ending::{Cause, Stage, Who};

    fn ended(cause: Cause) -> Ended {
        Ended {
            ending: Some(Ending {
                who: Who::Forwarder,
                stage: Stage::Data,
                cause,
            }),
            connect: Some(Duration::from_millis(1)),
            first_byte: None,
            length: Duration::from_secs(1),
            bytes: [10, 20],
        }
    }

    #[test]
    fn b142_what_reactors_count_adds_up() {
        let books = ForwardBooks::new(2);
        for reactor in [0, 1, 1] {
            books.of(reactor).cells.started.add(1);
            books.of(reactor).end(&ended(Cause::IdleTimeout));
        }
        books.of(0).cells.started.add(1);
        let (sum, endings) = books.read();
        assert_eq!((sum.started, books.live()), (4, 1));
        assert_eq!(endings.len(), 1);
        assert_eq!((endings[0].0.cause, endings[0].1), ("idle_timeout", 3));
        assert_eq!(sum.connect.counts.iter().sum::<u64>(), 3);
        assert_eq!(sum.first_byte.counts.iter().sum::<u64>(), 0);
        assert_eq!(sum.size_down.sum, Some(60));
    }

    #[test]
    fn b141_kinds_of_endings_are_bounded() {
        // Names are for the life of the program: each is another beginning of this.
        const NAMES: &str =
            "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz";
        let endings = Endings::default();
        let kinds = 0..ENDINGS_MAX + 10;
        for kind in kinds.clone() {
            endings.count(EndingKind {
                code: "--",
                cause: &NAMES[..=kind],
            });
        }
        let read: Vec<_> = endings.read().collect();
        assert_eq!(read.len(), ENDINGS_MAX);
        assert_eq!(read.last(), Some(&(OTHER, 11)));
        assert_eq!(read.iter().map(|(_, n)| n).sum::<u64>(), kinds.len() as u64);
    }
}
