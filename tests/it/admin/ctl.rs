//! `thalweg ctl` on a running forwarder.

use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use super::{Steered, steered};
use crate::kit::peer::unless_reset;
use crate::kit::{Directory, Listener, PATIENCE, Peer, Setup, wait_until};

/// With the runtime directory of a forwarder: so it finds the socket by itself.
fn ctl(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .arg("ctl")
        .args(arguments)
        .env("RUNTIME_DIRECTORY", directory)
        .output()
        .unwrap()
}

#[track_caller]
fn said(steered: &Steered, arguments: &[&str]) -> String {
    let output = ctl(steered.directory.path(), arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn b143_ctl_shows_what_there_is() {
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()).reactors(2));
    let (client, _upstream) = (steered.forwarder.connect(), server.accept());
    let address = server.address().to_string();
    for (what, expected) in [
        ("info", "generation 1"),
        ("config", "[[forward]]"),
        ("forwards", "serving"),
        ("endings", "CODE"),
        ("pools", "round_robin"),
        ("servers", address.as_str()),
        ("names", "ADDRESSES"),
        ("listeners", "BACKLOG"),
        ("reactors", "SPREAD"),
        ("sessions", "idle"),
    ] {
        let text = said(&steered, &["show", what]);
        assert!(text.contains(expected), "{what}: {text}");
    }
    let text = said(&steered, &["show", "sessions", "--json", "--all"]);
    let page: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(page["sessions"][0]["client"], client.local().to_string());
    let none = said(&steered, &["show", "sessions", "--client", "10.0.0.0/8"]);
    assert_eq!(none.lines().count(), 1, "{none}");
}

#[test]
fn ctl_shows_what_routes_rules_and_rates_have_done() {
    let (server, directory) = (Listener::new(), Directory::new());
    let file = directory.join("routes.toml");
    let text = format!(
        "[[forward]]\nname = \"edge\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{to}\"\n\
         access = [\"deny 127.0.0.9\"]\nrate_per_client = {{ down = \"1GB/s\" }}\n\
         [[forward.route]]\nname = \"web\"\nhost = \"a.example\"\nupstream = \"{to}\"\n\
         [[forward.route]]\nhost = \"b.example\"\nreject = true\n",
        to = server.address()
    );
    std::fs::write(&file, text).unwrap();
    let steered = steered(Setup::configured(&file, 1));
    let to = steered.forwarder.address();
    let client = steered.forwarder.connect();
    std::io::Write::write_all(
        &mut client.stream(),
        b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
    )
    .unwrap();
    let _upstream = server.accept();
    let denied = Peer::try_connect_from_address([127, 0, 0, 9], to);
    if let Some(mut denied) = unless_reset(denied) {
        denied.receive_until_end();
    }
    wait_until("it is counted", PATIENCE, || {
        steered.forwarder.counters().of("denied_access") == 1
    });
    let words = |text: &str| {
        let lines = text.lines().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.join(" ")
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    let routes = words(&said(&steered, &["show", "routes"]));
    assert!(routes.contains("edge web edge/web 1"), "{routes}");
    assert!(routes.contains("edge 2 reject 0"), "{routes}");
    let access = words(&said(&steered, &["show", "access", "edge"]));
    assert!(access.contains("edge deny 127.0.0.9/32 1"), "{access}");
    assert!(access.contains("edge rate of a client"), "{access}");
    let text = said(&steered, &["show", "sessions", "--json"]);
    let page: serde_json::Value = serde_json::from_str(&text).unwrap();
    let session = &page["sessions"][0];
    assert_eq!(session["rates"][0]["of"], "client");
    assert_eq!(session["rates"][0]["down"], 1_000_000_000_u64);
    assert!(session["held_back_seconds"].is_number(), "{session}");
    let metrics = steered.admin.get("/metrics");
    for (series, value) in [
        (
            "thalweg_forward_routed_total{forward=\"edge\",route=\"web\"}",
            1.0,
        ),
        (
            "thalweg_forward_denied_total{forward=\"edge\",rule=\"deny 127.0.0.9/32\"}",
            1.0,
        ),
    ] {
        assert_eq!(metrics.sample(series), Some(value), "{series}");
    }
}

#[test]
fn b145_ctl_steers_and_says_by_its_exit_code_what_came_of_it() {
    let servers = [Listener::new(), Listener::new()];
    let addresses = servers.iter().map(|it| it.address().to_string());
    let steered = steered(Setup::new(addresses.collect::<Vec<_>>().join(",")));
    let at = steered.directory.path();
    let first = servers[0].address().to_string();
    let drained = said(&steered, &["server", &first, "drain", "--wait", "5s"]);
    assert!(drained.contains("drain"), "{drained}");
    let last = ctl(at, &["server", &servers[1].address().to_string(), "drain"]);
    assert_eq!(last.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&last.stderr).contains("--force")
            || String::from_utf8_lossy(&last.stderr).contains("force")
    );
    said(&steered, &["server", &first, "ready"]);
    let weighed = said(&steered, &["server", &first, "weight", "7", "--json"]);
    assert!(weighed.contains("\"weight\":7"), "{weighed}");
    said(&steered, &["server", &first, "limit", "9"]);
    said(&steered, &["server", &first, "limit", "none"]);
    said(&steered, &["clear-marks"]);
    assert!(said(&steered, &["log", "debug"]).contains("level debug"));
    let (mut client, mut upstream) = {
        let client = steered.forwarder.connect();
        let upstream = servers
            .iter()
            .find_map(|it| it.accept_within(std::time::Duration::from_secs(2)));
        (client, upstream.unwrap())
    };
    let killed = said(&steered, &["kill", "--client", "127.0.0.1"]);
    assert_eq!(killed, "1 sessions ended\n");
    client.receive_until_end();
    upstream.receive_until_end();
    for (arguments, code) in [
        (&["server", "10.9.9.9:1", "drain"][..], 1),
        (&["server", &first, "weight", "0"], 2),
        (&["server", &first, "weight"], 2),
        (&["kill"], 2),
        (&["kill", "0-99999"], 1),
        (&["show", "nothing"], 2),
        (&["show", "sessions", "--client", "nonsense"], 2),
        (&["--socket", "/nonexistent/x.sock", "show", "info"], 1),
    ] {
        let output = ctl(at, arguments);
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {output:?}"
        );
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

/// What there is not is a slip, and not an empty list; sizes and rates are written as elsewhere,
/// ids as in the log.
#[test]
fn b143_what_ctl_is_asked_for_and_is_not_there_is_told() {
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()));
    let at = steered.directory.path();
    let (mut client, mut upstream) = (steered.forwarder.connect(), server.accept());
    crate::kit::peer::transfer(&mut client, &mut upstream, 2 * crate::kit::KIB);
    for (arguments, code, expected) in [
        (
            &["show", "sessions", "--forward", "webb"][..],
            1,
            "no forward named",
        ),
        (&["kill", "--forward", "webb"], 1, "no forward named"),
        (&["show", "sessions", "--server", "webb/1"], 1, "no server"),
        (&["show", "servers", "--pool", "webb"], 1, "no pool named"),
        (&["show", "servers", "--state", "UP"], 2, "possible values"),
        (&["show", "sessions", "--limit", "5000"], 2, "5000"),
        (&["show", "sessions", "--min-rate", "fast"], 2, "1MB/s"),
        (&["--address", "127.0.0.1", "show", "info"], 2, "HOST:PORT"),
    ] {
        let output = ctl(at, arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    }
    let mine = client.local().to_string();
    let large = said(&steered, &["show", "sessions", "--min-bytes", "2KiB"]);
    assert!(large.contains(&mine), "{large}");
    let larger = said(&steered, &["show", "sessions", "--min-bytes", "1MiB"]);
    assert!(!larger.contains(&mine), "{larger}");
    let fast = said(&steered, &["show", "sessions", "--min-rate", "1GB/s"]);
    assert_eq!(fast.lines().count(), 1, "{fast}");
    let config = said(&steered, &["show", "config", "--json"]);
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert!(
        config["forward"][0]["listen"].is_string() || config["forward"][0]["listen"].is_array()
    );
    // As the record of its end has it.
    assert_eq!(said(&steered, &["kill", "0.1"]), "1 sessions ended\n");
    client.receive_until_end();
    upstream.receive_until_end();
}

/// Who waits for a drain is told meanwhile how many are left.
#[test]
fn b145_a_drain_says_what_is_left_while_it_is_waited_for() {
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()));
    let (client, upstream) = (steered.forwarder.connect(), server.accept());
    let address = server.address().to_string();
    let drain = ["server", &address, "drain", "--force", "--wait"];
    let mut waits = Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .arg("ctl")
        .args(drain)
        .env("RUNTIME_DIRECTORY", steered.directory.path())
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let told = std::io::BufReader::new(waits.stderr.take().unwrap());
    let first = std::io::BufRead::lines(told).next().unwrap().unwrap();
    assert!(first.ends_with("1 sessions left"), "{first}");
    drop((client, upstream));
    assert!(waits.wait().unwrap().success());
}

/// In the words that readline makes of a line: it cuts them at colons.
#[test]
fn completions_of_bash_go_on_behind_an_address() {
    if Command::new("bash").arg("--version").output().is_err() {
        return crate::kit::skip(&crate::kit::test_name(), "bash is not there");
    }
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()));
    let pool = steered.admin.get("/v1/pools").json()[0]["name"].clone();
    let pool = pool.as_str().unwrap().to_owned();
    let address = server.address();
    let (host, port) = (address.ip(), address.port());
    // What the pool is called has a colon as well, for it has no name of its own.
    let name = format!("{pool}/{host}:{port}");
    let completed = |line: &str| {
        let words = line.replace(':', " : ");
        let script = format!(
            "thalweg() {{ \"$PROGRAM\" \"$@\"; }}; eval \"$(thalweg completions bash)\"\n\
             COMP_LINE={line:?}; COMP_POINT=${{#COMP_LINE}}; COMP_WORDBREAKS=$' \\t\\n\\\"><=;|&(:'\n\
             COMP_WORDS=({words}); [[ $COMP_LINE == *' ' ]] && COMP_WORDS+=('')\n\
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n\
             f=$(complete -p thalweg); f=${{f##*-F }}; f=${{f%% *}}\n\
             $f thalweg \"${{COMP_WORDS[COMP_CWORD]}}\" ''\n\
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let output = Command::new("bash")
            .args(["--norc", "-c", &script])
            .env("PROGRAM", env!("CARGO_BIN_EXE_thalweg"))
            .env("RUNTIME_DIRECTORY", steered.directory.path())
            .output()
            .unwrap();
        let lines = String::from_utf8(output.stdout).unwrap();
        let lines = lines.lines().map(|it| it.trim_end().to_owned());
        lines.collect::<Vec<String>>()
    };
    assert_eq!(
        completed(&format!("thalweg ctl server {name} dr")),
        ["drain"]
    );
    let verbs = completed(&format!("thalweg ctl server {name} "));
    assert!(verbs.contains(&"maintenance".to_owned()), "{verbs:?}");
    // Readline has the part before the colon already.
    let begun = format!("thalweg ctl server {pool}/{host}:");
    assert_eq!(completed(&begun), [port.to_string()]);
}

#[test]
fn b145_ctl_says_which_ones_run_when_several_do() {
    let server = Listener::new();
    let first = steered(Setup::new(server.address()));
    let second = Setup::new(server.address()).admin(&first.directory).start();
    let output = ctl(first.directory.path(), &["show", "info"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.contains("admin.sock") && said.contains("--socket"),
        "{said}"
    );
    drop(second);
    let nowhere = Directory::new();
    let output = ctl(nowhere.path(), &["show", "info"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("no running thalweg"), "{said}");
}

#[test]
fn completions_offer_the_names_of_the_one_that_runs() {
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()));
    let (client, _upstream) = (steered.forwarder.connect(), server.accept());
    let offered = |line: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_thalweg"))
            .args(["--", "thalweg", "ctl"])
            .args(line)
            .env("THALWEG_COMPLETE", "fish")
            .env("RUNTIME_DIRECTORY", steered.directory.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let forwards = steered.admin.get("/v1/forwards").json();
    let forward = forwards[0]["name"].as_str().unwrap();
    let pools = steered.admin.get("/v1/pools").json();
    let server = format!(
        "{}/{}",
        pools[0]["name"].as_str().unwrap(),
        server.address()
    );
    for (line, expected) in [
        (&["server", ""][..], server.as_str()),
        (&["clear-marks", ""], &server),
        (&["show", "sessions", "--server", ""], &server),
        (&["forward", ""], forward),
        (&["tap", "--forward", ""], forward),
        (&["kill", ""], "0-1"),
        (&["tap", "--session", ""], "0-1"),
    ] {
        let words = offered(line);
        assert!(words.contains(expected), "{line:?}: {words}");
    }
    let words = offered(&["kill", ""]);
    assert!(words.contains(&client.local().to_string()), "{words}");
    // Nobody to ask is no name, and no error.
    let elsewhere = steered.directory.join("none.sock");
    let elsewhere = elsewhere.to_str().unwrap();
    let words = offered(&["--socket", elsewhere, "forward", ""]);
    assert!(!words.contains(forward), "{words}");
}

#[test]
fn b149_top_prints_one_plain_picture_into_a_pipe() {
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()));
    let (client, _upstream) = (steered.forwarder.connect(), server.accept());
    let output = Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .arg("top")
        .env("RUNTIME_DIRECTORY", steered.directory.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains('\x1b'), "{text}");
    for expected in [
        client.local().to_string(),
        server.address().to_string(),
        "HELD BACK BY".to_owned(),
    ] {
        assert!(text.contains(&expected), "{expected}: {text}");
    }
}

#[test]
fn b148_ctl_says_whether_clients_are_served_and_waits_for_it() {
    let server = Listener::new();
    let steered = steered(
        Setup::new(server.address())
            .set("defaults.upstream.check.type", "tcp")
            .set("defaults.upstream.check.interval", "100ms")
            .set("defaults.upstream.check.timeout", "50ms"),
    );
    assert_eq!(said(&steered, &["ready", "--wait", "60s"]), "ready\n");
    let address = server.address();
    drop(server);
    wait_until("ctl says that it is not", PATIENCE, || {
        let output = ctl(steered.directory.path(), &["ready"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.code() == Some(1) && told.contains("none of 1 servers is up")
    });
    // Somebody who waits is told as soon as it is.
    thread::scope(|scope| {
        let waits = scope.spawn(|| said(&steered, &["ready", "--wait", "60s"]));
        let _server = std::net::TcpListener::bind(address).unwrap();
        assert_eq!(waits.join().unwrap(), "ready\n");
    });
}
