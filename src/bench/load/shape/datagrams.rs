//! What a stream of datagrams is like.

use super::{Direction, FLOWS_MAX, RATE_MAX, direction, within};
use crate::bench::datagram;
use crate::config::units::{parse_count, parse_size};

/// Datagrams one behind the other, which nobody answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// Which way.
    pub direction: Direction,
    /// How many flows at a time.
    pub flows: usize,
    /// Bytes of each datagram.
    pub size: usize,
    /// How fast.
    pub pace: Pace,
    /// So many are sent, and taken, in one piece (`UDP_SEGMENT`, `UDP_GRO`); 1: one by one,
    /// in batches.
    pub train: usize,
}

/// How fast datagrams are sent, each way, over all flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As fast as they arrive: so many are under way at the most, as if they were
    /// acknowledged at no cost.
    Window(usize),
    /// So many a second, whether they arrive or not.
    Rate(u64),
    /// As fast as they can be sent, whether they arrive or not.
    Flood,
}

/// A window that fits into the smallest receive buffer that is usual:
/// `net.core.rmem_default`, 212,992 bytes, of which the kernel counts 2,304 for a datagram of
/// 1,200 bytes.
const WINDOW: usize = 64;

const WINDOW_MAX: u64 = 1_000_000;

/// What kernels up to 6.x take in one piece (`UDP_MAX_SEGMENTS`).
const TRAIN_MAX: u64 = 64;

impl Default for Stream {
    fn default() -> Self {
        Self {
            direction: Direction::Up,
            flows: 4,
            size: 1200,
            pace: Pace::Window(WINDOW),
            train: 1,
        }
    }
}

impl Stream {
    /// Whether datagrams go from client to origin.
    pub fn goes_up(&self) -> bool {
        self.direction != Direction::Down
    }

    /// Whether datagrams go from origin to client.
    pub fn goes_down(&self) -> bool {
        self.direction != Direction::Up
    }

    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let count = || parse_count(value).map_err(|error| error.to_string());
        match key {
            "flows" => self.flows = within(key, count()?, FLOWS_MAX)?,
            "size" => self.size = size(value)?,
            "train" => self.train = within(key, count()?, TRAIN_MAX)?,
            "direction" => self.direction = direction(value)?,
            "rate" | "window" => {
                if self.pace != Self::default().pace {
                    return Err("either rate= or window=, once".to_owned());
                }
                self.pace = match (key, count()?) {
                    ("window", 0) => Pace::Flood,
                    ("window", number) => Pace::Window(within(key, number, WINDOW_MAX)?),
                    (_, number) => Pace::Rate(within(key, number, RATE_MAX)? as u64),
                };
            }
            _ => return Err(format!("`{key}` does not belong to this shape")),
        }
        // A train is one datagram until the kernel cuts it.
        if self.train * self.size > datagram::LEN_MAX {
            return Err(format!(
                "a train of {} datagrams of {} bytes is longer than {} bytes",
                self.train,
                self.size,
                datagram::LEN_MAX
            ));
        }
        Ok(())
    }
}

/// Bytes of a datagram.
pub(super) fn size(value: &str) -> Result<usize, String> {
    let size = parse_size(value).map_err(|error| error.to_string())?;
    if size < datagram::HEADER as u64 {
        return Err(format!(
            "a datagram has {} bytes at least",
            datagram::HEADER
        ));
    }
    within("size", size, datagram::LEN_MAX as u64)
}
