//! `thalweg doctor` as an operator starts it: its exit codes and what it prints. How
//! facts are judged is tested beside the judging.

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::kit::directory::Directory;
use crate::kit::shortage::Nobody;
use crate::kit::{PATIENCE, free_port, poll};

fn doctor(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .arg("doctor")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("thalweg runs")
}

fn findings(output: &Output) -> Vec<Value> {
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    report["findings"].as_array().expect("findings").clone()
}

#[test]
fn without_a_configuration_nothing_is_needed() {
    let output = doctor(&[]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8_lossy(&output.stdout);
    for name in [
        "RLIMIT_NOFILE",
        "net.core.somaxconn",
        "net.ipv4.tcp_max_syn_backlog",
        "net.core.rmem_max",
        "net.core.wmem_max",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_wmem",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.tcp_tw_reuse",
        "fs.pipe-max-size",
        "fs.pipe-user-pages-soft",
        "congestion control",
        "net.ipv4.tcp_migrate_req",
        "net.ipv4.tcp_mtu_probing",
        "io_uring",
        "offloads",
        "clock source",
        "CPUs",
    ] {
        assert!(text.contains(name), "{name} is missing:\n{text}");
    }
    assert!(text.contains("Nothing falls short"), "{text}");
}

#[test]
fn what_the_configuration_needs_and_the_machine_lacks_is_exit_code_1() {
    // More sessions than any hard limit, and one more buffer than any rmem_max.
    let output = doctor(&[
        "-l",
        "127.0.0.1:0",
        "-r",
        "127.0.0.1:1",
        "--set",
        "global.max_connections=2000000000",
        "--set",
        "profile.default.receive_buffer=1GiB",
        "--json",
    ]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let findings = findings(&output);
    let short = |name: &str| {
        let finding = findings.iter().find(|it| it["name"] == name);
        let finding = finding.unwrap_or_else(|| panic!("{name} is missing"));
        finding["state"] == "short"
            && finding["wanted"].is_string()
            && finding["remedy"].is_string()
    };
    assert!(short("RLIMIT_NOFILE"));
    assert!(short("net.ipv4.ip_local_port_range"));
    assert!(short("net.core.rmem_max"));
}

#[test]
fn an_unknown_congestion_control_falls_short() {
    let output = doctor(&[
        "-l",
        "127.0.0.1:0",
        "-r",
        "127.0.0.1:1",
        "--set",
        "profile.default.congestion=nonesuch",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("SHORT") && text.contains("nonesuch"),
        "{text}"
    );
}

#[test]
fn a_modest_configuration_is_content() {
    let output = doctor(&["-l", "127.0.0.1:0", "-r", "127.0.0.1:1", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(findings(&output).iter().all(|it| it["state"] != "short"));
}

#[test]
fn a_wrong_configuration_is_exit_code_2() {
    for arguments in [
        ["-l", "127.0.0.1:0"].as_slice(),
        &["-c", "/no/such/file.toml"],
        &["-l", ":1", "-r", "x:1", "--set", "global.enjine=epoll"],
    ] {
        let output = doctor(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty());
        assert!(!output.stderr.is_empty());
    }
}

/// Words of a command line, with an upstream that nobody dials.
fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// What keeps `run` from starting is what `doctor` finds, under that name.
#[track_caller]
fn both_say(arguments: &[String], name: &str, as_user: Option<&Nobody>) {
    let command = |which: &str, more: &[&str]| {
        let mut line = vec![which.to_owned()];
        line.extend(arguments.iter().cloned());
        line.extend(more.iter().map(|it| (*it).to_owned()));
        let mut command = as_user.map_or_else(
            || Command::new(env!("CARGO_BIN_EXE_thalweg")),
            Nobody::command,
        );
        command.args(&line);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut run = command("run", &[]);
    let status = poll(PATIENCE, || run.try_wait().unwrap());
    if status.is_none() {
        run.kill().unwrap();
    }
    let run = run.wait_with_output().unwrap();
    assert_eq!(
        status.and_then(|it| it.code()),
        Some(1),
        "{arguments:?}: {run:?}"
    );
    let output = command("doctor", &["--json"]).wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    let findings = findings(&output);
    let short = findings.iter().filter(|it| it["state"] == "short");
    let short: Vec<_> = short.map(|it| it["name"].as_str().unwrap()).collect();
    assert!(
        short.iter().any(|it| it.starts_with(name)),
        "{arguments:?}: no {name} in {short:?}"
    );
    let mut texts = findings.iter().filter(|it| it["state"] == "short");
    assert!(texts.all(|it| it["remedy"].as_str().is_some_and(|text| !text.is_empty())));
}

#[test]
fn what_keeps_run_from_starting_is_found() {
    let directory = Directory::new();
    let at = |name: &str| directory.join(name).display().to_string();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let held = held.local_addr().unwrap();
    let path = at("held.sock");
    let _alive = UnixListener::bind(&path).unwrap();
    fs::write(at("file"), "").unwrap();
    fs::write(at("users"), "ann:plain\n").unwrap();
    let pair = "-l 127.0.0.1:0 -r 127.0.0.1:1";
    let proxy = |users: &str| {
        let file = at("proxy.toml");
        let text = format!(
            "[[forward]]\nlisten = \"127.0.0.1:0\"\nmode = \"http-connect\"\n\
             connect = {{ users = \"{users}\" }}\n"
        );
        fs::write(&file, text).unwrap();
        format!("-c {file}")
    };
    for (line, name) in [
        // An address that this host lacks, and ports and paths that are taken.
        ("-l 192.0.2.7:5000 -r 127.0.0.1:1".to_owned(), "listener"),
        (format!("-l {held} -r 127.0.0.1:1"), "listener"),
        (format!("-l unix:{path} -r 127.0.0.1:1"), "listener"),
        (format!("-l unix:{} -r 127.0.0.1:1", at("file")), "listener"),
        (
            format!("-l unix:{}/x -r 127.0.0.1:1", at("none")),
            "listener",
        ),
        // Two that are one when the name is looked up.
        (
            format!(
                "-l 127.0.0.1:{0} -r 127.0.0.1:1 -l localhost:{0} -r 127.0.0.1:1",
                free_port()
            ),
            "listener localhost",
        ),
        // Files.
        (format!("{pair} --log-to {}/none/log", at("")), "log"),
        (
            format!("{pair} --log-to {}", directory.path().display()),
            "log",
        ),
        (
            format!("{pair} --tap text --tap-to {}/none/tap", at("")),
            "tap",
        ),
        (proxy(&at("none")), "users"),
        (proxy(&at("users")), "users"),
        // Where it can be steered and counted.
        (format!("{pair} --set metrics.listen=\"{held}\""), "admin"),
        (
            format!("{pair} --set admin.listen=\"127.0.0.1:0\""),
            "admin",
        ),
        (format!("{pair} --set admin.token_file=\"/none\""), "admin"),
        // An interface that is not there.
        (
            format!("{pair} --set profile.default.interface=nosuch0"),
            "forward 127.0.0.1:0, client leg: interface",
        ),
        // More listeners than descriptors.
        (
            "-l 127.0.0.1:20000-29999 -r 10.0.0.1:1 --reactors 1024".to_owned(),
            "RLIMIT_NOFILE",
        ),
    ] {
        both_say(&words(&line), name, None);
    }
}

#[test]
fn what_a_user_without_privileges_may_not_is_found() {
    let Some(nobody) = Nobody::new() else { return };
    let directory = Directory::new();
    fs::write(directory.join("log"), "").unwrap();
    let log = directory.join("log").display().to_string();
    let pair = "-l 127.0.0.1:0 -r 127.0.0.1:1";
    let mut cases = vec![
        (format!("{pair} --log-to {log}"), "log"),
        (format!("{pair} --log-to {log}.new"), "log"),
        ("-l unix:/usr/x.sock -r 127.0.0.1:1".to_owned(), "listener"),
    ];
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first.trim() == "0" {
        crate::kit::skip("a privileged port", "every port is anybody's here");
    } else {
        cases.push(("-l 127.0.0.1:80 -r 127.0.0.1:1".to_owned(), "listener"));
    }
    for (line, name) in cases {
        both_say(&words(&line), name, Some(&nobody));
    }
}

/// Nothing that is looked at is changed, and a forwarder that runs is not disturbed.
#[test]
fn looking_leaves_everything_as_it_was() {
    let directory = Directory::new();
    let socket = format!("unix:{}", directory.join("s").display());
    let log = directory.join("log").display().to_string();
    let line = [
        "-l",
        &socket,
        "-r",
        "127.0.0.1:1",
        "--log-to",
        &log,
        "--tap",
        "text",
    ];
    let tap = directory.join("tap").display().to_string();
    let output = doctor(&[&line[..], &["--tap-to", &tap]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);

    let server = crate::kit::Listener::new();
    let forwarder = crate::kit::Setup::new(server.address()).start();
    let listen = forwarder.address().to_string();
    let output = doctor(&["-l", &listen, "-r", "127.0.0.1:1", "--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let findings = findings(&output);
    let finding = findings
        .iter()
        .find(|it| it["name"] == format!("listener {listen}"));
    let finding = finding.expect("the listener");
    assert_eq!(finding["state"], "note");
    let process = format!("process {}", forwarder.process().0);
    assert!(
        finding["found"].as_str().unwrap().contains(&process),
        "{finding}"
    );
    let mut client = forwarder.connect();
    let mut peer = server.accept();
    client.send(3);
    peer.expect(3);
}
