#![allow(
    unreachable_pub,
    reason = "what a table declares is public wherever it stands"
)]

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::observe::counters::{Counters, ProcessSnapshot, ServerSnapshot, Snapshot};
use crate::observe::metrics::metrics;
use crate::observe::metrics::table::Distribution;

metrics! {
    /// Cells of a subject with a configured name.
    pub cells Cells;
    /// Their values.
    pub snapshot Read;

    /// Sessions that
    /// ended: "all" of them, \ too.
    counter "sessions" by cause { finished = "finished", reset = "reset" }
    /// Sessions now.
    gauge "live" { live }
    /// How long sessions took.
    histogram<4> "session" [Seconds] { session }
    /// How much they moved.
    histogram<3> "moved" [Bytes] { moved }
}

fn read() -> Read {
    let one = Cells::default();
    one.finished.add(2);
    one.live.set(3);
    for micros in [1, 3, 2_000_000] {
        one.session.record(micros);
    }
    let other = Cells::default();
    other.finished.add(1);
    other.reset.add(1);
    other.moved.record(2);
    one.snapshot().plus(other.snapshot())
}

fn page(tables: Vec<Readings>, form: Form) -> String {
    Exposition::new(tables, form).collect()
}

#[test]
fn openmetrics_has_families_in_groups_and_an_end() {
    let (read, empty) = (read(), Read::default());
    let readings = Readings::of::<Read>()
        .with(&[("forward", "a\"b\\c\nd")], &read)
        .with(&[("forward", "web")], &empty);
    let text = page(vec![readings], Form::OpenMetrics);
    let expected = r#"# TYPE thalweg_sessions counter
# HELP thalweg_sessions Sessions that ended: \"all\" of them, \\ too.
thalweg_sessions_total{forward="a\"b\\c\nd",cause="finished"} 3
thalweg_sessions_total{forward="a\"b\\c\nd",cause="reset"} 1
thalweg_sessions_total{forward="web",cause="finished"} 0
thalweg_sessions_total{forward="web",cause="reset"} 0
# TYPE thalweg_live gauge
# HELP thalweg_live Sessions now.
thalweg_live{forward="a\"b\\c\nd"} 3
thalweg_live{forward="web"} 0
# TYPE thalweg_session_seconds histogram
# UNIT thalweg_session_seconds seconds
# HELP thalweg_session_seconds How long sessions took.
thalweg_session_seconds_bucket{forward="a\"b\\c\nd",le="0.000002"} 1
thalweg_session_seconds_bucket{forward="a\"b\\c\nd",le="0.000004"} 2
thalweg_session_seconds_bucket{forward="a\"b\\c\nd",le="0.000008"} 2
thalweg_session_seconds_bucket{forward="a\"b\\c\nd",le="+Inf"} 3
thalweg_session_seconds_count{forward="a\"b\\c\nd"} 3
thalweg_session_seconds_sum{forward="a\"b\\c\nd"} 2.000004
"#;
    assert!(text.starts_with(expected), "{text}");
    let moved = r#"thalweg_moved_bytes_bucket{forward="a\"b\\c\nd",le="2.0"} 0
thalweg_moved_bytes_bucket{forward="a\"b\\c\nd",le="4.0"} 1
thalweg_moved_bytes_bucket{forward="a\"b\\c\nd",le="+Inf"} 1
thalweg_moved_bytes_count{forward="a\"b\\c\nd"} 1
thalweg_moved_bytes_sum{forward="a\"b\\c\nd"} 2
"#;
    assert!(text.contains(moved), "{text}");
    assert!(text.ends_with("\n# EOF\n"), "{text}");
}

#[test]
fn prometheus_names_the_samples_and_escapes_help_less() {
    let read = read();
    let text = page(
        vec![Readings::of::<Read>().with(&[], &read)],
        Form::Prometheus,
    );
    let expected = r#"# TYPE thalweg_sessions_total counter
# HELP thalweg_sessions_total Sessions that ended: "all" of them, \\ too.
thalweg_sessions_total{cause="finished"} 3
thalweg_sessions_total{cause="reset"} 1
# TYPE thalweg_live gauge
# HELP thalweg_live Sessions now.
thalweg_live 3
# TYPE thalweg_session_seconds histogram
"#;
    assert!(text.starts_with(expected), "{text}");
    assert!(
        !text.contains("# EOF") && !text.contains("# UNIT"),
        "{text}"
    );
}

#[test]
fn states_are_one_of_a_set() {
    let server = ServerSnapshot {
        state: "down",
        connect: Distribution {
            sum: None,
            ..Distribution::default()
        },
        ..ServerSnapshot::default()
    };
    let readings = || vec![Readings::of::<ServerSnapshot>().with(&[("server", "a:1")], &server)];
    let text = page(readings(), Form::OpenMetrics);
    for line in [
        "# TYPE thalweg_server_state stateset\n",
        "thalweg_server_state{server=\"a:1\",thalweg_server_state=\"up\"} 0\n",
        "thalweg_server_state{server=\"a:1\",thalweg_server_state=\"down\"} 1\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    // A histogram whose sum nobody knows has no count either …
    assert!(text.contains("server_connect_seconds_bucket{"), "{text}");
    assert!(!text.contains("server_connect_seconds_count"), "{text}");
    // … except for Prometheus, which knows no sets of states.
    let text = page(readings(), Form::Prometheus);
    for line in [
        "# TYPE thalweg_server_state gauge\n",
        "thalweg_server_connect_seconds_count{server=\"a:1\"} 0\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
    assert!(!text.contains("server_connect_seconds_sum"), "{text}");
}

#[test]
fn the_log_has_names_and_percentiles() {
    let mut line = String::new();
    text(&read(), &mut line);
    let expected = " finished=3 reset=1 live=3 session_p50_us=4 session_p99_us=16 \
                    moved_p50=4 moved_p99=4";
    assert_eq!(line, expected);
    line.clear();
    text(&Read::default(), &mut line);
    assert_eq!(line, " finished=0 reset=0 live=0");
}

/// All that is told of a running forwarder, in one exposition.
#[test]
fn families_stand_once_and_are_named_by_the_rules() {
    let counters = Counters::default();
    counters.bytes_up.add(5);
    let (all, process, server) = (
        counters.snapshot(),
        ProcessSnapshot::default(),
        ServerSnapshot::default(),
    );
    let tables = vec![
        Readings::of::<Snapshot>().with(&[("reactor", "0")], &all),
        Readings::of::<ProcessSnapshot>().with(&[], &process),
        Readings::of::<ServerSnapshot>()
            .with(&[("pool", "p"), ("server", "a:1")], &server)
            .with(&[("pool", "p"), ("server", "b:1")], &server),
    ];
    let text = page(tables, Form::OpenMetrics);
    let wanted = "thalweg_written_bytes_total{reactor=\"0\",direction=\"up\"} 5\n";
    assert!(text.contains(wanted), "{text}");
    check(&text);
}

/// The rules of OpenMetrics that a scraper fails on: every family in one group with one
/// type, every series once, totals end in `_total`, the last line is the end.
fn check(text: &str) {
    let (mut types, mut series) = (BTreeMap::new(), BTreeSet::new());
    let mut family = "";
    let (body, end) = text.rsplit_once("# ").unwrap();
    assert_eq!(end, "EOF\n");
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(types.insert(name, kind).is_none(), "{name} stands twice");
            family = name;
        } else if let Some(rest) = line.strip_prefix("# UNIT ") {
            let (name, unit) = rest.split_once(' ').unwrap();
            assert!(
                name == family && name.ends_with(&format!("_{unit}")),
                "{line}"
            );
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(name == family && help.ends_with('.'), "{line}");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(series.insert(sample), "{sample} stands twice");
            let name = sample.split('{').next().unwrap();
            let suffix = name.strip_prefix(family).expect("a sample of its family");
            let suffixes: &[&str] = match types[family] {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_count", "_sum"],
                _ => &[""],
            };
            assert!(suffixes.contains(&suffix), "{line}");
        }
    }
    assert!(types.len() > 30, "{types:?}");
}
