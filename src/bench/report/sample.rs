//! A finished run that never took place, for the tests of the outputs.

use super::{Head, Report, layouts};
use crate::bench::harness::{BenchOptions, Cell, Layout, LayoutResult, Sample, SubjectFacts};
use crate::bench::load::histogram;
use crate::bench::machine;
use crate::bench::netns::Place;
use crate::bench::subjects::launch::Launch;

/// Bulk and exchanges through three subjects against nginx: one is faster, one fails in
/// `rr`, and one round was disturbed.
pub(super) fn sample() -> Report {
    let options = options();
    let names = ["direct", "thalweg", "nginx", "<broken>"];
    let result = LayoutResult {
        layout: Layout::OneCore,
        forwarder_cpus: vec![1],
        other_cpus: vec![1],
        subjects: names.map(subject).to_vec(),
        cells: (0..options.shapes.len() * names.len())
            .map(|at| cell(at % names.len(), at / names.len()))
            .collect(),
        notes: Vec::new(),
    };
    Report {
        head: Head::new(
            "thalweg-bench",
            "thalweg bench".to_owned(),
            "2026-01-01T00:00:00Z".to_owned(),
            machine::facts(),
        ),
        place: Place {
            isolated: true,
            congestion: "cubic".to_owned(),
            notes: Vec::new(),
        },
        path: None,
        method: "5 rounds".to_owned(),
        interrupted: None,
        baseline: "nginx".to_owned(),
        layouts: layouts(&options, &[result], "nginx"),
    }
}

fn options() -> BenchOptions {
    BenchOptions {
        subjects: Vec::new(),
        shapes: ["bulk-up", "rr"]
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect(),
        layouts: vec![Layout::OneCore],
        rounds: 5,
        seed: 1,
        warm_up: std::time::Duration::ZERO,
        duration: std::time::Duration::from_secs(1),
        workers: 1,
        threads: None,
        starts: 0,
        idle_sessions: 0,
        compare_one_in: 32,
        congestion: None,
        path: None,
    }
}

fn subject(name: &str) -> SubjectFacts {
    SubjectFacts {
        name: name.to_owned(),
        is_direct: name == "direct",
        launch: Launch::default(),
        keeps_half_closed: true,
        idle: None,
        idle_flow: None,
        starts: Vec::new(),
        smaller: None,
    }
}

fn cell(subject: usize, shape: usize) -> Cell {
    let factor = [4.0, 2.0, 1.0, 1.0][subject];
    let fails = subject == 3 && shape == 1;
    let rounds = if fails { 0 } else { 5 };
    let sample = |round: usize| {
        let rate = factor * 2e4 * (1.0 + 0.01 * ((round * 7 + subject) % 5) as f64);
        let mut latency = histogram();
        for step in 1..=200_u64 {
            latency.saturating_record(step * step * (1e8 / rate) as u64 / 100);
        }
        Sample {
            round,
            seconds: 1.0,
            up: rate * 3e4,
            down: 0.0,
            exchanges: rate,
            unanswered: 0,
            forwarder_cpu: if subject == 0 { 0.0 } else { 0.4 },
            generator_cpu: 0.3,
            origin_cpu: 0.2,
            foreign_cpu: if round == 2 { 0.3 } else { 0.01 },
            switches: 100.0,
            checked: 1,
            latency,
            quiet: None,
            burst: None,
            datagrams: None,
        }
    };
    Cell {
        subject,
        shape,
        samples: (0..rounds).map(sample).collect(),
        failure: fails.then(|| "12 connections failed".to_owned()),
        cut_short: 0,
    }
}
