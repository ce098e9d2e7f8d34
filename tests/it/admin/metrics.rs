//! /metrics: its form, its series, its figures (140 to 142).
#![allow(
    clippy::float_cmp,
    reason = "what is counted is whole, and exact as a float up to 2 to the power of 53"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{Steered, steered};
use crate::kit::admin::Answer;
use crate::kit::peer::{transfer, unless_reset};
use crate::kit::{
    Admin, Directory, KIB, Listener, MIB, PATIENCE, Peer, Setup, on_every_engine, poll, skip,
    test_name,
};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

fn openmetrics(admin: &Admin) -> Answer {
    let accept = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    admin.send(
        &format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{accept}"),
        "",
    )
}

/// Sessions of several endings through a forwarder: some well, some reset, some refused.
pub(crate) fn mixed(steered: &Steered, server: &Listener, rounds: usize) {
    for _ in 0..rounds {
        let (mut client, mut upstream) = (steered.forwarder.connect(), server.accept());
        transfer(&mut client, &mut upstream, 3 * KIB);
        transfer(&mut upstream, &mut client, 5 * KIB);
        client.close();
        upstream.expect_then_eof(0);
        upstream.close();
        let (client, mut upstream) = (steered.forwarder.connect(), server.accept());
        client.reset();
        upstream.receive_until_end();
    }
    // Half of the forwards' sessions; others find no server at all.
    let refused = steered.forwarder.addresses()[1].parse().unwrap();
    for _ in 0..rounds {
        // The kernel may tell of the reset before it tells of the connect.
        if let Some(mut client) = unless_reset(Peer::try_connect(refused)) {
            client.receive_until_end();
        }
    }
    steered.forwarder.wait_for_sessions(3 * rounds);
}

pub(crate) fn two_forwards(server: &Listener) -> Setup {
    Setup::new(server.address()).and("127.0.0.1:0", "127.0.0.1:1")
}

/// Series without their values.
fn series(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()))
        .collect()
}

/// One HELP and one TYPE a family, its samples together behind them, no series twice.
fn check_form(text: &str) {
    let (mut types, mut helps) = (BTreeSet::new(), BTreeSet::new());
    let mut current = String::new();
    let mut over = BTreeSet::new();
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next()) {
            (Some("#"), Some("TYPE"), Some(name)) => {
                assert!(types.insert(name.to_owned()), "two types of {name}");
                assert!(over.insert(current.clone()) || current.is_empty());
                assert!(!over.contains(name), "{name} is not in one piece");
                name.clone_into(&mut current);
            }
            (Some("#"), Some("HELP"), Some(name)) => {
                assert!(helps.insert(name.to_owned()), "two helps of {name}");
                assert!(words.next().is_some_and(|it| !it.is_empty()));
            }
            (Some("#"), ..) => {}
            _ => assert!(line.starts_with(&current), "{line} behind {current}"),
        }
    }
    assert_eq!(types, helps);
    let series = series(text);
    let different: BTreeSet<&String> = series.iter().collect();
    assert_eq!(different.len(), series.len(), "a series is there twice");
}

#[test]
fn b140_the_form_is_that_of_prometheus() {
    on_every_engine(|case| {
        let server = Listener::new();
        let steered = steered(two_forwards(&server).case(case));
        mixed(&steered, &server, 4);
        let text = steered.admin.get("/metrics");
        let kind = text.header("content-type");
        assert_eq!(kind, Some("text/plain; version=0.0.4; charset=utf-8"));
        check_form(&text.body);
        let open = openmetrics(&steered.admin);
        assert_eq!(open.header("content-type"), Some(OPENMETRICS));
        assert!(open.body.ends_with("\n# EOF\n"));
        for family in [
            "thalweg_accepted_total",
            "thalweg_forward_ended_total",
            "thalweg_forward_connect_seconds_bucket",
            "thalweg_server_failures_total",
            "thalweg_server_connect_seconds_bucket",
            "thalweg_build_info",
            "thalweg_config_info",
            "thalweg_listener_backlog",
            "process_open_fds",
            "process_start_time_seconds",
        ] {
            assert!(
                text.body.contains(&format!("\n{family}{{"))
                    || text.body.contains(&format!("\n{family} ")),
                "{family}: {}",
                text.body
            );
        }
        lint(&text.body);
    });
}

/// `promtool check metrics` has nothing to say.
fn lint(text: &str) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut promtool) = promtool else {
        return skip(&test_name(), "promtool is not there");
    };
    let mut stdin = promtool.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn b141_peers_make_no_series_and_names_are_escaped() {
    let (server, directory) = (Listener::new(), Directory::new());
    let name = r#"we"ird\name<script>"#;
    let file = directory.join("odd.toml");
    let at = server.address();
    let text = format!(
        "[[forward]]\nname = '{name}'\nlisten = \"127.0.0.1:0\"\nupstream = \"{at}\"\n\
         [[forward]]\nname = \"off\"\nlisten = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:1\"\n\
         [[forward]]\nname = \"named\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{at}\"\n\
         [[forward.route]]\nsni = \"*.example\"\nupstream = \"{at}\"\n\
         [[forward]]\nname = \"proxy\"\nlisten = \"127.0.0.1:0\"\nmode = \"http-connect\"\n\
         connect.allow = [\":443\"]\n",
    );
    fs::write(&file, text).unwrap();
    let steered = steered(Setup::configured(&file, 4));
    // Names and targets that no other client has; 300 of each, since each is a session of its
    // own here: a series for any of them would show with the first.
    let addresses = steered.forwarder.addresses();
    let [named, proxy] = [2, 3].map(|at: usize| addresses[at].parse().unwrap());
    let asks = |from: usize, to: usize| {
        for number in from..to {
            // Each ends as the others did: an ending of another kind would be a series.
            let (client, hello) = (
                Peer::connect(named),
                crate::convert::hello(&format!("name-{number}.example")),
            );
            client.stream().write_all(&hello).unwrap();
            let upstream = server.accept();
            upstream
                .stream()
                .read_exact(&mut vec![0; hello.len()])
                .unwrap();
            client.half_close();
            assert_eq!(upstream.stream().read(&mut [0]).unwrap(), 0);
            drop(upstream);
            assert_eq!(client.stream().read(&mut [0]).unwrap(), 0);
            let client = Peer::connect(proxy);
            let request = format!("CONNECT target-{number}.example:80 HTTP/1.1\r\n\r\n");
            client.stream().write_all(request.as_bytes()).unwrap();
            client.half_close();
            let mut answer = String::new();
            client.stream().read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        }
    };
    mixed(&steered, &server, 2);
    asks(0, 2);
    steered.forwarder.wait_for_sessions(6 + 4);
    let before: BTreeSet<String> = series(&steered.admin.get("/metrics").body)
        .into_iter()
        .collect();
    let escaped = r#"thalweg_forward_sessions_total{forward="we\"ird\\name<script>"}"#;
    assert!(before.contains(escaped), "{before:?}");
    mixed(&steered, &server, 40);
    asks(2, 300);
    let after: BTreeSet<String> = series(&steered.admin.get("/metrics").body)
        .into_iter()
        .collect();
    let new: Vec<&String> = after.difference(&before).collect();
    assert!(new.is_empty(), "{new:?}");
}

#[test]
fn b142_counters_are_those_of_the_records() {
    on_every_engine(|case| {
        let server = Listener::new();
        let steered = steered(two_forwards(&server).case(case).reactors(2));
        // The text's 10,000 are in `serial::steering`.
        mixed(&steered, &server, 200);
        check_books(&steered);
    });
}

/// Once all sessions have ended: the counters are those of the records.
pub(crate) fn check_books(steered: &Steered) {
    let records = steered.forwarder.sessions();
    let metrics = steered.admin.get("/metrics");
    let mut endings: BTreeMap<(String, String, String), f64> = BTreeMap::new();
    let (mut up, mut down) = (0, 0);
    for record in &records {
        let key = (record.text("forward"), record.code(), record.cause());
        let key = (key.0.to_owned(), key.1.to_owned(), key.2.to_owned());
        *endings.entry(key).or_default() += 1.0;
        let bytes = record.bytes();
        (up, down) = (up + bytes.0, down + bytes.1);
    }
    for ((forward, code, cause), count) in &endings {
        let series = format!(
            "thalweg_forward_ended_total{{forward=\"{forward}\",code=\"{code}\",cause=\"{cause}\"}}"
        );
        assert_eq!(metrics.sample(&series), Some(*count), "{series}");
    }
    let total = records.len() as f64;
    assert_eq!(metrics.sum("thalweg_forward_ended_total"), total);
    assert_eq!(metrics.sum("thalweg_ended_total"), total);
    assert_eq!(metrics.sum("thalweg_accepted_total"), total);
    assert_eq!(metrics.sum("thalweg_live_sessions"), 0.0);
    assert_eq!(metrics.sum("thalweg_forward_live_sessions"), 0.0);
    assert_eq!(
        metrics.sum("thalweg_forward_written_bytes_total"),
        (up + down) as f64
    );
    assert_eq!(
        metrics.sum("thalweg_written_bytes_total"),
        (up + down) as f64
    );
    assert_eq!(
        metrics.sum("thalweg_server_written_bytes_total"),
        (up + down) as f64
    );
    let lengths = metrics.sum("thalweg_forward_session_duration_seconds_count");
    assert_eq!(lengths, total);
    check_histograms(&metrics.body);
}

/// `+Inf` is `_count`, and buckets never fall.
pub(crate) fn check_histograms(text: &str) {
    let mut last = 0.0;
    let mut inf = 0.0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        if series.contains("_bucket{") {
            assert!(value >= last, "{line}");
            last = value;
            if series.contains("le=\"+Inf\"") {
                (inf, last) = (value, 0.0);
            }
        } else if series.split('{').next().unwrap().ends_with("_count") {
            assert!((value - inf).abs() < f64::EPSILON, "{line} beside {inf}");
        }
    }
}

#[test]
fn b142_bytes_grow_while_a_session_runs() {
    on_every_engine(|case| {
        let server = Listener::new();
        let steered = steered(Setup::new(server.address()).case(case));
        let (mut client, mut upstream) = (steered.forwarder.connect(), server.accept());
        let mut before = 0.0;
        for round in 1..=4u32 {
            transfer(&mut client, &mut upstream, 2 * MIB);
            let metrics = steered.admin.get("/metrics");
            let moved = f64::from(round) * 2.0 * MIB as f64;
            for family in [
                "thalweg_written_bytes_total",
                "thalweg_forward_written_bytes_total",
                "thalweg_server_written_bytes_total",
            ] {
                assert_eq!(metrics.sum(family), moved, "{family}");
            }
            assert!(moved > before);
            before = moved;
            assert_eq!(metrics.sum("thalweg_live_sessions"), 1.0);
            assert_eq!(metrics.sum("thalweg_forward_live_sessions"), 1.0);
        }
    });
}

#[test]
fn b140_a_real_prometheus_scrapes_it() {
    let (server, directory) = (Listener::new(), Directory::new());
    let steered = steered(two_forwards(&server).set("metrics.listen", "127.0.0.1:0"));
    mixed(&steered, &server, 5);
    let at = steered.forwarder.wait_for_line("metrics can be read");
    let Some(prometheus) = Prometheus::start(&directory, at.text("listener")) else {
        return skip(&test_name(), "prometheus is not there");
    };
    let up = poll(PATIENCE, || {
        let value = prometheus.query("up{job=\"thalweg\"}")?;
        (value == 1.0).then_some(())
    });
    assert!(up.is_some(), "it is not scraped: {}", prometheus.log());
    let accepted = poll(PATIENCE, || prometheus.query("sum(thalweg_accepted_total)"));
    assert_eq!(accepted, Some(15.0), "{}", prometheus.log());
    let p99 = "histogram_quantile(0.99, sum by (le) (thalweg_forward_connect_seconds_bucket))";
    assert!(prometheus.query(p99).is_some_and(|it| it > 0.0));
}

/// A Prometheus that scrapes one target twice a second.
pub(super) struct Prometheus {
    child: std::process::Child,
    at: String,
    log: std::path::PathBuf,
}

impl Prometheus {
    /// `None` where there is none.
    pub(super) fn start(directory: &Directory, target: &str) -> Option<Self> {
        let config = directory.join("prometheus.yml");
        let text = format!(
            "global:\n  scrape_interval: 500ms\nscrape_configs:\n  - job_name: thalweg\n    \
             static_configs:\n      - targets: ['{target}']\n"
        );
        fs::write(&config, text).unwrap();
        // It takes no port 0: one that was free a moment ago, and may not be any more.
        for _ in 0..5 {
            let mut started = Self::at_a_free_port(directory, &config)?;
            let is_ready = poll(PATIENCE, || {
                if started.child.try_wait().unwrap().is_some() {
                    return Some(false);
                }
                let stream = std::net::TcpStream::connect(&started.at).ok()?;
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let head = "GET /-/ready HTTP/1.1\r\nHost: localhost\r\n";
                let answer = crate::kit::admin::exchange(stream, head, "");
                answer.body.contains("Prometheus").then_some(true)
            });
            if is_ready == Some(true) {
                return Some(started);
            }
        }
        panic!("prometheus does not start");
    }

    fn at_a_free_port(directory: &Directory, config: &std::path::Path) -> Option<Self> {
        let at = crate::kit::free_address().to_string();
        let log = directory.join("prometheus.log");
        let output = fs::File::create(&log).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.join("data").display()
            ))
            .arg(format!("--web.listen-address={at}"))
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .ok()?;
        Some(Self { child, at, log })
    }

    /// The value of the first series that an expression gives.
    pub(super) fn query(&self, expression: &str) -> Option<f64> {
        let mut encoded = String::new();
        for byte in expression.bytes() {
            let _ = write!(encoded, "%{byte:02X}");
        }
        let stream = std::net::TcpStream::connect(&self.at).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("GET /api/v1/query?query={encoded} HTTP/1.1\r\nHost: localhost\r\n");
        let answer = crate::kit::admin::exchange(stream, &head, "");
        let json: serde_json::Value = serde_json::from_str(&answer.body).ok()?;
        let value = json["data"]["result"][0]["value"][1].as_str()?;
        value.parse().ok()
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn b139_a_scrape_of_many_is_answered_soon() {
    let (server, directory) = (Listener::new(), Directory::new());
    let servers: Vec<String> = (1..=10).map(|n| format!("127.0.0.{n}:1")).collect();
    let file = super::many_forwards(&directory, 500, &servers);
    let steered = steered(Setup::configured(&file, 500));
    let asked = Instant::now();
    let answer = steered.admin.get("/metrics");
    let elapsed = asked.elapsed();
    assert_eq!(answer.sum("thalweg_pool_servers"), 5000.0);
    check_form(&answer.body);
    // No bound but against hanging: docs/operations.md has what was measured.
    assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
    drop(server);
}
