//! Connects that would come back: to the forward that makes them, or round through others.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::net::address::Endpoint;
use crate::net::own::{OwnListeners, Owner};
use crate::relay::id::PoolId;
use crate::relay::time::Time;

/// How long it is believed whose an address is: this host may be given another one.
const BELIEVED: Duration = Duration::from_secs(5);

/// Addresses that are remembered. Only those are asked for whose port is also one of ours.
const REMEMBERED_MAX: usize = 1024;

/// Which connects would end at a listener of this process, as one reactor knows it.
#[derive(Debug)]
pub(super) struct Loops {
    own: Arc<OwnListeners>,
    /// That of what is remembered.
    generation: u64,
    remembered: HashMap<SocketAddr, (Option<Arc<Owner>>, Time)>,
}

impl Loops {
    pub(super) fn new(own: Arc<OwnListeners>) -> Self {
        Self {
            generation: own.generation(),
            own,
            remembered: HashMap::new(),
        }
    }

    /// Whose listener a connect of `pool` would end at, if it would lead back to the pool.
    pub(super) fn closed_by(
        &mut self,
        pool: PoolId,
        target: &Endpoint,
        now: Time,
    ) -> Option<Arc<Owner>> {
        if !self.own.may_be_own(target) {
            return None;
        }
        let owner = self.owner(target, now)?;
        self.own.leads_back(pool, &owner).then_some(owner)
    }

    fn owner(&mut self, target: &Endpoint, now: Time) -> Option<Arc<Owner>> {
        let Endpoint::Inet(address) = target else {
            return self.own.owner(target);
        };
        let generation = self.own.generation();
        if generation != self.generation || self.remembered.len() >= REMEMBERED_MAX {
            self.generation = generation;
            self.remembered.clear();
        }
        match self.remembered.get(address) {
            Some((owner, until)) if now < *until => owner.clone(),
            _ => {
                let owner = self.own.owner(target);
                let until = now + BELIEVED;
                self.remembered.insert(*address, (owner.clone(), until));
                owner
            }
        }
    }
}
