//! A server of files over HTTP/1.1, for clients that people have: one thread a
//! connection, each ended when its client does.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::kit::{Listener, PATIENCE};

/// Serves what is below a directory until it is dropped.
#[derive(Debug)]
pub(crate) struct Site {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Site {
    pub(crate) fn of(directory: &Path) -> Self {
        let listener = Listener::new();
        let address = listener.address();
        let over = Arc::<AtomicBool>::default();
        let (root, ended) = (directory.to_owned(), over.clone());
        let thread = std::thread::spawn(move || {
            let mut connections = Vec::new();
            while !ended.load(Ordering::Relaxed) {
                if let Some(peer) = listener.accept_within(Duration::from_millis(50)) {
                    let (stream, root) = (peer.stream().try_clone().unwrap(), root.clone());
                    connections.push(std::thread::spawn(move || serve(&stream, &root)));
                }
            }
            for connection in connections {
                connection.join().unwrap();
            }
        });
        Self {
            address,
            over,
            thread: Some(thread),
        }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().unwrap();
        let joined = thread.join();
        assert!(
            joined.is_ok() || std::thread::panicking(),
            "a connection of the site failed"
        );
    }
}

fn serve(stream: &TcpStream, root: &Path) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if lines.read_line(&mut first).unwrap_or(0) == 0 {
            return;
        }
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            if lines.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
        }
        let mut words = first.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        if answer(stream, method, root, path).is_err() {
            return;
        }
    }
}

fn answer(mut stream: &TcpStream, method: &str, root: &Path, path: &str) -> std::io::Result<()> {
    let path = path.split('?').next().unwrap_or("");
    let inside = PathBuf::from(path.trim_start_matches('/'));
    let found = std::fs::read(root.join(inside)).ok();
    let (status, body) = match found {
        Some(body) => ("200 OK", body),
        None => ("404 Not Found", b"none such\n".to_vec()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/octet-stream\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    if method != "HEAD" {
        stream.write_all(&body)?;
    }
    Ok(())
}
