//! A header in pieces, as the first step of an opening.

use std::fmt;

use super::{Fault, Parsed, SIGNATURE, V1_MAX, V2_MAX, Version, WORD, parse, starts};
use crate::proto::prelude::{Answer, Facts, Prelude, Read};
use crate::relay::ending::Cause;

/// Bytes that are looked at in one go: more than nearly every header has.
const PEEK: usize = 1024;

/// Which headers a listener takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Version 1.
    pub v1: bool,
    /// Version 2.
    pub v2: bool,
}

impl Settings {
    const fn takes(self, version: Version) -> bool {
        match version {
            Version::V1 => self.v1,
            Version::V2 => self.v2,
        }
    }
}

/// See the module's documentation.
pub struct Reader {
    settings: Settings,
    header: Vec<u8>,
}

impl Reader {
    /// Of a header that has not begun.
    pub const fn new(settings: Settings) -> Self {
        Self {
            settings,
            header: Vec::new(),
        }
    }

    fn parse(&self) -> Parsed {
        let (begins, version): (&[u8], _) = match self.header.first() {
            None => return Ok(None),
            Some(byte) if *byte == SIGNATURE[0] => (SIGNATURE, Version::V2),
            Some(_) => (WORD, Version::V1),
        };
        // Known once the word is complete, so that pieces change nothing.
        let told = starts(&self.header, begins) && self.header.len() >= begins.len();
        if told && !self.settings.takes(version) {
            return Err(Fault::Malformed("headers of this version are not accepted"));
        }
        parse(&self.header)
    }
}

impl Prelude for Reader {
    fn feed(&mut self, seen: &[u8], facts: &mut Facts) -> Read {
        let before = self.header.len();
        self.header.extend_from_slice(seen);
        match self.parse() {
            Ok(None) => Read::More,
            Ok(Some((header, len))) => {
                facts.announced = Some(Box::new(header));
                self.header = Vec::new();
                Read::Taken(len - before)
            }
            Err(Fault::Missing) => {
                facts.wrong = Some("it begins without a PROXY header");
                Read::Invalid(Cause::NoProxyHeader)
            }
            Err(Fault::Malformed(why)) => {
                facts.wrong = Some(why);
                Read::Invalid(Cause::BadProxyHeader)
            }
        }
    }

    fn room(&self) -> usize {
        let max = match self.header.first() {
            Some(byte) if *byte == WORD[0] => V1_MAX,
            _ => V2_MAX,
        };
        (max - self.header.len()).min(PEEK)
    }

    /// Whoever sends a header is a proxy: nothing is owed to it.
    fn answer(&self, _refused: Option<Cause>) -> Option<Answer> {
        None
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({} bytes)", self.header.len())
    }
}
