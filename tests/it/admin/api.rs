//! The API: what it says, what it does, and what it turns down (143 to 147).

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Steered, steered};
use crate::kit::admin::Answer;
use crate::kit::peer::transfer;
use crate::kit::{Admin, End, KIB, Listener, PATIENCE, Peer, Setup, on_every_engine, wait_until};

pub(super) fn post(admin: &Admin, path: &str, body: &Value, headers: &str) -> Answer {
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n{headers}",
        body.len()
    );
    admin.send(&head, &body)
}

/// So many sessions, each with its server's side.
fn sessions(steered: &Steered, server: &Listener, count: usize) -> Vec<(Peer, Peer)> {
    let pairs = (0..count).map(|_| (steered.forwarder.connect(), server.accept()));
    pairs.collect()
}

/// Every session there is, page by page.
fn walk(admin: &Admin, limit: usize, filter: &str) -> Vec<Value> {
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
        let steered = steered(Setup::new(server.address()).case(case).reactors(2));
        let mut held = sessions(&steered, &server, 150);
        // Others come and go while it is walked.
        let found = std::thread::scope(|scope| {
            let others = scope.spawn(|| {
                for _ in 0..20 {
                    let (client, mut upstream) = (steered.forwarder.connect(), server.accept());
                    client.close();
                    upstream.expect_then_eof(0);
                }
            });
            let found = walk(&steered.admin, 7, "");
            others.join().unwrap();
            found
        });
        let clients: BTreeSet<String> = held.iter().map(|it| it.0.local().to_string()).collect();
        let seen: Vec<&str> = found
            .iter()
            .map(|it| it["client"].as_str().unwrap())
            .collect();
        for client in &clients {
            let times = seen.iter().filter(|it| *it == client).count();
            assert_eq!(times, 1, "{client}");
        }
        let ids = ids(&found);
        let different: BTreeSet<&String> = ids.iter().collect();
        assert_eq!(different.len(), ids.len());
        let (client, upstream) = &mut held[0];
        transfer(client, upstream, 3 * KIB);
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
    assert_eq!(count("&forward=nobody"), 0);
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
