//! Forwarding of UDP, from outside: behaviours 89 to 106 and 110.

mod ending;
mod flows;
mod proxied;
mod quic;
mod rates;
mod server;
mod whole;

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use crate::kit::*;

use server::Server;

/// A client's socket, on the same kind of address as `to`, connected to it.
fn client(to: SocketAddr) -> UdpSocket {
    let any = if to.is_ipv4() {
        "127.0.0.1:0"
    } else {
        "[::1]:0"
    };
    let socket = UdpSocket::bind(any).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends one datagram and waits for one.
#[track_caller]
fn ask(client: &UdpSocket, question: &[u8]) -> Vec<u8> {
    client.send(question).unwrap();
    answer(client).expect("an answer")
}

/// The next datagram, if one comes before the time-out of the socket.
fn answer(client: &UdpSocket) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 70_000];
    let len = client.recv(&mut buffer).ok()?;
    buffer.truncate(len);
    Some(buffer)
}

/// Nothing comes for a while.
#[track_caller]
fn hears_nothing(client: &UdpSocket, so_long: Duration) {
    client.set_read_timeout(Some(so_long)).unwrap();
    assert_eq!(answer(client), None);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
}

/// A forwarder of datagrams from a free port to these servers.
fn forwarder(case: Case, servers: &[SocketAddr]) -> Setup {
    let servers: Vec<String> = servers.iter().map(|it| format!("udp:{it}")).collect();
    Setup::between("udp:127.0.0.1:0", servers.join(",")).engine(case.engine)
}

/// Waits until a counter has reached a value, and returns what it is then.
#[track_caller]
fn wait_for_counter(forwarder: &Forwarder, name: &str, least: u64) -> u64 {
    let reached = poll(PATIENCE, || {
        let count = forwarder.counters().of(name);
        (count >= least).then_some(count)
    });
    reached.unwrap_or_else(|| panic!("{name} does not reach {least}"))
}
