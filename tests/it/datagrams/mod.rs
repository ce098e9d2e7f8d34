//! Forwarding of UDP, from outside: behaviours 89 to 110.

mod ending;
mod fair;
mod flows;
mod forged;
mod homes;
mod late;
mod loops;
mod path;
mod programs;
mod proxied;
mod queues;
mod quic;
mod rates;
mod refused;
mod server;
mod servers;
mod tunnel;
mod whole;

use std::net::{SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};

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

/// A forwarder with a file that is written anew.
struct Configured {
    // Dropped first.
    forwarder: Forwarder,
    directory: Directory,
}

impl Configured {
    fn start(case: Case, content: &str) -> Self {
        let directory = Directory::new();
        let file = directory.join("thalweg.toml");
        std::fs::write(&file, content).unwrap();
        let setup = Setup::configured(&file, 1).engine(case.engine);
        Self {
            forwarder: setup.reactors_by_file().start(),
            directory,
        }
    }

    /// Goes by another file from now on.
    #[track_caller]
    fn reload(&self, content: &str) {
        let said = || {
            let mut records = self.forwarder.records();
            records.retain(|it| matches!(it.text("kind"), "reloaded" | "reload_refused"));
            records
        };
        let before = said().len();
        std::fs::write(self.directory.join("thalweg.toml"), content).unwrap();
        self.forwarder.process().signal(Signal::SIGHUP);
        let record = poll(PATIENCE, || said().get(before).cloned()).expect("it says so");
        assert_eq!(record.text("kind"), "reloaded", "{record:?}");
    }
}

/// Sends a train in one piece: the kernel cuts it into datagrams of this size.
fn send_joined(client: &UdpSocket, train: &[u8], size: usize) {
    let segment = size as i32;
    setsockopt(client, sockopt::UdpGsoSegment, &segment).unwrap();
    assert_eq!(client.send(train).unwrap(), train.len());
    setsockopt(client, sockopt::UdpGsoSegment, &0).unwrap();
}

/// Datagrams that sockets with this local port have lost, as the kernel tells everybody.
pub(crate) fn lost_by_the_kernel(port: u16) -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/udp").unwrap();
    let suffix = format!(":{port:04X}");
    let mut lost = 0;
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields[1].ends_with(&suffix) {
            lost += fields.last().unwrap().parse::<u64>().unwrap();
        }
    }
    lost
}
