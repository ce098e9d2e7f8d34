//! What one process tells the next of its servers, and what it is told.

use std::collections::HashMap;
use std::time::Duration;

use super::Upstreams;
use crate::balance::health::Change;
use crate::config::AdminState;
use crate::control::health::CheckChange;
use crate::control::upgrade::tables::{ServerPlace, SteeredServer};
use crate::observe::metrics::table::{Totals, totals};

const STATES: [(AdminState, &str); 3] = [
    (AdminState::Active, "active"),
    (AdminState::Drain, "drain"),
    (AdminState::Maintenance, "maintenance"),
];

impl Upstreams {
    /// What was counted of each server.
    pub(in crate::control) fn counted(&self) -> Vec<(ServerPlace, Totals)> {
        let mut told = Vec::new();
        for pool in &*self.pools() {
            for ((key, endpoint), server) in &pool.known {
                let place = place(&pool.name, key, endpoint);
                told.push((place, totals(&server.figures())));
            }
        }
        told
    }

    /// What operators and checks have said of servers.
    pub(in crate::control) fn steered(&self) -> Vec<SteeredServer> {
        let (mut told, now) = (Vec::new(), self.now());
        for pool in &*self.pools() {
            for (at, server) in &pool.known {
                let terms = server.terms();
                let state = STATES.iter().find(|it| it.0 == terms.admin);
                let steered = SteeredServer {
                    place: place(&pool.name, &at.0, &at.1),
                    changed: server.version() > 0,
                    state: state.map_or("active", |it| it.1).to_owned(),
                    max_connections: terms.max_connections,
                    weight: pool.weights.get(at).copied(),
                    down: server.standing.is_checked_down(),
                    marked_for: server
                        .standing
                        .marked_for(now)
                        .map(|it| it.as_micros() as u64),
                    owes: terms
                        .connect_rate
                        .map(|_| server.standing.owes(now).as_micros() as u64),
                    debts: server.buckets().map(|it| it.debts(now)),
                };
                let known = steered.marked_for.is_some()
                    || steered.owes.is_some()
                    || steered.debts.is_some();
                if steered.changed || steered.down || known {
                    told.push(steered);
                }
            }
        }
        told
    }

    /// The process before has counted this.
    pub(in crate::control) fn absorb(&self, told: &[(ServerPlace, Totals)]) {
        let told: HashMap<&ServerPlace, &Totals> = told.iter().map(|(at, it)| (at, it)).collect();
        for pool in &*self.pools() {
            for ((key, endpoint), server) in &pool.known {
                if let Some(totals) = told.get(&place(&pool.name, key, endpoint)) {
                    server.tally.absorb(totals);
                }
            }
        }
    }

    /// Servers are as they were in the process before. One that was down is so until a check
    /// says otherwise; where nobody checks, nobody has said it.
    pub(in crate::control) fn steer(&self, told: &[SteeredServer]) {
        let now = self.now();
        let mut pools = self.pools();
        for pool in &mut *pools {
            let mut weighed = false;
            for (at, server) in &pool.known {
                let its = place(&pool.name, &at.0, &at.1);
                let Some(steered) = told.iter().find(|it| it.place == its) else {
                    continue;
                };
                if steered.changed {
                    let state = STATES.iter().find(|it| it.1 == steered.state);
                    let mut terms = server.terms();
                    terms.admin = state.map_or(terms.admin, |it| it.0);
                    terms.max_connections = steered.max_connections;
                    server.set_terms(terms, now);
                    server.renew_version();
                    pool.reasons
                        .insert(server.settings().id, "an operator".into());
                    if let Some(weight) = steered.weight {
                        pool.weights.insert(at.clone(), weight);
                        weighed = true;
                    }
                }
                if steered.down && pool.config.check.is_some() {
                    server.standing.checked(Change::Down, now);
                    let why = "checks of the process before";
                    pool.reasons.insert(server.settings().id, why.into());
                }
                if let Some(still) = steered.marked_for {
                    let still = Duration::from_micros(still);
                    server.standing.mark_for(still, now);
                }
                if let Some(ahead) = steered.owes {
                    server.standing.owe(Duration::from_micros(ahead), now);
                }
                // Of one whose bytes have no rate here nobody asks.
                if let Some((buckets, debts)) = server.buckets().zip(steered.debts) {
                    buckets.set_debts(debts, now);
                }
                server.note_state(now);
            }
            if weighed {
                pool.rebuild(now);
                self.tell(pool);
            }
        }
        let mut checks = CheckChange::default();
        pools
            .iter_mut()
            .for_each(|pool| pool.renew_checks(&mut checks));
        self.check_otherwise(checks);
    }
}

fn place(
    pool: &super::PoolName,
    key: &str,
    endpoint: &crate::net::address::Endpoint,
) -> ServerPlace {
    ServerPlace {
        pool: pool.0.to_string(),
        nth: pool.1,
        key: key.to_owned(),
        endpoint: endpoint.to_string(),
    }
}
