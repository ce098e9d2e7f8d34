//! What goes together with `protocol = "udp"`, and what does not.

use super::{expect, good};

fn forward(of_udp: &str) -> String {
    format!(
        "[[forward]]\nlisten = \"127.0.0.1:5353\"\nupstream = \"127.0.0.1:53\"\nprotocol = \"udp\"\n{of_udp}\n"
    )
}

#[test]
fn the_servers_of_a_route_are_those_of_udp_too() {
    let route = |to: &str| {
        forward(&format!(
            "quic = true\n[[forward.route]]\nsni = \"a.example\"\nupstream = {to}"
        ))
    };
    good(&route("\"127.0.0.1:54\""));
    expect(
        &route("\"unix:/run/a.sock\""),
        "2:11",
        &["not a unix socket", "HOST:PORT"],
    );
    expect(
        &route("{ servers = \"127.0.0.1:54\", send_proxy = \"v1\" }"),
        "2:11",
        &["version 1", "write send_proxy = \"v2\""],
    );
}

#[test]
fn a_route_that_no_datagram_can_take_is_refused() {
    for route in [
        "host = \"a.example\"\nupstream = \"127.0.0.1:54\"",
        "sni = \"a.example\"\nmode = \"http-connect\"",
    ] {
        let text = forward(&format!("quic = true\n[[forward.route]]\n{route}"));
        expect(&text, "2:11", &["only a connection of TCP", "`host`"]);
    }
}

#[test]
fn many_hosts_at_once_are_neither_server_nor_listener() {
    let between = |listen: &str, server: &str| {
        format!("[[forward]]\nlisten = \"{listen}\"\nupstream = \"{server}\"\nprotocol = \"udp\"\n")
    };
    good(&between("0.0.0.0:1", "10.255.255.254:1"));
    for text in [
        between(":1", "224.0.0.251:5353"),
        between(":1", "[ff02::fb]:5353"),
        between(":1", "255.255.255.255:67"),
        between("224.0.0.251:5353", "127.0.0.1:1"),
    ] {
        expect(&text, "2:11", &["multicast and broadcast", "one host"]);
    }
}

#[test]
fn keys_that_say_nothing_to_a_forward_are_told_of() {
    let tcp = |keys: &str| format!("[[forward]]\nlisten = \":53\"\nupstream = \"a:53\"\n{keys}\n");
    let advice = |text: &str| good(text).advice();
    let forgotten = advice(&tcp("responses = 1\nquic = true"));
    assert_eq!(forgotten.len(), 1, "{forgotten:?}");
    for words in ["responses, quic", "protocol = \"udp\""] {
        assert!(forgotten[0].contains(words), "{forgotten:?}");
    }
    let silent = advice(&forward("idle_timeout = \"5s\""));
    assert_eq!(silent.len(), 1, "{silent:?}");
    for words in ["idle_timeout", "udp_idle_timeout"] {
        assert!(silent[0].contains(words), "{silent:?}");
    }
    for both in [
        tcp("protocol = \"tcp+udp\"\nresponses = 1\nidle_timeout = \"5s\""),
        // By default, for those who come later.
        format!("[defaults]\nresponses = 1\n{}", tcp("")),
        // By default, for those whom it is for.
        format!(
            "[defaults]\nresponses = 1\nidle_timeout = \"5s\"\n{}{}",
            tcp(""),
            forward("")
        ),
    ] {
        assert_eq!(advice(&both), Vec::<String>::new(), "{both}");
    }
}

#[test]
fn answers_that_are_counted_and_quic_are_told_of() {
    let advice = |keys: &str| good(&forward(keys)).advice();
    for key in ["requests", "responses"] {
        let told = advice(&format!("quic = true\n{key} = 1"));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains(key), "{told:?}");
        assert_eq!(advice(&format!("{key} = 1")), Vec::<String>::new());
    }
}
