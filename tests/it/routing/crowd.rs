//! Very many clients that drip what they say first: behaviour 87.

use std::net::{Ipv4Addr, TcpStream};

use super::*;
use crate::kit::crowd::{self, connections_that_fit};
use crate::kit::peer::transfer;

/// How many drip, where there are descriptors for them.
const DRIPPING: usize = 1_000;

/// What each of them may cost in user memory.
const BYTES_EACH: u64 = 1024;

#[test]
fn b87_clients_that_drip_a_hello_cost_little_and_end_at_one_deadline() {
    on_every_engine(|case| {
        let count = connections_that_fit(DRIPPING);
        let (server, directory) = (Listener::new(), Directory::new());
        let file = directory.join("dripped.toml");
        let text = format!(
            "[[forward]]\nlisten = \"127.0.0.1:0\"\nupstream = {to}\nmax_per_client = {count}\n\
             sniff_timeout = \"30s\"\n[[forward.route]]\nsni = \"a.example\"\nreject = true\n",
            to = to(&server),
        );
        std::fs::write(&file, text).unwrap();
        let forwarder = Setup::configured(&file, 1)
            .case(case)
            .admin(&directory)
            .start();
        let hello = hello(&[sni(b"b.example"), extension(21, &[0; 1_000])], 16_384);
        let before = forwarder.process().memory().anonymous;
        let clients: Vec<TcpStream> = (0..count)
            .map(|_| TcpStream::connect(forwarder.address()).unwrap())
            .collect();
        for byte in &hello[..3] {
            for mut client in &clients {
                std::io::Write::write_all(&mut client, &[*byte]).unwrap();
            }
        }
        wait_until("all of them count", PATIENCE, || {
            forwarder.counters().of("live") == count as u64
        });
        let grown = forwarder
            .process()
            .memory()
            .anonymous
            .saturating_sub(before);
        // Its slabs grow by doubling, and the tables of clients and descriptors with them.
        assert!(
            grown < count as u64 * BYTES_EACH + MIB,
            "{grown} for {count}"
        );
        // One more of the same address is turned away; others come in, and are served.
        crowd::is_turned_away(&forwarder);
        let other =
            Peer::connect_from_address(Ipv4Addr::new(127, 0, 0, 9).octets(), forwarder.address());
        let mut other = other;
        write(&other, &hello);
        let mut upstream = server.accept();
        expect_bytes(&upstream, &hello);
        transfer(&mut other, &mut upstream, 100_000);
        // Whoever looks is answered at the limit.
        let admin = Admin::at(&directory.join("admin.sock"));
        assert_eq!(admin.get("/healthz").status, 200);
        assert_eq!(admin.get("/metrics").status, 200);
        drop((other, upstream));
        // However they drip: none has more time than all of it may take.
        let mut bytes = hello[3..].iter();
        let ended = poll(3 * PATIENCE, || {
            let byte = bytes.next()?;
            for mut client in &clients {
                let _ = std::io::Write::write_all(&mut client, &[*byte]);
            }
            std::thread::sleep(Duration::from_millis(500));
            (forwarder.counters().of("live") == 0).then_some(())
        });
        assert!(ended.is_some(), "some of them live for ever");
        let records = forwarder.wait_for_sessions(count + 1);
        let late = records.iter().filter(|it| it.cause() == "request_timeout");
        assert_eq!(late.count(), count);
        assert_eq!(forwarder.counters().of("denied_max_per_client"), 1);
        drop(clients);
        forwarder.check_idle();
    });
}
