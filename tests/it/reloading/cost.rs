//! What a large configuration costs: behaviour 119.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::kit::*;
use crate::kit::admin::Admin;
use crate::kit::directory::Directory;
use crate::kit::*;

const FORWARDS: u32 = 500;
const SERVERS: u32 = 10;

/// 5,000 servers of this weight, but for one.
fn text(port: u16, server: SocketAddr, weight: u32, one: u32) -> String {
    let mut text = String::new();
    for forward in 0..FORWARDS {
        let listen = if forward == 0 { port } else { 0 };
        let _ = write!(
            text,
            "[[forward]]\nname = \"f{forward}\"\nlisten = \"127.0.0.1:{listen}\"\n\
             [forward.upstream]\nbalance = \"first\"\nservers = ["
        );
        for at in 0..SERVERS {
            let weight = if (forward, at) == (250, 5) {
                one
            } else {
                weight
            };
            let address = match (forward, at) {
                (0, 0) => server.to_string(),
                _ => format!("127.1.{}.{}:{}", forward >> 8, forward & 255, 7000 + at),
            };
            let _ = write!(text, "{{ address = \"{address}\", weight = {weight} }}, ");
        }
        let _ = writeln!(text, "]");
    }
    text
}

/// Behaviour 119: what is applied is what differs, of however much. How long that takes is
/// measured in docs/operations.md, and said here.
#[test]
fn b119_of_500_forwards_and_5000_servers_only_what_differs_is_touched() {
    on_every_engine(|case| {
        let (server, port, admin) = (Echo::new(b'a'), free_port(), Directory::new());
        let text = |weight, one| text(port, server.address, weight, one);
        let forwards = FORWARDS as usize;
        let it = Reloadable::with(case, &text(1, 1), forwards, Some(2), |setup| {
            setup.set("log.sessions", "off").admin(&admin)
        });
        let at = Admin::at(&admin.join("admin.sock"));
        let sockets = it.listening();
        let mut client = Peer::connect(([127, 0, 0, 1], port).into());
        let reload = |what: &str, text: &str| {
            it.write(text);
            let head = "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\n\
                        Content-Type: application/json\r\nContent-Length: 2\r\n";
            let watch = Stopwatch::start();
            let answer = at.send(head, "{}");
            println!("{} {what}: {:?}", case.engine, watch.elapsed());
            assert_eq!(answer.status, 200, "{}", answer.body);
            let answer = answer.json();
            let of = |what: &str| answer[format!("{what}_seconds")].as_f64().unwrap();
            let [read, compare, apply] = ["read", "compare", "apply"].map(of);
            println!("read {read:.4} s, compared {compare:.4} s, applied {apply:.4} s");
            assert_eq!(answer["listeners_kept"], forwards, "{what}");
            assert_eq!(answer["listeners_opened"].as_array().unwrap().len(), 0);
            answer["changes"].as_array().unwrap().len()
        };
        assert_eq!(reload("all", &text(2, 2)), (FORWARDS * SERVERS) as usize);
        assert_eq!(reload("one", &text(2, 3)), 1);
        assert_eq!(reload("none", &text(2, 3)), 0);
        assert_eq!(it.listening(), sockets, "the sockets are the same");
        let mut letter = [0];
        std::io::Read::read_exact(&mut client.stream(), &mut letter).unwrap();
        client.send(100);
    });
}
