//! Listeners that outlive a process that was killed (160): passed by a socket unit, or
//! kept by the service manager.

use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::activation::server;
use super::manager::Manager;
use crate::kit::*;

/// Clients that come all the time, each of whom wants one byte.
struct Load {
    over: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    /// When those that failed began, and what failed.
    failed: Arc<Mutex<Vec<(Instant, std::io::Error)>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(address: SocketAddr) -> Self {
        let mut load = Self {
            over: Arc::default(),
            served: Arc::default(),
            failed: Arc::default(),
            threads: Vec::new(),
        };
        for _ in 0..4 {
            let (over, served) = (load.over.clone(), load.served.clone());
            let failed = load.failed.clone();
            load.threads.push(std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    match exchange(address) {
                        Ok(()) => drop(served.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failed.lock().unwrap().push((began, error)),
                    }
                    // 500 a second of all four.
                    let rest = Duration::from_millis(8).saturating_sub(began.elapsed());
                    std::thread::sleep(rest);
                }
            }));
        }
        load
    }

    #[track_caller]
    fn wait_for(&self, served: usize) {
        let more = self.served.load(Ordering::Relaxed) + served;
        wait_until("clients are served", PATIENCE, || {
            self.served.load(Ordering::Relaxed) >= more
        });
    }

    /// Those that failed though they came after `killed`.
    fn end(self) -> Vec<(Instant, std::io::Error)> {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        std::mem::take(&mut *self.failed.lock().unwrap())
    }
}

fn exchange(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read_exact(&mut [0])
}

/// Nobody is refused, nor lost, but who had a session, or was about to, when it was killed.
#[track_caller]
fn check(failed: &[(Instant, std::io::Error)], kills: &[(Instant, Instant)]) {
    for (began, error) in failed {
        assert_ne!(error.kind(), std::io::ErrorKind::ConnectionRefused);
        let had_a_session = |(before, after): &(Instant, Instant)| {
            began <= after && *began + Duration::from_millis(200) >= *before
        };
        assert!(kills.iter().any(had_a_session), "{error}");
    }
    assert!(failed.len() <= kills.len() * 4, "{failed:?}");
}

#[test]
fn b160_a_passed_socket_loses_no_connect_over_a_kill() {
    on_every_engine(|case| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket: Arc<OwnedFd> = Arc::new(listener.into());
        let server = server(1);
        let setup = Setup::between("systemd:web", server).reactors(2).case(case);
        let setup = setup.passing("web", &socket);
        let mut forwarder = setup.start();
        let load = Load::on(address);
        let mut kills = Vec::new();
        for _ in 0..3 {
            load.wait_for(50);
            let before = Instant::now();
            forwarder.process().signal(Signal::SIGKILL);
            forwarder.wait_for_exit(PATIENCE).unwrap();
            kills.push((before, Instant::now()));
            // RestartSec=100ms.
            std::thread::sleep(Duration::from_millis(100));
            forwarder = setup.start();
        }
        load.wait_for(50);
        check(&load.end(), &kills);
    });
}

#[test]
fn b160_what_the_manager_keeps_loses_no_connect_over_a_kill() {
    on_every_engine(|case| {
        let manager = Manager::new();
        let server = server(1);
        let setup = manager.of(Setup::new(&server).reactors(2).case(case));
        let mut forwarder = setup.clone().env("FDSTORE", 16).start();
        let address = forwarder.address();
        manager.wait_for("READY=1", 1);
        let load = Load::on(address);
        let mut kills = Vec::new();
        for _ in 0..3 {
            load.wait_for(50);
            let kept = manager.kept();
            assert_eq!(kept.len(), 2, "one for each reactor: {kept:?}");
            let before = Instant::now();
            forwarder.process().signal(Signal::SIGKILL);
            forwarder.wait_for_exit(PATIENCE).unwrap();
            kills.push((before, Instant::now()));
            std::thread::sleep(Duration::from_millis(100));
            let mut again = setup.clone().env("FDSTORE", 16);
            for (name, socket) in &kept {
                again = again.passing(name, socket);
            }
            forwarder = again.start();
            assert_eq!(forwarder.address(), address);
        }
        load.wait_for(50);
        check(&load.end(), &kills);
        // Once it is told to end nobody keeps anything: who comes is refused, and does not
        // wait for nobody.
        forwarder.process().signal(Signal::SIGTERM);
        forwarder.wait_for_exit(PATIENCE).unwrap();
        assert_eq!(manager.kept().len(), 0);
        assert!(TcpStream::connect(address).is_err());
    });
}

#[test]
fn b160_a_kept_port_of_datagrams_keeps_its_queue() {
    on_every_engine(|case| {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let to = server.local_addr().unwrap();
        let manager = Manager::new();
        let setup = Setup::between("udp:127.0.0.1:0", format!("udp:{to}"));
        let setup = manager.of(setup.reactors(2).engine(case.engine));
        let mut forwarder = setup.clone().env("FDSTORE", 16).start();
        let address = forwarder.address();
        let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(address).unwrap();
        client.send(b"before").unwrap();
        let mut buffer = [0; 64];
        assert_eq!(server.recv(&mut buffer).unwrap(), 6);
        manager.wait_for("READY=1", 1);
        let kept = manager.kept();
        assert_eq!(kept.len(), 2, "one for each reactor: {kept:?}");
        forwarder.process().signal(Signal::SIGKILL);
        forwarder.wait_for_exit(PATIENCE).unwrap();
        // Nobody is there, and nobody is told so.
        for number in 0..20 {
            client.send(format!("{number}").as_bytes()).unwrap();
        }
        let mut again = setup.clone().env("FDSTORE", 16);
        for (name, socket) in &kept {
            again = again.passing(name, socket);
        }
        let forwarder = again.start();
        assert_eq!(forwarder.address(), address);
        for number in 0..20 {
            let len = server.recv(&mut buffer).expect("it waited in the queue");
            assert_eq!(buffer[..len], *format!("{number}").as_bytes());
        }
    });
}

#[test]
fn b160_what_a_reload_closes_is_kept_no_more() {
    let (manager, directory) = (Manager::new(), directory::Directory::new());
    let file = directory.join("thalweg.toml");
    let forward = |name: &str| {
        format!(
            "[[forward]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:9\"\n"
        )
    };
    std::fs::write(&file, forward("a") + &forward("b")).unwrap();
    let setup = manager.of(Setup::configured(&file, 2)).env("FDSTORE", 16);
    let forwarder = setup.start();
    wait_until("both are kept", PATIENCE, || manager.kept().len() == 2);
    std::fs::write(&file, forward("b") + &forward("c")).unwrap();
    forwarder.process().signal(Signal::SIGHUP);
    forwarder.wait_for_line("reloaded");
    wait_until("a is kept no more", PATIENCE, || {
        let names: Vec<String> = manager.kept().into_iter().map(|(name, _)| name).collect();
        let of = |forward: &str| names.iter().any(|it| it.ends_with(&format!(",{forward}")));
        names.len() == 2 && of("b") && of("c") && !of("a")
    });
}

#[test]
fn b160_what_a_killed_process_kept_and_the_next_has_no_use_for_is_closed() {
    on_every_engine(|case| {
        let (manager, directory) = (Manager::new(), directory::Directory::new());
        let server = server(1);
        let file = directory.join("thalweg.toml");
        let forward = |name: &str| {
            format!(
                "[[forward]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{server}\"\n"
            )
        };
        std::fs::write(&file, forward("a") + &forward("b")).unwrap();
        let setup = |forwards| {
            let setup = Setup::configured(&file, forwards).engine(case.engine);
            manager.of(setup).env("FDSTORE", 16)
        };
        let mut forwarder = setup(2).start();
        let addresses = forwarder.addresses().to_vec();
        let stays: SocketAddr = addresses[1].parse().unwrap();
        wait_until("both are kept", PATIENCE, || manager.kept().len() == 2);
        forwarder.process().signal(Signal::SIGKILL);
        forwarder.wait_for_exit(PATIENCE).unwrap();
        std::fs::write(&file, forward("b")).unwrap();
        let mut again = setup(1);
        let mut gone = Vec::new();
        for (name, socket) in manager.kept() {
            if name.ends_with(",a") {
                let own = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd()));
                gone.push(own.unwrap().to_string_lossy().into_owned());
            }
            again = again.passing(&name, &socket);
        }
        let forwarder = again.start();
        wait_until("a is kept no more", PATIENCE, || {
            let kept = manager.kept();
            kept.len() == 1 && kept[0].0.ends_with(",b")
        });
        assert_eq!(forwarder.address(), stays);
        exchange(stays).unwrap();
        // What this test has a copy of still listens; the process has let go of it.
        let mut open = forwarder.process().descriptor_targets().into_iter();
        assert_eq!(gone.len(), 1);
        assert!(open.all(|(_, target)| target != gone[0]), "{gone:?}");
    });
}
