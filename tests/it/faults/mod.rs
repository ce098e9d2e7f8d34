//! Faults on the real binary: system calls that fail here and there in the middle of
//! traffic ([`calls`]), sockets that the kernel destroys ([`destroyed`]), networks
//! that lose, delay and cut small ([`links`]).
//!
//! What must hold whatever fails: the process lives and does not spin; a session
//! that a fault hits ends, and never as if it had been complete; the others are
//! exact; descriptors return. Limits of descriptors and calls that fail for good are
//! in `running_out`.

mod calls;
mod destroyed;
mod links;

use std::net::{SocketAddr, TcpStream};

use crate::duplex::{Pair, Seen, Who};
use crate::kit::PATIENCE;
use thalweg::bench::origin::{Handlers, Origin, OriginOptions, Role};

/// A server that sends back what it gets.
struct Echo {
    _origin: Origin,
    address: SocketAddr,
}

impl Echo {
    /// In the network namespace of the calling thread.
    fn on(address: SocketAddr) -> Self {
        let options = OriginOptions {
            command: None,
            echo: Some(address),
            ..OriginOptions::default()
        };
        let origin = Origin::start(&options, Handlers::default()).unwrap();
        let address = origin.address(Role::Echo).unwrap();
        Self {
            _origin: origin,
            address,
        }
    }

    fn new() -> Self {
        Self::on(SocketAddr::from(([127, 0, 0, 1], 0)))
    }
}

/// How a session went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Went {
    /// Every byte came back, and then the end.
    Exact,
    /// The client was told that it did not work.
    Failed,
}

/// A session of `len` bytes there and back. What came back is checked; that it ends,
/// and that an end in good order is not told behind half of it, too.
#[track_caller]
fn echo(address: SocketAddr, n: u64, len: u64) -> Went {
    let Ok(stream) = TcpStream::connect_timeout(&address, PATIENCE) else {
        return Went::Failed;
    };
    let mut pair = Pair::echoed(stream, n);
    pair.leg(Who::Client).to_send = len;
    pair.leg(Who::Client).to_read = len;
    pair.run();
    pair.leg(Who::Client).half_close();
    let seen = pair.read_to_end(Who::Client);
    let received = pair.leg(Who::Client).received();
    if received == len && seen == Seen::Eof {
        return Went::Exact;
    }
    assert!(
        received == 0 || seen == Seen::Reset,
        "{received} of {len} bytes, and then an end as if that were all"
    );
    Went::Failed
}
