//! Servers that go down, leave and come: by checks, by files, by names.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// Servers that answer with their number while they are well; checks are not counted among
/// questions.
struct Fleet {
    servers: Vec<Server>,
    well: Vec<Arc<AtomicBool>>,
}

impl Fleet {
    fn new(count: u8) -> Self {
        let well: Vec<_> = (0..count)
            .map(|_| Arc::new(AtomicBool::new(true)))
            .collect();
        let servers = (0..count).zip(&well).map(|(number, well)| {
            let well = well.clone();
            Server::new(move |question| match question {
                b"well?" if !well.load(Ordering::Relaxed) => Vec::new(),
                b"well?" => vec![b"yes, thank you".to_vec()],
                _ => vec![vec![number]],
            })
        });
        Self {
            servers: servers.collect(),
            well,
        }
    }

    /// A file with those of these numbers.
    fn content(&self, numbers: &[usize], check: &str) -> String {
        let servers = numbers
            .iter()
            .map(|it| format!("\"{}\"", self.servers[*it].address()));
        let servers: Vec<String> = servers.collect();
        format!(
            "[[forward]]\nname = \"it\"\nlisten = \"127.0.0.1:5300\"\nprotocol = \"udp\"\n\
             upstream = {{ servers = [{}], balance = \"round_robin\"{check} }}\n",
            servers.join(", ")
        )
    }
}

/// Which server each client is answered by.
fn asked(clients: &[UdpSocket]) -> Vec<u8> {
    clients
        .iter()
        .map(|it| ask(it, b"who are you?")[0])
        .collect()
}

/// Those of a server that is gone have another one, the others have theirs.
#[track_caller]
fn moved(before: &[u8], after: &[u8], gone: u8) {
    for (before, after) in before.iter().zip(after) {
        assert_ne!(*after, gone);
        assert!(*before == gone || before == after, "{before} to {after}");
    }
}

#[test]
fn b106_flows_of_a_server_that_goes_down_move_with_their_next_datagram() {
    on_every_engine(|case| {
        let Some(namespace) = Namespace::new() else {
            return;
        };
        namespace.run(|| {
            let fleet = Fleet::new(3);
            let check = ", check = { type = \"udp\", send = \"well?\", expect = \"yes\", \
                         interval = \"100ms\", timeout = \"100ms\", fall = 2, rise = 1 }";
            let configured = Configured::start(case, &fleet.content(&[0, 1, 2], check));
            let forwarder = &configured.forwarder;
            let clients: Vec<_> = (0..12).map(|_| client(forwarder.address())).collect();
            let before = asked(&clients);
            assert!((0..3).all(|number| before.contains(&number)), "{before:?}");
            fleet.well[1].store(false, Ordering::Relaxed);
            let said = forwarder.wait_for_line("is down");
            assert!(said.message().contains("no answer in time"), "{said:?}");
            let after = asked(&clients);
            moved(&before, &after, 1);
            let gone = before.iter().map(|it| u64::from(*it == 1)).sum::<u64>();
            assert_eq!(forwarder.counters().of("udp_moved"), gone);
            // It comes back, and nobody moves for that.
            fleet.well[1].store(true, Ordering::Relaxed);
            forwarder.wait_for_line("is up");
            assert_eq!(asked(&clients), after);
            assert_eq!(forwarder.counters().of("udp_flows"), 12);
        });
    });
}

#[test]
fn b106_flows_of_a_server_that_leaves_its_pool_move_and_others_do_not() {
    on_every_engine(|case| {
        let Some(namespace) = Namespace::new() else {
            return;
        };
        namespace.run(|| {
            let fleet = Fleet::new(3);
            let configured = Configured::start(case, &fleet.content(&[0, 1, 2], ""));
            let clients: Vec<_> = (0..12)
                .map(|_| client(configured.forwarder.address()))
                .collect();
            let before = asked(&clients);
            configured.reload(&fleet.content(&[0, 2], ""));
            let after = asked(&clients);
            moved(&before, &after, 1);
            assert_eq!(asked(&clients), after);
            assert_eq!(configured.forwarder.counters().of("udp_flows"), 12);
        });
    });
}

#[test]
fn nobody_there_is_a_question_refused() {
    on_every_engine(|case| {
        let Some(namespace) = Namespace::new() else {
            return;
        };
        namespace.run(|| {
            let fleet = Fleet::new(1);
            let check = ", check = { type = \"udp\", expect = \"yes\" }";
            let content = fleet.content(&[0], check);
            let nobody = UdpSocket::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap();
            let content =
                content.replace(&fleet.servers[0].address().to_string(), &nobody.to_string());
            let configured = Configured::start(case, &content);
            let said = configured.forwarder.wait_for_line("is down");
            assert!(said.message().contains("question refused"), "{said:?}");
        });
    });
}

/// The records say where the service is.
#[test]
fn the_servers_of_a_service_of_udp_are_found_by_its_name() {
    on_every_engine(|case| {
        let dns = Dns::start();
        let server = Server::new(|_| vec![b"found".to_vec()]);
        let service = (0, 1, server.address().port(), "host.test");
        dns.set("_dns._udp.example.test", Says::services(300, &[service]));
        dns.set("host.test", Says::addresses(300, &["127.0.0.1"]));
        let forwarder = Setup::between("udp:127.0.0.1:0", "udp:srv:_dns._udp.example.test")
            .engine(case.engine)
            .set("global.dns_servers", format!("\"{}\"", dns.address()))
            .start();
        let client = client(forwarder.address());
        client
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        // The name may not be known yet with the first.
        let found = poll(PATIENCE, || {
            client.send(b"anybody?").unwrap();
            answer(&client)
        });
        assert_eq!(found.as_deref(), Some(&b"found"[..]));
    });
}
