//! The steps of an opening in which a client asks for nothing: the header by which a proxy
//! says whom it speaks for, and the look at a stream's first bytes.

use std::fmt;

use super::prelude::{Answer, Facts, Prelude, Read};
use super::proxy::{
    Fault, Parsed, SIGNATURE, Settings, V1_MAX, V2_MAX, Version, WORD, parse, starts,
};
use super::sniff::{LOOK_MAX, Seen, Sniffer};
use crate::relay::ending::Cause;

/// Bytes that are looked at in one go: more than nearly every header has.
const PEEK: usize = 1024;

/// A PROXY header in pieces.
pub struct HeaderReader {
    settings: Settings,
    header: Vec<u8>,
}

impl HeaderReader {
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

impl Prelude for HeaderReader {
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

impl fmt::Debug for HeaderReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HeaderReader({} bytes)", self.header.len())
    }
}

/// A look as a step of an opening.
impl Prelude for Sniffer {
    fn feed(&mut self, seen: &[u8], facts: &mut Facts) -> Read {
        look(self, seen, false, facts)
    }

    fn end(&mut self, seen: &[u8], facts: &mut Facts) -> Read {
        look(self, seen, true, facts)
    }

    fn room(&self) -> usize {
        LOOK_MAX
    }

    /// Whoever is looked at does not know of it.
    fn answer(&self, _refused: Option<Cause>) -> Option<Answer> {
        None
    }
}

fn look(sniffer: &mut Sniffer, seen: &[u8], ended: bool, facts: &mut Facts) -> Read {
    match sniffer.look(seen, ended) {
        Seen::More => Read::Wait,
        Seen::Found(found) => {
            facts.sniffed = Some(Box::new(found));
            Read::Seen
        }
        Seen::Invalid(why) => {
            facts.wrong = Some(why);
            Read::Invalid(Cause::BadHello)
        }
    }
}
