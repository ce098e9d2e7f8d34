//! What traffic to make: `bulk-up`, `rr:size=1KiB:rate=20k`, `mix:bulk=1`, …
//!
//! Pure: text to a [`Shape`], nothing else.

mod datagrams;

use std::fmt;
use std::str::FromStr;

pub use datagrams::{Pace, Stream};

use crate::config::units::{UnitError, parse_count, parse_size};

/// The traffic of one measurement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Its name as written.
    pub name: String,
    /// Flows that move as many bytes as they can.
    pub bulk: Option<Bulk>,
    /// Flows that ask and are answered.
    pub exchange: Option<Exchange>,
    /// Connections that stand meanwhile and say nothing.
    pub idle: usize,
    /// Instead of both: bulk and single bytes that are ready at the same moment.
    pub burst: Option<Burst>,
    /// Instead of all: datagrams one behind the other.
    pub stream: Option<Stream>,
}

/// Flows that move as many bytes as they can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bulk {
    /// Which way.
    pub direction: Direction,
    /// How many at a time.
    pub flows: usize,
}

/// Flows that ask and are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// Whether each exchange has its own connection.
    pub connection: ConnectionLife,
    /// Bytes of a request and of its response.
    pub size: usize,
    /// How many at a time.
    pub flows: usize,
    /// Requests a second over all flows; `None`: the next when the last was answered.
    pub rate: Option<u64>,
    /// How the origin writes a response.
    pub answer: Answer,
    /// What carries it.
    pub over: Over,
}

/// What carries an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Over {
    /// A connection.
    #[default]
    Connection,
    /// A datagram each way; a fresh connection is a new port.
    Datagrams,
}

/// How the origin writes a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Answer {
    /// In one write, without delay.
    #[default]
    Whole,
    /// In two writes, with Nagle's algorithm on, as a server does that writes a head and
    /// a body: the second waits until the first is acknowledged.
    Halves,
}

/// Bulk and single bytes that are ready when a subject goes on after a pause, from
/// client to origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// Flows with bulk.
    pub bulk: usize,
    /// Bytes of each of them.
    pub size: usize,
    /// Flows with one byte, which become ready after the bulk.
    pub marks: usize,
}

/// How long a connection of an exchange lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionLife {
    /// For the whole measurement.
    Kept,
    /// For one exchange.
    Fresh,
}

/// Which way bulk goes, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Client to origin.
    Up,
    /// Origin to client.
    Down,
    /// Both at the same time.
    Both,
}

/// The figure by which a shape is judged first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// Bytes a second.
    Throughput,
    /// Requests a second.
    Requests,
    /// Connections a second.
    Connections,
    /// Datagrams that arrive in a second.
    Datagrams,
    /// The share of a burst's bulk that moves before its single bytes.
    Share,
    /// With a fixed rate of datagrams: what the forwarder's CPU does for each of them.
    Cpu,
    /// With a fixed rate the rate says nothing: the 99th percentile of latency.
    Latency,
}

const FLOWS_MAX: u64 = 100_000;
const SIZE_MAX: u64 = 64 * 1024 * 1024;
const RATE_MAX: u64 = 100_000_000;

impl Shape {
    /// The figure that decides.
    pub fn figure(&self) -> Figure {
        match self.exchange {
            None if self.burst.is_some() => Figure::Share,
            None if self.stream.is_some() => match self.stream.map(|it| it.pace) {
                Some(Pace::Rate(_)) => Figure::Cpu,
                _ => Figure::Datagrams,
            },
            None => Figure::Throughput,
            Some(Exchange { rate: Some(_), .. }) => Figure::Latency,
            Some(_) if self.bulk.is_some() => Figure::Latency,
            Some(Exchange {
                connection: ConnectionLife::Kept,
                ..
            }) => Figure::Requests,
            Some(_) => Figure::Connections,
        }
    }

    /// Connections at a time.
    pub fn connections(&self) -> usize {
        self.flows() + self.idle
    }

    /// Of them those with traffic.
    pub fn flows(&self) -> usize {
        self.bulk.map_or(0, |bulk| bulk.flows)
            + self.exchange.map_or(0, |e| e.flows)
            + self.burst.map_or(0, |burst| burst.bulk + burst.marks)
            + self.stream.map_or(0, |stream| stream.flows)
    }

    /// Whether it is made of datagrams.
    pub fn is_datagrams(&self) -> bool {
        self.stream.is_some() || self.exchange.is_some_and(|it| it.over == Over::Datagrams)
    }

    /// Whether each of its flows is one question and its answer.
    pub fn is_single_question(&self) -> bool {
        let single = |it: Exchange| it.connection == ConnectionLife::Fresh;
        self.is_datagrams() && self.exchange.is_some_and(single)
    }

    /// Of a mix of bulk and exchanges: the same exchanges alone.
    pub fn quiet(&self) -> Option<Self> {
        (self.bulk.is_some() && self.exchange.is_some()).then(|| Self {
            bulk: None,
            ..self.clone()
        })
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split(':');
        let kind = words.next().unwrap_or_default();
        let mut shape = preset(kind).ok_or_else(|| {
            format!(
                "unknown shape `{kind}`: bulk-up, bulk-down, bulk-both, rr, crr, crr-nagle, \
                 ping, mix, burst, udp-rr or udp-stream, each with :flows=, :size=, :rate=, \
                 :bulk=, :direction=, :port=, :window=, :train=, :idle="
            )
        })?;
        text.clone_into(&mut shape.name);
        for word in words {
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| format!("`{text}`: `{word}` is not KEY=VALUE"))?;
            set(&mut shape, key, value).map_err(|error| format!("`{text}`: {error}"))?;
        }
        Ok(shape)
    }
}

fn preset(kind: &str) -> Option<Shape> {
    let bulk = |direction, flows| Some(Bulk { direction, flows });
    let exchange = |connection| {
        Some(Exchange {
            connection,
            size: 64,
            flows: 64,
            rate: None,
            answer: Answer::Whole,
            over: Over::Connection,
        })
    };
    let mut stream = None;
    let (bulk, exchange) = match kind {
        "bulk-up" => (bulk(Direction::Up, 4), None),
        "bulk-down" => (bulk(Direction::Down, 4), None),
        "bulk-both" => (bulk(Direction::Both, 4), None),
        "rr" => (None, exchange(ConnectionLife::Kept)),
        "ping" => (
            None,
            exchange(ConnectionLife::Kept).map(|ping| Exchange { flows: 1, ..ping }),
        ),
        "crr" => (None, exchange(ConnectionLife::Fresh)),
        "crr-nagle" => (
            None,
            exchange(ConnectionLife::Fresh).map(|crr| Exchange {
                answer: Answer::Halves,
                ..crr
            }),
        ),
        "burst" => {
            return Some(Shape {
                name: String::new(),
                bulk: None,
                exchange: None,
                idle: 0,
                burst: Some(Burst {
                    bulk: 16,
                    size: 6_000_000,
                    marks: 8,
                }),
                stream: None,
            });
        }
        "udp-rr" => (
            None,
            exchange(ConnectionLife::Kept).map(|rr| Exchange {
                over: Over::Datagrams,
                ..rr
            }),
        ),
        "udp-stream" => {
            stream = Some(Stream::default());
            (None, None)
        }
        "mix" => (bulk(Direction::Down, 1), exchange(ConnectionLife::Kept)),
        _ => return None,
    };
    Some(Shape {
        name: String::new(),
        bulk,
        exchange,
        idle: 0,
        burst: None,
        stream,
    })
}

fn set(shape: &mut Shape, key: &str, value: &str) -> Result<(), String> {
    let text = |error: UnitError| error.to_string();
    let within = |number, max| within(key, number, max);
    if let Some(burst) = &mut shape.burst {
        let (place, number, max) = match key {
            "bulk" => (
                &mut burst.bulk,
                parse_count(value).map_err(text)?,
                FLOWS_MAX,
            ),
            "flows" => (
                &mut burst.marks,
                parse_count(value).map_err(text)?,
                FLOWS_MAX,
            ),
            "size" => (&mut burst.size, parse_size(value).map_err(text)?, SIZE_MAX),
            _ => return Err(format!("`{key}` does not belong to this shape")),
        };
        *place = within(number, max)?;
        return Ok(());
    }
    if let Some(stream) = &mut shape.stream {
        return stream.set(key, value);
    }
    if key == "idle" && !shape.is_datagrams() {
        shape.idle = within(parse_count(value).map_err(text)?, FLOWS_MAX)?;
        return Ok(());
    }
    match (key, &mut shape.bulk, &mut shape.exchange) {
        ("flows", _, Some(exchange)) => {
            exchange.flows = within(parse_count(value).map_err(text)?, FLOWS_MAX)?;
        }
        ("flows", Some(bulk), None) | ("bulk", Some(bulk), _) => {
            bulk.flows = within(parse_count(value).map_err(text)?, FLOWS_MAX)?;
        }
        ("size", _, Some(exchange)) if exchange.over == Over::Datagrams => {
            exchange.size = datagrams::size(value)?;
        }
        ("port", _, Some(exchange)) if exchange.over == Over::Datagrams => {
            exchange.connection = match value {
                "kept" => ConnectionLife::Kept,
                "new" => ConnectionLife::Fresh,
                _ => return Err(format!("port is kept or new, not `{value}`")),
            };
        }
        ("size", _, Some(exchange)) => {
            exchange.size = within(parse_size(value).map_err(text)?, SIZE_MAX)?;
        }
        ("rate", _, Some(exchange)) => {
            exchange.rate = Some(within(parse_count(value).map_err(text)?, RATE_MAX)? as u64);
        }
        ("direction", Some(bulk), _) => {
            bulk.direction = direction(value)?;
        }
        _ => return Err(format!("`{key}` does not belong to this shape")),
    }
    Ok(())
}

fn within(key: &str, number: u64, max: u64) -> Result<usize, String> {
    match number {
        0 => Err(format!("{key} must be at least 1")),
        number if number > max => Err(format!("{key} must be at most {max}")),
        number => Ok(number as usize),
    }
}

fn direction(value: &str) -> Result<Direction, String> {
    match value {
        "up" => Ok(Direction::Up),
        "down" => Ok(Direction::Down),
        "both" => Ok(Direction::Both),
        _ => Err(format!("direction is up, down or both, not `{value}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_a_name_and_what_differs_from_its_preset() {
        let shape: Shape = "rr:size=1KiB:rate=20k:flows=8".parse().unwrap();
        let exchange = shape.exchange.unwrap();
        assert_eq!(
            (exchange.size, exchange.rate, exchange.flows),
            (1024, Some(20_000), 8)
        );
        assert_eq!(shape.figure(), Figure::Latency);
        let mix: Shape = "mix:bulk=2:direction=up:flows=9".parse().unwrap();
        assert_eq!(mix.connections(), 11);
        let quiet = mix.quiet().unwrap();
        assert_eq!((quiet.bulk, quiet.exchange), (None, mix.exchange));
        assert_eq!(quiet.quiet(), None);
        let crowded: Shape = "crr:idle=9000".parse().unwrap();
        assert_eq!((crowded.idle, crowded.connections()), (9_000, 9_064));
        let burst: Shape = "burst:bulk=3:size=1MB:flows=2".parse().unwrap();
        let ready = Burst {
            bulk: 3,
            size: 1_000_000,
            marks: 2,
        };
        assert_eq!(
            (burst.burst, burst.connections(), burst.figure()),
            (Some(ready), 5, Figure::Share)
        );
        assert_eq!(
            "crr".parse::<Shape>().unwrap().figure(),
            Figure::Connections
        );
        let halves: Shape = "crr-nagle:flows=1".parse().unwrap();
        assert_eq!(
            (halves.figure(), halves.exchange.unwrap().answer),
            (Figure::Connections, Answer::Halves)
        );
    }

    #[test]
    fn datagrams_are_questions_or_a_stream() {
        let shape = |text: &str| text.parse::<Shape>().unwrap();
        let kept = shape("udp-rr:flows=3:size=100");
        assert!(kept.is_datagrams() && !kept.is_single_question());
        assert_eq!((kept.figure(), kept.connections()), (Figure::Requests, 3));
        let single = shape("udp-rr:port=new");
        assert!(single.is_single_question());
        assert_eq!(single.figure(), Figure::Connections);
        let usual = shape("udp-stream").stream.unwrap();
        assert_eq!((usual.size, usual.pace), (1200, Pace::Window(64)));
        assert_eq!(shape("udp-stream").figure(), Figure::Datagrams);
        let paced = shape("udp-stream:rate=20k:direction=both:train=8");
        let stream = paced.stream.unwrap();
        assert_eq!((stream.pace, stream.train), (Pace::Rate(20_000), 8));
        assert_eq!(
            (paced.figure(), stream.direction),
            (Figure::Cpu, Direction::Both)
        );
        let flood = shape("udp-stream:window=0:flows=2").stream.unwrap();
        assert_eq!((flood.pace, flood.flows), (Pace::Flood, 2));
        assert!(!shape("rr").is_datagrams());
    }

    #[test]
    fn nonsense_is_named() {
        for (text, word) in [
            ("bulk", "unknown shape `bulk`"),
            ("bulk-up:size=3", "does not belong"),
            ("rr:size=0", "at least 1"),
            ("rr:flows", "not KEY=VALUE"),
            ("rr:rate=x", "not a count"),
            ("rr:size=64k", "did you mean `64KiB`"),
            ("burst:rate=3", "does not belong"),
            ("mix:direction=left", "up, down or both"),
            ("rr:port=new", "does not belong"),
            ("rr:idle=0", "at least 1"),
            ("udp-rr:idle=3", "does not belong"),
            ("udp-rr:port=any", "kept or new"),
            ("udp-rr:size=16", "32 bytes at least"),
            ("udp-stream:size=64KiB", "at most 65507"),
            ("udp-stream:rate=1k:window=8", "either"),
            ("udp-stream:train=65", "at most 64"),
            ("udp-stream:bulk=3", "does not belong"),
        ] {
            let error = text.parse::<Shape>().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
