//! A tunnel as WireGuard's: both ends send when they like, keep the way open with small
//! datagrams, fill a line of 1,500 bytes with an inner MTU of 1,420, and answer to wherever the
//! other end was heard from last, which moves.

use std::time::Instant;

use super::*;

/// Bytes of what the ends say: who begins, who answers that, one with an inner packet of 1,420
/// bytes, one with none.
const INITIATION: usize = 148;
const RESPONSE: usize = 92;
const DATA: usize = 1420 + 32;
const KEEPALIVE: usize = 32;

const IDLE: Duration = Duration::from_secs(1);

/// A client's network with two addresses, a forwarder's and a server's.
struct Line {
    near: Namespace,
    middle: Namespace,
    far: Namespace,
}

impl Line {
    fn new() -> Option<Self> {
        let (near, middle, far) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        let (at_near, at_far) = (near.path(), far.path());
        middle.run(|| {
            for (mine, theirs, netns, address) in [
                ("m0", "n0", &at_near, "10.1.0.2/24"),
                ("m1", "f0", &at_far, "10.2.0.1/24"),
            ] {
                namespace::ip(&format!(
                    "link add {mine} type veth peer name {theirs} netns {netns}"
                ));
                namespace::ip(&format!("address add {address} dev {mine}"));
                namespace::ip(&format!("link set {mine} up"));
            }
        });
        near.run(|| {
            namespace::ip("address add 10.1.0.1/24 dev n0");
            namespace::ip("address add 10.1.0.3/24 dev n0");
            namespace::ip("link set n0 up");
        });
        far.run(|| {
            namespace::ip("address add 10.2.0.2/24 dev f0");
            namespace::ip("link set f0 up");
        });
        Some(Self { near, middle, far })
    }
}

/// One end.
struct Peer {
    socket: UdpSocket,
    /// Where the other one was heard from last.
    other: SocketAddr,
    sent: u64,
    heard: u64,
}

impl Peer {
    fn at(namespace: &Namespace, address: &str, other: SocketAddr) -> Self {
        let socket = namespace.run(|| UdpSocket::bind(address).unwrap());
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            socket,
            other,
            sent: 0,
            heard: 0,
        }
    }

    fn say(&mut self, len: usize) {
        let mut datagram = vec![len as u8; len];
        datagram[..8].copy_from_slice(&self.sent.to_be_bytes());
        self.sent += 1;
        assert_eq!(self.socket.send_to(&datagram, self.other).unwrap(), len);
    }

    /// Takes all that the other end has sent and that was not heard so far: each once, of that
    /// length. Packets of a line may overtake each other.
    #[track_caller]
    fn hear_all(&mut self, other: &Self, len: usize) {
        let mut numbers: Vec<u64> = (self.heard..other.sent).map(|_| self.hear(len)).collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(self.heard..other.sent));
        self.heard = other.sent;
    }

    #[track_caller]
    fn hear(&mut self, len: usize) -> u64 {
        let mut room = [0; 2048];
        let (came, from) = self.socket.recv_from(&mut room).expect("a datagram");
        assert_eq!(came, len);
        assert!(room[8..len].iter().all(|it| *it == len as u8));
        self.other = from;
        u64::from_be_bytes(room[..8].try_into().unwrap())
    }
}

/// Both send at the same time, without being asked.
#[track_caller]
fn both_send(a: &mut Peer, b: &mut Peer, len: usize) {
    for _ in 0..10 {
        for _ in 0..16 {
            a.say(len);
            b.say(len);
        }
        a.hear_all(b, len);
        b.hear_all(a, len);
    }
}

/// Each says a little in each tenth of the time that a flow may be silent, for longer than
/// that; whether it was so on this machine.
#[track_caller]
fn keep_open(a: &mut Peer, b: &mut Peer) -> bool {
    let begun = Instant::now();
    let mut last = begun;
    let mut in_time = true;
    while begun.elapsed() < IDLE + IDLE / 4 {
        std::thread::sleep(IDLE / 10);
        b.say(KEEPALIVE);
        a.hear_all(b, KEEPALIVE);
        in_time &= last.elapsed() < IDLE / 2;
        last = Instant::now();
    }
    in_time
}

#[test]
fn a_tunnel_goes_both_ways_is_kept_open_and_follows_a_client_that_moves() {
    on_every_engine(|case| {
        let Some(line) = Line::new() else { return };
        let forwarder = line.middle.run(|| {
            Setup::between("udp:0.0.0.0:51820", "udp:10.2.0.2:51820")
                .engine(case.engine)
                .set(
                    "defaults.udp_idle_timeout",
                    format!("{}ms", IDLE.as_millis()),
                )
                .start()
        });
        let through = "10.1.0.2:51820".parse().unwrap();
        let nowhere = "10.2.0.1:9".parse().unwrap();
        let mut server = Peer::at(&line.far, "10.2.0.2:51820", nowhere);
        let mut client = Peer::at(&line.near, "10.1.0.1:51820", through);
        client.say(INITIATION);
        server.hear_all(&client, INITIATION);
        server.say(RESPONSE);
        client.hear_all(&server, RESPONSE);
        assert_eq!(client.other, through, "the answer comes from elsewhere");
        both_send(&mut client, &mut server, DATA);
        assert!((0..20).any(|_| {
            let flows = forwarder.counters().of("udp_flows");
            let in_time = keep_open(&mut server, &mut client);
            // Both have it still, and the server may send again.
            both_send(&mut server, &mut client, DATA);
            let kept = forwarder.counters().of("udp_flows") == flows;
            assert!(kept || !in_time, "the flow has ended between");
            in_time
        }));
        let (before, known) = (server.other, forwarder.counters().of("udp_flows"));
        // From another address: the server hears it from another one, and so does the client.
        let moved = Peer::at(&line.near, "10.1.0.3:40000", through);
        client.socket = moved.socket;
        client.say(DATA);
        server.hear_all(&client, DATA);
        assert_ne!(server.other, before);
        both_send(&mut server, &mut client, DATA);
        assert_eq!(client.other, through);
        let counters = forwarder.counters();
        assert_eq!(counters.of("udp_flows"), known + 1);
        for way in ["up", "down"] {
            let of = |name: &str| counters.of(&format!("udp_{name}_{way}"));
            assert_eq!(of("received"), of("sent"), "{way}");
        }
    });
}
