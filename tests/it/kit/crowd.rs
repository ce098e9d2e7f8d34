//! Many connections through a forwarder at once, both ends of each in the test's
//! hands. Their payload is a byte here and there: what they cost and whether they
//! live is the point.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use thalweg::net::limits;

use super::peer::unless_reset;
use super::{Forwarder, Listener, PATIENCE, Peer};

/// Descriptors that everything else in a test process may need.
const DESCRIPTORS_SPARE: u64 = 1_000;

/// Connections through a forwarder. The client ends first, then the server ends.
#[derive(Debug, Default)]
pub(crate) struct Crowd {
    pub(crate) clients: Vec<Peer>,
    pub(crate) servers: Vec<Peer>,
}

impl Crowd {
    /// Makes `count` connections, one after the other: so each client's server is
    /// known.
    #[track_caller]
    pub(crate) fn through(forwarder: &Forwarder, server: &Listener, count: usize) -> Self {
        Self::connect(forwarder.address(), server, count)
    }

    /// As [`Crowd::through`], to a certain listener.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr, server: &Listener, count: usize) -> Self {
        let mut crowd = Self::default();
        for _ in 0..count {
            let client = Peer::connect(address);
            // The forwarder holds the last ACK of its handshake with the server back
            // for a byte to ride on, up to 2 ms.
            send(client.stream(), 0);
            let upstream = server.accept();
            receive(upstream.stream());
            crowd.clients.push(client);
            crowd.servers.push(upstream);
        }
        crowd
    }

    pub(crate) fn len(&self) -> usize {
        self.clients.len()
    }

    /// A byte from every client to its server and back, all at the same time.
    #[track_caller]
    pub(crate) fn ping(&self) {
        for (from, to) in [
            (&self.clients, &self.servers),
            (&self.servers, &self.clients),
        ] {
            for (number, peer) in from.iter().enumerate() {
                send(peer.stream(), number as u8);
            }
            for (number, peer) in to.iter().enumerate() {
                assert_eq!(receive(peer.stream()), number as u8, "another's byte");
            }
        }
    }

    /// Ends every connection in good order, from the client's side.
    #[track_caller]
    pub(crate) fn finish(self) {
        for (client, mut server) in self.clients.into_iter().zip(self.servers) {
            client.half_close();
            server.expect_then_eof(0);
            drop(server);
            assert_eq!(read_some(client.stream()), 0, "no end");
        }
    }
}

/// Sends one byte.
#[track_caller]
pub(crate) fn send(mut stream: &TcpStream, byte: u8) {
    let sent = stream.write_all(&[byte]);
    assert!(sent.is_ok(), "cannot send: {sent:?}");
}

/// Receives one byte.
#[track_caller]
pub(crate) fn receive(mut stream: &TcpStream) -> u8 {
    let mut byte = [0];
    let received = stream.read_exact(&mut byte);
    assert!(
        received.is_ok(),
        "no byte within {PATIENCE:?}: {received:?}"
    );
    byte[0]
}

#[track_caller]
fn read_some(mut stream: &TcpStream) -> usize {
    stream.read(&mut [0]).expect("neither a byte nor an end")
}

/// Connects to a forwarder that has no use for it: the connection must end. A reset
/// may overtake the news that it stands.
#[track_caller]
pub(crate) fn is_turned_away(forwarder: &Forwarder) {
    if let Some(mut client) = unless_reset(Peer::try_connect(forwarder.address())) {
        client.receive_until_end();
    }
}

/// How many of `wanted` connections this process can hold both ends of, its own
/// limit of descriptors raised as far as it goes. The forwarder needs as many.
pub(crate) fn connections_that_fit(wanted: usize) -> usize {
    let descriptors = limits::raise_descriptor_limit().unwrap_or(1024);
    let fit = descriptors.saturating_sub(DESCRIPTORS_SPARE) / 2;
    wanted.min(fit.max(10) as usize)
}
