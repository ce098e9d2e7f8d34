//! What a target is written of one session, without a thread or a file: for fuzzers, who
//! hold it against what the session said.

use std::sync::Arc;
use std::time::SystemTime;

use super::feed::{Chunk, End, Opening, SessionNumber, StreamEnd};
use super::thread::Session;
use crate::config::{Tap, TapFormat};
use crate::net::address::Endpoint;
use crate::proto::secrets::Secrets;
use crate::relay::Direction;

/// One session, as it is shown.
pub struct Shown {
    session: Session,
    number: SessionNumber,
    at: SystemTime,
    total: [u64; 2],
    out: Vec<u8>,
}

impl Shown {
    /// A session that nothing was seen of yet, from and to addresses of IPv4.
    pub fn new(tap: Tap) -> Self {
        let at = SystemTime::UNIX_EPOCH;
        let endpoint = |port| Endpoint::Inet(([192, 0, 2, 1], port).into());
        let number = SessionNumber { reactor: 0, id: 1 };
        let secrets = (!tap.unmask).then(|| Arc::new(Secrets::new(&tap.mask)));
        let pcapng = tap.format == TapFormat::Pcapng;
        let opening = Opening {
            at,
            tap: Arc::new(tap),
            forward: "fuzz".into(),
            client: endpoint(40_000),
            listener: endpoint(443),
            budget: Arc::default(),
            sessions_missing: 0,
            before: [0; 2],
        };
        Self {
            session: Session::new(number, opening, secrets),
            number,
            at,
            total: [0; 2],
            out: if pcapng {
                super::pcapng::prologue()
            } else {
                Vec::new()
            },
        }
    }

    /// One side says this; what is written of it, and of all before.
    pub fn says(&mut self, direction: Direction, bytes: &[u8]) -> &[u8] {
        self.total[direction.index()] += bytes.len() as u64;
        let chunk = Chunk {
            at: self.at,
            direction,
            missing: 0,
            bytes: bytes.into(),
            last: false,
        };
        self.session.chunk(self.number, &chunk, &mut self.out);
        &self.out
    }

    /// One side ends.
    pub fn ends(&mut self, direction: Direction) -> &[u8] {
        let end = End {
            at: self.at,
            direction,
            how: StreamEnd::Orderly,
            missing: 0,
            total: self.total[direction.index()],
        };
        self.session.end(self.number, &end, &mut self.out);
        &self.out
    }
}
