//! The counters as log lines.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::LogLevel;
use crate::observe::counters::Snapshot;
use crate::observe::log::Log;
use crate::reactor::upstream::server::{FAILURES, Server};

/// Logs the sum over the reactors, then how the connections spread.
pub(super) fn log_counters(log: &Log, reactors: &[Snapshot]) {
    let total = reactors
        .iter()
        .copied()
        .fold(Snapshot::default(), Snapshot::plus);
    let mut line = String::from("counters");
    for (name, value) in total.entries() {
        // Writing to a String cannot fail.
        let _ = write!(line, " {name}={value}");
    }
    let _ = write!(line, " log_dropped={}", log.dropped());
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
    let (settings, tally) = (server.settings(), &server.tally);
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut line = format!(
        "server {} pool={} state={} active={} connects={}",
        settings.endpoint,
        settings.pool.escape_debug(),
        server.state(),
        server.active(),
        count(&tally.connects)
    );
    // Writing to a String cannot fail.
    for (name, failures) in FAILURES.iter().zip(&tally.failures) {
        let _ = write!(line, " failures_{name}={}", count(failures));
    }
    let _ = write!(
        line,
        " bytes_up={} bytes_down={} warm_used={} warm_stale={}",
        count(&tally.bytes_up),
        count(&tally.bytes_down),
        count(&tally.warm_used),
        count(&tally.warm_stale)
    );
    for percent in [50, 99] {
        if let Some(time) = tally.connect_time(percent) {
            let _ = write!(line, " connect_p{percent}_us={}", time.as_micros());
        }
    }
    line
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
