//! Sessions that stand and say nothing, for measuring what one costs.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use crate::bench::datagram::{Header, Kind};
use crate::bench::preface::Preface;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Opens `count` connections, each of which says its `preface`; each has had one exchange of 64 bytes, so that
/// whatever a forwarder allocates with the first byte is there.
///
/// # Errors
/// Which connection failed, and why.
pub fn open(target: SocketAddr, preface: Preface, count: usize) -> Result<Vec<TcpStream>, String> {
    (0..count)
        .map(|index| {
            exchange(target, preface).map_err(|error| {
                format!("idle session {} of {count} to {target}: {error}", index + 1)
            })
        })
        .collect()
}

/// Opens `count` ports for datagrams, each of which has had one question of 64 bytes answered. One that
/// is lost is asked again.
///
/// # Errors
/// Which question was not answered, and why.
pub fn ask(target: SocketAddr, count: usize) -> Result<Vec<UdpSocket>, String> {
    (0..count)
        .map(|index| {
            question(target, index as u32)
                .map_err(|error| format!("idle flow {} of {count} to {target}: {error}", index + 1))
        })
        .collect()
}

fn question(target: SocketAddr, flow: u32) -> io::Result<UdpSocket> {
    const ATTEMPTS: u64 = 20;
    const PATIENCE: Duration = Duration::from_millis(250);
    let any: SocketAddr = match target.ip() {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for number in 0..ATTEMPTS {
        let question = Header {
            kind: Kind::Question,
            flow,
            number,
            position: number,
            length: 64,
        };
        let question = question.datagram();
        let mut answer = [0; 100];
        match socket
            .send(&question)
            .and_then(|_| socket.recv(&mut answer))
        {
            Ok(len) if answer[..len] == question => return Ok(socket),
            // The answer to an earlier one.
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Err(error),
            // What a socket timeout is called is an accident of the interface.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn exchange(target: SocketAddr, preface: Preface) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&target, TIMEOUT)?;
    preface.say(&stream)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let request = [b'.'; 64];
    stream.write_all(&[b"ECHO\n".as_slice(), &request].concat())?;
    let mut response = [0; 64];
    stream.read_exact(&mut response)?;
    if response != request {
        return Err(io::Error::other("the response differs from the request"));
    }
    Ok(stream)
}
