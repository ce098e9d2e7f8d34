//! Urgent data (`MSG_OOB`): splice(2) stops at its mark for ever, with EAGAIN or
//! with what looks like an end. The urgent byte itself is not passed on, as with
//! nginx and HAProxy; not one byte around it may be lost or held back.

use std::os::fd::AsRawFd;

use crate::kit::peer::transfer;
use crate::kit::*;
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, send};

fn send_urgent(peer: &Peer) {
    let sent = send(peer.stream().as_raw_fd(), b"!", MsgFlags::MSG_OOB);
    assert_eq!(sent, Ok(1));
}

#[test]
fn bytes_behind_urgent_data_arrive() {
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        let mut client = forwarder.connect();
        let mut upstream = server.accept();
        // So that a lane that may splice does.
        transfer(&mut upstream, &mut client, 16 * MIB);
        for len in [1_000, 300_000, 3] {
            upstream.send(len);
            send_urgent(&upstream);
            upstream.send(len);
            client.expect(2 * len);
            transfer(&mut upstream, &mut client, 4 * MIB);
        }
        // The end arrives behind the mark before anything was read.
        forwarder.process().stop();
        upstream.send(1_000);
        send_urgent(&upstream);
        upstream.send(20_000);
        upstream.half_close();
        forwarder.process().signal(Signal::SIGCONT);
        client.expect_then_eof(21_000);
        client.send(5);
        client.half_close();
        upstream.expect_then_eof(5);
        forwarder.wait_for_session();
        forwarder.check_idle();
    });
}
