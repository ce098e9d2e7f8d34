//! One direction of a relayed connection, as pure byte counts.
//!
//! Purpose: decide what an engine does next for this direction (read, write,
//! pass on the end, discard, wait) and which data path it uses.
//! Owns: counts and the state of both ends. Never sees a byte or a descriptor:
//! the engine holds the payload, the lane knows how much of it there is.
//!
//! ```text
//!            fill                     drain
//!   source ────────► [ held bytes ] ────────► sink
//!   Ready ⇄ Empty, Held                       Ready ⇄ Full
//!     └► Eof | Failed                           └► Shut | Failed
//! ```
//! A source is held when there may be something to read and a rate says not yet.
//!
//! Invariants:
//! - a fill is asked for only when nothing is held: so an empty pipe makes
//!   EAGAIN of splice(2) mean "socket empty", and the two data paths never mix;
//! - the sink is shut only after the source's end and the last held byte;
//! - `filled == drained + held + lost`.

mod frozen;

use serde::{Deserialize, Serialize};

pub use frozen::LaneState;

/// Consecutive fills of at least [`BULK_FILL`] bytes that make a lane bulk.
/// Four (1 MiB at full reads): long enough that a reply of a few hundred KiB
/// never pays for a pipe, short enough to be invisible in a transfer.
const BULK_STREAK: u8 = 4;

/// A fill of this many bytes counts as bulk. Below it splice loses to copy:
/// splicing costs two system calls and page juggling that a 64 KiB memcpy
/// (a few microseconds in cache) does not.
const BULK_FILL: u32 = 64 * 1024;

/// Consecutive splices of less than [`SHORT_FILL`] bytes that make a bulk lane
/// interactive again, so that it gives its pipe back.
const SHORT_STREAK: u8 = 4;

/// A splice shorter than this counts as interactive.
const SHORT_FILL: u32 = 16 * 1024;

/// A lane towards a slow sink still reads this much at a time.
const FILL_MIN: u32 = 16 * 1024;

/// How payload crosses a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// Through a buffer in user memory.
    Copy,
    /// Through a pipe, by splice(2).
    Splice,
}

/// Which path a lane may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathPolicy {
    /// Copy first, splice once the lane shows bulk, and back.
    Auto,
    /// Always copy.
    Copy,
    /// Splice from the first byte.
    Splice,
}

/// Why a lane that wanted to splice copies instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fallback {
    /// No pipe could be had: out of descriptors or of pipe memory.
    NoPipe,
    /// The reactor holds as many bytes as it may; pipes are refused for now.
    BufferLimit,
    /// splice(2) answered that it does not work on these sockets.
    Unsupported,
}

/// What the engine does next for a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Read at most `max` bytes from the source by this path.
    Fill {
        /// Bytes.
        max: u32,
        /// By which path.
        path: Path,
    },
    /// Write the held bytes, `len` of them, to the sink.
    Drain {
        /// Bytes.
        len: u32,
    },
    /// Read at most `max` bytes and drop them: the sink is gone, and unread
    /// bytes would turn the close of the source into a reset.
    Discard {
        /// Bytes.
        max: u32,
    },
    /// Pass the end on: shut the sink's write side down.
    ShutSink,
    /// Nothing until the source or the sink is ready again.
    Park,
    /// Nothing ever again.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Source {
    Ready,
    Empty,
    /// Ready, and not to be read for now.
    Held,
    Eof,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Sink {
    Ready,
    Full,
    Shut,
    Failed,
}

impl Source {
    const fn name(self) -> &'static str {
        match self {
            Self::Ready => "source Ready",
            Self::Empty => "source Empty",
            Self::Held => "source Held",
            Self::Eof => "source Eof",
            Self::Failed => "source Failed",
        }
    }
}

impl Sink {
    const fn name(self) -> &'static str {
        match self {
            Self::Ready => "sink Ready",
            Self::Full => "sink Full",
            Self::Shut => "sink Shut",
            Self::Failed => "sink Failed",
        }
    }
}

/// How far a lane has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Bytes may still cross.
    Open,
    /// The source ended well; held bytes or the end itself are still on the way.
    Ending,
    /// Every byte and the end have crossed.
    Finished,
    /// The source failed and held bytes are still on the way to the sink.
    Flushing,
    /// The source failed, and what it had delivered has crossed.
    SourceFailed,
    /// The sink failed: nothing crosses any more.
    SinkFailed,
}

/// One direction of a session. See the module's documentation.
#[derive(Debug, Clone)]
pub struct Lane {
    /// What was filled is the sum of this and of what is held or lost: that count is not
    /// kept.
    drained: u64,
    /// Bytes held, until the sink fails; see [`Lane::lose`].
    held: u32,
    /// Bytes of the last fill, until the sink fails.
    last_fill: u32,
    fill_max: u32,
    fill_limit: u32,
    source: Source,
    sink: Sink,
    policy: PathPolicy,
    course: Course,
    streak: u8,
    /// An end of the source would only echo an error that was seen elsewhere.
    doomed: bool,
    spliced: bool,
    fallback: Option<Fallback>,
}

/// What a lane does with its bytes at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Course {
    Copy,
    Splice,
    /// Copies because somebody looks at them: they must pass through user memory.
    Shown,
}

impl Lane {
    /// A lane whose fills never exceed `fill_limit` bytes.
    pub const fn new(policy: PathPolicy, fill_limit: u32) -> Self {
        Self {
            drained: 0,
            held: 0,
            last_fill: 0,
            fill_max: fill_limit,
            fill_limit,
            source: Source::Empty,
            sink: Sink::Ready,
            policy,
            course: match policy {
                PathPolicy::Splice => Course::Splice,
                PathPolicy::Auto | PathPolicy::Copy => Course::Copy,
            },
            streak: 0,
            doomed: false,
            spliced: false,
            fallback: None,
        }
    }

    /// The names of its source's and its sink's state, for whoever watches.
    pub const fn states(&self) -> (&'static str, &'static str) {
        (self.source.name(), self.sink.name())
    }

    /// What to do now. Asking changes nothing.
    pub fn next(&self) -> Next {
        match (self.sink, self.source) {
            (Sink::Failed, Source::Ready) => Next::Discard {
                max: self.fill_limit,
            },
            (Sink::Failed, Source::Empty | Source::Held) => Next::Park,
            (Sink::Shut, _) | (Sink::Failed, Source::Eof | Source::Failed) => Next::Done,
            (Sink::Full, _) if self.held > 0 => Next::Park,
            (Sink::Ready, _) if self.held > 0 => Next::Drain { len: self.held },
            (Sink::Ready | Sink::Full, Source::Ready) => Next::Fill {
                max: self.fill_max,
                path: self.path(),
            },
            (Sink::Ready | Sink::Full, Source::Empty | Source::Held) => Next::Park,
            (Sink::Ready | Sink::Full, Source::Eof) => Next::ShutSink,
            (Sink::Ready | Sink::Full, Source::Failed) => Next::Done,
        }
    }

    // What the engine reports.

    /// `n` bytes were read and are held now; `n` is positive.
    pub fn filled(&mut self, n: u32) {
        debug_assert!(n > 0 && self.held == 0, "a fill needs an empty lane");
        self.held = n;
        self.last_fill = n;
        self.choose_path(n);
    }

    /// A fill came back empty-handed: the source has no more for now, or the engine no
    /// buffer; it says [`Lane::source_ready`] when that has changed.
    pub const fn fill_blocked(&mut self) {
        if matches!(self.source, Source::Ready) {
            self.source = Source::Empty;
        }
    }

    /// The source ended: no byte follows.
    pub const fn source_eof(&mut self) {
        self.source = if self.doomed {
            Source::Failed
        } else {
            Source::Eof
        };
    }

    /// Reading failed for good.
    pub const fn source_failed(&mut self) {
        self.source = Source::Failed;
    }

    /// `n` of the held bytes were written.
    pub fn drained(&mut self, n: u32) {
        debug_assert!(n > 0 && n <= self.held, "drained more than was held");
        self.drained += u64::from(n);
        self.held -= n;
        if self.held == 0 && self.fill_max < self.fill_limit {
            self.fill_max = self.fill_max.saturating_mul(2).min(self.fill_limit);
        }
    }

    /// The sink takes no more for now. From here on a fill reads no more than
    /// the sink took of this one: what a slow reader costs stays near its pace.
    pub fn drain_blocked(&mut self) {
        match self.sink {
            Sink::Ready => self.sink = Sink::Full,
            Sink::Full | Sink::Shut => {}
            Sink::Failed => return,
        }
        let taken = self.last_fill.saturating_sub(self.held);
        self.fill_max = self.fill_max.min(taken.max(FILL_MIN));
    }

    /// `n` bytes that were reported as written were not: an engine that writes
    /// behind the lane's back takes its word back before anything follows them.
    /// They are held again, and the sink takes none; if it has failed meanwhile,
    /// they are lost.
    pub fn undrained(&mut self, n: u32) {
        debug_assert!(
            n > 0 && self.held() == 0 && self.sink != Sink::Shut,
            "only what was written last can be taken back"
        );
        self.drained -= u64::from(n);
        if self.sink == Sink::Failed {
            self.lose(n);
        } else {
            self.held = n;
            self.drain_blocked();
        }
    }

    /// Writing failed for good; what was held is lost and the engine drops it.
    pub const fn sink_failed(&mut self) {
        match self.sink {
            Sink::Ready | Sink::Full => {
                self.sink = Sink::Failed;
                // From now on both words are one count.
                self.last_fill = 0;
            }
            Sink::Shut => self.held = 0,
            Sink::Failed => {}
        }
        // What is discarded goes by no rate.
        self.release();
    }

    /// The end was passed on.
    pub const fn sink_shut(&mut self) {
        debug_assert!(
            !matches!(self.sink, Sink::Failed),
            "an end was passed on to a sink that had failed"
        );
        self.sink = Sink::Shut;
    }

    /// `n` bytes were read and dropped after the sink had failed.
    pub const fn discarded(&mut self, n: u32) {
        self.lose(n);
    }

    /// What is lost is counted where a lane holds nothing any more: in `held`, and the high
    /// half of it in `last_fill`. Eight bytes of each lane of an idle session are saved so.
    const fn lose(&mut self, n: u32) {
        debug_assert!(
            matches!(self.sink, Sink::Failed),
            "bytes are lost only by a sink that failed"
        );
        let lost = self.bytes_lost() + n as u64;
        self.held = lost as u32;
        self.last_fill = (lost >> u32::BITS) as u32;
    }

    /// splice is not to be had for this lane: copy. For ever if it is
    /// [`Fallback::Unsupported`], otherwise until the lane shows bulk again.
    pub const fn splice_refused(&mut self, why: Fallback) {
        self.course = Course::Copy;
        self.streak = 0;
        self.fallback = Some(why);
        if matches!(why, Fallback::Unsupported) {
            self.policy = PathPolicy::Copy;
        }
    }

    // What the session reports.

    /// Bytes, an end or an error can be read.
    pub const fn source_ready(&mut self) {
        if matches!(self.source, Source::Empty) {
            self.source = Source::Ready;
        }
    }

    /// The sink takes bytes again.
    pub const fn sink_ready(&mut self) {
        if matches!(self.sink, Sink::Full) {
            self.sink = Sink::Ready;
        }
    }

    /// Nothing is to be read before [`Lane::release`]: a rate says so.
    pub const fn hold_back(&mut self) {
        if matches!(self.source, Source::Ready) {
            self.source = Source::Held;
        }
    }

    /// What is there may be read again.
    pub const fn release(&mut self) {
        if matches!(self.source, Source::Held) {
            self.source = Source::Ready;
        }
    }

    /// Somebody looks at the bytes: from the next fill on they are copied, whatever
    /// the policy, until [`Lane::untap`].
    pub const fn tap(&mut self) {
        if !self.is_tapped() {
            self.course = Course::Shown;
            self.streak = 0;
        }
    }

    /// Nobody looks any more: the path is the policy's again. A lane that has shown
    /// bulk meanwhile splices at once.
    pub fn untap(&mut self) {
        if !self.is_tapped() {
            return;
        }
        self.course = Course::Copy;
        let bulk = self.streak >= BULK_STREAK && self.policy == PathPolicy::Auto;
        if bulk || self.policy == PathPolicy::Splice {
            self.course = Course::Splice;
            self.streak = 0;
        }
    }

    /// `n` bytes more were read, behind those that are held: an engine that reads ahead
    /// lets go of the lane, and has them no more.
    pub fn filled_behind(&mut self, n: u32) {
        debug_assert!(self.sink != Sink::Failed, "held for a sink that has failed");
        self.held += n;
    }

    /// The source's connection is known to have failed: an end read from now on
    /// is that failure's echo and is not passed on as an orderly end.
    pub const fn doom(&mut self) {
        self.doomed = true;
    }

    // What anyone may ask.

    /// How far it has come.
    pub const fn progress(&self) -> Progress {
        match (self.sink, self.source) {
            (Sink::Failed, _) => Progress::SinkFailed,
            (Sink::Shut, _) => Progress::Finished,
            (_, Source::Eof) => Progress::Ending,
            (_, Source::Failed) if self.held > 0 => Progress::Flushing,
            (_, Source::Failed) => Progress::SourceFailed,
            (_, Source::Ready | Source::Empty | Source::Held) => Progress::Open,
        }
    }

    /// Whether it would read from its source, once nothing is held.
    pub const fn wants_fill(&self) -> bool {
        matches!(self.source, Source::Ready) && matches!(self.sink, Sink::Ready | Sink::Full)
    }

    /// Whether a rate keeps it from reading what may be there.
    pub const fn is_held_back(&self) -> bool {
        matches!(self.source, Source::Held)
    }

    /// The source has ended, well or not.
    pub const fn source_ended(&self) -> bool {
        matches!(self.source, Source::Eof | Source::Failed)
    }

    /// The sink takes nothing any more: its end was passed on, or it failed.
    pub const fn sink_has_ended(&self) -> bool {
        matches!(self.sink, Sink::Shut | Sink::Failed)
    }

    /// The source has ended in good order.
    pub const fn source_finished(&self) -> bool {
        matches!(self.source, Source::Eof)
    }

    /// The sink holds bytes up: some are held, and it takes none.
    pub const fn is_stalled(&self) -> bool {
        self.held > 0 && matches!(self.sink, Sink::Full)
    }

    /// Bytes held by the engine now.
    pub const fn held(&self) -> u32 {
        match self.sink {
            Sink::Ready | Sink::Full | Sink::Shut => self.held,
            Sink::Failed => 0,
        }
    }

    /// Bytes read so far.
    pub const fn bytes_in(&self) -> u64 {
        self.drained + self.held() as u64 + self.bytes_lost()
    }

    /// Bytes written so far.
    pub const fn bytes_out(&self) -> u64 {
        self.drained
    }

    /// Bytes read that will never be written.
    pub const fn bytes_lost(&self) -> u64 {
        match self.sink {
            Sink::Ready | Sink::Full | Sink::Shut => 0,
            Sink::Failed => (self.last_fill as u64) << u32::BITS | self.held as u64,
        }
    }

    /// The path of the next fill.
    pub const fn path(&self) -> Path {
        match self.course {
            Course::Copy | Course::Shown => Path::Copy,
            Course::Splice => Path::Splice,
        }
    }

    /// Whether somebody looks at the bytes; such a lane never splices.
    pub const fn is_tapped(&self) -> bool {
        matches!(self.course, Course::Shown)
    }

    /// Whether its last fill was a large one: more of that may wait than others should
    /// wait for. What is discarded is no fill.
    pub const fn is_bulk(&self) -> bool {
        if matches!(self.sink, Sink::Failed) {
            return false;
        }
        match self.course {
            Course::Splice => self.last_fill >= SHORT_FILL,
            Course::Copy | Course::Shown => self.last_fill >= BULK_FILL,
        }
    }

    /// Whether any byte crossed by splice.
    pub const fn has_spliced(&self) -> bool {
        self.spliced
    }

    /// Why it copies although it wanted to splice.
    pub const fn fallback(&self) -> Option<Fallback> {
        self.fallback
    }

    fn choose_path(&mut self, n: u32) {
        match self.course {
            Course::Splice => {
                self.spliced = true;
                self.streak = if n < SHORT_FILL {
                    self.streak.saturating_add(1)
                } else {
                    0
                };
                if self.streak >= SHORT_STREAK && self.policy == PathPolicy::Auto {
                    self.course = Course::Copy;
                    self.streak = 0;
                }
            }
            Course::Copy | Course::Shown => {
                self.streak = if n >= BULK_FILL {
                    self.streak.saturating_add(1)
                } else {
                    0
                };
                let may = self.policy != PathPolicy::Copy && !self.is_tapped();
                if self.streak >= BULK_STREAK && may {
                    self.course = Course::Splice;
                    self.streak = 0;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
