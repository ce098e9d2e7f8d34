//! What is read of a client before its payload: the steps of a forward in their order,
//! each a [`Prelude`] of some kind, and what they found out together.
//!
//! The one place that knows which kinds there are. Most forwards have no step, and
//! their sessions no opening.

use std::sync::Arc;
use std::time::Duration;

use super::prelude::{Answer, Facts, Prelude, Read};
use super::sniff::{Sniffer, Wanted};
use super::steps::HeaderReader;
use super::{connect, proxy};
use crate::policy::trust::Trust;
use crate::relay::ending::Cause;

/// One step of an opening.
#[derive(Debug, Clone)]
pub struct Step {
    /// What is read.
    pub kind: StepKind,
    /// How long it may take in all, from the end of the step before it.
    pub patience: Duration,
}

/// What a step reads.
#[derive(Debug, Clone)]
pub enum StepKind {
    /// A PROXY header, which says who the client is.
    ProxyHeader {
        /// Which headers are taken.
        settings: proxy::Settings,
        /// From whom; anybody else is turned away.
        trust: Arc<Trust>,
    },
    /// What the stream is, by a look at its first bytes.
    Sniff(Wanted),
    /// An HTTP CONNECT request, which says where to go.
    HttpConnect(connect::Settings),
}

impl Step {
    fn begin(&self) -> Box<dyn Prelude> {
        match &self.kind {
            StepKind::ProxyHeader { settings, .. } => Box::new(HeaderReader::new(*settings)),
            StepKind::Sniff(wanted) => Box::new(Sniffer::new(*wanted)),
            StepKind::HttpConnect(settings) => Box::new(connect::Reader::new(settings.clone())),
        }
    }
}

/// An opening under way. See the module's documentation.
#[derive(Debug)]
pub struct Opening {
    steps: Arc<[Step]>,
    /// How many of them are complete.
    complete: usize,
    /// Of the step that is on, or of the last one; `None`: there was none.
    prelude: Option<Box<dyn Prelude>>,
    /// What was found out so far.
    pub facts: Facts,
}

impl Opening {
    /// Of these steps; without any it is complete.
    pub fn begin(steps: &Arc<[Step]>) -> Self {
        Self {
            prelude: steps.first().map(Step::begin),
            steps: steps.clone(),
            complete: 0,
            facts: Facts::default(),
        }
    }

    /// Takes what came behind that which was taken before. [`Read::Taken`] and
    /// [`Read::Seen`] end a step; it is over with the last one
    /// ([`Opening::is_complete`]).
    pub fn feed(&mut self, seen: &[u8]) -> Read {
        let Some(prelude) = &mut self.prelude else {
            return Read::Seen;
        };
        let read = prelude.feed(seen, &mut self.facts);
        self.follow(read)
    }

    /// As [`Opening::feed`], of a client that has ended: nothing follows these.
    pub fn end(&mut self, seen: &[u8]) -> Read {
        let Some(prelude) = &mut self.prelude else {
            return Read::Seen;
        };
        let read = prelude.end(seen, &mut self.facts);
        self.follow(read)
    }

    fn follow(&mut self, read: Read) -> Read {
        if let Read::Taken(_) | Read::Seen = read {
            self.complete += 1;
            if let Some(next) = self.steps.get(self.complete) {
                self.prelude = Some(next.begin());
            }
        }
        read
    }

    /// Goes on with these steps, once those that it had are complete.
    pub fn go_on(&mut self, steps: &Arc<[Step]>) {
        if let Some(first) = steps.first() {
            self.prelude = Some(first.begin());
            self.steps = steps.clone();
            self.complete = 0;
        }
    }

    /// The step that is on.
    pub fn step(&self) -> Option<&Step> {
        self.steps.get(self.complete)
    }

    /// Bytes that may be fed to the step that is on.
    pub fn room(&self) -> usize {
        self.prelude.as_ref().map_or(0, |it| it.room())
    }

    /// Whether every step is.
    pub fn is_complete(&self) -> bool {
        self.complete == self.steps.len()
    }

    /// What the client is owed; see [`Prelude::answer`].
    pub fn answer(&self, refused: Option<Cause>) -> Option<Answer> {
        self.prelude.as_ref()?.answer(refused)
    }
}

#[cfg(test)]
mod tests;
