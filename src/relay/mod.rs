//! The pure core: one direction of a connection ([`lane`]), the life of a
//! connection ([`session`]), how the addresses of its server are tried ([`race`]),
//! and how it ended ([`ending`]).
//!
//! Nothing here touches a descriptor, reads a clock or draws a random number:
//! time and limits are parameters, payload is byte counts. So all of it can be
//! run a million times a second in a test, and every engine drives the same code.

mod age;
pub mod ending;
pub mod flow;
pub mod id;
pub mod lane;
pub mod probe;
pub mod race;
pub mod session;
pub mod time;

use serde::{Deserialize, Serialize};

/// The two legs of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The connection that was accepted.
    Client = 0,
    /// The connection that was dialled.
    Upstream = 1,
}

impl Side {
    /// Both, in index order.
    pub const BOTH: [Self; 2] = [Self::Client, Self::Upstream];

    /// The other leg.
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Upstream,
            Self::Upstream => Self::Client,
        }
    }

    /// 0 for the client, 1 for the upstream.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The lane that reads from this side.
    pub const fn outgoing(self) -> Direction {
        match self {
            Self::Client => Direction::Up,
            Self::Upstream => Direction::Down,
        }
    }

    /// The lane that writes to this side.
    pub const fn incoming(self) -> Direction {
        self.other().outgoing()
    }
}

/// The two lanes of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the client to the upstream.
    Up = 0,
    /// From the upstream to the client.
    Down = 1,
}

impl Direction {
    /// Both, in index order.
    pub const BOTH: [Self; 2] = [Self::Up, Self::Down];

    /// 0 up, 1 down.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The side this lane reads from.
    pub const fn source(self) -> Side {
        match self {
            Self::Up => Side::Client,
            Self::Down => Side::Upstream,
        }
    }

    /// The side this lane writes to.
    pub const fn sink(self) -> Side {
        self.source().other()
    }
}
