//! `busy_poll = "auto"`: a reactor that spins while that pays, and otherwise sleeps.

use crate::kit::*;

#[test]
fn a_reactor_that_spins_while_it_pays_is_idle_when_nothing_moves() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("global.busy_poll", "auto")
            .start();
        let mut client = forwarder.connect();
        let mut upstream = server.accept();
        // Twice: what it has learnt in one conversation is not taken into silence.
        for _ in 0..2 {
            for _ in 0..300 {
                client.send(64);
                upstream.expect(64);
                upstream.send(64);
                client.expect(64);
            }
            forwarder.check_quiet();
        }
        client.half_close();
        upstream.expect_then_eof(0);
        upstream.half_close();
        client.expect_then_eof(0);
        forwarder.wait_for_session();
        forwarder.check_idle();
    });
}
