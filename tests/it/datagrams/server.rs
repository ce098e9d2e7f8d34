//! A server of datagrams that does as it is told.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// Answers from a thread of its own until it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    heard: Arc<AtomicU64>,
    from: Arc<Mutex<Vec<SocketAddr>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Sends back what it gets.
    pub(super) fn echo() -> Self {
        Self::new(|question| vec![question.to_vec()])
    }

    /// Answers with the address that it was asked from.
    pub(super) fn telling_senders() -> Self {
        Self::with("127.0.0.1:0".parse().unwrap(), |_, from| {
            vec![from.to_string().into_bytes()]
        })
    }

    /// Says nothing.
    pub(super) fn silent() -> Self {
        Self::new(|_| Vec::new())
    }

    /// Answers with what `answers` makes of a question.
    pub(super) fn new(answers: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), answers)
    }

    /// Likewise, at an address.
    pub(super) fn at(
        address: SocketAddr,
        mut answers: impl FnMut(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        Self::with(address, move |question, _| answers(question))
    }

    fn with(
        address: SocketAddr,
        mut answers: impl FnMut(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        let buffer = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
        assert!(buffer.is_ok());
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let address = socket.local_addr().unwrap();
        let (ends, heard) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let from = Arc::new(Mutex::new(Vec::new()));
        let (ending, count, whose) = (ends.clone(), heard.clone(), from.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 70_000];
            while !ending.load(Ordering::Relaxed) {
                let Ok((len, client)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                count.fetch_add(1, Ordering::Relaxed);
                let mut known = whose.lock().unwrap();
                if known.last() != Some(&client) {
                    known.push(client);
                }
                drop(known);
                for answer in answers(&buffer[..len], client) {
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        Self {
            address,
            ends,
            heard,
            from,
            thread: Some(thread),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Datagrams that it got so far.
    pub(super) fn heard(&self) -> u64 {
        self.heard.load(Ordering::Relaxed)
    }

    /// Who sent them; several in a row of the same once.
    pub(super) fn senders(&self) -> Vec<SocketAddr> {
        self.from.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
