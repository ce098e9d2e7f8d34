//! Sends that the kernel refuses: joined ones, and those for which there is no room.

use super::*;
use crate::kit::shortage::Fault;

/// What a silent server got, in order.
fn keeper() -> (Server, Arc<Mutex<Vec<Vec<u8>>>>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let its = kept.clone();
    let server = Server::new(move |datagram| {
        its.lock().unwrap().push(datagram.to_vec());
        Vec::new()
    });
    (server, kept)
}

/// Forty datagrams of 900 bytes and a shorter one, each another.
fn train() -> Vec<u8> {
    (0..41 * 900 - 300)
        .map(|at| (at / 900 * 7 + at % 13) as u8)
        .collect()
}

#[test]
fn b95_datagrams_that_are_refused_together_go_singly_at_once() {
    on_every_engine(|case| {
        // What is told of an earlier datagram is told once: that one is tried twice.
        for (errno, when) in [("EIO", "1"), ("EINVAL", "1"), ("EMSGSIZE", "1..2")] {
            let (server, kept) = keeper();
            let forwarder = forwarder(case, &[server.address()]).start();
            let client = client(forwarder.address());
            client.send(b"begin").unwrap();
            wait_until("the flow is there", PATIENCE, || server.heard() == 1);
            let Some(fault) = Fault::when(forwarder.process(), "sendmmsg", errno, when) else {
                return;
            };
            let train = train();
            send_joined(&client, &train, 900);
            wait_until("all are heard", PATIENCE, || server.heard() == 42);
            // From now on nothing is joined for this flow, so nothing is refused.
            send_joined(&client, &train, 900);
            wait_until("all are heard again", PATIENCE, || server.heard() == 83);
            assert_eq!(fault.injected(), if when == "1" { 1 } else { 2 }, "{errno}");
            drop(fault);
            let kept = kept.lock().unwrap();
            let twice: Vec<&[u8]> = train.chunks(900).chain(train.chunks(900)).collect();
            assert!(kept[1..].iter().map(Vec::as_slice).eq(twice), "{errno}");
            let counters = forwarder.counters();
            assert_eq!(counters.of("udp_sent_up"), 83);
            forwarder.wait_for_line("sent one by one");
            let said = forwarder.lines_with("sent one by one").len();
            assert_eq!(said, 1, "said once");
        }
    });
}

/// No injection: the line takes no segment as long as these.
#[test]
fn b95_segments_above_the_mtu_go_singly_and_in_fragments() {
    on_every_engine(|case| {
        let (Some(near), Some(far)) = (Namespace::new(), Namespace::new()) else {
            return;
        };
        let at_far = far.path();
        near.run(|| {
            namespace::ip(&format!(
                "link add n0 type veth peer name f0 netns {at_far}"
            ));
            namespace::ip("address add 10.1.0.1/24 dev n0");
            namespace::ip("link set n0 mtu 1000 up");
        });
        let server = far.run(|| {
            namespace::ip("address add 10.1.0.2/24 dev f0");
            namespace::ip("link set f0 mtu 1000 up");
            Server::at("10.1.0.2:0".parse().unwrap(), |it| vec![it.to_vec()])
        });
        near.run(|| {
            let forwarder = forwarder(case, &[server.address()]).start();
            let client = client(forwarder.address());
            for _ in 0..2 {
                let train: Vec<u8> = (0..20 * 1400).map(|at| (at / 1400) as u8).collect();
                send_joined(&client, &train, 1400);
                for datagram in train.chunks(1400) {
                    assert_eq!(answer(&client).as_deref(), Some(datagram));
                }
            }
            forwarder.wait_for_line("sent one by one");
            let said = forwarder.lines_with("sent one by one").len();
            assert_eq!(said, 1, "said once");
            assert_eq!(forwarder.counters().of("udp_sent_up"), 40);
        });
    });
}

#[test]
fn b96_a_send_that_finds_no_room_costs_that_datagram_alone() {
    on_every_engine(|case| {
        for (errno, counter) in [("EAGAIN", "send_queue"), ("ENOBUFS", "no_buffers")] {
            let server = Server::silent();
            let forwarder = forwarder(case, &[server.address()]).start();
            let clients: Vec<_> = (0..4).map(|_| client(forwarder.address())).collect();
            let Some(fault) = Fault::when(forwarder.process(), "sendto", errno, "2+2") else {
                return;
            };
            let name = format!("udp_dropped_{counter}");
            // One at a time: none is joined to another.
            for round in 1..=10 {
                for client in &clients {
                    client.send(b"there may be no room for it").unwrap();
                }
                wait_until("all are told of", PATIENCE, || {
                    let counters = forwarder.counters();
                    counters.of("udp_sent_up") + counters.of(&name) == 4 * round
                });
            }
            // Those of the log and of its waker are none of them.
            let dropped = forwarder.counters().of(&name);
            assert!(
                dropped > 10 && dropped <= fault.injected() as u64,
                "{dropped}"
            );
            drop(fault);
            wait_until("the others are heard", PATIENCE, || {
                server.heard() == 40 - dropped
            });
            forwarder.check_quiet();
        }
    });
}

/// A slow line before one server: its queue is full, that of the socket after it. Another
/// server is asked meanwhile.
#[test]
fn b96_a_full_device_is_counted_and_holds_nobody_up() {
    on_every_engine(|case| {
        for (limit, counter) in [("4000", "no_buffers"), ("9000000", "send_queue")] {
            let Some(namespace) = Namespace::new() else {
                return;
            };
            namespace.run(|| {
                namespace::ip("link add d0 type veth peer name d1");
                namespace::ip("address add 10.1.0.1/24 dev d0");
                namespace::ip("link set d0 up");
                namespace::ip("link set d1 up");
                namespace::ip("neighbour add 10.1.0.2 lladdr 02:00:00:00:00:02 dev d0");
                let queue =
                    format!("qdisc add dev d0 root tbf rate 8kbit burst 1600 limit {limit}");
                let words: Vec<&str> = queue.split_whitespace().collect();
                let made = namespace::run("tc", &words);
                assert!(made.is_ok(), "{made:?}");
                let quick = Server::echo();
                let forwarder = Setup::between("udp:127.0.0.1:0", "udp:10.1.0.2:9")
                    .and("udp:127.0.0.1:0", format!("udp:{}", quick.address()))
                    .engine(case.engine)
                    .start();
                let at: Vec<SocketAddr> = forwarder
                    .addresses()
                    .iter()
                    .map(|it| it.parse().unwrap())
                    .collect();
                let (slow, other) = (client(at[0]), client(at[1]));
                for n in 0..400 {
                    // Each longer than the one before it, so that none is joined.
                    slow.send(&vec![1; 600 + n]).unwrap();
                    if n % 20 == 0 {
                        assert_eq!(ask(&other, b"meanwhile"), b"meanwhile");
                    }
                }
                let name = format!("udp_dropped_{counter}");
                wait_until("all are told of", PATIENCE, || {
                    let counters = forwarder.counters();
                    counters.of("udp_sent_up") + counters.of(&name) == 420
                });
                assert!(forwarder.counters().of(&name) > 100);
                forwarder.check_quiet();
            });
        }
    });
}
