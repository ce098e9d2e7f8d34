//! Which server a session goes to, and what makes a server up or down: pure, with
//! no clock, no descriptor and no randomness of its own.
//!
//! | file | what |
//! | --- | --- |
//! | [`policy`] | [`Balancer`]: picks a server by one of the policies |
//! | `maglev` | the table of consistent hashing |
//! | `hash` | [`client_key`]: hashes that are the same everywhere and for ever; [`Random`] |
//! | `tried` | [`Tried`]: the servers that a session tried |
//! | [`health`] | rise and fall, failures in passing, slow start |

mod hash;
pub mod health;
mod maglev;
pub mod policy;
mod tried;

pub use hash::{Random, client_key};
pub use policy::{Balancer, Policy, View};
pub use tried::Tried;

/// Round robin over the servers of a forward. Each reactor has its own, so that
/// nothing is shared; each starts at another server, so that a few connections
/// spread over several reactors still spread over the servers.
#[derive(Debug, Clone)]
pub struct RoundRobin {
    servers: u16,
    next: u16,
}

impl RoundRobin {
    /// Over `servers` servers (at least 1), beginning with `start` modulo that.
    pub const fn new(servers: u16, start: u16) -> Self {
        let servers = if servers == 0 { 1 } else { servers };
        Self {
            servers,
            next: start % servers,
        }
    }

    /// The first server for a new session.
    pub const fn pick(&mut self) -> u16 {
        let server = self.next;
        self.next = (self.next + 1) % self.servers;
        server
    }

    /// The server after `server`, for a further attempt of the same session: so
    /// that attempts never repeat a server before all were tried.
    pub const fn after(&self, server: u16) -> u16 {
        (server + 1) % self.servers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_has_the_same_share() {
        let mut balancer = RoundRobin::new(3, 7);
        let mut counts = [0; 3];
        for _ in 0..300 {
            counts[usize::from(balancer.pick())] += 1;
        }
        assert_eq!(counts, [100; 3]);
    }

    #[test]
    fn attempts_visit_every_server_once() {
        let mut balancer = RoundRobin::new(4, 2);
        let mut server = balancer.pick();
        let mut seen = vec![server];
        for _ in 1..4 {
            server = balancer.after(server);
            seen.push(server);
        }
        seen.sort_unstable();
        assert_eq!(seen, [0, 1, 2, 3]);
    }
}
