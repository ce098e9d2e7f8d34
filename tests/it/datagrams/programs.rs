//! Programs that others ask and measure with: dig, dnsperf and iperf3, through the forwarder.

use std::process::{Command, Stdio};

use crate::kit::program::{Program, is_here};

use super::quic::configured;
use super::*;

/// What a program says, which ends well and within a minute.
#[track_caller]
fn said(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.arg("60").arg(program).args(arguments);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complains = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {said}\n{complains}");
    said
}

/// Both protocols at one port.
fn both(case: Case, server: SocketAddr, more: &str) -> Forwarder {
    let content = format!(
        "[[forward]]\nlisten = \"127.0.0.1:{}\"\nprotocol = \"tcp+udp\"\nupstream = \"{server}\"\n{more}",
        free_port()
    );
    configured(case, &content)
}

/// Whatever came has been passed on, either way.
#[track_caller]
fn nothing_is_lost(forwarder: &Forwarder) {
    let counters = forwarder.counters();
    for way in ["up", "down"] {
        let of = |name: &str| counters.of(&format!("udp_{name}_{way}"));
        assert_eq!(of("received"), of("sent"), "{way}");
    }
    assert_eq!(counters.of("udp_dropped_receive_queue"), 0);
}

#[test]
fn dig_is_answered_by_a_server_behind() {
    if !is_here("dig") {
        return;
    }
    on_every_engine(|case| {
        let dns = Dns::start();
        dns.set("one.example", Says::addresses(60, &["192.0.2.1"]));
        let many: Vec<String> = (0..100).map(|n| format!("192.0.2.{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        dns.set("many.example", Says::addresses(60, &many));
        let forwarder = both(case, dns.address(), "responses = 1\n");
        let port = forwarder.address().port().to_string();
        let dig = |arguments: &[&str]| {
            let all = ["@127.0.0.1", "-p", &port, "+time=20", "+tries=1"];
            said("dig", &[&all, arguments].concat())
        };
        assert_eq!(dig(&["+short", "one.example", "A"]).trim(), "192.0.2.1");
        assert!(dig(&["none.example", "A"]).contains("NXDOMAIN"));
        // In one datagram above the MTU of most paths, and in none: dig asks again over TCP.
        let large = dig(&["+bufsize=4096", "many.example", "A"]);
        assert!(
            large.contains("ANSWER: 100") && large.contains("(UDP)"),
            "{large}"
        );
        let retried = dig(&["+noedns", "many.example", "A"]);
        assert!(
            retried.contains("ANSWER: 100") && retried.contains("(TCP)"),
            "{retried}"
        );
        assert_eq!(forwarder.counters().of("udp_flows"), 4);
        nothing_is_lost(&forwarder);
    });
}

#[test]
fn dnsperf_loses_no_question() {
    if !is_here("dnsperf") {
        return;
    }
    on_every_engine(|case| {
        let dns = Dns::start();
        let directory = Directory::new();
        let questions = directory.join("questions");
        let names: Vec<String> = (0..50).map(|n| format!("n{n}.example")).collect();
        for name in &names {
            dns.set(name, Says::addresses(60, &["192.0.2.1"]));
        }
        let list = names.join(" A\n") + " A\n";
        std::fs::write(&questions, list).unwrap();
        let forwarder = both(case, dns.address(), "");
        let port = forwarder.address().port().to_string();
        let questions = questions.to_str().unwrap();
        // Twenty clients, forty questions under way at the most.
        let arguments = format!("-s 127.0.0.1 -p {port} -d {questions} -n 40 -c 20 -q 40 -t 30");
        let words: Vec<&str> = arguments.split_whitespace().collect();
        let told = said("dnsperf", &words);
        let number = |name: &str| -> u64 {
            let line = told.lines().find_map(|it| it.trim().strip_prefix(name));
            let word = line.and_then(|it| it.split_whitespace().next());
            word.and_then(|it| it.parse().ok())
                .unwrap_or_else(|| panic!("{name} {told}"))
        };
        assert_eq!(number("Queries sent:"), 2000);
        assert_eq!(number("Queries completed:"), 2000, "{told}");
        assert!(told.contains("NOERROR 2000"), "{told}");
        assert_eq!(forwarder.counters().of("udp_flows"), 20);
        nothing_is_lost(&forwarder);
    });
}

/// Whether anybody listens for connections at a port of 127.0.0.1.
fn listens(port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    table.contains(&format!("0100007F:{port:04X} 00000000:0000 0A"))
}

/// What is agreed on goes over TCP, what is measured over UDP, at the same port.
#[test]
fn iperf3_measures_datagrams_both_ways_and_none_is_lost() {
    if !is_here("iperf3") {
        return;
    }
    on_every_engine(|case| {
        let port = free_port();
        let at = port.to_string();
        let _server =
            Program::start(Command::new("iperf3").args(["-s", "-B", "127.0.0.1", "-p", &at]));
        wait_until("iperf3 listens", PATIENCE, || listens(port));
        let forwarder = both(case, ([127, 0, 0, 1], port).into(), "");
        let through = forwarder.address().port().to_string();
        for way in [&[][..], &["-R"], &["--bidir"]] {
            let usual = ["-c", "127.0.0.1", "-p", &through, "-u", "-J"];
            // So few that receive buffers hold what comes in seconds in which nobody reads. Who is
            // not let run for longer loses some, and tries again.
            let little = ["-k", "15", "-b", "24K", "-l", "100"];
            let mut told = serde_json::Value::Null;
            wait_until("nothing is lost", PATIENCE, || {
                let line = said("iperf3", &[&usual[..], &little, way].concat());
                told = serde_json::from_str(&line).unwrap();
                // Its server may be slower to see the end of the one before: then there is nothing.
                let ends = told["end"].as_object().unwrap();
                let mut sums = ends.iter().filter(|it| it.0.starts_with("sum")).peekable();
                sums.peek().is_some() && sums.all(|(_, sum)| sum["lost_packets"] == 0)
            });
            assert!(told["end"]["sum"]["packets"].as_u64() > Some(0), "{told}");
        }
        let counters = forwarder.counters();
        let (up, down) = (counters.of("udp_sent_up"), counters.of("udp_sent_down"));
        // It ends by what it was told over TCP, whatever is still under way then.
        assert!(up > 0 && down > 0, "{up} up, {down} down");
        assert_eq!(counters.of("udp_received_up"), up);
        assert_eq!(counters.of("udp_received_down"), down);
    });
}
