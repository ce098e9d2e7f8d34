//! Listening sockets in the next process: behaviours 125 and 136.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::time::Duration;

use super::kit::*;
use crate::kit::process::Process;
use crate::kit::*;
use crate::reloading::kit::{Echo, Load};

/// Behaviour 125: the kernel's own name of a socket stays, and nobody who connects meanwhile
/// notices anything.
#[test]
fn b125_ten_upgrades_under_load_refuse_and_reset_nobody() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let setup = Setup::new(server.address).case(case).reactors(2);
        let it = Upgradable::start(setup.set("log.sessions", "off"));
        let address = it.forwarder.address();
        let sockets = listening_on(address.port());
        assert_eq!(sockets.len(), 2);
        let load = Load::begin(&[address], 4);
        let mut before = it.serving();
        for _ in 0..10 {
            std::thread::sleep(Duration::from_millis(50));
            let now = it.upgrade();
            assert_eq!(listening_on(address.port()), sockets);
            assert!(sockets.is_subset(&sockets_of(now)));
            is_gone(before);
            before = now;
        }
        load.end();
        it.goes_on(before);
    });
}

/// Behaviour 125: who waits in the queue is served by the next process.
#[test]
fn b125_whoever_is_not_accepted_yet_is_served_by_the_next_process() {
    on_every_engine(|case| {
        let server = Listener::new();
        let full = Setup::new(server.address()).case(case);
        let it = Upgradable::start(full.set("global.max_connections", 1));
        let first = it.forwarder.connect();
        let mut first_end = server.accept();
        // It is connected, and nobody has accepted it.
        let mut second = it.forwarder.connect();
        second.send(1000);
        let old = it.serving();
        it.upgrade();
        is_gone(old);
        // The first one counts in the next process as well, until it ends.
        first_end.send(10);
        let mut first = first;
        first.expect(10);
        first.close();
        first_end.receive_until_end();
        first_end.close();
        let mut second_end = server.accept();
        second_end.expect(1000);
        second_end.send(50);
        second.expect(50);
    });
}

/// Behaviour 135: another number of reactors, more and fewer.
#[test]
fn b135_the_next_process_may_have_more_reactors_or_fewer() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let directory = directory::Directory::new();
        let file = directory.join("thalweg.toml");
        let forward = forward("a", server.address);
        let text = |reactors| format!("[global]\nreactors = {reactors}\n{forward}");
        std::fs::write(&file, text(2)).unwrap();
        let setup = Setup::configured(&file, 1).engine(case.engine);
        let it = Upgradable::start_in(setup.reactors_by_file(), directory);
        let port = it.forwarder.address().port();
        let sockets = listening_on(port);
        let mut held: Vec<Held> = (0..60)
            .map(|_| Held::open(it.forwarder.address()))
            .collect();
        for reactors in [3, 1, 2] {
            std::fs::write(&file, text(reactors)).unwrap();
            let load = Load::begin(&[it.forwarder.address()], 2);
            std::thread::sleep(Duration::from_millis(30));
            let process = it.upgrade();
            std::thread::sleep(Duration::from_millis(30));
            load.end();
            assert!(sockets.is_subset(&listening_on(port)), "none was closed");
            let threads = process.threads();
            let found = threads.iter().filter(|it| it.starts_with("reactor-"));
            assert_eq!(found.count(), reactors, "{threads:?}");
            held.iter_mut().for_each(Held::ping);
            let even = held.len() as f64 / reactors as f64;
            // A few of the load may be there still.
            let fits = 0.9 * even - 1.0..=1.1 * even + 1.0;
            wait_until("each reactor has its share", PATIENCE, || {
                let metrics = it.admin().get("/metrics");
                (0..reactors).all(|reactor| {
                    let series = format!("thalweg_live_sessions{{reactor=\"{reactor}\"}}");
                    metrics.sample(&series).is_some_and(|it| fits.contains(&it))
                })
            });
        }
    });
}

/// Behaviour 135: a forward that the next configuration does not have. Whoever waits there
/// is served to the end by the process that knows it.
#[test]
fn b135_a_forward_that_is_gone_ends_with_the_former_process() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let directory = directory::Directory::new();
        let file = directory.join("thalweg.toml");
        let forward = |name| forward(name, server.address);
        std::fs::write(&file, forward("a") + &forward("b")).unwrap();
        let setup = Setup::configured(&file, 2).engine(case.engine);
        let it = Upgradable::start_in(setup, directory);
        let gone = it.forwarder.addresses()[1].parse().unwrap();
        let mut held = Held::open(gone);
        let old = it.serving();
        std::fs::write(&file, forward("a")).unwrap();
        it.upgrade();
        held.ping();
        wait_until("nobody listens", PATIENCE, || {
            std::net::TcpStream::connect(gone).is_err()
        });
        drop(held);
        is_gone(old);
        it.exchange();
    });
}

/// Behaviour 136: of this user alone; what is received is not passed on to children.
#[test]
fn b136_the_socket_is_private_and_descriptors_close_on_exec() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let it = Upgradable::start(Setup::new(server.address).case(case));
        let before = inheritable(it.serving());
        for _ in 0..2 {
            let found = std::fs::metadata(it.entrance()).unwrap();
            assert!(found.file_type().is_socket());
            assert_eq!(found.mode() & 0o777, 0o600);
            let process = it.upgrade();
            // What the test's own parents left open.
            let mut inherited = inheritable(process);
            inherited.retain(|it| !before.contains(it));
            assert!(inherited.is_empty(), "{inherited:?}");
        }
    });
}

/// Descriptors without `FD_CLOEXEC`, but for the standard streams.
fn inheritable(process: Process) -> Vec<(u32, String)> {
    let closes = |number: u32| {
        let path = format!("/proc/{}/fdinfo/{number}", process.0);
        let info = std::fs::read_to_string(path).unwrap_or_default();
        let flags = info.lines().find_map(|it| it.strip_prefix("flags:"));
        let flags = flags.and_then(|it| u32::from_str_radix(it.trim(), 8).ok());
        flags.is_none_or(|it| it & libc::O_CLOEXEC as u32 != 0)
    };
    let mut targets = process.descriptor_targets();
    targets.retain(|(number, _)| *number > 2 && !closes(*number));
    targets
}
