//! Flows of datagrams in the next process: behaviour 133.

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::kit::*;
use crate::kit::*;

/// Sends back what it gets, and notes from whom.
struct Echoes {
    address: SocketAddr,
    from: Arc<Mutex<HashSet<SocketAddr>>>,
    ends: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Echoes {
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket2::SockRef::from(&socket)
            .set_recv_buffer_size(4 << 20)
            .unwrap();
        let look = Duration::from_millis(20);
        socket.set_read_timeout(Some(look)).unwrap();
        let address = socket.local_addr().unwrap();
        let (from, ends) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (known, ending) = (Arc::<Mutex<HashSet<_>>>::clone(&from), ends.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !ending.load(Ordering::Relaxed) {
                if let Ok((len, client)) = socket.recv_from(&mut buffer) {
                    known.lock().unwrap().insert(client);
                    let _ = socket.send_to(&buffer[..len], client);
                }
            }
        });
        Self {
            address,
            from,
            ends,
            thread: Some(thread),
        }
    }

    fn ports(&self) -> HashSet<SocketAddr> {
        self.from.lock().unwrap().clone()
    }
}

impl Drop for Echoes {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn client(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn ping_all(clients: &[UdpSocket], number: u32) {
    for client in clients {
        ping(client, number);
    }
}

/// One to and fro. Whatever is lost on the way is missed here.
#[track_caller]
fn ping(client: &UdpSocket, number: u32) {
    let question = format!("{:?} {number}", client.local_addr());
    client.send(question.as_bytes()).unwrap();
    let mut buffer = [0; 256];
    let len = client.recv(&mut buffer).expect("no datagram is lost");
    assert_eq!(String::from_utf8_lossy(&buffer[..len]), question);
}

fn forwarder(case: Case, server: SocketAddr) -> Upgradable {
    let setup = Setup::between("udp:127.0.0.1:0", format!("udp:{server}"));
    Upgradable::start(setup.engine(case.engine).reactors(2))
}

/// Behaviour 133: a thousand flows, some of them talking all the while.
#[test]
fn b133_a_thousand_flows_keep_their_ports_and_lose_no_datagram() {
    on_every_engine(|case| {
        const FLOWS: usize = 1000;
        let server = Echoes::start();
        let it = forwarder(case, server.address);
        let to = it.forwarder.address();
        let clients: Vec<UdpSocket> = (0..FLOWS).map(|_| client(to)).collect();
        ping_all(&clients, 0);
        let ports = server.ports();
        assert_eq!(ports.len(), FLOWS);
        let ends = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for some in clients[..40].chunks(20) {
                let ends = &ends;
                scope.spawn(move || {
                    let mut number = 1;
                    while !ends.load(Ordering::Relaxed) {
                        ping_all(some, number);
                        number += 1;
                    }
                });
            }
            let mut process = it.serving();
            for number in 1..=3 {
                let next = it.upgrade();
                is_gone(process);
                process = next;
                ping_all(&clients[40..], number);
            }
            ends.store(true, Ordering::Relaxed);
        });
        assert_eq!(server.ports(), ports, "each flow has its port still");
        let metrics = it.admin().get("/metrics");
        assert_eq!(
            metrics.sum("thalweg_udp_flows_total") as usize,
            FLOWS,
            "b132"
        );
        assert_eq!(metrics.sum("thalweg_udp_live_flows") as usize, FLOWS);
        let dropped = metrics.sum("thalweg_udp_dropped_total");
        assert!(dropped == 0.0, "{dropped}");
    });
}

/// Behaviour 133: what waits in the sockets' queues while nobody reads them.
#[test]
fn b133_what_waits_in_the_queues_is_answered_by_the_next_process() {
    on_every_engine(|case| {
        let server = Echoes::start();
        let it = forwarder(case, server.address);
        let client = client(it.forwarder.address());
        ping(&client, 0);
        let before = server.ports();
        // One who takes over, and holds everything up: nobody reads meanwhile.
        let mut hello = super::fake::hello();
        hello["features"] = serde_json::json!(["tables", "sessions", "flows"]);
        let fake = super::fake::Fake::new_process(&it.entrance());
        let labels = fake.prepare_as(&hello);
        fake.say(&serde_json::json!({ "kind": "ready", "taken": labels }));
        let heard = fake.hear("flows");
        assert_eq!(heard.message["manifests"].as_array().unwrap().len(), 1);
        for number in 0..20 {
            client.send(format!("{number}").as_bytes()).unwrap();
        }
        drop((heard, fake));
        // It has gone: the flow is back in its place.
        let mut buffer = [0; 256];
        for number in 0..20 {
            let len = client.recv(&mut buffer).expect("it waited in the queue");
            assert_eq!(buffer[..len], *format!("{number}").as_bytes());
        }
        let old = it.serving();
        it.upgrade();
        is_gone(old);
        ping(&client, 1);
        assert_eq!(server.ports(), before);
    });
}

/// Behaviours 97 and 133: what the queue of a flow lost is counted once, by whichever process.
#[test]
fn b133_what_a_flow_lost_is_not_counted_again_by_the_next_process() {
    on_every_engine(|case| {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let address = server.local_addr().unwrap();
        let setup = Setup::between("udp:127.0.0.1:0", format!("udp:{address}"))
            .engine(case.engine)
            .set("profile.default.receive_buffer", "64KiB")
            .set("defaults.udp_idle_timeout", "3s");
        let it = Upgradable::start(setup);
        let client = client(it.forwarder.address());
        client.send(b"all of it").unwrap();
        let (_, flow) = server.recv_from(&mut [0; 64]).unwrap();
        let old = it.serving();
        old.stop();
        for _ in 0..3000 {
            server.send_to(&[0; 500], flow).unwrap();
        }
        let lost = crate::datagrams::lost_by_the_kernel(flow.port());
        assert!(lost > 1000, "{lost}");
        old.signal(Signal::SIGCONT);
        let counted = || {
            let metrics = it.admin().get("/metrics");
            metrics.sum("thalweg_udp_dropped_total") as u64
        };
        wait_until("it is counted", PATIENCE, || counted() == lost);
        it.upgrade();
        is_gone(old);
        wait_until("the flow is over", PATIENCE, || {
            let metrics = it.admin().get("/metrics");
            metrics.sum("thalweg_udp_flows_ended_total") as u64 == 1
        });
        // Its socket stays for another second at the most, and is asked for the last time then.
        wait_until("its socket is gone", PATIENCE, || {
            crate::datagrams::lost_by_the_kernel(flow.port()) == 0
        });
        assert_eq!(counted(), lost);
    });
}

/// Behaviours 131 and 133: what a flow may still ask counts on, and the record has the sums of
/// both processes.
#[test]
fn b133_the_count_and_the_record_of_a_flow_go_on() {
    on_every_engine(|case| {
        let server = Echoes::start();
        let setup = Setup::between("udp:127.0.0.1:0", format!("udp:{}", server.address));
        let setup = setup.engine(case.engine).set("defaults.requests", "5");
        let it = Upgradable::start(setup.set("defaults.responses", "1"));
        let client = client(it.forwarder.address());
        (0..3).for_each(|number| ping(&client, number));
        it.upgrade();
        (3..5).for_each(|number| ping(&client, number));
        let record = it.forwarder.wait_for_session();
        assert_eq!(record.cause(), "finished", "{record:?}");
        assert_eq!(record.number("id"), Some(1));
        assert_eq!(record.number("datagrams_up"), Some(5), "{record:?}");
        assert_eq!(record.number("datagrams_down"), Some(5), "{record:?}");
        assert_eq!(server.ports().len(), 1);
        // The next one is another flow, with a number of its own.
        (5..10).for_each(|number| ping(&client, number));
        let records = it.forwarder.wait_for_sessions(2);
        assert_eq!(records[1].number("id"), Some(2), "{records:?}");
    });
}
