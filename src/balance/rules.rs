//! What a pool is balanced by: its policy, and its servers' places.

use std::time::Duration;

/// The weight that a configured weight of 1 has: so much room there is below it for a
/// slow start.
pub const WEIGHT_UNIT: u32 = 256;

/// How a pool is balanced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Shares by weight, as smooth as can be: nginx's algorithm.
    RoundRobin,
    /// The fewest sessions for its weight; round robin among equals.
    LeastConn,
    /// Of two drawn by weight, the one with fewer sessions for its weight.
    PowerOfTwo,
    /// Drawn by weight.
    Random,
    /// By a hash of the client, the same on every machine: Maglev.
    Hash,
    /// The first in the list that may be picked.
    First,
}

/// What all servers of a pool go by.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// How it is balanced.
    pub policy: Policy,
    /// The addresses of a name are one server, of which the first that may be is used.
    /// Else each is a server by itself.
    pub name_is_one_server: bool,
    /// How long a server that has come back takes to get its whole weight.
    pub slow_start: Duration,
}

/// A server's place in a pool.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its stable identity, the address as text. Need not differ from others'.
    pub name: &'a str,
    /// Its share beside the others' weights; 0: never picked.
    pub weight: u32,
    /// Used only while no other server can be.
    pub backup: bool,
    /// Of several addresses of one name: which name. Those of one stand together.
    pub family: Option<u16>,
}
