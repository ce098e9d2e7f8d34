//! What flows take from each other, and what a datagram costs.

use std::io::IoSliceMut;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use super::*;

/// One client sends as fast as it can, one server does; two hundred others ask, and are answered.
#[test]
fn b104_two_flows_at_full_rate_cost_the_others_no_datagram() {
    on_every_engine(|case| {
        let stops = Arc::new(AtomicBool::new(false));
        let (sink, quick) = (Server::silent(), Server::echo());
        let forwarder = Setup::between("udp:127.0.0.1:0", format!("udp:{}", sink.address()))
            .and("udp:127.0.0.1:0", format!("udp:{}", quick.address()))
            .engine(case.engine)
            .start();
        let at: Vec<SocketAddr> = forwarder
            .addresses()
            .iter()
            .map(|it| it.parse().unwrap())
            .collect();
        let flooding = client(at[0]);
        let stop = stops.clone();
        let flood = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let _ = flooding.send(&[0; 1200]);
            }
        });
        let clients: Vec<_> = (0..200).map(|_| client(at[1])).collect();
        for round in 0..10 {
            let question = format!("round {round}");
            for client in &clients {
                client.send(question.as_bytes()).unwrap();
            }
            for client in &clients {
                assert_eq!(answer(client).as_deref(), Some(question.as_bytes()));
            }
        }
        stops.store(true, Ordering::Relaxed);
        flood.join().unwrap();
        let counters = forwarder.counters();
        assert!(
            counters.of("udp_sent_up") > 2000 + 100,
            "nobody was in the way"
        );
        assert_eq!(counters.of("udp_sent_down"), 2000);
    });
}

/// How many pieces so many bytes come in, to somebody who takes them joined.
fn pieces(socket: &UdpSocket, bytes: usize) -> (usize, Vec<u8>) {
    let (mut pieces, mut all) = (0, Vec::new());
    let mut buffer = vec![0; 70_000];
    while all.len() < bytes {
        let mut control = nix::cmsg_space!(i32);
        let mut parts = [IoSliceMut::new(&mut buffer)];
        let got = recvmsg::<()>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        );
        let got = got.expect("more of it");
        let len = got.bytes;
        for message in got.cmsgs().unwrap() {
            assert!(!matches!(message, ControlMessageOwned::UdpGroSegments(size) if size != 1200));
        }
        pieces += 1;
        all.extend_from_slice(&buffer[..len]);
    }
    (pieces, all)
}

/// What one call of the kernel does for fifty datagrams costs a fiftieth: measured against others it
/// is in docs/udp.md.
#[test]
fn b105_equal_datagrams_cross_in_one_piece() {
    on_every_engine(|case| {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        setsockopt(&server, sockopt::UdpGroSegment, &true).unwrap();
        let forwarder = forwarder(case, &[server.local_addr().unwrap()]).start();
        let client = client(forwarder.address());
        let all: Vec<u8> = (0..50 * 1200).map(|at| (at / 1200) as u8).collect();
        send_joined(&client, &all, 1200);
        assert_eq!(pieces(&server, all.len()), (1, all.clone()), "as they came");
        // Singly, while it stands still: they lie there together when it goes on.
        forwarder.process().stop();
        for datagram in all.chunks(1200) {
            client.send(datagram).unwrap();
        }
        forwarder.process().signal(Signal::SIGCONT);
        let (count, got) = pieces(&server, all.len());
        assert!(got == all);
        assert!(count <= 4, "{count} pieces");
        assert_eq!(forwarder.counters().of("udp_sent_up"), 100);
    });
}
