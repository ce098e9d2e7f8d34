//! How connections end: behaviours 1 to 17 on the real binary.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod kit;

use kit::*;

/// Behaviour 6.
#[test]
fn b06_connects_and_ends_at_once() {
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        let mut client = forwarder.connect();
        client.half_close();
        let mut upstream = server.accept();
        upstream.expect_then_eof(0);
        upstream.close();
        client.expect_then_eof(0);
        let record = forwarder.wait_for_session();
        assert_eq!(record.code(), "--");
        forwarder.check_idle();
        assert_eq!(forwarder.complaints().len(), 0);
    });
}
