//! Servers that do what they like, and clients in storms, beside a forward of an innocent.

use super::*;
use crate::kit::peer::Refusing;

/// What a hostile server does with each connection that comes.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Resets,
    Closes,
    /// Says something nobody asked for, and resets.
    Babbles,
}

/// A server of a deed, until it is dropped.
struct Hostile {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Hostile {
    fn start(deed: Deed) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ends = Arc::new(AtomicBool::new(false));
        let told = ends.clone();
        let work = move || {
            while let Ok((mut client, _)) = listener.accept()
                && !told.load(Ordering::Relaxed)
            {
                if matches!(deed, Deed::Babbles) {
                    let _ = client.write_all(&[0xff; 1000]);
                }
                if !matches!(deed, Deed::Closes) {
                    let _ = Socket::from(client).set_linger(Some(Duration::ZERO));
                }
            }
        };
        Self {
            address,
            ends,
            thread: Some(std::thread::spawn(work)),
        }
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// A server that resets, ends or babbles at whoever comes; its own clients are told, and
/// those of another server notice nothing.
#[test]
fn servers_that_do_what_they_like_hold_up_no_client_of_another() {
    on_every_engine(|case| {
        let echo = Echo::start();
        for deed in [Deed::Resets, Deed::Closes, Deed::Babbles] {
            let hostile = Hostile::start(deed);
            let forwarder = Setup::new(hostile.address)
                .and("127.0.0.1:0", echo.address)
                .case(case)
                .start();
            let innocent: SocketAddr = forwarder.addresses()[1].parse().unwrap();
            let bystander = Bystander::of(innocent);
            for _ in 0..4 {
                let victims: Vec<_> = (0..50)
                    .filter_map(|_| connect_from([0, 66], forwarder.address()).ok())
                    .collect();
                bystander.goes_on();
                bystander.comes_in();
                for mut victim in victims {
                    victim.set_read_timeout(Some(PATIENCE)).unwrap();
                    let mut got = Vec::new();
                    // An end or a reset, as the server had it; never silence.
                    if let Err(error) = victim.read_to_end(&mut got) {
                        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{deed:?}");
                    }
                    assert!(got.iter().all(|byte| *byte == 0xff), "{deed:?}");
                }
            }
            drop(bystander);
            forwarder.check_idle();
        }
    });
}

/// Forwards that lead back to each other: one connection is no crowd, and whoever uses
/// another forward notices nothing (b28 has the rest).
#[test]
fn a_ring_of_forwards_holds_up_nobody() {
    on_every_engine(|case| {
        let echo = Echo::start();
        // They hold the ports until the forwarder listens there, too.
        let held = [Refusing::new(), Refusing::new()];
        let [one, two] = held.each_ref().map(Refusing::address);
        let forwarder = Setup::between(one, two)
            .and(two, one)
            .and("127.0.0.1:0", echo.address)
            .case(case)
            .start();
        drop(held);
        let innocent: SocketAddr = forwarder.addresses()[2].parse().unwrap();
        let bystander = Bystander::of(innocent);
        let before = forwarder.counters().of("accepted");
        for _ in 0..5 {
            for _ in 0..10 {
                if let Ok(mut stream) = connect_from([0, 66], one) {
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    let _ = stream.read(&mut [0]);
                }
            }
            bystander.goes_on();
            bystander.comes_in();
        }
        let accepted = forwarder.counters().of("accepted") - before;
        assert!(accepted < 200, "50 connections became {accepted}");
        drop(bystander);
        forwarder.check_idle();
    });
}

/// Connections that are reset as soon as they stand, by the thousand.
#[test]
fn a_storm_of_connections_that_are_reset_holds_up_nobody() {
    on_every_engine(|case| {
        let echo = Echo::start();
        let forwarder = Setup::new(echo.address).case(case).start();
        let to = forwarder.address();
        let bystander = Bystander::of(to);
        for _ in 0..5 {
            for _ in 0..200 {
                if let Ok(stream) = connect_from([0, 66], to) {
                    let _ = Socket::from(stream).set_linger(Some(Duration::ZERO));
                }
            }
            bystander.goes_on();
            bystander.comes_in();
        }
        drop(bystander);
        forwarder.check_idle();
        // That all sockets are closed does not say that every record is written, nor that it
        // has been read here; and of a storm some may be lost, which is counted.
        let records = || {
            let counters = forwarder.counters();
            let sessions = forwarder.sessions();
            let told = sessions.len() as u64 + counters.of("log_dropped");
            (told >= counters.of("accepted")).then_some((sessions, counters.of("log_dropped")))
        };
        let (sessions, lost) = poll(PATIENCE, records).expect("records are missing");
        // The bystander's connections have a byte each, the one that it kept has more.
        let moved = |it: &&Record| it.bytes() != (0, 0) && it.bytes() != (1, 1);
        let kept = sessions.iter().filter(moved).count() as u64;
        assert!(
            (1 - lost.min(1)..=1).contains(&kept),
            "{kept} have bytes that nobody sent"
        );
    });
}
