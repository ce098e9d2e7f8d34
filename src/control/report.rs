//! What is told at SIGUSR1 and at the end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::observe::counters::{ProcessSnapshot, Snapshot};
use crate::observe::log::Log;
use crate::observe::notice::Notice;
use crate::observe::panics;
use crate::reactor::upstream::server::Server;
use crate::reactor::{ClientPolicy, WrittenRule};

/// Logs the sum over the reactors, how the connections spread, and of each server its
/// state and what came of dialling it. All at once: see [`Log::report`].
pub(super) fn tell<'a>(
    log: &Log,
    total: &Snapshot,
    reactors: &[Snapshot],
    routes: Vec<Notice>,
    servers: &[Arc<Server>],
    clients: impl Iterator<Item = &'a ClientPolicy>,
) {
    let counters = Notice::Counters {
        counters: Box::new(*total),
        process: ProcessSnapshot {
            log_dropped: log.dropped(),
            helper_panics: panics::count(),
        },
    };
    let spread = (reactors.len() > 1).then(|| spread(reactors));
    let servers = servers.iter().map(|server| Notice::Server {
        server: server.name(),
        figures: Box::new(server.figures()),
    });
    let rules = clients.flat_map(|policy| {
        let written = policy.written.iter();
        written.filter_map(|rule| denied(policy, rule))
    });
    let lines = [counters].into_iter().chain(spread);
    let lines = lines.chain(routes).chain(servers);
    log.report(lines.chain(rules));
}

/// Of a rule that has turned somebody away.
fn denied(policy: &ClientPolicy, rule: &WrittenRule) -> Option<Notice> {
    let denied = rule.denied.load(Ordering::Relaxed);
    (denied > 0).then(|| Notice::ClientRule {
        forward: policy.name.clone(),
        rule: rule.text.clone(),
        denied,
    })
}

/// SO_REUSEPORT spreads by a hash of the addresses: with few clients it can be
/// far from even, and then one core limits the whole.
fn spread(reactors: &[Snapshot]) -> Notice {
    Notice::Spread {
        accepted: reactors.iter().map(|counters| counters.accepted).collect(),
        busiest_to_mean: unevenness(reactors),
    }
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
        let line = spread(&[reactor(30), reactor(10)]).to_string();
        assert!(line.ends_with("0=30 1=10 busiest_to_mean=1.50"), "{line}");
        assert!((unevenness(&[reactor(0), reactor(0)]) - 1.0).abs() < f64::EPSILON);
    }
}
