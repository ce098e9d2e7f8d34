//! What happens while time passes: peers act, servers come and go, connects and closes
//! that are under way are answered, and the kernel reports what nobody caused.

use std::time::Duration;

use super::peer::Peer;
use super::socket::Socket;
use super::{SERVERS, Server, Sim};
use crate::engine::{Event, SessionKey};
use crate::relay::Side;
use crate::relay::ending::Cause;
use crate::relay::session::{Close, Readiness};
use crate::relay::time::Time;

impl Sim {
    /// Time passes and some peer does something.
    pub(super) fn step(&mut self, until: Time) {
        if self.live.is_empty() {
            self.now = if until == Time::NEVER {
                self.now + Duration::from_millis(1)
            } else {
                until
            };
            return;
        }
        self.servers_come_and_go();
        let pick = self.dice.between(0, self.live.len() as u64 - 1) as usize;
        let key = self.live[pick];
        let side = if self.dice.percent(50) {
            Side::Client
        } else {
            Side::Upstream
        };
        let pause = Duration::from_micros(self.dice.between(1, 400));
        let later = self.now + pause;
        if later >= until {
            // A timer comes first.
            self.now = until;
            return;
        }
        self.now = later;
        let mut dice = self.dice.clone();
        let mut acted = self.complete_close(key, side);
        acted |= self.complete_quiesce(key);
        if let Some(conn) = self.conn_mut(key).filter(|conn| !conn.ahead) {
            let (readiness, peer_acted) = conn.act(side, later, &mut dice);
            acted |= peer_acted;
            if let Some(readiness) = readiness {
                self.queue.push(Event::Ready(key, side, readiness));
            }
        }
        self.dice = dice;
        acted |= self.settle_connect(key);
        self.wear_out(key);
        self.skip_quiet_time(acted, until);
    }

    fn servers_come_and_go(&mut self) {
        let vile = self.nastiness.connect_failure > 0;
        if vile && self.dice.between(0, 500) == 0 {
            let server = self.dice.between(0, SERVERS as u64 - 1) as usize;
            self.servers[server] = match self.dice.between(0, 3) {
                0 => Server::Down,
                1 => Server::Mute,
                _ => Server::Up,
            };
        }
    }

    /// When nobody has done anything for long, nobody will before a timer fires:
    /// jump to it.
    fn skip_quiet_time(&mut self, acted: bool, until: Time) {
        let acted = acted || !self.late.is_empty();
        self.idle_steps = if acted { 0 } else { self.idle_steps + 1 };
        if self.idle_steps > 400 + 60 * self.live.len() as u32 {
            self.idle_steps = 0;
            assert_ne!(
                until,
                Time::NEVER,
                "every session waits, no timer is armed: a wake-up was lost"
            );
            let wakes = self.live.iter().filter_map(|key| self.conn(*key));
            let wakes = wakes.flat_map(|conn| conn.peers.iter().filter_map(Peer::wakes_at));
            let next = wakes.filter(|at| *at > self.now).min().unwrap_or(until);
            self.now = self.now.max(until.min(next));
        }
    }

    /// A connect that is pending is answered, some time.
    fn settle_connect(&mut self, key: SessionKey) -> bool {
        let fails = self.dice.percent(self.nastiness.connect_failure);
        let servers = self.servers;
        let answers = self.dice.percent(30);
        let Some(conn) = self.conn_mut(key) else {
            return false;
        };
        if conn.closing[1].is_some() {
            return false;
        }
        let Some(socket) = conn.sockets[1].as_mut().filter(|socket| socket.connecting) else {
            return false;
        };
        if servers[socket.server] == Server::Mute {
            // No answer: a deadline ends this one, or the server comes back.
            return false;
        }
        if !answers {
            return true;
        }
        if fails || servers[socket.server] == Server::Down {
            conn.sockets[1] = None;
            let ahead = conn.ahead;
            self.open_sockets -= 1;
            if ahead {
                self.forget(key);
            }
            self.queue.push(Event::ConnectFailed(key, Cause::Refused));
        } else {
            socket.connecting = false;
            self.queue.push(Event::Connected(key));
        }
        true
    }

    fn complete_close(&mut self, key: SessionKey, side: Side) -> bool {
        let Some(conn) = self.conn_mut(key) else {
            return false;
        };
        let Some(how) = conn.closing[side.index()].take() else {
            return false;
        };
        self.close_now(key, side, how);
        self.queue.push(Event::Closed(key, side));
        true
    }

    pub(super) fn close_now(&mut self, key: SessionKey, side: Side, how: Close) {
        let Some(conn) = self.conn_mut(key) else {
            return;
        };
        let Some(socket) = conn.sockets[side.index()].take() else {
            return;
        };
        conn.peers[side.index()].socket_closed(&socket, how);
        let ahead = conn.ahead;
        self.open_sockets -= 1;
        if ahead {
            return self.forget(key);
        }
        let conn = self.conns.touch(key.slot);
        if conn.sockets.iter().all(Option::is_none) && conn.closing.iter().all(Option::is_none) {
            // With nothing in flight any more; the session may still dial again.
            let over = conn.peers[0].is_over();
            if over {
                self.bury(key);
            }
        }
    }

    /// A connection made ahead is over, or has become a session's.
    pub(super) fn forget(&mut self, key: SessionKey) {
        if let Some(at) = self.live.iter().position(|live| *live == key) {
            self.live.swap_remove(at);
        }
        if self.released.len() < 64 {
            self.released.push(key);
        }
    }

    /// A server ends a connection that was made ahead, some time.
    fn wear_out(&mut self, key: SessionKey) {
        let ends = self.dice.percent(self.nastiness.connect_failure / 4);
        let Some(conn) = self.conn_mut(key).filter(|conn| conn.ahead) else {
            return;
        };
        let connected = |socket: &Socket| !socket.connecting;
        if ends && conn.sockets[1].as_ref().is_some_and(connected) && !conn.stale {
            conn.stale = true;
            let readiness = Readiness {
                readable: true,
                ..Readiness::default()
            };
            self.queue
                .push(Event::Ready(key, Side::Upstream, readiness));
        }
    }

    /// Both legs are closed: what the peers got is final.
    fn bury(&mut self, key: SessionKey) {
        let Some(at) = self.live.iter().position(|live| *live == key) else {
            return;
        };
        self.live.swap_remove(at);
        if self.released.len() < 64 {
            self.released.push(key);
        }
        let conn = self.conns.touch(key.slot);
        conn.check();
        if !self.lenient && !conn.forsaken {
            conn.check_delivery();
        }
        let [client, upstream] = &conn.peers;
        self.tally.closed += 1;
        self.tally.bytes += client.received + upstream.received;
        self.tally.resets_told += u64::from(client.saw_reset) + u64::from(upstream.saw_reset);
        self.tally.complete +=
            u64::from(client.is_satisfied_by(upstream) && upstream.is_satisfied_by(client));
    }

    /// A bug: readiness of an earlier session is taken for that of its successor.
    pub(super) fn honour(&self, event: &mut Event) {
        if let Event::Ready(key, ..) = event
            && let Some(conn) = self.conns.get(key.slot)
        {
            key.generation = conn.generation;
        }
    }

    pub(super) fn noise(&mut self, events: &mut Vec<Event>) {
        let both = Readiness {
            readable: true,
            writable: true,
            failed: false,
        };
        if self.dice.percent(self.nastiness.spurious) && !self.live.is_empty() {
            let pick = self.dice.between(0, self.live.len() as u64 - 1) as usize;
            let key = self.live[pick];
            if self.conn(key).is_some_and(|conn| conn.sockets[0].is_some()) {
                events.push(Event::Ready(key, Side::Client, both));
            }
        }
        if self.dice.percent(self.nastiness.spurious)
            && let Some(key) = self.listeners.removed()
        {
            events.push(Event::Acceptable(key));
        }
        if self.dice.percent(self.nastiness.spurious) && !self.released.is_empty() {
            let pick = self.dice.between(0, self.released.len() as u64 - 1) as usize;
            let key = self.released[pick];
            if !self.live.contains(&key) {
                events.push(Event::Ready(
                    key,
                    Side::Upstream,
                    Readiness {
                        failed: true,
                        ..both
                    },
                ));
            }
        }
    }
}
