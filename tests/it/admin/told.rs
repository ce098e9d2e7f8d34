//! What is told of forwards, pools, listeners and of sessions that a rate holds back.

use std::io::{Read as _, Write as _};

use serde_json::{Value, json};

use super::api::post;
use super::steered;
use crate::kit::{Directory, Listener, PATIENCE, Peer, Setup, on_every_engine, wait_until};

/// Whom a byte rate of ours makes wait is no application that says nothing.
#[test]
fn b143_whom_a_rate_holds_back_is_told_so() {
    on_every_engine(|case| {
        let server = Listener::new();
        let setup = Setup::new(server.address()).case(case);
        let steered = steered(setup.set("defaults.rate_per_session", "1MB/s"));
        let (client, upstream) = (steered.forwarder.connect(), server.accept());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let piece = vec![7; 65_536];
                while (&mut client.stream()).write_all(&piece).is_ok() {}
            });
            scope.spawn(|| {
                let mut buffer = vec![0; 65_536];
                while matches!((&mut upstream.stream()).read(&mut buffer), Ok(1..)) {}
            });
            let path = "/v1/sessions?sort=held&interval_ms=300";
            wait_until("it is said to be held back by a rate", PATIENCE, || {
                let page = steered.admin.get(path).json();
                page["sessions"][0]["verdict"] == "rate_limit"
            });
            let all = json!({ "all": true });
            assert_eq!(
                post(&steered.admin, "/v1/sessions/kill", &all, "").status,
                200
            );
        });
    });
}

/// What a forward lacks is told where it is looked for, and what it moves at the moment; ports of
/// datagrams are listeners; where clients say where to go there is no pool.
#[test]
fn b143_forwards_pools_and_listeners_say_what_they_are_about() {
    let (server, directory) = (Listener::new(), Directory::new());
    let file = directory.join("kinds.toml");
    let at = server.address();
    let text = format!(
        "[upstream.none]\nservers = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n\
         check = {{ type = \"tcp\", interval = \"100ms\", timeout = \"50ms\" }}\n\
         [[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{at}\"\n\
         [[forward]]\nname = \"dead\"\nlisten = \"127.0.0.1:0\"\nupstream = \"none\"\n\
         [[forward]]\nname = \"dns\"\nlisten = \"127.0.0.1:0\"\nprotocol = \"udp\"\nupstream = \"{at}\"\n\
         [[forward]]\nname = \"proxy\"\nlisten = \"127.0.0.1:0\"\nmode = \"http-connect\"\n\
         connect.allow = [\"127.0.0.0/8:{}\"]\n",
        at.port()
    );
    std::fs::write(&file, text).unwrap();
    let steered = steered(Setup::configured(&file, 4));
    let forward = |name: &str| steered.admin.get(&format!("/v1/forwards/{name}")).json();
    wait_until("it is told who serves nobody", PATIENCE, || {
        forward("dead")["why"] == "pool none: none of 2 servers is up"
    });
    assert!(forward("web").get("why").is_none());
    let pools = steered.admin.get("/v1/pools?interval_ms=50").json();
    let pools = pools.as_array().unwrap();
    let names: Vec<&str> = pools
        .iter()
        .map(|it| it["name"].as_str().unwrap())
        .collect();
    assert!(
        !names.contains(&"proxy") && names.contains(&"none"),
        "{names:?}"
    );
    let pool = |name: &str| pools.iter().find(|it| it["name"] == name).unwrap();
    assert_eq!(pool("none")["why"], "none of 2 servers is up");
    assert!(pool("web")["rate"]["down"].is_number());

    let listeners = steered.admin.get("/v1/listeners").json();
    let listeners = listeners.as_array().unwrap();
    let of = |name: &str| listeners.iter().find(|it| it["forward"] == name).unwrap();
    assert_eq!(of("dns")["protocol"], "udp");
    assert_eq!(of("dns")["dropped"], 0);
    assert_eq!(of("web")["protocol"], "tcp");

    // A session of a proxy is on a server too, the one that its client asked for.
    let proxy = steered.forwarder.addresses()[3].parse().unwrap();
    let client = Peer::connect(proxy);
    let request = format!("CONNECT {at} HTTP/1.1\r\nHost: {at}\r\n\r\n");
    (&mut client.stream())
        .write_all(request.as_bytes())
        .unwrap();
    let _upstream = server.accept();
    let page = steered
        .admin
        .get(&format!("/v1/sessions?server={at}"))
        .json();
    assert_eq!(page["sessions"][0]["forward"], "proxy", "{page}");

    let drained = post(&steered.admin, "/v1/forwards/web/drain", &Value::Null, "");
    let since = drained.json()["state_seconds"].as_f64();
    assert!(since.is_some_and(|it| it >= 0.0), "{since:?}");
    let order = json!({ "filter": { "server": at.to_string() } });
    let killed = post(&steered.admin, "/v1/sessions/kill", &order, "").json();
    assert_eq!(killed["killed"], 1, "{killed}");
}

/// Of datagrams nothing is shown: who asks for them is told so, rather than left to wait.
#[test]
fn who_asks_for_a_tap_of_datagrams_is_told() {
    let server = Listener::new();
    let setup = Setup::new(server.address()).set("defaults.protocol", "udp");
    let steered = steered(setup);
    let name = steered.admin.get("/v1/forwards").json()[0]["name"].clone();
    for order in [
        json!({ "format": "hex", "forward": name }),
        json!({ "format": "hex", "session": "0-u1" }),
    ] {
        let answer = post(&steered.admin, "/v1/tap", &order, "");
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(answer.body.contains("datagrams"), "{answer:?}");
    }
}
