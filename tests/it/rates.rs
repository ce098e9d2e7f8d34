//! Byte rates: behaviours 85 and 86. How exactly they are kept is measured in `serial/rates.rs`.

use std::thread;
use std::time::Duration;

use crate::kit::peer::transfer;
use crate::kit::*;

/// Behaviour 86: slower than every timeout, and to its last byte.
#[test]
fn b86_a_low_rate_keeps_moving_and_is_ended_by_no_timer() {
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("defaults.rate_per_session", "\"100B/s\"")
            .set("defaults.rate_burst", "\"1s\"")
            .set("defaults.idle_timeout", "\"300ms\"")
            .set("defaults.half_close_timeout", "\"300ms\"")
            .set("defaults.write_stall_timeout", "\"300ms\"")
            .start();
        let watch = Stopwatch::start();
        let mut client = forwarder.connect();
        let mut upstream = server.accept();
        client.send(300);
        upstream.send(300);
        client.half_close();
        upstream.half_close();
        upstream.expect_then_eof(300);
        client.expect_then_eof(300);
        assert!(
            watch.elapsed() >= Duration::from_millis(1_900),
            "{:?}",
            watch.elapsed()
        );
        let record = forwarder.wait_for_session();
        assert_eq!((record.code(), record.cause()), ("--", "finished"));
        assert_eq!(record.bytes(), (300, 300));
        assert!(forwarder.counters().of("held_back_session") > 0);
        forwarder.check_idle();
    });
}

/// Behaviour 86: at a rate of which a turn comes once in many seconds.
#[test]
fn b86_a_session_that_waits_for_its_rate_costs_nothing() {
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("defaults.rate_per_session", "\"1B/s\"")
            .set("defaults.idle_timeout", "\"1s\"")
            .start();
        let mut client = forwarder.connect();
        let mut upstream = server.accept();
        let stuck = client.send_until_stuck(Duration::from_millis(300));
        upstream.expect(1);
        forwarder.check_quiet();
        let turns = forwarder.counters().of("turns");
        thread::sleep(Duration::from_secs(2));
        let turns = forwarder.counters().of("turns") - turns;
        assert!(
            turns < 60,
            "{turns} turns for two bytes, with {stuck} waiting"
        );
        // It is told of an end meanwhile: nobody waits for the rest of an hour's bytes.
        upstream.reset();
        let record = forwarder.wait_for_session();
        assert_eq!(record.cause(), "reset", "{record:?}");
    });
}

/// Behaviour 86: who stays below the rate is never held back.
#[test]
fn b86_a_ping_below_the_rate_is_not_held_back() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("defaults.rate_per_session", "\"1000B/s\"")
            .set("defaults.rate_per_client", "\"2kB/s\"")
            .set("defaults.rate", "\"4kB/s\"")
            .start();
        let mut client = forwarder.connect();
        let mut upstream = server.accept();
        for _ in 0..50 {
            client.send_byte();
            upstream.expect(1);
            upstream.send_byte();
            client.expect(1);
            thread::sleep(Duration::from_millis(2));
        }
        let counters = forwarder.counters();
        for level in ["session", "client", "forward"] {
            assert_eq!(counters.of(&format!("held_back_{level}")), 0, "{level}");
        }
        client.close();
        upstream.close();
        let record = forwarder.wait_for_session();
        assert_eq!(record.number("held_back_us"), Some(0));
    });
}

/// Each way by itself; and nobody is held back in a dry run, but counted.
#[test]
fn b85_a_rate_of_one_way_leaves_the_other_alone() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("defaults.rate_per_session", "{ down = \"1kB/s\" }")
            .start();
        let mut client = forwarder.connect();
        let mut upstream = server.accept();
        client.send(MIB);
        upstream.expect(MIB);
        upstream.send(2_000);
        let watch = Stopwatch::start();
        client.expect(2_000);
        assert!(watch.elapsed() >= Duration::from_millis(1_500));
        forwarder.check_quiet();
    });
}

#[test]
fn a_dry_run_of_rates_holds_nobody_back_and_counts() {
    on_every_engine(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("defaults.rate", "\"1B/s\"")
            .set("defaults.dry_run", true)
            .start();
        let mut client = forwarder.connect();
        let mut upstream = server.accept();
        transfer(&mut client, &mut upstream, MIB);
        transfer(&mut upstream, &mut client, MIB);
        assert!(forwarder.counters().of("held_back_forward") > 0);
        let record = {
            client.close();
            upstream.close();
            forwarder.wait_for_session()
        };
        assert_eq!(record.number("held_back_us"), Some(0));
        forwarder.check_idle();
    });
}
