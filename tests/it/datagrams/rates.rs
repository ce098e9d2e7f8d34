//! Byte rates of datagrams, which have nothing to wait with: what is more is dropped, and counted.

use std::time::Instant;

use super::*;

/// Of each datagram.
const BYTES: usize = 1000;

/// So few that no receive queue is short of room.
const SENT: u64 = 60;

/// 85: up and down, of a flow, of a client and of a forward.
#[test]
fn b85_what_is_more_than_a_rate_of_datagrams_is_dropped() {
    on_every_engine(|case| {
        for (key, way) in [
            ("rate_per_session", "up"),
            ("rate_per_client", "down"),
            ("rate", "up"),
            ("rate", "down"),
        ] {
            let server = Server::echo();
            let forwarder = forwarder(case, &[server.address()])
                .set(
                    &format!("defaults.{key}"),
                    format!("{{ {way} = \"20kB/s\" }}"),
                )
                .set("defaults.rate_burst", "500ms")
                .start();
            let client = client(forwarder.address());
            let began = Instant::now();
            for _ in 0..SENT {
                client.send(&[7; BYTES]).unwrap();
            }
            // Each is passed on both ways, or is dropped by the rate.
            let dropped = poll(PATIENCE, || {
                let counters = forwarder.counters();
                let dropped = counters.of("udp_dropped_rate");
                (counters.of("udp_sent_down") + dropped == SENT).then_some(dropped)
            });
            let elapsed = began.elapsed().as_secs_f64();
            let dropped = dropped.unwrap_or_else(|| panic!("{key} {way}: some are not counted"));
            let passed = SENT - dropped;
            // Half a second's worth at once, and the last one of it.
            let most = 20.0 * (elapsed + 0.5) + 1.0;
            assert!(
                (10..=most as u64).contains(&passed),
                "{key} {way}: {passed} of {most}"
            );
            forwarder.check_quiet();
        }
    });
}

/// 88: in a dry run none is dropped.
#[test]
fn b88_a_dry_run_of_a_rate_drops_no_datagram() {
    on_every_engine(|case| {
        let server = Server::echo();
        let forwarder = forwarder(case, &[server.address()])
            .set("defaults.rate", "1kB/s")
            .set("defaults.dry_run", true)
            .start();
        let client = client(forwarder.address());
        for _ in 0..20 {
            assert_eq!(ask(&client, &[7; BYTES]).len(), BYTES);
        }
        let counters = forwarder.counters();
        assert_eq!(counters.of("udp_dropped_rate"), 0);
        assert!(counters.of("held_back_forward") > 0);
    });
}
