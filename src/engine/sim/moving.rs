//! Sessions that move from one simulated engine to another, or within one.
//!
//! As a completion engine does, it may take its time to be quiet, and read ahead of its
//! lanes meanwhile.

use super::{Conn, Sim};
use crate::engine::detached::{Baggage, HeldNote, SideNote};
use crate::engine::{Event, SessionKey, Start};
use crate::relay::lane::Lane;
use crate::relay::session::Readiness;
use crate::relay::{Direction, Side};

/// A connection that no engine looks after.
#[derive(Debug)]
pub struct Uprooted(Box<Conn>);

impl Baggage for Uprooted {
    fn sides(&self) -> [Option<SideNote>; 2] {
        self.0.sockets.each_ref().map(|socket| {
            let socket = socket.as_ref()?;
            Some(SideNote {
                cookie: 0,
                exhaustive: false,
                shut: socket.shut,
            })
        })
    }

    fn held(&self) -> [HeldNote; 2] {
        Direction::BOTH.map(|direction| {
            let (held, pipe) = (self.0.held, &self.0.pipes[direction.index()]);
            match held[direction.index()] {
                0 => HeldNote::Nothing,
                len if pipe.is_some() => HeldNote::Pipe {
                    len,
                    capacity: 1 << 20,
                },
                len => HeldNote::Tail(len),
            }
        })
    }
}

impl Sim {
    pub(super) fn begin_to_quiesce(&mut self, key: SessionKey) -> Start<()> {
        let deferred = self.dice.percent(self.nastiness.deferred_close);
        let Some(conn) = self.conn_mut(key) else {
            panic!("a stale key is to be quiet")
        };
        assert!(!conn.quiescing, "told twice to be quiet");
        conn.quiescing = deferred;
        if deferred {
            Start::Pending
        } else {
            Start::Done(())
        }
    }

    /// A session that was to be quiet is, some time.
    pub(super) fn complete_quiesce(&mut self, key: SessionKey) -> bool {
        let Some(conn) = self.conn_mut(key) else {
            return false;
        };
        // A side that is being closed is so first.
        if !conn.quiescing || conn.closing.iter().any(Option::is_some) {
            return false;
        }
        conn.quiescing = false;
        self.queue.push(Event::Quiet(key));
        true
    }

    pub(super) fn uproot(&mut self, key: SessionKey, lanes: &mut [Lane; 2]) -> Option<Uprooted> {
        for direction in Direction::BOTH {
            self.read_ahead(key, direction, &mut lanes[direction.index()]);
        }
        let conn = self.conn_mut(key)?;
        assert!(!conn.quiescing, "detached before it was quiet");
        assert!(
            conn.closing.iter().all(Option::is_none),
            "detached while a side is being closed"
        );
        for direction in Direction::BOTH {
            assert_eq!(
                conn.held[direction.index()],
                lanes[direction.index()].held(),
                "a lane and its engine disagree"
            );
        }
        let conn = Box::new(std::mem::take(conn));
        let connected = conn.sockets.iter().flatten().all(|it| !it.connecting);
        assert!(connected, "detached while it connects");
        self.forget(key);
        self.open_sockets -= conn.sockets.iter().flatten().count() as u32;
        self.held -= u64::from(conn.held[0]) + u64::from(conn.held[1]);
        Some(Uprooted(conn))
    }

    pub(super) fn replant(&mut self, key: SessionKey, uprooted: Uprooted) {
        let mut moved = *uprooted.0;
        moved.generation = key.generation;
        for pipe in moved.pipes.iter_mut().flatten() {
            pipe.changes_hands(key);
        }
        self.open_sockets += moved.sockets.iter().flatten().count() as u32;
        self.held += u64::from(moved.held[0]) + u64::from(moved.held[1]);
        for side in Side::BOTH {
            let Some(socket) = &mut moved.sockets[side.index()] else {
                continue;
            };
            socket.no_space = false;
            let readiness = Readiness {
                readable: true,
                writable: true,
                failed: moved.peers[side.index()].has_reset && !socket.error_taken,
            };
            self.queue.push(Event::Ready(key, side, readiness));
        }
        let conn = self.conns.touch(key.slot);
        assert!(
            conn.sockets.iter().all(Option::is_none),
            "a slot was used again while sockets were open"
        );
        *conn = moved;
        self.live.push(key);
    }

    /// A receive that was in flight brought something after all.
    fn read_ahead(&mut self, key: SessionKey, direction: Direction, lane: &mut Lane) {
        let happens = self.dice.percent(self.nastiness.late);
        let most = self.dice.between(1, 64 * 1024) as u32;
        let index = direction.index();
        let Some(conn) = self.conn_mut(key).filter(|_| happens) else {
            return;
        };
        let (source, sink) = (direction.source(), direction.sink());
        let open = |side: Side| conn.sockets[side.index()].is_some();
        let goes_on = open(source) && open(sink) && !lane.sink_has_ended() && !lane.source_ended();
        if !goes_on || lane.is_tapped() {
            return;
        }
        let peer = &conn.peers[source.index()];
        if peer.inbox == 0 && !peer.fin_sent {
            return;
        }
        match conn.read(source, most) {
            Ok(0) => lane.source_eof(),
            Ok(n) => {
                lane.filled_behind(n);
                conn.held[index] += n;
                if let Some(pipe) = &mut conn.pipes[index] {
                    pipe.put(key, n);
                }
                self.held += u64::from(n);
            }
            Err(_) => {}
        }
    }
}
