//! Servers that their name does not list any more. What is known of one is kept for a
//! while, for it may come back: where each answer is some of many addresses, it does so all
//! the time, and one that hung must not be tried by clients each time it is listed anew.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use crate::reactor::upstream::server::Server;
use crate::relay::id::ServerId;
use crate::relay::time::Time;

/// How long what checks and sessions found out about a server is kept after it has left.
const HOLD: Duration = Duration::from_secs(600);

/// Servers of a pool that are kept so. Of more, those that left first are forgotten.
const HELD_MAX: usize = 1024;

/// When each of them left.
#[derive(Debug, Default)]
pub(super) struct Departed(HashMap<ServerId, Time>);

impl Departed {
    /// These are listed now; what is known of others stays while they have sessions, and for
    /// [`HOLD`].
    pub(super) fn follow<K: Eq + Hash>(
        &mut self,
        known: &mut HashMap<K, Arc<Server>>,
        listed: &HashSet<ServerId>,
        now: Time,
    ) {
        self.0.retain(|id, _| !listed.contains(id));
        for server in known.values() {
            let id = server.settings().id;
            if !listed.contains(&id) {
                self.0.entry(id).or_insert(now);
            }
        }
        let mut left: Vec<(Time, ServerId)> = self.0.iter().map(|(id, at)| (*at, *id)).collect();
        left.sort_unstable();
        let excess = left.len().saturating_sub(HELD_MAX);
        let over =
            |(nth, (at, _)): &(usize, &(Time, ServerId))| *nth < excess || now.since(*at) >= HOLD;
        let over: HashSet<ServerId> = left
            .iter()
            .enumerate()
            .filter(over)
            .map(|(_, (_, id))| *id)
            .collect();
        known.retain(|_, server| !over.contains(&server.settings().id) || server.active() > 0);
        let known: HashSet<ServerId> = known.values().map(|it| it.settings().id).collect();
        self.0.retain(|id, _| known.contains(id));
    }

    /// Whether it is kept for nothing but that it may come back.
    pub(super) fn is_gone(&self, server: &Server) -> bool {
        self.0.contains_key(&server.settings().id) && server.active() == 0
    }

    /// Those of the servers that have left and have sessions yet.
    pub(super) fn in_use<'a>(
        &self,
        known: impl Iterator<Item = &'a Arc<Server>>,
    ) -> impl Iterator<Item = &'a Arc<Server>> {
        known.filter(|it| self.0.contains_key(&it.settings().id) && it.active() > 0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::net::address::Endpoint;
    use crate::reactor::upstream::server::{ServerSettings, ServerTerms};

    fn server(number: u32) -> Arc<Server> {
        Arc::new(Server::new(ServerSettings {
            id: ServerId::new(number),
            endpoint: Endpoint::Inet(([192, 0, 2, 1], number as u16).into()),
            host: None,
            pool: "pool".into(),
            terms: ServerTerms::UNLIMITED,
        }))
    }

    fn servers(count: u32) -> HashMap<u32, Arc<Server>> {
        (0..count).map(|n| (n, server(n))).collect()
    }

    fn at(seconds: u64) -> Time {
        Time::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn a_server_that_left_is_known_for_ten_minutes() {
        let (mut known, mut departed) = (servers(2), Departed::default());
        let listed = HashSet::from([ServerId::new(0)]);
        departed.follow(&mut known, &listed, at(100));
        assert!(departed.is_gone(&known[&1]) && !departed.is_gone(&known[&0]));
        departed.follow(&mut known, &listed, at(699));
        assert_eq!(known.len(), 2);
        departed.follow(&mut known, &listed, at(700));
        assert_eq!(known.len(), 1);
        assert!(departed.0.is_empty());
    }

    #[test]
    fn one_that_comes_back_is_as_any_other() {
        let (mut known, mut departed) = (servers(2), Departed::default());
        let all = HashSet::from([ServerId::new(0), ServerId::new(1)]);
        departed.follow(&mut known, &HashSet::new(), at(100));
        departed.follow(&mut known, &all, at(200));
        assert!(departed.0.is_empty());
        departed.follow(&mut known, &HashSet::new(), at(750));
        assert_eq!(known.len(), 2, "its time begins anew");
    }

    #[test]
    fn one_with_sessions_stays_and_is_in_use() {
        let (mut known, mut departed) = (servers(1), Departed::default());
        known[&0].standing.enter(at(1));
        departed.follow(&mut known, &HashSet::new(), at(1));
        departed.follow(&mut known, &HashSet::new(), at(10_000));
        assert_eq!(departed.in_use(known.values()).count(), 1);
        assert!(!departed.is_gone(&known[&0]));
        known[&0].standing.leave(at(10_000));
        assert_eq!(departed.in_use(known.values()).count(), 0);
        departed.follow(&mut known, &HashSet::new(), at(10_001));
        assert!(known.is_empty());
    }

    #[test]
    fn not_too_many_are_known() {
        let (mut known, mut departed) = (servers(3000), Departed::default());
        let late: HashSet<_> = (0..1000).map(ServerId::new).collect();
        departed.follow(&mut known, &late, at(1));
        departed.follow(&mut known, &HashSet::new(), at(2));
        let kept: HashSet<_> = known.values().map(|it| it.settings().id).collect();
        assert!(late.is_subset(&kept), "those that left last");
        assert_eq!(kept.len(), HELD_MAX);
    }
}
