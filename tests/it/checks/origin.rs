//! Servers that are well or ill in a certain manner.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use crate::kit::PATIENCE;

/// What a server does with a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Manner {
    /// Reads something, answers, and waits for the end.
    Answers(&'static [u8]),
    /// Answers without having read anything.
    Speaks(&'static [u8]),
    /// Answers unasked and resets in the same breath.
    SpeaksAndResets(&'static [u8]),
    /// Answers a byte at a time, slowly, again and again.
    Drips(&'static [u8]),
    /// Reads, and says nothing.
    Silent,
    /// Ends the connection.
    Ends,
    /// Resets it.
    Resets,
}

/// A server on a port of its own, with a thread for each connection.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    /// All connections are served alike.
    pub(crate) fn new(manner: Manner) -> Self {
        Self::with(move |_| manner)
    }

    /// `manner` says how the connection of this number, from 0 on, is served.
    pub(crate) fn with(mut manner: impl FnMut(usize) -> Manner + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ending = Arc::new(AtomicBool::new(false));
        let over = ending.clone();
        let accept = move || {
            let mut serving = Vec::new();
            for (number, stream) in listener.incoming().enumerate() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                // A connection may be lost before it is accepted.
                let Ok(stream) = stream else { continue };
                let manner = manner(number);
                let over = over.clone();
                serving.push(std::thread::spawn(move || serve(stream, manner, &over)));
            }
            for thread in serving {
                thread.join().unwrap();
            }
        };
        Self {
            address,
            ending,
            thread: Some(std::thread::spawn(accept)),
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Relaxed);
        // Wakes the accept.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

fn serve(mut stream: TcpStream, manner: Manner, over: &AtomicBool) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    // A checker leaves as soon as it knows: errors are none of a server's business.
    let _ = match manner {
        Manner::Answers(answer) => {
            let asked = stream.read(&mut [0; 4096]);
            asked.and_then(|_| stream.write_all(answer)).map(drop)
        }
        Manner::Speaks(answer) => stream.write_all(answer),
        Manner::SpeaksAndResets(answer) => {
            let _ = stream.write_all(answer);
            return reset(stream);
        }
        Manner::Drips(answer) => {
            for byte in answer.iter().cycle() {
                let left = over.load(Ordering::Relaxed) || stream.write_all(&[*byte]).is_err();
                if left {
                    return;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }
        Manner::Silent => Ok(()),
        Manner::Ends => return,
        Manner::Resets => return reset(stream),
    };
    // Until the other side leaves.
    while stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
}

#[allow(
    clippy::needless_pass_by_value,
    reason = "closing it is what resets the connection"
)]
fn reset(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}

/// A port that nobody listens on, and nobody else can take.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) address: SocketAddr,
    _socket: Socket,
}

impl Closed {
    pub(crate) fn new() -> Self {
        let (socket, address) = bound();
        Self {
            address,
            _socket: socket,
        }
    }
}

/// A port that answers no connect: its accept queue is full.
#[derive(Debug)]
pub(crate) struct Deaf {
    pub(crate) address: SocketAddr,
    _socket: Socket,
    _queued: Vec<Socket>,
}

impl Deaf {
    pub(crate) fn new() -> Self {
        let (socket, address) = bound();
        socket.listen(0).unwrap();
        // A backlog of 0 takes one; the others wait for an answer to their SYN.
        let fill = |_| {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            let _ = client.connect(&address.into());
            client
        };
        Self {
            address,
            _queued: (0..4).map(fill).collect(),
            _socket: socket,
        }
    }
}

fn bound() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}
