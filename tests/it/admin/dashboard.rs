//! The dashboard in a headless Chromium (149), and streams (149, 150).

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::steered;
use crate::kit::admin::exchange;
use crate::kit::peer::transfer;
use crate::kit::{
    Directory, End, KIB, Listener, PATIENCE, Setup, on_every_engine, skip, test_name, wait_until,
};

const LOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/admin/look.py");

const TOKEN: &str = "0123456789abcdef0123";

#[test]
fn b149_the_dashboard_shows_updates_escapes_and_acts() {
    let have = |program: &str| Command::new(program).arg("--version").output().is_ok();
    if !have("chromium") || !have("python3") {
        return skip(&test_name(), "chromium or python3 is not there");
    }
    let (servers, directory) = ([Listener::new(), Listener::new()], Directory::new());
    let secret = directory.join("token");
    std::fs::write(&secret, TOKEN).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    let file = directory.join("named.toml");
    let [first, second] = [0, 1].map(|at: usize| servers[at].address().to_string());
    let text = format!(
        "[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = {secret:?}\n[[forward]]\n\
         name = \"<script>said.push(1)</script>\"\nlisten = \"127.0.0.1:0\"\n\
         upstream = [\"{first}\", \"{second}\"]\n"
    );
    std::fs::write(&file, text).unwrap();
    let forwarder = Setup::configured(&file, 1).start();
    let at = forwarder.wait_for_line("reactors, engine");
    let url = format!("http://{}/", at.text("admin"));
    let mut client = forwarder.connect();
    let taken = crate::kit::poll(PATIENCE, || {
        let within = std::time::Duration::from_millis(20);
        (0..2).find_map(|at| Some((at, servers[at].accept_within(within)?)))
    });
    let (at, _upstream) = taken.unwrap();
    // The one is drained, and a session of the other ended.
    let (first, second) = if at == 0 {
        (first, second)
    } else {
        (second, first)
    };
    let own = client.local().to_string();
    let output = Command::new("python3")
        .args([LOOK, &url, TOKEN, &second, &first, &own])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    for what in [
        "shown",
        "updates",
        "drained",
        "refused",
        "still-refused",
        "kept",
        "in-sight",
        "forward-drained",
        "forward-back",
        "scope",
        "listed",
        "ended",
    ] {
        assert_eq!(seen[what], true, "{what}: {seen}");
    }
    assert_eq!(client.receive_until_end(), End::Reset);
    let asks = seen["asks-to-end"].as_str().unwrap();
    assert!(asks.contains(&own), "{seen}");
    assert_eq!(seen["dark"], "rgb(13, 17, 23)", "{seen}");
    assert_eq!(seen["dark-width"], 400, "{seen}");
    assert_eq!(seen["width"], 400, "{seen}");
    assert_eq!(seen["scripts"], 1, "{seen}");
    assert_eq!(seen["said"], serde_json::json!([]), "{seen}");
    assert_eq!(seen["default"], "Cancel", "{seen}");
    let forwards = seen["forwards"].as_str().unwrap();
    assert!(forwards.contains("<script>said.push(1)</script>"), "{seen}");
    assert!(seen["asks"].as_str().unwrap().contains(&second), "{seen}");
}

#[test]
fn b149_the_page_has_a_strict_policy_and_nothing_from_elsewhere() {
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()));
    let page = steered.admin.get("/");
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-"),
        "{policy}"
    );
    assert!(
        !policy.contains("unsafe") && !policy.contains("http"),
        "{policy}"
    );
    for foreign in [
        " src=",
        " href=",
        "@import",
        "url(",
        "innerHTML",
        " style=",
        " onclick=",
    ] {
        assert!(!page.body.contains(foreign), "{foreign}");
    }
}

#[test]
fn b150_records_are_streamed_and_a_reader_that_stops_is_told_what_it_missed() {
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()));
    let open = || {
        let mut stream = steered.admin.connect();
        let head = "GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        let mut first = [0; 1];
        stream.read_exact(&mut first).unwrap();
        stream
    };
    let (mut reader, mut stopped) = (open(), open());
    let count = 2_600;
    let mut text = String::new();
    let mut buffer = vec![0; 65_536];
    for round in 0..count {
        let (mut client, mut upstream) = (steered.forwarder.connect(), server.accept());
        transfer(&mut client, &mut upstream, 10);
        client.close();
        upstream.expect_then_eof(0);
        if round % 50 == 0 {
            let n = reader.read(&mut buffer).unwrap();
            text.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }
    steered.forwarder.wait_for_sessions(count);
    wait_until("every record has come", PATIENCE, || {
        let n = reader.read(&mut buffer).unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
        text.matches("event: session").count() == count
    });
    assert!(!text.contains("event: gap"));
    let mut late = String::new();
    wait_until("the gap is told", PATIENCE, || {
        let n = stopped.read(&mut buffer).unwrap();
        late.push_str(&String::from_utf8_lossy(&buffer[..n]));
        late.contains("event: gap")
    });
    // Streams do not count among the eight.
    assert_eq!(steered.admin.get("/healthz").status, 200);
}

/// Of the records of sessions that end well exactly so many, of those that fail all, and the
/// counters know of every one.
#[test]
fn b150_a_sample_of_records_is_exact_and_has_every_failure() {
    on_every_engine(|case| {
        let server = Listener::new();
        let setup = Setup::new(server.address()).case(case);
        let steered = steered(setup.set("log.sample", "1/100"));
        let forwarder = &steered.forwarder;
        for number in 0..300 {
            let (client, mut upstream) = (forwarder.connect(), server.accept());
            if number % 30 == 7 {
                client.reset();
                let _ = upstream.receive_until_end();
            } else {
                client.close();
                upstream.expect_then_eof(0);
            }
        }
        let count = || steered.admin.get("/metrics").sum("thalweg_ended_total") as u64;
        wait_until("all have ended", PATIENCE, || count() == 300);
        // The 1st, the 101st and the 201st, and the ten that were reset.
        let records = forwarder.wait_for_sessions(13);
        let well = records.iter().filter(|it| it.code() == "--");
        let numbers: Vec<u64> = well.map(|it| it.number("id").unwrap()).collect();
        assert_eq!(numbers, [1, 101, 201]);
        let metrics = steered.admin.get("/metrics");
        assert_eq!(metrics.sum("thalweg_forward_sessions_total") as u64, 300);
        // A line that nobody asked for would have come before this one.
        assert_eq!(forwarder.counters().of("ended"), 300);
        assert_eq!(forwarder.sessions().len(), 13);
    });
}

#[test]
fn b149_pictures_come_once_a_second_to_all_who_look() {
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()));
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = steered.admin.connect();
        let head = "GET /v1/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        // Once it streams it is none of the eight that are served at a time.
        stream.read_exact(&mut [0; 1]).unwrap();
        streams.push(stream);
    }
    let mut client = steered.forwarder.connect();
    let mut upstream = server.accept();
    transfer(&mut client, &mut upstream, KIB);
    for stream in &mut streams {
        let mut text = String::new();
        let mut buffer = vec![0; 65_536];
        wait_until("two pictures have come", PATIENCE, || {
            let n = stream.read(&mut buffer).unwrap();
            text.push_str(&String::from_utf8_lossy(&buffer[..n]));
            text.matches("data: {").count() >= 2
        });
        assert!(text.contains("\"accepted\":1"), "{text}");
    }
    let answer = exchange(
        steered.admin.connect(),
        "GET /v1 HTTP/1.1\r\nHost: localhost\r\n",
        "",
    );
    assert_eq!(answer.status, 200);
}
