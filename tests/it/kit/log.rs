//! What a forwarder writes: lines of JSON, records of sessions, counters.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;

/// A line of the log, a JSON object.
#[derive(Debug, Clone)]
pub(crate) struct Record(Value);

impl Record {
    #[track_caller]
    pub(super) fn parse(line: &str) -> Self {
        match serde_json::from_str(line) {
            Ok(value) => Self(value),
            Err(error) => panic!("this line of the log is not JSON ({error}): {line}"),
        }
    }

    /// A text field; empty when it is absent.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or("")
    }

    /// A number; `None` when it is absent.
    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        self.0[key].as_u64()
    }

    /// All of it.
    pub(crate) const fn json(&self) -> &Value {
        &self.0
    }

    /// Two letters: who ended it, and when.
    pub(crate) fn code(&self) -> &str {
        self.text("code")
    }

    pub(crate) fn cause(&self) -> &str {
        self.text("cause")
    }

    pub(crate) fn message(&self) -> &str {
        self.text("message")
    }

    /// Bytes delivered to the server and to the client.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let bytes = |key| self.number(key).unwrap_or(u64::MAX);
        (bytes("bytes_up"), bytes("bytes_down"))
    }

    /// Bytes read and never delivered, both ways.
    pub(crate) fn lost(&self) -> u64 {
        let lost = |key| self.number(key).unwrap_or(0);
        lost("lost_up") + lost("lost_down")
    }

    pub(crate) fn attempts(&self) -> u64 {
        self.number("attempts").unwrap_or(0)
    }
}

/// Lines that a reader thread appends to.
#[derive(Debug, Default)]
pub(crate) struct Lines(Mutex<Vec<String>>);

impl Lines {
    pub(crate) fn collect(self: Arc<Self>, from: impl Read + Send + 'static) -> JoinHandle<()> {
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                self.0.lock().unwrap().push(line);
            }
        })
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// The figures of a line: counters, or what is told of a server.
#[derive(Debug, Clone)]
pub(crate) struct Counters(Record);

impl Counters {
    /// Those of a line of the log.
    pub(crate) fn of_line(line: &Record) -> Self {
        Self(line.clone())
    }

    /// One of them.
    #[track_caller]
    pub(crate) fn of(&self, name: &str) -> u64 {
        match self.0.number(name) {
            Some(number) => number,
            None => panic!("there is no counter {name}: {:?}", self.0),
        }
    }

    /// One whose value is a word.
    #[track_caller]
    pub(crate) fn word(&self, name: &str) -> &str {
        match self.0.json()[name].as_str() {
            Some(word) => word,
            None => panic!("there is no word {name}: {:?}", self.0),
        }
    }
}
