//! What a process knows besides its sockets and sessions, as plain data by name: so the next
//! one may have another configuration, and may be another build.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::control::resolve::KnownNames;
use crate::observe::metrics::table::Totals;

/// See the module's documentation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::control) struct Tables {
    /// Of the configuration.
    pub(in crate::control) generation: u64,
    /// Since time zero of its reactors, in microseconds: ages count from there.
    pub(in crate::control) age: u64,
    /// The highest number that a session has had.
    pub(in crate::control) last_session: u64,
    /// Likewise of flows.
    pub(in crate::control) last_flow: u64,
    pub(in crate::control) counted: Counted,
    /// Servers that are not as the configuration has them.
    pub(in crate::control) steered: Vec<SteeredServer>,
    /// Clients, by forward, that have connected as fast as they may: microseconds until that
    /// is paid for.
    pub(in crate::control) clients: Vec<(String, IpAddr, u64)>,
    /// What names resolve to; with the listeners, for the start needs it.
    pub(in crate::control) names: KnownNames,
}

/// What was counted.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::control) struct Counted {
    /// By number.
    pub(in crate::control) reactors: Vec<(u16, Totals)>,
    pub(in crate::control) forwards: Vec<CountedForward>,
    pub(in crate::control) servers: Vec<(ServerPlace, Totals)>,
}

/// What was counted of a forward.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::control) struct CountedForward {
    pub(in crate::control) name: String,
    pub(in crate::control) totals: Totals,
    /// By code and cause.
    pub(in crate::control) ended: Vec<(String, String, u64)>,
}

/// By what a server is known in every process: its pool, which of that name, what it is
/// configured as, and where it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::control) struct ServerPlace {
    pub(in crate::control) pool: String,
    pub(in crate::control) nth: usize,
    pub(in crate::control) key: String,
    pub(in crate::control) endpoint: String,
}

/// What an operator or a check has said of a server.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::control) struct SteeredServer {
    pub(in crate::control) place: ServerPlace,
    /// An operator has changed it.
    pub(in crate::control) changed: bool,
    /// `active`, `drain` or `maintenance`.
    pub(in crate::control) state: String,
    pub(in crate::control) max_connections: Option<u32>,
    pub(in crate::control) weight: Option<u32>,
    /// Checks have found it down.
    pub(in crate::control) down: bool,
    /// Its sessions' failures have marked it: microseconds until one may try it.
    pub(in crate::control) marked_for: Option<u64>,
    /// Microseconds that it is ahead of its `connect_rate`.
    pub(in crate::control) owes: Option<u64>,
    /// Microseconds that it is ahead of its `rate`, up and down; below 0 is what may flow at once.
    pub(in crate::control) debts: Option<[i64; 2]>,
}

/// The number of those that have ended, which no reactor has.
pub(in crate::control) const ENDED: u16 = u16::MAX;

/// What all reactors have counted together.
fn sum(reactors: &[(u16, Totals)]) -> Totals {
    let mut all = Totals::default();
    for (key, numbers) in reactors.iter().flat_map(|it| &it.1) {
        let sums = all.entry(key.clone()).or_default();
        sums.resize(sums.len().max(numbers.len()), 0);
        for (sum, number) in sums.iter_mut().zip(numbers) {
            *sum = sum.wrapping_add(*number);
        }
    }
    all
}

impl Counted {
    /// What was counted since `earlier`.
    #[must_use]
    pub(in crate::control) fn since(mut self, earlier: &Self) -> Self {
        let less = |totals: &mut Totals, before: Option<&Totals>| {
            for (key, numbers) in totals {
                let before = before.and_then(|it| it.get(key));
                for (number, before) in numbers.iter_mut().zip(before.into_iter().flatten()) {
                    *number = number.wrapping_sub(*before);
                }
            }
        };
        // All together: a reactor that has ended since is counted with those that have ended.
        let mut all = sum(&self.reactors);
        less(&mut all, Some(&sum(&earlier.reactors)));
        self.reactors = vec![(ENDED, all)];
        for forward in &mut self.forwards {
            let before = earlier.forwards.iter().find(|it| it.name == forward.name);
            less(&mut forward.totals, before.map(|it| &it.totals));
            for (code, cause, count) in &mut forward.ended {
                let before = before.iter().flat_map(|it| &it.ended);
                let mut same = before.filter(|it| it.0 == *code && it.1 == *cause);
                *count = count.saturating_sub(same.next().map_or(0, |it| it.2));
            }
        }
        for (place, totals) in &mut self.servers {
            let before = earlier.servers.iter().find(|it| it.0 == *place);
            less(totals, before.map(|it| &it.1));
        }
        self
    }
}
