//! The table of commands: a name, and what makes the behaviour of a connection
//! from the rest of the line.
//!
//! Owns the names. Deliberately without sockets: an [`Action`] is either one of
//! the fast built-in behaviours, which the connection carries out itself, or a
//! [`Conversation`] over bytes.

use std::collections::BTreeMap;
use std::fmt;

use super::options::{LINE_MAX, POSITION_MAX};
use super::record;

pub use super::conversation::{Conversation, Next, Turn};

/// What a connection does after a command line.
pub enum Action {
    /// Sends every byte back until the client ends.
    Echo(Manner),
    /// Likewise, with Nagle's algorithm on, and what each read brought in two writes.
    EchoHalves,
    /// Answers each byte with a line: the payload bytes that have come to this origin
    /// by then, over all connections. Promptly.
    Mark,
    /// Swallows every byte until the client ends; checks them against the
    /// pattern from `seed` on when there is one.
    Sink {
        /// Position in the pattern of the first byte.
        seed: Option<u64>,
        /// Of so many bytes one is compared, in stretches of
        /// [`STRETCH`](crate::bench::sampling::STRETCH); the rest is not copied from the
        /// kernel.
        one_in: u64,
    },
    /// Swallows every byte until the client ends, without copying it from the kernel.
    Discard(Manner),
    /// Sends `bytes` of the pattern (`None`: until the client ends).
    Source {
        /// How many.
        bytes: Option<u64>,
        /// Position in the pattern of the first byte.
        seed: u64,
        /// From memory that the kernel refers to instead of copying it.
        from_file: bool,
    },
    /// Answers with one line: this connection's `TCP_INFO`.
    Info,
    /// Anything else.
    Converse(Box<dyn Conversation>),
}

/// On which thread a connection is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// The one it was dealt to.
    Ordinary,
    /// The one that has no bulk, where the origin has such a thread.
    Prompt,
}

/// A command line that was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What to answer after `ERR `, without a newline.
    pub text: String,
    /// Whether the connection is closed after the answer.
    pub closes: bool,
}

type Factory = Box<dyn Fn(&str) -> Result<Action, String> + Send + Sync>;

/// Commands by name.
pub struct Handlers {
    table: BTreeMap<String, Factory>,
}

impl Default for Handlers {
    /// The built-in commands.
    fn default() -> Self {
        let mut handlers = Self {
            table: BTreeMap::new(),
        };
        handlers.register("ECHO", echo);
        handlers.register("MARK", |rest| nothing(rest).map(|()| Action::Mark));
        handlers.register("SINK", sink);
        handlers.register("SOURCE", source);
        handlers.register("STRING", |rest| {
            nothing(rest).map(|()| Action::Converse(Box::new(StringAnswer::default())))
        });
        handlers.register("RECORD", |rest| {
            let answer = record::RecordAnswer::new(number("length", rest)?)?;
            Ok(Action::Converse(Box::new(answer)))
        });
        handlers.register("INFO", |rest| nothing(rest).map(|()| Action::Info));
        handlers
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.table.keys()).finish()
    }
}

impl Handlers {
    /// Adds a command, or replaces the one of that name. `make` gets what follows
    /// the name on the line, trimmed; what it returns as an error is sent to the
    /// client as `ERR …`, and the connection is closed: what follows an argument
    /// that was not understood cannot be told from a command.
    pub fn register(
        &mut self,
        name: impl Into<String>,
        make: impl Fn(&str) -> Result<Action, String> + Send + Sync + 'static,
    ) {
        self.table.insert(name.into(), Box::new(make));
    }

    /// The action that a line asks for.
    ///
    /// # Errors
    /// What to answer, and whether the connection goes on.
    pub fn action(&self, line: &str) -> Result<Action, Refusal> {
        let line = line.trim();
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        match self.table.get(name) {
            Some(make) => make(rest.trim()).map_err(|text| Refusal { text, closes: true }),
            None => Err(Refusal {
                text: format!(
                    "unknown command {:?}; known: {}",
                    shorten(name),
                    self.names().collect::<Vec<_>>().join(" ")
                ),
                closes: false,
            }),
        }
    }

    /// Every name, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.table.keys().map(String::as_str)
    }
}

/// An answer must stay a short line whatever the client sent.
fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

fn nothing(rest: &str) -> Result<(), String> {
    if rest.is_empty() {
        Ok(())
    } else {
        Err(format!(
            "this command takes no argument, got {:?}",
            shorten(rest)
        ))
    }
}

fn number(what: &str, text: &str) -> Result<u64, String> {
    text.parse()
        .map_err(|_| format!("{what} must be a number, got {:?}", shorten(text)))
}

/// A position in the pattern, or a number of its bytes.
fn bounded(what: &str, text: &str) -> Result<u64, String> {
    let number = number(what, text)?;
    if number > POSITION_MAX {
        return Err(format!("{what} is at most {POSITION_MAX}, got {number}"));
    }
    Ok(number)
}

fn echo(rest: &str) -> Result<Action, String> {
    if rest == "prompt" {
        return Ok(Action::Echo(Manner::Prompt));
    }
    if rest == "halves" {
        return Ok(Action::EchoHalves);
    }
    nothing(rest).map(|()| Action::Echo(Manner::Ordinary))
}

fn sink(rest: &str) -> Result<Action, String> {
    match rest {
        "discard" => return Ok(Action::Discard(Manner::Ordinary)),
        "prompt" => return Ok(Action::Discard(Manner::Prompt)),
        _ => {}
    }
    let mut words = rest.split_whitespace();
    let seed = words.next().map(|text| bounded("seed", text)).transpose()?;
    let one_in = words
        .next()
        .map(|text| number("one-in", text))
        .transpose()?;
    nothing(words.next().unwrap_or(""))?;
    Ok(Action::Sink {
        seed,
        one_in: one_in.unwrap_or(1),
    })
}

fn source(rest: &str) -> Result<Action, String> {
    let mut words = rest.split_whitespace();
    let bytes = match words.next() {
        None | Some("-") => None,
        Some(text) => Some(bounded("bytes", text)?),
    };
    let seed = match words.next() {
        None => 0,
        Some(text) => bounded("seed", text)?,
    };
    let from_file = match words.next() {
        None => false,
        Some("file") => true,
        Some(other) => nothing(other).map(|()| false)?,
    };
    nothing(words.next().unwrap_or(""))?;
    Ok(Action::Source {
        bytes,
        seed,
        from_file,
    })
}

/// `STRING`: one line comes back as it is.
#[derive(Default)]
struct StringAnswer {
    line: Vec<u8>,
}

impl Conversation for StringAnswer {
    fn held(&self) -> usize {
        self.line.capacity()
    }

    fn input(&mut self, input: &[u8], output: &mut Vec<u8>) -> Turn {
        let end = input.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(input.len(), |at| at + 1);
        if self.line.len() + used > LINE_MAX {
            output.extend_from_slice(
                format!("ERR the string is longer than {LINE_MAX} bytes\n").as_bytes(),
            );
            return Turn {
                used,
                next: Next::Close,
            };
        }
        self.line.extend_from_slice(&input[..used]);
        if end.is_none() {
            return Turn {
                used,
                next: Next::More,
            };
        }
        output.append(&mut self.line);
        Turn {
            used,
            next: Next::Command,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_what_it_knows() {
        let handlers = Handlers::default();
        assert!(matches!(handlers.action("ECHO"), Ok(Action::Echo(_))));
        let halves = handlers.action("ECHO halves");
        assert!(matches!(halves, Ok(Action::EchoHalves)));
        assert!(matches!(
            handlers.action("SOURCE 100 7\r"),
            Ok(Action::Source {
                bytes: Some(100),
                seed: 7,
                from_file: false
            })
        ));
        assert!(matches!(
            handlers.action("SOURCE -"),
            Ok(Action::Source { bytes: None, .. })
        ));
        let error = handlers.action("FROB 1").err().unwrap();
        assert!(error.text.contains("\"FROB\"") && error.text.contains("SINK"));
        assert!(!error.closes);
        assert!(matches!(
            handlers.action("SINK 7 32"),
            Ok(Action::Sink {
                seed: Some(7),
                one_in: 32
            })
        ));
        for line in [
            "SOURCE many",
            "SINK 7 few",
            "SINK 7 8 9",
            "ECHO please",
            "RECORD 0",
            "RECORD 99999999",
        ] {
            assert!(
                handlers
                    .action(line)
                    .err()
                    .is_some_and(|error| error.closes)
            );
        }
    }

    #[test]
    fn a_string_that_arrives_in_pieces_comes_back_whole() {
        let mut answer = StringAnswer::default();
        let mut output = Vec::new();
        assert_eq!(answer.input(b"gru", &mut output).next, Next::More);
        let turn = answer.input("ß\nINFO\n".as_bytes(), &mut output);
        assert_eq!((turn.used, turn.next), (3, Next::Command));
        assert_eq!(output, "gruß\n".as_bytes());
    }

    #[test]
    fn a_string_without_an_end_is_cut_off() {
        let mut answer = StringAnswer::default();
        let mut output = Vec::new();
        let piece = vec![b'x'; 40_000];
        assert_eq!(answer.input(&piece, &mut output).next, Next::More);
        assert_eq!(answer.input(&piece, &mut output).next, Next::Close);
        assert!(output.starts_with(b"ERR "));
    }
}
