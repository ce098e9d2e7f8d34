//! Flows stay where they are while sockets join, and change hands.

use std::collections::HashMap;

use super::*;

fn content(reactors: u16, port: u16, server: &Server) -> String {
    format!(
        "[global]\nreactors = {reactors}\n\n[[forward]]\nlisten = \"127.0.0.1:{port}\"\n\
         protocol = \"udp\"\nupstream = \"{}\"\n",
        server.address()
    )
}

/// Where each client is heard from: the port of its flow.
fn ports(clients: &[UdpSocket], question: &[u8]) -> Vec<Vec<u8>> {
    for client in clients {
        client.send(question).unwrap();
    }
    let answers = clients.iter().map(|it| answer(it).expect("an answer"));
    answers.collect()
}

#[test]
fn b103_a_flow_keeps_its_port_while_reactors_come_and_go() {
    on_every_engine(|case| {
        let Some(namespace) = Namespace::new() else {
            return;
        };
        namespace.run(|| {
            let server = Server::telling_senders();
            let configured = Configured::start(case, &content(1, 5300, &server));
            let forwarder = &configured.forwarder;
            let clients: Vec<_> = (0..60).map(|_| client(forwarder.address())).collect();
            let homes = ports(&clients, b"first");
            let (mut later, mut expected) = (Vec::new(), 60);
            for reactors in [2, 3, 1, 2] {
                configured.reload(&content(reactors, 5300, &server));
                for _ in 0..3 {
                    assert_eq!(ports(&clients, b"again"), homes, "{reactors} reactors");
                }
                // Those who come now have homes of their own, and keep them as well.
                let more: Vec<_> = (0..20).map(|_| client(forwarder.address())).collect();
                let their = ports(&more, b"first");
                later.push((more, their));
                for (more, their) in &later {
                    assert_eq!(&ports(more, b"again"), their, "{reactors} reactors");
                }
                expected += 20;
                let counters = forwarder.counters();
                assert_eq!(counters.of("udp_flows"), expected, "{reactors} reactors");
            }
            let mut seen: HashMap<Vec<u8>, usize> = HashMap::new();
            for port in homes
                .iter()
                .chain(later.iter().flat_map(|(_, their)| their))
            {
                *seen.entry(port.clone()).or_default() += 1;
            }
            assert!(
                seen.values().all(|count| *count == 1),
                "two flows share a port"
            );
            let counters = forwarder.counters();
            assert_eq!(counters.of("udp_received_up"), counters.of("udp_sent_up"));
            assert_eq!(
                counters.of("udp_received_down"),
                counters.of("udp_sent_down")
            );
        });
    });
}
