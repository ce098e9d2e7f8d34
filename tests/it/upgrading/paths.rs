//! Names in the file system: unix listeners, the binary, the log: behaviour 137.

use std::io::{Read as _, Write as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixStream};

use super::kit::*;
use crate::kit::*;
use crate::reloading::kit::Echo;

fn hello(mut stream: UnixStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"x").unwrap();
    let mut answer = [0; 2];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"ax");
}

/// Behaviour 137: the former process ends, and its paths stay; with the last one they go.
#[test]
fn b137_paths_of_unix_listeners_stay_and_go_with_the_last_process() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let directory = directory::Directory::new();
        let path = directory.join("listener.sock");
        let name = format!("thalweg-upgrade-{}-{}", std::process::id(), case.engine);
        let setup = Setup::new(server.address)
            .and(format!("unix:{}", path.display()), server.address)
            .and(format!("unix:@{name}"), server.address)
            .case(case)
            .reactors(2);
        let it = Upgradable::start_in(setup, directory);
        let inode = |path: &std::path::Path| std::fs::metadata(path).unwrap().ino();
        let paths = [path, it.entrance(), it.directory.join("admin.sock")];
        let before = paths.each_ref().map(|it| inode(it));
        let mut process = it.serving();
        for _ in 0..3 {
            let next = it.upgrade();
            is_gone(process);
            process = next;
            assert_eq!(paths.each_ref().map(|it| inode(it)), before);
            hello(UnixStream::connect(&paths[0]).unwrap());
            let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
            hello(UnixStream::connect_addr(&address).unwrap());
        }
        // A new process that fails takes nothing with it.
        let answer = it.ask(r#"{"binary":"/bin/false"}"#);
        assert_eq!(answer.status, 503);
        hello(UnixStream::connect(&paths[0]).unwrap());
        process.signal(nix::sys::signal::Signal::SIGTERM);
        is_gone(process);
        for path in &paths {
            assert!(!path.exists(), "{}", path.display());
        }
    });
}

/// Behaviour 137: the binary was replaced, deleted, or is another one.
#[test]
fn b137_the_path_is_started_whatever_is_there_now() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let directory = directory::Directory::new();
        let (binary, other) = (directory.join("thalweg"), directory.join("other"));
        let copy = |to: &std::path::Path| {
            let new = to.with_extension("new");
            std::fs::hard_link(env!("CARGO_BIN_EXE_thalweg"), &new)
                .or_else(|_| std::fs::copy(env!("CARGO_BIN_EXE_thalweg"), &new).map(drop))
                .unwrap();
            std::fs::rename(&new, to).unwrap();
        };
        copy(&binary);
        let setup = Setup::new(server.address).case(case).binary(binary.clone());
        let it = Upgradable::start_in(setup, directory);
        let old = it.serving();
        std::fs::remove_file(&binary).unwrap();
        let answer = it.ask("{}");
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert!(answer.body.contains("No such file"), "{}", answer.body);
        it.goes_on(old);
        copy(&other);
        let said = it.ctl(&["upgrade", "--binary", other.to_str().unwrap()]);
        assert!(said.status.success(), "{said:?}");
        is_gone(old);
        let second = it.serving();
        // It goes by the path that it was started from itself.
        let answer = it.ask("{}");
        assert_eq!(answer.status, 200, "{}", answer.body);
        is_gone(second);
        let third = it.serving();
        copy(&binary);
        third.signal(nix::sys::signal::Signal::SIGUSR2);
        is_gone(third);
        it.exchange();
    });
}

/// Started by hand, at the socket and where it is found.
#[test]
fn b137_a_process_that_is_started_by_hand_takes_over() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let directory = directory::Directory::new();
        let setup = Setup::new(server.address).case(case).admin(&directory);
        let it = Upgradable::start_in(setup.clone(), directory);
        let address = it.forwarder.address();
        for flag in [
            "--take-over".to_owned(),
            format!("--take-over={}", it.entrance().display()),
        ] {
            let old = it.serving();
            let next = setup.clone().argument(flag).start();
            assert_eq!(next.address(), address);
            is_gone(old);
            assert_eq!(it.serving(), next.process());
            it.exchange();
            std::mem::forget(next);
        }
        let refused = setup
            .clone()
            .argument("--take-over=/nonexistent/upgrade.sock")
            .try_start()
            .unwrap_err();
        assert!(refused.contains("cannot take over"), "{refused}");
        it.exchange();
    });
}
