//! Clocks that jump, and time that stops: behaviour 73.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::kit::directory::Directory;
use crate::kit::*;

/// Where distributions keep libfaketime.
const LIBRARIES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// Behaviour 73.
#[test]
fn b73_the_wall_clock_jumps_by_an_hour() {
    let Some(library) = LIBRARIES.into_iter().find(|path| Path::new(path).exists()) else {
        skip(&test_name(), "no libfaketime here");
        return;
    };
    on_every_engine(|case| {
        let directory = Directory::new();
        let offset = directory.join("offset");
        fs::write(&offset, "+0").unwrap();
        let server = Listener::new();
        let (preload, file) = (
            format!("LD_PRELOAD={library}"),
            format!("FAKETIME_TIMESTAMP_FILE={}", offset.display()),
        );
        let forwarder = Setup::new(server.address())
            .case(case)
            .set("defaults.idle_timeout", "\"5m\"")
            .set("defaults.half_close_timeout", "\"5m\"")
            .wrapped(&[
                "env",
                &preload,
                &file,
                "FAKETIME_NO_CACHE=1",
                "FAKETIME_DONT_FAKE_MONOTONIC=1",
            ])
            .start();
        let _left_behind = LeftBehind(forwarder.process());
        let crowd = Crowd::through(&forwarder, &server, 3);
        crowd.clients[0].half_close();
        // The hour of the log's clock.
        let hour = |forwarder: &Forwarder| {
            let before = forwarder.lines_with("counters").len();
            forwarder.counters();
            let line = forwarder.lines_with("counters").swap_remove(before);
            line.text("time")[..13].to_owned()
        };
        let mut last = hour(&forwarder);
        for jump in ["+1h", "-1h", "+0"] {
            // At once, for it reads the file at any moment.
            let new = directory.join("new");
            fs::write(&new, jump).unwrap();
            fs::rename(&new, &offset).unwrap();
            let now = hour(&forwarder);
            assert_ne!(now, last, "the clock did not jump by {jump}");
            last = now;
            let (client, upstream) = (&crowd.clients[1], &crowd.servers[1]);
            crowd::send(client.stream(), 1);
            assert_eq!(crowd::receive(upstream.stream()), 1);
            forwarder.check_quiet();
            assert_eq!(forwarder.counters().of("live"), 3);
        }
        assert_eq!(forwarder.sessions().len(), 0, "a timeout fired");
        crowd.finish();
        forwarder.wait_for_sessions(3);
        forwarder.check_idle();
    });
}

/// What libfaketime shares between processes, and leaves there when one is killed.
struct LeftBehind(process::Process);

impl Drop for LeftBehind {
    fn drop(&mut self) {
        for name in ["sem.faketime_sem_", "faketime_shm_"] {
            let _ = fs::remove_file(format!("/dev/shm/{name}{}", self.0.0));
        }
    }
}

/// Behaviour 73: stopped for longer than some timers, not for as long as all.
#[test]
fn b73_stopped_and_continued() {
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        let crowd = Crowd::through(&forwarder, &server, 10);
        let mut busy = Crowd::through(&forwarder, &server, 1);
        let (mut client, mut upstream) = (busy.clients.remove(0), busy.servers.remove(0));
        let turns = forwarder.counters().of("turns");
        forwarder.process().stop();
        let start = Instant::now();
        let sent = upstream.send_until_stuck(Duration::from_millis(300));
        std::thread::sleep(Duration::from_secs(6).saturating_sub(start.elapsed()));
        forwarder.process().signal(Signal::SIGCONT);
        client.expect(sent);
        crowd.ping();
        forwarder.check_quiet();
        let turns = forwarder.counters().of("turns") - turns;
        // A turn for each 64 KiB would be few; a hot loop makes a million.
        assert!(turns < 1_000 + sent / KIB, "{turns} turns");
        assert_eq!(forwarder.sessions().len(), 0, "a timeout fired");
        crowd.finish();
        client.half_close();
        upstream.half_close();
        forwarder.wait_for_sessions(11);
        forwarder.check_idle();
    });
}
