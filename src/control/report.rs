//! The metrics as log lines.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::LogLevel;
use crate::observe::counters::{ProcessSnapshot, ServerSnapshot, Snapshot};
use crate::observe::log::Log;
use crate::observe::metrics::render;
use crate::reactor::upstream::server::Server;

/// Logs the sum over the reactors, then how the connections spread.
pub(super) fn log_counters(log: &Log, reactors: &[Snapshot]) {
    let total = reactors
        .iter()
        .copied()
        .fold(Snapshot::default(), Snapshot::plus);
    let process = ProcessSnapshot {
        log_dropped: log.dropped(),
    };
    let mut line = String::from("counters");
    render::text(&total, &mut line);
    render::text(&process, &mut line);
    log.line(LogLevel::Info, line);
    if reactors.len() > 1 {
        log.line(LogLevel::Info, spread(reactors));
    }
}

/// Logs a line for each server: its state, and what came of dialling it.
pub(super) fn log_servers(log: &Log, servers: &[Arc<Server>]) {
    for server in servers {
        log.line(LogLevel::Info, line_of(server));
    }
}

fn line_of(server: &Server) -> String {
    let settings = server.settings();
    let mut line = format!(
        "server {} pool={}",
        settings.endpoint,
        settings.pool.escape_debug()
    );
    render::text(&figures(server), &mut line);
    line
}

/// What is told of a server.
fn figures(server: &Server) -> ServerSnapshot {
    let tally = &server.tally;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let [refused, unreachable, timeout, reset, other] = tally.failures.each_ref().map(count);
    ServerSnapshot {
        state: server.state(),
        active: u64::from(server.active()),
        connects: count(&tally.connects),
        failures_refused: refused,
        failures_unreachable: unreachable,
        failures_timeout: timeout,
        failures_reset: reset,
        failures_other: other,
        bytes_up: count(&tally.bytes_up),
        bytes_down: count(&tally.bytes_down),
        warm_used: count(&tally.warm_used),
        warm_stale: count(&tally.warm_stale),
        connect: tally.connect_times(),
    }
}

/// SO_REUSEPORT spreads by a hash of the addresses: with few clients it can be
/// far from even, and then one core limits the whole.
fn spread(reactors: &[Snapshot]) -> String {
    let mut line = String::from("spread of accepted connections over reactors");
    for (index, counters) in reactors.iter().enumerate() {
        let _ = write!(line, " {index}={}", counters.accepted);
    }
    let _ = write!(line, " busiest_to_mean={:.2}", unevenness(reactors));
    line
}

/// The busiest reactor's share over the mean; 1 is even.
fn unevenness(reactors: &[Snapshot]) -> f64 {
    let accepted = reactors.iter().map(|counters| counters.accepted);
    let (busiest, total) = (accepted.clone().max().unwrap_or(0), accepted.sum::<u64>());
    if total == 0 {
        1.0
    } else {
        busiest as f64 * reactors.len() as f64 / total as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b44_the_spread_over_reactors_is_told() {
        let reactor = |accepted| Snapshot {
            accepted,
            ..Snapshot::default()
        };
        let line = spread(&[reactor(30), reactor(10)]);
        assert!(line.ends_with("0=30 1=10 busiest_to_mean=1.50"), "{line}");
        assert!((unevenness(&[reactor(0), reactor(0)]) - 1.0).abs() < f64::EPSILON);
    }
}
