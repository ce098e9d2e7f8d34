//! `thalweg doctor` as an operator starts it: its exit codes and what it prints. How
//! facts are judged is tested beside the judging.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

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
        "fs.pipe-max-size",
        "fs.pipe-user-pages-soft",
        "congestion control",
        "net.ipv4.tcp_migrate_req",
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
