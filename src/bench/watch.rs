//! Sockets of a running measurement as an onlooker sees them: duplicates of their
//! descriptors, from which `TCP_INFO` is read while their owners move bytes.
//!
//! A duplicate keeps a connection open after its owner has closed it, so whoever
//! watches ends the watch before it waits for the connections' end.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use crate::net::options::plan::set_abort_on_close;
use crate::net::tcp_info::TcpInfo;

/// The sockets of one side of a measurement.
#[derive(Debug)]
pub struct Watch {
    sockets: Mutex<Vec<OwnedFd>>,
    /// No more than this are watched: each costs a descriptor and a call a sample.
    most: usize,
}

impl Watch {
    /// Watches the first `most` sockets that are shown to it.
    pub fn new(most: usize) -> Self {
        Self {
            sockets: Mutex::new(Vec::new()),
            most,
        }
    }

    /// Shows it a socket. Without a descriptor to spare the socket goes unwatched.
    pub(crate) fn show(&self, socket: &impl AsFd) {
        let mut sockets = self.lock();
        if sockets.len() < self.most
            && let Ok(duplicate) = socket.as_fd().try_clone_to_owned()
        {
            sockets.push(duplicate);
        }
    }

    /// What the kernel knows of each now, in the order in which they were shown.
    pub fn read(&self) -> Vec<TcpInfo> {
        self.lock()
            .iter()
            .filter_map(|socket| TcpInfo::read(socket.as_fd()).ok())
            .collect()
    }

    /// The congestion control of the first, as it really is.
    pub fn congestion(&self) -> Option<String> {
        let sockets = self.lock();
        super::socket::congestion_of(sockets.first()?).ok()
    }

    /// Ends the watch. With `abort`, the connections are reset when their owners
    /// close them, and what waits in their send buffers is not sent any more.
    pub fn end(&self, abort: bool) {
        for socket in self.lock().drain(..) {
            if abort {
                // One that is closed already needs no reset.
                let _ = set_abort_on_close(socket.as_fd());
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<OwnedFd>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    #[test]
    fn sees_what_its_owner_moves_and_no_more_sockets_than_it_may() {
        let watch = Watch::new(1);
        let ((mut near, _), (second, _)) = (pair(), pair());
        watch.show(&near);
        watch.show(&second);
        near.write_all(&[7; 5_000]).unwrap();
        let infos = watch.read();
        assert_eq!(infos.len(), 1);
        assert_eq!(infos[0].bytes_sent, 5_000);
        assert!(!watch.congestion().unwrap().is_empty());
        watch.end(false);
        assert!(watch.read().is_empty());
    }

    #[test]
    fn an_aborted_connection_is_reset_when_its_owner_closes_it() {
        let watch = Watch::new(8);
        let (near, mut far) = pair();
        watch.show(&near);
        watch.end(true);
        drop(near);
        let error = far.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
    }
}
