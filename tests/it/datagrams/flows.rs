//! Whose answer is whose, and which server a flow has.

use std::collections::HashSet;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::*;

#[test]
fn b92_none_of_a_thousand_clients_sees_anothers_datagram() {
    on_every_engine(|case| {
        let server = Server::echo();
        let forwarder = forwarder(case, &[server.address()]).start();
        let clients: Vec<UdpSocket> = (0..1000).map(|_| client(forwarder.address())).collect();
        for round in 0..3 {
            for some in clients.chunks(100) {
                for client in some {
                    let own = client.local_addr().unwrap();
                    client.send(format!("{own} {round}").as_bytes()).unwrap();
                }
                for client in some {
                    let own = format!("{} {round}", client.local_addr().unwrap());
                    let got = answer(client).expect("an answer");
                    assert_eq!(String::from_utf8_lossy(&got), own);
                }
            }
        }
        let senders: HashSet<_> = server.senders().into_iter().collect();
        assert_eq!(
            senders.len(),
            1000,
            "each flow has a port of its own, for life"
        );
        assert_eq!(forwarder.counters().of("udp_flows"), 1000);
    });
}

#[test]
fn b92_the_same_client_at_two_listeners_is_two_flows() {
    on_every_engine(|case| {
        let server = Server::echo();
        let servers = format!("udp:{}", server.address());
        let forwarder =
            Setup::between("udp:127.0.0.1:0", &servers).and("udp:127.0.0.2:0", &servers);
        let forwarder = forwarder.engine(case.engine).start();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        for address in forwarder.addresses() {
            client.send_to(address.as_bytes(), address).unwrap();
            let mut buffer = [0; 64];
            let (len, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], from.to_string().as_bytes());
        }
        assert_eq!(forwarder.counters().of("udp_flows"), 2);
    });
}

/// What a flow has moved stands in the books of its forward and its server while it lives, and
/// in the list of sessions; its end adds nothing.
#[test]
fn b142_the_bytes_of_a_flow_are_counted_while_it_lives() {
    on_every_engine(|case| {
        let (server, directory) = (Server::echo(), Directory::new());
        let forwarder = forwarder(case, &[server.address()])
            .admin(&directory)
            .start();
        let admin = Admin::at(&directory.join("admin.sock"));
        let client = client(forwarder.address());
        let moved = |bytes: f64| {
            let metrics = admin.get("/metrics");
            for family in ["forward", "server"] {
                let family = format!("thalweg_{family}_written_bytes_total");
                assert_eq!(metrics.sum(&family).to_bits(), bytes.to_bits(), "{family}");
            }
        };
        for round in 1..=3 {
            client.send(&[b'x'; 1_000]).unwrap();
            assert_eq!(answer(&client).expect("an answer").len(), 1_000);
            moved(f64::from(round) * 2_000.0);
        }
        let page = admin.get("/v1/sessions").json();
        let session = &page["sessions"][0];
        let bytes = |way: &str| session[way]["bytes"].as_u64();
        assert_eq!((bytes("up"), bytes("down")), (Some(3_000), Some(3_000)));
        let body = format!("{{\"ids\":[{}]}}", session["id"]);
        let head = format!(
            "POST /v1/sessions/kill HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        );
        let killed = admin.send(&head, &body);
        assert_eq!(killed.status, 200, "{}", killed.body);
        forwarder.wait_for_sessions(1);
        moved(6_000.0);
    });
}

/// Flows are over long before their answers come, and there are hardly any ports: an answer
/// must find nobody rather than somebody else.
#[test]
fn b92_a_late_answer_reaches_nobody_who_came_after() {
    on_every_engine(|case| {
        let Some(namespace) = Namespace::new() else {
            return;
        };
        namespace.run(|| {
            // The other half is for the clients; ports of the forwarder's own are elsewhere.
            namespace::sysctl("net.ipv4.ip_local_port_range", "20000 20099");
            let late = Late::after(Duration::from_millis(100));
            let forwarder = Setup::between("udp:127.0.0.1:5300", format!("udp:{}", late.address))
                .engine(case.engine)
                .set("defaults.udp_unanswered_timeout", "20ms")
                .set("defaults.udp_idle_timeout", "20ms")
                .set("log.sessions", "off")
                .start();
            let clients: Vec<_> = (0..600)
                .map(|n| {
                    let at = format!("127.0.1.{}:{}", 1 + n % 200, 30_000 + n);
                    let client = UdpSocket::bind(at).unwrap();
                    client.connect(forwarder.address()).unwrap();
                    client.set_nonblocking(true).unwrap();
                    client
                })
                .collect();
            for some in clients.chunks(10) {
                for client in some {
                    let own = client.local_addr().unwrap().to_string();
                    client.send(own.as_bytes()).unwrap();
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            wait_until("every flow is over", PATIENCE, || {
                forwarder.counters().of("udp_live") == 0
            });
            for client in &clients {
                let own = client.local_addr().unwrap().to_string();
                while let Some(got) = answer(client) {
                    assert_eq!(String::from_utf8_lossy(&got), own);
                }
            }
            let counters = forwarder.counters();
            assert!(counters.of("udp_dropped_late") > 50, "none was late");
        });
    });
}

/// Echoes everything after a while.
struct Late {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Late {
    fn after(pause: Duration) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:5400").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .unwrap();
        let address = socket.local_addr().unwrap();
        let (ends, (put, take)) = (Arc::new(AtomicBool::new(false)), std::sync::mpsc::channel());
        let (its, answering) = (ends.clone(), socket.try_clone().unwrap());
        let hears = std::thread::spawn(move || {
            let mut buffer = [0; 100];
            while !its.load(Ordering::Relaxed) {
                if let Ok((len, from)) = socket.recv_from(&mut buffer) {
                    let _ = put.send((Instant::now() + pause, buffer[..len].to_vec(), from));
                }
            }
        });
        let answers = std::thread::spawn(move || {
            for (due, bytes, from) in take {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                let _ = answering.send_to(&bytes, from);
            }
        });
        Self {
            address,
            ends,
            threads: vec![hears, answers],
        }
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[test]
fn b93_a_datagram_that_meets_a_pending_refusal_is_not_lost() {
    on_every_engine(|case| {
        let server = Server::silent();
        let address = server.address();
        let forwarder = forwarder(case, &[address]).start();
        let client = client(forwarder.address());
        client.send(b"heard").unwrap();
        wait_until("the first is heard", PATIENCE, || server.heard() == 1);
        drop(server);
        client.send(b"refused").unwrap();
        wait_for_counter(&forwarder, "udp_refusals", 1);
        let server = Server::at(address, |question| vec![question.to_vec()]);
        assert_eq!(ask(&client, b"after"), b"after");
        assert_eq!(server.heard(), 1);
        let counters = forwarder.counters();
        assert_eq!(counters.of("udp_dropped_refused"), 0);
        assert_eq!((counters.of("udp_flows"), counters.of("udp_moved")), (1, 0));
    });
}

#[test]
fn b93_the_third_refusal_in_a_row_moves_the_flow() {
    on_every_engine(|case| {
        let (first, second) = (Server::silent(), Server::echo());
        let forwarder = forwarder(case, &[first.address(), second.address()]);
        let forwarder = forwarder
            .set("defaults.upstream.balance", "round_robin")
            .start();
        let gone = first.address();
        // Whichever server comes first, one of two clients has the silent one.
        let clients = [client(forwarder.address()), client(forwarder.address())];
        for client in &clients {
            client.send(b"hello").unwrap();
        }
        wait_until("both are heard", PATIENCE, || {
            first.heard() + second.heard() == 2
        });
        assert_eq!(first.heard(), 1);
        drop(first);
        let mut refused = 0;
        wait_until("the flow goes elsewhere", PATIENCE, || {
            for client in &clients {
                client.send(b"again").unwrap();
            }
            std::thread::sleep(Duration::from_millis(20));
            refused += 1;
            forwarder.counters().of("udp_moved") == 1
        });
        assert!(refused >= 2, "one refusal was enough");
        for client in &clients {
            client.set_nonblocking(true).unwrap();
            while answer(client).is_some() {}
            client.set_nonblocking(false).unwrap();
            assert_eq!(ask(client, b"well?"), b"well?", "not {gone}");
        }
    });
}
