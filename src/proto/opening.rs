//! What is read of a client before its payload: the steps of a forward in their order,
//! each a [`Prelude`] of some kind, and what they found out together.
//!
//! The one place that knows which kinds there are. Most forwards have no step, and
//! their sessions no opening.

use std::sync::Arc;

use super::connect;
use super::prelude::{Answer, Facts, Prelude, Read};
use crate::relay::ending::Cause;

/// One step of an opening.
#[derive(Debug, Clone)]
pub enum Step {
    /// An HTTP CONNECT request, which says where to go.
    HttpConnect(connect::Settings),
}

impl Step {
    fn begin(&self) -> Box<dyn Prelude> {
        match self {
            Self::HttpConnect(settings) => Box::new(connect::Reader::new(settings.clone())),
        }
    }
}

/// An opening under way. See the module's documentation.
#[derive(Debug)]
pub struct Opening {
    steps: Arc<[Step]>,
    /// How many of them are complete.
    complete: usize,
    /// Of the step that is on, or of the last one.
    prelude: Box<dyn Prelude>,
    /// What was found out so far.
    pub facts: Facts,
}

impl Opening {
    /// `None`: there is no step, and nothing to read.
    pub fn begin(steps: &Arc<[Step]>) -> Option<Self> {
        Some(Self {
            prelude: steps.first()?.begin(),
            steps: steps.clone(),
            complete: 0,
            facts: Facts::default(),
        })
    }

    /// Takes what came behind that which was taken before. [`Read::Taken`] ends a step;
    /// it is over with the last one ([`Opening::is_complete`]).
    pub fn feed(&mut self, seen: &[u8]) -> Read {
        let read = self.prelude.feed(seen, &mut self.facts);
        if let Read::Taken(_) = read {
            self.complete += 1;
            if let Some(next) = self.steps.get(self.complete) {
                self.prelude = next.begin();
            }
        }
        read
    }

    /// Bytes that may be fed to the step that is on.
    pub fn room(&self) -> usize {
        self.prelude.room()
    }

    /// Whether every step is.
    pub fn is_complete(&self) -> bool {
        self.complete == self.steps.len()
    }

    /// What the client is owed; see [`Prelude::answer`].
    pub fn answer(&self, refused: Option<Cause>) -> Answer {
        self.prelude.answer(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> connect::Settings {
        connect::Settings {
            header_max: 1024,
            realm: "x".into(),
        }
    }

    #[test]
    fn without_a_step_there_is_no_opening() {
        assert!(Opening::begin(&[].into()).is_none());
    }

    #[test]
    fn steps_are_read_one_after_the_other() {
        let steps: Arc<[Step]> =
            [Step::HttpConnect(settings()), Step::HttpConnect(settings())].into();
        let mut opening = Opening::begin(&steps).expect("two steps");
        let (one, two) = (
            "CONNECT a:1 HTTP/1.1\r\n\r\n",
            "CONNECT b:2 HTTP/1.1\r\n\r\n",
        );
        assert_eq!(opening.feed(&one.as_bytes()[..9]), Read::More);
        let glued = format!("{}{two}payload", &one[9..]);
        assert_eq!(opening.feed(glued.as_bytes()), Read::Taken(one.len() - 9));
        assert!(!opening.is_complete());
        let rest = format!("{two}payload");
        assert_eq!(opening.feed(rest.as_bytes()), Read::Taken(two.len()));
        assert!(opening.is_complete());
        let target = opening.facts.target.as_ref().map(ToString::to_string);
        assert_eq!(target.as_deref(), Some("b:2"));
        assert_eq!(opening.answer(None).status, 200);
    }
}
