//! Descriptors and memory that hostile clients use up.

use super::*;
use crate::kit::shortage::limit_descriptors;

/// Descriptors are few, and one address connects without an end.
#[test]
fn descriptors_that_one_address_takes_are_not_all() {
    on_every_engine(|case| {
        let echo = Echo::start();
        let forwarder = Setup::new(echo.address).case(case).start();
        let to = forwarder.address();
        let bystander = Bystander::of(to);
        limit_descriptors(forwarder.process(), 300);
        let mut attackers = Vec::new();
        for _ in 0..4 {
            attackers.extend((0..150).filter_map(|_| connect_from([0, 66], to).ok()));
            bystander.goes_on();
            bystander.comes_in();
        }
        let counters = forwarder.counters();
        assert!(counters.of("denied_share") > 0);
        assert!(counters.of("live") > 80, "{}", counters.of("live"));
        drop((attackers, bystander));
        forwarder.check_idle();
    });
}

/// Readers that take nothing, of far more than may be held: memory is bounded, and whoever
/// keeps up goes on.
#[test]
fn readers_that_stall_bound_their_memory_and_hold_up_nobody() {
    const READERS: usize = 60;
    const LIMIT: u64 = 4 * MIB;
    on_every_engine(|case| {
        let (echo, origin) = (Echo::start(), Listener::new());
        let forwarder = Setup::new(origin.address())
            .and("127.0.0.1:0", echo.address)
            .case(case)
            .set("global.buffer_limit", LIMIT)
            .set("profile.default.receive_buffer", "256KiB")
            .set("profile.default.send_buffer", "64KiB")
            .start();
        let innocent: SocketAddr = forwarder.addresses()[1].parse().unwrap();
        let bystander = Bystander::of(innocent);
        let before = forwarder.process().memory().anonymous;
        let mut stalled = Vec::new();
        for _ in 0..READERS {
            let reader = Peer::connect_small(forwarder.address(), 4096);
            let mut server = origin.accept();
            server.send_until_stuck(Duration::from_millis(20));
            stalled.push((reader, server));
        }
        for _ in 0..3 {
            bystander.goes_on();
            bystander.comes_in();
        }
        let held = forwarder.counters().of("held_bytes");
        // One may have filled a pipe as it was reached, and each that stalls from then on
        // adds a chunk (ARCHITECTURE.md). Without a limit these hold several times that.
        let most = LIMIT + 2 * MIB + READERS as u64 * 16 * KIB;
        assert!(held <= most, "{held} bytes are held");
        let grown = forwarder
            .process()
            .memory()
            .anonymous
            .saturating_sub(before);
        assert!(grown <= most + 16 * MIB, "{grown} bytes of memory");
        drop((stalled, bystander));
        forwarder.check_idle();
    });
}

/// A client that takes nothing of what it is sent, and its server.
fn stalled(from: [u8; 2], forwarder: &Forwarder, origin: &Listener) -> (TcpStream, Peer) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let [third, fourth] = from;
    let address = SocketAddr::new(Ipv4Addr::new(127, 0, third, fourth).into(), 0);
    socket.bind(&address.into()).unwrap();
    socket.connect(&forwarder.address().into()).unwrap();
    let mut server = origin.accept();
    server.send_until_stuck(Duration::from_millis(20));
    (socket.into(), server)
}

/// One address has so many readers that stall that it holds its share, and no more; for
/// somebody else as much is held as if nobody did.
#[test]
fn whoever_holds_most_for_slow_readers_gives_first() {
    const LIMIT: u64 = 2 * MIB;
    on_every_engine(|case| {
        let origin = Listener::new();
        let forwarder = Setup::new(origin.address())
            .case(case)
            .set("global.buffer_limit", LIMIT)
            .set("profile.default.receive_buffer", "256KiB")
            .set("profile.default.send_buffer", "64KiB")
            .start();
        let attackers: Vec<_> = (0..40)
            .map(|_| stalled([0, 66], &forwarder, &origin))
            .collect();
        let held = || forwarder.counters().of("held_bytes");
        let before = held();
        assert!(before > LIMIT / 3, "{before} bytes are held");
        assert!(
            before < 3 * LIMIT / 4,
            "{before} bytes are held for one address"
        );
        let other = stalled([0, 1], &forwarder, &origin);
        let more = held().saturating_sub(before);
        // Of one that may not hold it, 4 KiB would be.
        assert!(more >= 32 * KIB, "{more} bytes are held for another");
        drop((attackers, other));
        forwarder.check_idle();
    });
}
