//! Connections that stand ready for the next client go along: whoever comes to the next
//! process finds its server as near as before.
//!
//! Nothing is in flight for one that is ready, so it leaves within a turn. Between letting
//! them go and having some, none are made: there would be twice as many for a moment.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::{self, Datagrams, Start};
use crate::net::address::Endpoint;
use crate::reactor::Reactor;
use crate::reactor::destination::Destination;
use crate::reactor::dialling::Dialler;
use crate::reactor::sessions::{Ahead, Purpose};
use crate::reactor::upstream::server::Server;
use crate::relay::Direction;
use crate::relay::lane::{Lane, PathPolicy};
use crate::relay::time::Time;

/// What one process tells another of a connection that stands ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpareManifest {
    /// The server that it is connected to, and in which pool that is.
    pub pool: String,
    /// See `pool`.
    pub server: Endpoint,
    /// Addresses that the pool connects from.
    #[serde(default)]
    pub sources: Vec<IpAddr>,
    /// How long it has stood, in microseconds.
    #[serde(default)]
    pub age: u64,
    /// The kernel's name of its socket, the same in every process.
    #[serde(default)]
    pub cookie: u64,
}

/// One without a reactor. Dropped, it is closed here, and its server learns nothing of that
/// as long as another process has it.
#[derive(Debug)]
pub struct MovedSpare<D = engine::Detached> {
    /// What is told of it to another process.
    pub manifest: SpareManifest,
    /// Its server in this process.
    pub server: Arc<Server>,
    /// Its descriptor, as an upstream side.
    pub detached: D,
}

impl<E: Datagrams> Reactor<E> {
    /// Makes no connections ahead until [`Reactor::adopt_spares`]: some are on their way.
    pub fn hold_spares(&mut self) {
        self.dialler.warm_pause = Time::NEVER;
    }

    /// Lets those go that are ready and of use, and makes no more. Called between turns.
    pub fn release_spares(&mut self) -> Vec<MovedSpare<E::Detached>> {
        self.hold_spares();
        let mut moved = Vec::new();
        for pool in self.dialler.pools.ids() {
            let upstream = &mut self.dialler.pools[pool];
            let sources = upstream.setup.sources.to_vec();
            // Another address for each client: nobody else's connection is of use to one.
            if upstream.setup.transparent {
                continue;
            }
            for list in upstream.spares.lists.values_mut() {
                for key in std::mem::take(&mut list.ready) {
                    let since = self.ctx.sessions.ahead(key).map(|it| it.since);
                    let mut lanes = Direction::BOTH.map(|_| Lane::new(PathPolicy::Copy, 1));
                    let quiet = self.ctx.engine.quiesce(key) == Start::Done(());
                    let detached = if quiet && self.ctx.engine.is_fresh(key) {
                        self.ctx.engine.detach(key, &mut lanes)
                    } else {
                        None
                    };
                    let (Some(detached), Some(since)) = (detached, since) else {
                        Dialler::close_ahead(&mut self.ctx, key);
                        continue;
                    };
                    self.ctx.sessions.remove_ahead(key);
                    let age = self.ctx.engine.now().since(since);
                    moved.push(MovedSpare {
                        manifest: SpareManifest {
                            pool: list.server.settings().pool.to_string(),
                            server: list.server.endpoint().clone(),
                            sources: sources.clone(),
                            age: age.as_micros() as u64,
                            cookie: 0,
                        },
                        server: list.server.clone(),
                        detached,
                    });
                }
            }
        }
        moved
    }

    /// Takes those in that there is room and use for, and makes what is missing. The others
    /// are closed.
    pub fn adopt_spares(&mut self, moved: Vec<MovedSpare<E::Detached>>) {
        self.dialler.warm_pause = Time::ZERO;
        for spare in moved {
            self.adopt_spare(spare);
        }
        for pool in self.dialler.pools.ids() {
            self.dialler.warm_up(pool);
        }
    }

    fn adopt_spare(&mut self, spare: MovedSpare<E::Detached>) {
        let MovedSpare {
            manifest,
            server,
            detached,
        } = spare;
        for pool in self.dialler.pools.ids() {
            let upstream = &mut self.dialler.pools[pool];
            let setup = &upstream.setup;
            if setup.transparent || *setup.sources != *manifest.sources {
                continue;
            }
            let wanted = setup.warm as usize;
            let Some(list) = upstream.spares.list(&server) else {
                continue;
            };
            if list.ready.len() + list.connecting.len() >= wanted {
                continue;
            }
            let ahead = Ahead {
                purpose: Purpose::Spare {
                    upstream: pool,
                    connected: true,
                },
                destination: Destination::Server(server.clone()),
                since: self.ctx.engine.now() - Duration::from_micros(manifest.age),
                closing: false,
                seat: None,
                _place: None,
            };
            let Some(key) = self.ctx.sessions.insert_ahead(ahead) else {
                return;
            };
            if self.ctx.engine.attach_ahead(key, detached).is_ok() {
                // The newest is last: it has the longest life before it.
                list.ready.push(key);
            } else {
                self.ctx.sessions.remove_ahead(key);
            }
            return;
        }
    }
}
