//! The API: what it says, what it does, and what it turns down (143 to 147).

use std::collections::{BTreeMap, BTreeSet};
use std::net::UdpSocket;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Steered, steered};
use crate::kit::admin::Answer;
use crate::kit::peer::transfer;
use crate::kit::{
    Admin, Crowd, End, KIB, Listener, PATIENCE, Peer, Setup, on_every_engine, wait_until,
};

pub(crate) fn post(admin: &Admin, path: &str, body: &Value, headers: &str) -> Answer {
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{headers}",
        body.len()
    );
    admin.send(&head, &body)
}

/// Sessions of one reactor: more than a visit passes (1,024 slots), and twenty times what one
/// looks at or ends (64). The texts' 9,000 and 5,000 are in `serial::steering`.
const MANY: usize = 1300;

/// So many sessions, each with its server's side.
fn sessions(steered: &Steered, server: &Listener, count: usize) -> Vec<(Peer, Peer)> {
    let pairs = (0..count).map(|_| (steered.forwarder.connect(), server.accept()));
    pairs.collect()
}

/// Every session there is, page by page.
pub(crate) fn walk(admin: &Admin, limit: usize, filter: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = admin.get(&format!("/v1/sessions?limit={limit}{filter}{cursor}"));
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        all.extend(page["sessions"].as_array().unwrap().iter().cloned());
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

fn ids(sessions: &[Value]) -> Vec<String> {
    let ids = sessions.iter().map(|it| it["id"].as_str().unwrap());
    ids.map(str::to_owned).collect()
}

#[test]
fn b143_every_session_is_in_exactly_one_page() {
    on_every_engine(|case| {
        let server = Listener::new();
        let steered = steered(Setup::new(server.address()).case(case));
        let crowd = Crowd::through(&steered.forwarder, &server, MANY);
        // Others come and go while it is walked.
        let found = std::thread::scope(|scope| {
            let others = scope.spawn(|| {
                for _ in 0..20 {
                    let (client, mut upstream) = (steered.forwarder.connect(), server.accept());
                    client.close();
                    upstream.expect_then_eof(0);
                }
            });
            let found = walk(&steered.admin, 97, "");
            others.join().unwrap();
            found
        });
        let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
        for session in &found {
            *seen.entry(session["client"].as_str().unwrap()).or_default() += 1;
        }
        for client in &crowd.clients {
            let client = client.local().to_string();
            assert_eq!(seen.get(client.as_str()), Some(&1), "{client}");
        }
        let ids = ids(&found);
        let different: BTreeSet<&String> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
        crowd.ping();
    });
}

#[test]
fn b143_filters_are_exact() {
    let server = Listener::new();
    let setup = Setup::new(server.address()).and("127.0.0.1:0", server.address());
    let steered = steered(setup);
    let admin = &steered.admin;
    let mut first = sessions(&steered, &server, 5);
    let other = steered.forwarder.addresses()[1].parse().unwrap();
    let second: Vec<_> = (0..3)
        .map(|_| (Peer::connect(other), server.accept()))
        .collect();
    let (client, upstream) = &mut first[2];
    transfer(client, upstream, 40 * KIB);
    let count = |filter: &str| walk(admin, 100, filter).len();
    assert_eq!(count(""), 8);
    assert_eq!(count("&client=127.0.0.0/8"), 8);
    assert_eq!(count("&client=10.0.0.0/8"), 0);
    let one = format!("&client={}", second[1].0.local());
    assert_eq!(count(&one), 1);
    assert_eq!(count("&min_bytes=40960"), 1);
    assert_eq!(count("&min_bytes=40961"), 0);
    assert_eq!(count("&max_age=3600"), 8);
    assert_eq!(count("&min_age=3600"), 0);
    assert_eq!(count(&format!("&server={}", server.address())), 8);
    assert_eq!(count("&server=127.0.0.1:1"), 0);
    let unknown = steered.admin.get("/v1/sessions?forward=nobody");
    assert_eq!(unknown.status, 404, "{unknown:?}");
    let forwards = admin.get("/v1/forwards").json();
    let names = forwards.as_array().unwrap().iter();
    let mut counts: Vec<usize> = names
        .map(|it| {
            it["name"]
                .as_str()
                .unwrap()
                .replace('#', "%23")
                .replace(' ', "%20")
        })
        .map(|name| count(&format!("&forward={name}")))
        .collect();
    counts.sort_unstable();
    assert_eq!(counts, [3, 5]);
    let sorted = admin.get("/v1/sessions?sort=bytes&limit=2").json();
    let biggest = &sorted["sessions"][0];
    assert_eq!(biggest["client"], first[2].0.local().to_string());
    assert_eq!(biggest["up"]["bytes"], 40 * KIB);
    let id = biggest["id"].as_str().unwrap();
    assert_eq!(admin.get(&format!("/v1/sessions/{id}")).json()["id"], id);
    assert_eq!(admin.get("/v1/sessions/0-999999").status, 404);
}

#[test]
fn b143_what_holds_a_session_back_is_told() {
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()));
    let admin = &steered.admin;
    let verdict = |peer: &Peer| {
        let path = format!("/v1/sessions?client={}&interval_ms=300", peer.local());
        let page = admin.get(&path).json();
        page["sessions"][0]["verdict"].as_str().unwrap().to_owned()
    };
    let quiet = (steered.forwarder.connect(), server.accept());
    assert_eq!(verdict(&quiet.0), "idle");
    // A client that reads nothing: its window is shut, and stays so.
    let slow = Peer::connect_small(steered.forwarder.address(), 8 * 1024);
    let mut full = server.accept();
    full.send_until_stuck(Duration::from_millis(500));
    wait_until("its client is what holds it back", PATIENCE, || {
        verdict(&slow) == "client_window"
    });
}

#[test]
fn b143_flows_of_datagrams_are_sessions_too_and_rates_are_told() {
    on_every_engine(|case| {
        let server = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let stream = Listener::new();
        let address = server.local_addr().unwrap();
        let setup = Setup::between("udp:127.0.0.1:0", format!("udp:{address}"))
            .and("127.0.0.1:0", stream.address())
            .case(case);
        let steered = steered(setup);
        let (admin, addresses) = (&steered.admin, steered.forwarder.addresses());
        let (session, _upstream) = (
            Peer::connect(addresses[1].parse().unwrap()),
            stream.accept(),
        );
        let clients: Vec<_> = (0..5)
            .map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap())
            .collect();
        let mut buffer = [0; 100];
        for client in &clients {
            client.send_to(b"a question", &addresses[0]).unwrap();
            let (n, from) = server.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..n], b"a question");
            server.send_to(b"answer", from).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            assert_eq!(client.recv(&mut buffer).unwrap(), 6);
        }
        // Pages go from sessions to flows.
        let all = walk(admin, 2, "");
        let ids: BTreeSet<String> = ids(&all).into_iter().collect();
        assert_eq!((all.len(), ids.len()), (6, 6), "{all:?}");
        let flows: Vec<&Value> = all.iter().filter(|it| it["kind"] == "datagrams").collect();
        assert_eq!(flows.len(), 5);
        let own = clients[2].local_addr().unwrap().to_string();
        let filter = format!("&client={own}");
        let found = walk(admin, 100, &filter);
        let [flow] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!(flow["server"], address.to_string());
        assert_eq!(
            (&flow["up"]["bytes"], &flow["down"]["bytes"]),
            (&json!(10), &json!(6))
        );
        let counts = json!({ "up": 1, "down": 1, "dropped_up": 0, "dropped_down": 0 });
        assert_eq!(
            (&flow["datagrams"], &flow["phase"]),
            (&counts, &json!("relaying"))
        );
        let id = flow["id"].as_str().unwrap();
        assert_eq!(
            admin.get(&format!("/v1/sessions/{id}")).json()["client"],
            own
        );
        let sorted = admin.get("/v1/sessions?sort=rate&interval_ms=50").json();
        assert_eq!(sorted["sessions"].as_array().unwrap().len(), 6);

        let killed = post(admin, "/v1/sessions/kill", &json!({ "ids": [id] }), "");
        assert_eq!(killed.json()["killed"], 1);
        let record = steered.forwarder.wait_for_session();
        assert_eq!(
            (record.text("client"), record.cause()),
            (own.as_str(), "killed")
        );
        // The session that has the number of a flow is not hit, nor the other way round.
        assert_eq!(walk(admin, 100, "").len(), 5);
        let client = session.local().to_string();
        assert_eq!(walk(admin, 100, &format!("&client={client}")).len(), 1);
        let order = json!({ "filter": { "client": "127.0.0.1" } });
        let killed = post(admin, "/v1/sessions/kill", &order, "");
        assert_eq!(killed.json()["killed"], 5);
    });
}

#[test]
fn b143_the_rates_of_a_server_are_those_of_the_moment() {
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()));
    let (mut client, mut upstream) = (steered.forwarder.connect(), server.accept());
    transfer(&mut client, &mut upstream, 40 * KIB);
    let looked = |interval: u32| {
        let path = format!("/v1/servers?interval_ms={interval}");
        steered.admin.get(&path).json()[0].clone()
    };
    let still = looked(50);
    // What the session has moved counts while it lives.
    assert_eq!(still["bytes"]["up"], 40 * KIB);
    assert_eq!(
        (&still["rate"]["up"], &still["connect_rate"]),
        (&json!(0.0), &json!(0.0))
    );
    assert!(looked(0)["rate"].is_null());
    std::thread::scope(|scope| {
        let look = scope.spawn(|| {
            wait_until("it is seen to move", PATIENCE, || {
                let seen = looked(200);
                seen["rate"]["up"].as_f64() > Some(0.0) && seen["connect_rate"].as_f64() > Some(0.0)
            });
        });
        while !look.is_finished() {
            transfer(&mut client, &mut upstream, KIB);
            let (other, _upstream) = (steered.forwarder.connect(), server.accept());
            other.close();
        }
    });
    assert_eq!(
        steered.admin.get("/v1/servers?interval_ms=6000").status,
        400
    );
}

#[test]
fn b144_those_that_are_meant_are_killed_and_told_by_a_reset() {
    on_every_engine(|case| {
        let server = Listener::new();
        let steered = steered(Setup::new(server.address()).case(case).reactors(2));
        let mut held = sessions(&steered, &server, 6);
        let all = walk(&steered.admin, 100, "");
        let of = |peer: &Peer| {
            let client = peer.local().to_string();
            let found = all.iter().find(|it| it["client"] == client.as_str());
            found.unwrap()["id"].as_str().unwrap().to_owned()
        };
        let id = of(&held[1].0);
        let order = json!({ "ids": [id, "0-77777"] });
        let killed = post(&steered.admin, "/v1/sessions/kill", &order, "").json();
        assert_eq!(killed, json!({ "killed": 1, "missing": ["0-77777"] }));
        let (mut client, mut upstream) = held.remove(1);
        assert_eq!(client.receive_until_end(), End::Reset);
        assert_eq!(upstream.receive_until_end(), End::Reset);
        let record = steered.forwarder.wait_for_session();
        assert_eq!((record.code(), record.cause()), ("KD", "killed"));
        // Who has its slot by now is not hit.
        let (mut next, mut other) = (steered.forwarder.connect(), server.accept());
        let again = post(
            &steered.admin,
            "/v1/sessions/kill",
            &json!({ "ids": [id] }),
            "",
        );
        assert_eq!(again.json()["killed"], 0);
        transfer(&mut next, &mut other, KIB);
        let client = held[0].0.local().to_string();
        let order = json!({ "filter": { "client": client } });
        let killed = post(&steered.admin, "/v1/sessions/kill", &order, "").json();
        assert_eq!(killed["killed"], 1);
        assert_eq!(held.remove(0).0.receive_until_end(), End::Reset);
        for (client, upstream) in &mut held {
            transfer(client, upstream, KIB);
        }
        for bad in [
            json!({}),
            json!({ "filter": {} }),
            json!({ "all": true, "ids": ["0-1"] }),
        ] {
            let answer = post(&steered.admin, "/v1/sessions/kill", &bad, "");
            assert_eq!(answer.status, 400, "{bad}");
        }
        let all = post(
            &steered.admin,
            "/v1/sessions/kill",
            &json!({ "all": true }),
            "",
        )
        .json();
        assert_eq!(all["killed"], 5);
    });
}

#[test]
fn b144_many_at_once_are_killed_and_nobody_else() {
    on_every_engine(|case| {
        let servers = [Listener::new(), Listener::new()];
        let [first, second] = servers.each_ref().map(Listener::address);
        let steered = steered(Setup::new(first).and("127.0.0.1:0", second).case(case));
        let other = steered.forwarder.addresses()[1].parse().unwrap();
        let mut crowd = Crowd::through(&steered.forwarder, &servers[0], MANY);
        let (mut client, mut upstream) = (Peer::connect(other), servers[1].accept());
        let order = json!({ "filter": { "server": first.to_string() } });
        let killed = post(&steered.admin, "/v1/sessions/kill", &order, "").json();
        assert_eq!(killed["killed"], MANY);
        for peer in crowd.clients.iter_mut().chain(&mut crowd.servers) {
            assert_eq!(peer.receive_until_end(), End::Reset);
        }
        transfer(&mut client, &mut upstream, KIB);
    });
}

/// A forwarder to two servers, and the numbers of these.
fn two_servers() -> (Steered, [Listener; 2], [u64; 2]) {
    let servers = [Listener::new(), Listener::new()];
    let addresses: Vec<String> = servers.iter().map(|it| it.address().to_string()).collect();
    let steered = steered(Setup::new(addresses.join(",")).reactors(2));
    let views = steered.admin.get("/v1/servers").json();
    let numbers = [0, 1].map(|at| {
        let views = views.as_array().unwrap();
        let view = views
            .iter()
            .find(|it| it["address"] == addresses[at].as_str());
        view.unwrap()["id"].as_u64().unwrap()
    });
    (steered, servers, numbers)
}

/// How many of so many connections come to each server.
fn shares(steered: &Steered, servers: &[Listener; 2], count: usize) -> [usize; 2] {
    let mut shares = [0; 2];
    for _ in 0..count {
        let client = steered.forwarder.connect();
        let found = crate::kit::poll(PATIENCE, || {
            (0..2).find(|at| {
                servers[*at]
                    .accept_within(Duration::from_millis(5))
                    .is_some()
            })
        });
        shares[found.unwrap()] += 1;
        client.close();
    }
    shares
}

#[test]
fn b145_a_server_is_drained_and_taken_back_from_the_next_pick_on() {
    let (steered, servers, [first, second]) = two_servers();
    let admin = &steered.admin;
    let order = |id: u64, order: Value| post(admin, &format!("/v1/servers/{id}"), &order, "");
    assert_eq!(shares(&steered, &servers, 8), [4, 4]);
    let drained = order(first, json!({ "state": "drain" })).json();
    assert_eq!(
        (&drained["state"], &drained["why"]),
        (&json!("drain"), &json!("an operator"))
    );
    assert_eq!(shares(&steered, &servers, 6), [0, 6]);
    let last = order(second, json!({ "state": "maintenance" }));
    assert_eq!(last.status, 409, "{last:?}");
    assert!(last.body.contains("last server"), "{last:?}");
    assert_eq!(
        order(second, json!({ "state": "drain", "force": true })).status,
        200
    );
    assert_eq!(admin.get("/readyz").status, 503);
    for id in [first, second] {
        assert_eq!(order(id, json!({ "state": "active" })).status, 200);
    }
    // As heavy as a configuration may make it.
    assert_eq!(
        order(first, json!({ "weight": 1000 })).json()["weight"],
        1000
    );
    assert_eq!(order(first, json!({ "weight": 3 })).json()["weight"], 3);
    assert_eq!(shares(&steered, &servers, 8), [6, 2]);
    assert_eq!(
        order(first, json!({ "max_connections": 1 })).json()["max_connections"],
        1
    );
    let held = [
        steered.forwarder.connect(),
        steered.forwarder.connect(),
        steered.forwarder.connect(),
    ];
    wait_until("no more than one goes there", PATIENCE, || {
        let views = admin.get("/v1/servers").json();
        let sessions = |id: u64| {
            let view = views.as_array().unwrap().iter().find(|it| it["id"] == id);
            view.unwrap()["sessions"].as_u64().unwrap()
        };
        (sessions(first), sessions(second)) == (1, 2)
    });
    drop(held);
    let unbounded = order(first, json!({ "max_connections": null })).json();
    assert_eq!(unbounded["max_connections"], Value::Null);
}

#[test]
fn b147_two_writers_do_not_overwrite_each_other() {
    let (steered, _servers, [first, _]) = two_servers();
    let path = format!("/v1/servers/{first}");
    let seen = steered.admin.get(&path);
    let tag = seen.header("etag").unwrap();
    let order = json!({ "weight": 2 });
    let matching = format!("If-Match: {tag}\r\n");
    assert_eq!(post(&steered.admin, &path, &order, &matching).status, 200);
    let late = post(&steered.admin, &path, &order, &matching);
    assert_eq!(late.status, 412, "{late:?}");
    assert_eq!(
        late.header("content-type"),
        Some("application/problem+json")
    );
}

#[test]
fn b147_the_document_has_every_path_that_answers() {
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()));
    let document = steered.admin.get("/openapi.json").json();
    for (path, method) in [
        ("/v1", "get"),
        ("/v1/live", "get"),
        ("/v1/events", "get"),
        ("/v1/tap", "post"),
        ("/v1/sessions", "get"),
        ("/v1/sessions/kill", "post"),
    ] {
        let answers = &document["paths"][path][method]["responses"];
        assert!(answers["200"].is_object(), "{method} {path}");
        assert!(answers["503"].is_object(), "{method} {path}");
    }
    let streams = &document["paths"]["/v1/events"]["get"]["responses"]["200"]["content"];
    assert!(streams["text/event-stream"].is_object(), "{streams}");
}

#[test]
fn b147_what_is_wrong_is_told_with_its_place() {
    let (steered, _servers, [first, _]) = two_servers();
    let admin = &steered.admin;
    let path = format!("/v1/servers/{first}");
    for (answer, status, place) in [
        (admin.get("/v1/sessions?limit=0"), 400, "query, limit"),
        (admin.get("/v1/sessions?limits=1"), 400, "query"),
        (admin.get("/v1/sessions?client=x"), 400, "query, client"),
        (admin.get("/v1/sessions?cursor=1"), 400, "query, cursor"),
        (admin.get("/v1/forwards?x=1"), 400, "query"),
        (admin.get("/v1/servers/x"), 404, "path, id"),
        (
            post(admin, &path, &json!({ "state": "up" }), ""),
            400,
            "body, state",
        ),
        (
            post(admin, &path, &json!({ "weight": 0 }), ""),
            400,
            "body, weight",
        ),
        (
            post(admin, &path, &json!({ "weight": 1001 }), ""),
            400,
            "body, weight",
        ),
        (
            post(admin, &path, &json!({ "wait": 0 }), ""),
            400,
            "body, line 1 column 7",
        ),
        (
            post(admin, "/v1/log", &json!({ "level": "loud" }), ""),
            400,
            "body, level",
        ),
    ] {
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.json()["place"], place, "{answer:?}");
    }
    let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n");
    let plain = admin.send(
        &format!("{head}Content-Type: text/plain\r\nContent-Length: 2\r\n"),
        "{}",
    );
    assert_eq!(plain.status, 415);
    let large = "x".repeat(70_000);
    let json = format!("{head}Content-Type: application/json\r\nContent-Length: 70000\r\n");
    assert_eq!(admin.send(&json, &large).status, 413);
}

#[test]
fn b146_no_get_changes_anything() {
    let (steered, _servers, [first, _]) = two_servers();
    let admin = &steered.admin;
    let document = admin.get("/openapi.json").json();
    let before = admin.get("/v1/servers").json();
    let level = admin.get("/v1/log").json();
    for (path, item) in document["paths"].as_object().unwrap() {
        // They go on, and change as little: their tests are in `dashboard`.
        if ["/v1/live", "/v1/events"].contains(&path.as_str()) {
            continue;
        }
        let path = path
            .replace("{id}", &first.to_string())
            .replace("{name}", "x");
        let answer = admin.get(&path);
        if item.get("get").is_none() {
            assert_eq!(answer.status, 405, "{path}: {answer:?}");
        } else {
            assert!(matches!(answer.status, 200 | 404), "{path}: {answer:?}");
        }
    }
    let after = admin.get("/v1/servers").json();
    for (one, other) in before
        .as_array()
        .unwrap()
        .iter()
        .zip(after.as_array().unwrap())
    {
        assert_eq!(
            (&one["state"], &one["version"]),
            (&other["state"], &other["version"])
        );
    }
    assert_eq!(admin.get("/v1/log").json(), level);
}

#[test]
fn b145_the_log_speaks_up_when_it_is_told_to() {
    let (steered, ..) = two_servers();
    let admin = &steered.admin;
    assert_eq!(admin.get("/v1/log").json()["level"], "info");
    let set = post(admin, "/v1/log", &json!({ "level": "debug" }), "").json();
    assert_eq!(set["level"], "debug");
    assert_eq!(admin.get("/v1").json()["log_level"], "debug");
}

#[test]
fn b145_a_forward_that_is_drained_lets_nobody_in_and_its_sessions_go_on() {
    on_every_engine(|case| {
        let server = Listener::new();
        let steered = steered(Setup::new(server.address()).case(case).reactors(2));
        let (mut client, mut upstream) = (steered.forwarder.connect(), server.accept());
        let name = steered.admin.get("/v1/forwards").json()[0]["name"].clone();
        let path = format!("/v1/forwards/{}/drain", name.as_str().unwrap());
        let drained = post(&steered.admin, &path, &json!({}), "").json();
        assert_eq!(
            (&drained["state"], &drained["sessions"]),
            (&json!("draining"), &json!(1))
        );
        wait_until("nobody is let in", PATIENCE, || {
            Peer::try_connect(steered.forwarder.address()).is_err()
        });
        transfer(&mut client, &mut upstream, KIB);
        assert_eq!(steered.admin.get("/readyz").status, 503);
    });
}

/// One of datagrams takes nobody new, which is counted, and serves the flows that it has.
#[test]
fn b145_a_forward_of_datagrams_that_is_drained_serves_those_that_it_knows() {
    on_every_engine(|case| {
        let bound = || {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket
        };
        let server = bound();
        let to = format!("udp:{}", server.local_addr().unwrap());
        let setup = Setup::between("udp:127.0.0.1:0", to).engine(case.engine);
        let steered = steered(setup.reactors(2));
        let (admin, at) = (&steered.admin, steered.forwarder.address());
        let known = bound();
        known.connect(at).unwrap();
        let exchange = || {
            known.send(b"known").unwrap();
            let mut buffer = [0; 16];
            // Somebody new may have come before every reactor had been told.
            let flow = loop {
                let (len, flow) = server.recv_from(&mut buffer).unwrap();
                if buffer[..len] == *b"known" {
                    break flow;
                }
            };
            server.send_to(b"answer", flow).unwrap();
            assert_eq!(known.recv(&mut buffer).unwrap(), 6);
        };
        exchange();
        let listener = &admin.get("/v1/listeners").json()[0];
        let address = format!("udp:{at}");
        assert_eq!(
            (&listener["address"], &listener["sockets"]),
            (&json!(address), &json!(2))
        );
        let name = admin.get("/v1/forwards").json()[0]["name"].clone();
        let tap = post(admin, "/v1/tap", &json!({ "forward": name }), "");
        assert_eq!(tap.status, 400, "{}", tap.body);
        let path = format!("/v1/forwards/{}/drain", name.as_str().unwrap());
        let drained = post(admin, &path, &json!({}), "").json();
        assert_eq!(
            (&drained["state"], &drained["sessions"]),
            (&json!("draining"), &json!(1))
        );
        wait_until("nobody new is taken", PATIENCE, || {
            bound().send_to(b"me?", at).unwrap();
            steered.forwarder.counters().of("udp_dropped_draining") > 0
        });
        exchange();
        exchange();
    });
}
