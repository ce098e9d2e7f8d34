//! Datagrams: the same batches as with epoll, told of by the epoll instance of the
//! listeners.
//!
//! A multishot receive would save the system call of a batch and pay with a completion for
//! each datagram, where a batch of recvmmsg(2) has one call for all of them. It is not built
//! and not measured; the batches are what both engines have.

use std::io;
use std::os::fd::OwnedFd;

use super::Uring;
use crate::engine::common::Listener;
use crate::engine::datagrams::{Datagrams, Outcome, Post, Received};
use crate::engine::{DatagramKey, Target};
use crate::net::datagram::Lost;
use crate::net::datagram::batch::Train;
use crate::net::errno::{Failure, Operation};
use crate::relay::ending::Cause;

impl Uring {
    fn watch_datagrams(&self, key: DatagramKey) -> io::Result<()> {
        let fd = self.datagrams.fd(key);
        fd.map_or(Ok(()), |fd| self.listen_poll.add_datagrams(key, fd))
    }
}

impl Datagrams for Uring {
    fn open_port(&mut self, listener: Listener) -> io::Result<DatagramKey> {
        let key = self.datagrams.add_port(listener)?;
        if let Err(error) = self.watch_datagrams(key) {
            self.datagrams.remove_port(key);
            return Err(error);
        }
        Ok(key)
    }

    fn close_port(&mut self, key: DatagramKey) -> Option<Listener> {
        self.mute_port(key);
        self.datagrams.remove_port(key)
    }

    fn mute_port(&mut self, key: DatagramKey) {
        if let Some(fd) = self.datagrams.fd(key) {
            self.listen_poll.remove(fd);
        }
    }

    fn call(&mut self, target: Target<'_>, never_fragment: bool) -> Result<DatagramKey, Cause> {
        let suspect = self.common.may_self_connect(target.endpoint);
        let key = self.datagrams.call(target, never_fragment, suspect)?;
        if let Err(error) = self.watch_datagrams(key) {
            self.datagrams.remove(key);
            return Err(Failure::of_io(Operation::Open, &error).into());
        }
        Ok(key)
    }

    fn hang_up(&mut self, key: DatagramKey) {
        self.datagrams.remove(key);
    }

    fn let_go(&mut self, key: DatagramKey) -> Option<OwnedFd> {
        // Another process may have it soon, which would leave it registered.
        self.mute_port(key);
        self.datagrams.let_go(key)
    }

    fn take_up(&mut self, call: OwnedFd) -> io::Result<DatagramKey> {
        let key = self.datagrams.take_up(call)?;
        self.watch_datagrams(key)
            .inspect_err(|_| self.datagrams.remove(key))?;
        Ok(key)
    }

    fn room(&self) -> usize {
        self.datagrams.room()
    }

    fn receive(&mut self, key: DatagramKey, most: usize) -> Received {
        self.datagrams.receive(key, most)
    }

    fn discard(&mut self, key: DatagramKey) -> u32 {
        self.datagrams.discard(key)
    }

    fn train(&self, index: usize) -> &Train {
        self.datagrams.train(index)
    }

    fn payload(&self, index: usize) -> &[u8] {
        self.datagrams.payload(index)
    }

    fn send_at_once(&mut self, key: DatagramKey, datagram: &[u8]) -> Result<(), Lost> {
        self.datagrams.send_at_once(key, datagram)
    }

    fn post(&mut self, post: Post) {
        self.datagrams.post(post);
    }

    fn send_posts(&mut self, outcomes: &mut Vec<Outcome>) {
        self.datagrams.send_posts(outcomes);
    }

    fn forget_trains(&mut self) {
        self.datagrams.forget_trains();
    }

    fn queue_drops(&self, key: DatagramKey) -> u32 {
        self.datagrams.queue_drops(key)
    }
}
