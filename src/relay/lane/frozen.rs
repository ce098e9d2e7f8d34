//! A lane as plain data, on its way to another reactor or another process.
//!
//! What it holds, its engine hands over beside it; a count that does not fit what came
//! along is not believed. Nothing in here is a time or an identity.

use serde::{Deserialize, Serialize};

use super::{Course, Fallback, Lane, PathPolicy, Sink, Source};

/// See the module's documentation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneState {
    filled: u64,
    drained: u64,
    lost: u64,
    held: u32,
    last_fill: u32,
    fill_max: u32,
    fill_limit: u32,
    source: Source,
    sink: Sink,
    policy: PathPolicy,
    course: Course,
    streak: u8,
    doomed: bool,
    spliced: bool,
    fallback: Option<Fallback>,
}

impl LaneState {
    /// Bytes that its engine holds.
    pub const fn held(&self) -> u32 {
        self.held
    }

    /// The same once so many bytes have crossed it and nothing of them is held; `None` if that
    /// cannot have been, or if it had failed.
    #[must_use]
    pub(in crate::relay) fn crossed_by(&self, bytes: u64) -> Option<Self> {
        let failed = self.source == Source::Failed || self.sink == Sink::Failed || self.doomed;
        if failed || self.lost > 0 || bytes < self.drained {
            return None;
        }
        Some(Self {
            filled: bytes,
            drained: bytes,
            held: 0,
            sink: match self.sink {
                Sink::Full => Sink::Ready,
                sink => sink,
            },
            ..self.clone()
        })
    }

    /// Bytes written so far.
    pub const fn bytes_out(&self) -> u64 {
        self.drained
    }
}

impl Lane {
    /// As it is.
    pub fn freeze(&self) -> LaneState {
        let Self {
            drained,
            held: _,
            last_fill,
            fill_max,
            fill_limit,
            source,
            sink,
            policy,
            course,
            streak,
            doomed,
            spliced,
            fallback,
        } = *self;
        LaneState {
            filled: self.bytes_in(),
            drained,
            lost: self.bytes_lost(),
            held: self.held(),
            last_fill: match sink {
                Sink::Ready | Sink::Full | Sink::Shut => last_fill,
                Sink::Failed => 0,
            },
            fill_max,
            fill_limit,
            // Whether a rate keeps it back is found out anew.
            source: match source {
                Source::Held => Source::Ready,
                source => source,
            },
            sink,
            policy,
            course,
            streak,
            doomed,
            spliced,
            fallback,
        }
    }

    /// As it was; an error is what cannot have been.
    pub fn thaw(state: &LaneState) -> Result<Self, &'static str> {
        let accounted = state
            .drained
            .checked_add(state.lost)
            .and_then(|sum| sum.checked_add(u64::from(state.held)));
        if accounted != Some(state.filled) {
            return Err("the bytes of a lane do not add up");
        }
        if state.fill_max == 0 || state.fill_max > state.fill_limit {
            return Err("a lane has no room for a fill");
        }
        match state.sink {
            Sink::Shut if state.held > 0 || state.source != Source::Eof => {
                Err("a lane has passed on an end that did not come")
            }
            Sink::Failed if state.held > 0 => Err("a lane holds bytes for a sink that failed"),
            Sink::Ready | Sink::Full | Sink::Shut if state.lost > 0 => {
                Err("a lane has lost bytes although its sink has not failed")
            }
            Sink::Ready | Sink::Full | Sink::Shut | Sink::Failed => Ok(Self::restored(state)),
        }
    }

    const fn restored(state: &LaneState) -> Self {
        let (held, last_fill) = match state.sink {
            Sink::Ready | Sink::Full | Sink::Shut => (state.held, state.last_fill),
            // See `Lane::lose`.
            Sink::Failed => (state.lost as u32, (state.lost >> u32::BITS) as u32),
        };
        Self {
            drained: state.drained,
            held,
            last_fill,
            fill_max: state.fill_max,
            fill_limit: state.fill_limit,
            source: state.source,
            sink: state.sink,
            policy: state.policy,
            course: state.course,
            streak: state.streak,
            doomed: state.doomed,
            spliced: state.spliced,
            fallback: state.fallback,
        }
    }
}
