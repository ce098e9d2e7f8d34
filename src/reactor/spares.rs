//! The spares of a pool on one reactor, by server.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::upstream::server::{Server, ServerSet};
use crate::balance::spares::SparePlan;
use crate::engine::SessionKey;
use crate::relay::id::ServerId;

/// The spares of one pool on one reactor.
#[derive(Debug, Default)]
pub(super) struct Spares {
    pub(super) lists: BTreeMap<ServerId, SpareList>,
}

#[derive(Debug)]
pub(super) struct SpareList {
    pub(super) server: Arc<Server>,
    /// Ready ones, the newest last.
    pub(super) ready: Vec<SessionKey>,
    pub(super) connecting: Vec<SessionKey>,
    pub(super) plan: SparePlan,
}

impl Spares {
    /// Keeps spares for these servers from now on. Those of servers that are in the pool
    /// no more are to be closed.
    pub(super) fn follow(&mut self, set: &ServerSet) -> Vec<SessionKey> {
        let mut before = std::mem::take(&mut self.lists);
        for member in set.members() {
            let id = member.server.settings().id;
            let list = before.remove(&id).unwrap_or_else(|| SpareList {
                server: member.server.clone(),
                ready: Vec::new(),
                connecting: Vec::new(),
                plan: SparePlan::new(),
            });
            self.lists.insert(id, list);
        }
        let gone = before.into_values();
        gone.flat_map(|list| list.ready.into_iter().chain(list.connecting))
            .collect()
    }

    /// The servers that spares are kept for.
    pub(super) fn servers(&self) -> impl Iterator<Item = ServerId> + '_ {
        self.lists.keys().copied()
    }

    pub(super) fn list(&mut self, server: &Server) -> Option<&mut SpareList> {
        self.lists.get_mut(&server.settings().id)
    }

    pub(super) fn take_all(&mut self) -> Vec<SessionKey> {
        let mut all = Vec::new();
        for list in self.lists.values_mut() {
            all.append(&mut list.ready);
            all.append(&mut list.connecting);
        }
        all
    }
}

impl SpareList {
    /// Forgets a spare.
    pub(super) fn forget(&mut self, key: SessionKey) {
        self.connecting.retain(|it| *it != key);
        self.ready.retain(|it| *it != key);
    }
}
