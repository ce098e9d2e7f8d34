//! Several forwarders as one service (161 to 168): what each of them owes the others.
//!
//! `scripts/fleet` measures a whole one, with BGP; here is each thing by itself.

mod announce;
mod arrival;
mod discovery;
mod leaving;
mod rolling;
mod routed;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};

use socket2::{Domain, Socket, Type};

use crate::kit::namespace::ip;
use crate::kit::*;

/// The servers: 10.8.0.1 and so on, each of whom says its number.
fn server(number: u8) -> [u8; 4] {
    [10, 8, 0, number]
}

/// As a forward has them, in this order.
fn listed(numbers: &[u8], prefix: &str, port: u16) -> String {
    let each = numbers
        .iter()
        .map(|it| format!("{prefix}10.8.0.{it}:{port}"));
    each.collect::<Vec<_>>().join(",")
}

/// Servers of both kinds, and addresses for clients (10.7.0.1 to 10.7.0.254), in the calling thread's namespace.
fn populate(servers: u8) {
    // On loopback all of a prefix is local.
    ip("addr add 10.7.0.1/24 dev lo");
    ip("addr add 10.8.0.1/24 dev lo");
    for number in 1..=servers {
        let listener = TcpListener::bind(SocketAddr::from((server(number), 443))).unwrap();
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                std::thread::spawn(move || echo(client, number));
            }
        });
        let socket = UdpSocket::bind(SocketAddr::from((server(number), 53))).unwrap();
        std::thread::spawn(move || {
            while let Ok((_, from)) = socket.recv_from(&mut [0; 64]) {
                let _ = socket.send_to(&[number], from);
            }
        });
    }
}

/// Says its number for each byte that comes.
fn echo(mut client: TcpStream, number: u8) {
    let mut buffer = [0; 64];
    while let Ok(len @ 1..) = client.read(&mut buffer) {
        if client.write_all(&vec![number; len]).is_err() {
            return;
        }
    }
}

/// A client of its own address.
fn client(number: u8, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([10, 7, 0, number], 0)).into())?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// Which server answers.
fn ask(mut stream: impl Read + Write) -> io::Result<u8> {
    let mut said = [0];
    stream.write_all(b"x")?;
    stream.read_exact(&mut said)?;
    Ok(said[0])
}

/// Which server each of so many clients is sent to.
fn servers_of(clients: u8, to: SocketAddr) -> Vec<u8> {
    let one = |number| ask(client(number, to).unwrap()).unwrap();
    (1..=clients).map(one).collect()
}

/// Likewise by datagrams, from a socket that is kept.
fn asker(number: u8, to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::from(([10, 7, 0, number], 0))).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn ask_by_datagram(socket: &UdpSocket) -> io::Result<u8> {
    let mut said = [0];
    socket.send(b"x")?;
    socket.recv(&mut said)?;
    Ok(said[0])
}
