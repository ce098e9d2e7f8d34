//! Sessions that stand and say nothing, for measuring what one costs.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::bench::socket;

const TIMEOUT: Duration = Duration::from_secs(5);

/// Opens `count` connections, by a proxy's tunnels if there is a `tunnel` to ask for; each has had one exchange of 64 bytes, so that
/// whatever a forwarder allocates with the first byte is there.
///
/// # Errors
/// Which connection failed, and why.
pub fn open(
    target: SocketAddr,
    tunnel: Option<SocketAddr>,
    count: usize,
) -> Result<Vec<TcpStream>, String> {
    (0..count)
        .map(|index| {
            exchange(target, tunnel).map_err(|error| {
                format!("idle session {} of {count} to {target}: {error}", index + 1)
            })
        })
        .collect()
}

fn exchange(target: SocketAddr, tunnel: Option<SocketAddr>) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&target, TIMEOUT)?;
    if let Some(origin) = tunnel {
        socket::ask_for_tunnel(&stream, origin)?;
    }
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
