//! Hostile clients and servers, each with an innocent beside it on the same process, whose
//! kept connection must go on answering and whose new ones must come in. What else is
//! promised against them, and which test shows it: SECURITY.md.

mod credentials;
mod files;
#[cfg(feature = "probes")]
mod helpers;
mod names;
mod origin;
mod proxies;
mod scarcity;
mod servers;
mod shares;
mod tapped;
mod words;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::kit::*;

/// Within so long a bystander is served, whatever others do.
const SERVED_WITHIN: Duration = Duration::from_secs(1);

/// A server that sends back whatever it is sent, to any number of clients.
struct Echo {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    fn start() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0);
        socket.bind(&any.into()).unwrap();
        socket.listen(4096).unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = std::net::TcpListener::from(socket);
        let address = listener.local_addr().unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let told = ends.clone();
        let work = move || serve(mio::net::TcpListener::from_std(listener), &told).unwrap();
        Self {
            address,
            ends,
            thread: Some(std::thread::spawn(work)),
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn serve(mut listener: mio::net::TcpListener, ends: &AtomicBool) -> io::Result<()> {
    const LISTENER: mio::Token = mio::Token(usize::MAX);
    let mut poll = mio::Poll::new()?;
    let readable = mio::Interest::READABLE;
    poll.registry()
        .register(&mut listener, LISTENER, readable)?;
    let mut events = mio::Events::with_capacity(256);
    let mut clients = HashMap::new();
    let mut next = 0;
    while !ends.load(Ordering::Relaxed) {
        poll.poll(&mut events, Some(Duration::from_millis(20)))?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut client, _)) = listener.accept() {
                    let token = mio::Token(next);
                    poll.registry().register(&mut client, token, readable)?;
                    clients.insert(token, client);
                    next += 1;
                }
            } else if let Some(client) = clients.get_mut(&event.token())
                && !echo(client)
            {
                clients.remove(&event.token());
            }
        }
    }
    Ok(())
}

/// Whether it goes on.
fn echo(client: &mut mio::net::TcpStream) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match client.read(&mut bytes) {
            Ok(0) => return false,
            Ok(len) if client.write_all(&bytes[..len]).is_err() => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

/// A connection from another address of this host.
fn connect_from(last: [u8; 2], to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let [third, fourth] = last;
    let address = SocketAddr::new(Ipv4Addr::new(127, 0, third, fourth).into(), 0);
    socket.bind(&address.into())?;
    socket.connect_timeout(&to.into(), Duration::from_secs(2))?;
    Ok(socket.into())
}

/// Whether a byte comes back.
fn answers(mut stream: &TcpStream, patience: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0])
}

/// An innocent: a connection that it keeps, and new ones that it makes. What it does to come
/// in is its own.
struct Bystander<'a> {
    comes: Box<dyn Fn() -> TcpStream + 'a>,
    kept: TcpStream,
}

impl<'a> Bystander<'a> {
    /// Of a forward that leads to an [`Echo`].
    fn of(address: SocketAddr) -> Self {
        Self::who(move || TcpStream::connect_timeout(&address, PATIENCE).unwrap())
    }

    /// Of whatever leads to an [`Echo`] in this way.
    fn who(comes: impl Fn() -> TcpStream + 'a) -> Self {
        let kept = comes();
        answers(&kept, PATIENCE).unwrap();
        Self {
            comes: Box::new(comes),
            kept,
        }
    }

    /// The connection that it has kept still answers, and soon.
    #[track_caller]
    fn goes_on(&self) {
        let waited = best_of(5, SERVED_WITHIN, || {
            let watch = Stopwatch::start();
            answers(&self.kept, PATIENCE).unwrap();
            watch.elapsed()
        });
        assert!(waited <= SERVED_WITHIN, "its answer took {waited:?}");
    }

    /// A new connection is served, and soon. Whatever turned one away would do so again.
    #[track_caller]
    fn comes_in(&self) {
        is_served(&self.comes);
    }
}

/// A new connection of an innocent is served, and soon.
#[track_caller]
fn comes_in_at(address: SocketAddr) {
    is_served(&|| TcpStream::connect_timeout(&address, PATIENCE).unwrap());
}

#[track_caller]
fn is_served(comes: &dyn Fn() -> TcpStream) {
    let waited = best_of(5, SERVED_WITHIN, || {
        let watch = Stopwatch::start();
        let stream = comes();
        answers(&stream, PATIENCE).unwrap();
        watch.elapsed()
    });
    assert!(waited <= SERVED_WITHIN, "it was served after {waited:?}");
}
