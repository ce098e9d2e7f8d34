//! What a client that is looked at says first is acknowledged together with what it is
//! answered, where it is a TLS hello; whoever may wait for the ACK to say more has it at once.

use super::*;
use crate::acks::delays_acks;
use crate::reloading::kit::Reloadable;

const ROUTES: &str = "[[forward.route]]\nsni = \"a.example\"\nupstream = {other}\n\
                      [[forward.route]]\nhost = \"b.example\"\nupstream = {other}\n";

/// Whether the forwarder delays its ACKs to this client.
fn delays(forwarder: &Forwarder, client: &Peer) -> Option<bool> {
    delays_acks(forwarder.address(), client.local())
}

fn routed(case: Case) -> (Routed, Listener) {
    let server = Listener::new();
    let lines = ROUTES.replace("{other}", &to(&server));
    (Routed::start(case, &to(&server), &lines), server)
}

fn hello_to_a() -> Vec<u8> {
    hello(&[sni(b"a.example")], 16_384)
}

/// Of clients in a row one is seen before the time of a delayed ACK (40 ms) is over; a machine that is busy
/// needs more of them.
fn is_seen_of_one(mut client: impl FnMut() -> bool) -> bool {
    poll(PATIENCE, || client().then_some(())).is_some()
}

#[test]
fn b53_a_hello_is_acknowledged_with_its_answer() {
    on_every_engine(|case| {
        let (routed, server) = routed(case);
        let seen = is_seen_of_one(|| {
            let client = routed.connect();
            write(&client, hello_to_a());
            let upstream = server.accept();
            expect_bytes(&upstream, hello_to_a());
            // The hello has arrived. Asked of the client's own socket: the table of all connections takes as long to
            // read as an ACK is delayed, where there are many.
            let delayed = client.unacknowledged() > 0;
            write(&upstream, b"answer");
            expect_bytes(&client, b"answer");
            client.wait_until_acknowledged();
            delayed
        });
        assert!(seen, "the ACK of no hello waits for its answer");
        routed.check_idle();
    });
}

/// With Nagle's algorithm on, what is missing of a hello, or the body behind a head, is sent
/// once what came before is acknowledged.
#[test]
fn b53_who_has_not_said_all_is_acknowledged_at_once() {
    on_every_engine(|case| {
        let (routed, server) = routed(case);
        let head = b"POST / HTTP/1.1\r\nHost: b.example\r\n\r\n".to_vec();
        let hello = hello_to_a();
        for (first, rest) in [
            (&hello[..20], &hello[20..]),
            (&head[..20], &head[20..]),
            (&head[..], &b"body"[..]),
            // Nobody knows what it is, nor who speaks next.
            (&b"HELO a.example\r\n"[..], &b"QUIT\r\n"[..]),
        ] {
            let client = routed.connect();
            write(&client, first);
            let quick = || delays(&routed, &client) == Some(false);
            wait_until("ACKs are quick", PATIENCE, quick);
            write(&client, rest);
            let upstream = server.accept();
            expect_bytes(&upstream, [first, rest].concat());
        }
        routed.check_idle();
    });
}

/// A socket stays at a reload; what is accepted there goes by what is looked at now.
#[test]
fn a_listener_that_looks_no_more_acknowledges_at_once() {
    on_every_engine(|case| {
        let server = Listener::new();
        let plain = format!(
            "[[forward]]\nname = \"routed\"\nlisten = \"127.0.0.1:{}\"\nupstream = {}\n",
            free_port(),
            to(&server)
        );
        let routes = ROUTES.replace("{other}", &to(&server));
        let it = Reloadable::start(case, &format!("{plain}{routes}"), 1, Some(1));
        for (text, held) in [
            (None, true),
            (Some(plain.clone()), false),
            (Some(format!("{plain}{routes}")), true),
        ] {
            if let Some(text) = text {
                it.reloads(&text);
            }
            let seen = is_seen_of_one(|| {
                let client = it.forwarder.connect();
                write(&client, hello_to_a());
                let upstream = server.accept();
                expect_bytes(&upstream, hello_to_a());
                if held {
                    client.unacknowledged() > 0
                } else {
                    delays(&it.forwarder, &client) == Some(false)
                }
            });
            assert!(seen, "held is {held}");
        }
    });
}
