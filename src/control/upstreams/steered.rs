//! Pools as an operator sees them, and what he changes about their servers.

use std::sync::Arc;

use super::{LivePool, Places, Upstreams};
use crate::admin::{NameSeen, PoolSeen, Refused, ServerChange, ServerSeen};
use crate::config::AdminState;
use crate::control::health::CheckChange;
use crate::reactor::upstream::server::Server;
use crate::relay::id::ServerId;

impl Upstreams {
    /// Every pool.
    pub(in crate::control) fn seen(&self) -> Vec<PoolSeen> {
        self.pools().iter().map(LivePool::seen).collect()
    }

    /// See [`crate::admin::Subject::change_server`].
    pub(in crate::control) fn change(
        &self,
        id: ServerId,
        change: &ServerChange,
    ) -> Result<(), Refused> {
        let now = self.now();
        let mut pools = self.pools();
        let found = pools.iter_mut().find_map(|pool| {
            let server = pool.server(id)?;
            Some((pool, server))
        });
        let (pool, server) = found.ok_or(Refused::Unknown("server"))?;
        let version = server.version();
        if let Some(expected) = change.version
            && expected != version
        {
            let now = version;
            return Err(Refused::Changed { expected, now });
        }
        let takes_out =
            change.state.is_some_and(|it| it != AdminState::Active) || change.weight == Some(0);
        if takes_out && !change.force && pool.is_last(&server) {
            let pool = pool.name.0.to_string();
            return Err(Refused::LastServer { pool });
        }
        let was = server.terms();
        let mut terms = was;
        if let Some(max) = change.max_connections {
            terms.max_connections = max;
        }
        if let Some(state) = change.state {
            terms.admin = state;
            pool.reasons.insert(id, "an operator".into());
        }
        if terms != was {
            server.set_terms(terms, now);
            server.note_state(now);
        }
        if let Some(weight) = change.weight {
            pool.weigh(&server, weight);
            pool.rebuild(now);
            self.tell(pool);
        }
        server.renew_version();
        if terms.admin != was.admin {
            let mut checks = CheckChange::default();
            pool.renew_checks(&mut checks);
            self.check_otherwise(checks);
        }
        Ok(())
    }

    /// See [`crate::admin::Subject::clear_marks`].
    pub(in crate::control) fn clear_marks(&self, id: Option<ServerId>) -> Result<(), Refused> {
        let now = self.now();
        let mut found = id.is_none();
        for server in self.servers() {
            if id.is_none_or(|id| server.settings().id == id) {
                found = true;
                server.standing.clear_marks(now);
                server.note_state(now);
            }
        }
        if found {
            Ok(())
        } else {
            Err(Refused::Unknown("server"))
        }
    }
}

impl LivePool {
    fn seen(&self) -> PoolSeen {
        let mut listed: Vec<ServerSeen> = Vec::new();
        for member in self.set.members() {
            listed.push(ServerSeen {
                weight: member.weight,
                backup: member.backup,
                listed: true,
                why: self.why(&member.server),
                server: member.server.clone(),
            });
        }
        let known = |it: &Arc<Server>| {
            let id = it.settings().id;
            self.set
                .members()
                .iter()
                .any(|member| member.server.settings().id == id)
        };
        let mut left: Vec<&Arc<Server>> = self.present().filter(|it| !known(it)).collect();
        left.sort_by_key(|it| it.settings().id);
        listed.extend(left.into_iter().map(|server| ServerSeen {
            server: server.clone(),
            weight: 0,
            backup: false,
            listed: false,
            why: Some("its name does not list it any more".into()),
        }));
        let configured = self.config.servers.iter().zip(&self.places);
        let names = configured.filter_map(|(server, place)| match place {
            Places::Fixed(_) => None,
            Places::Named(_, addresses, answered) => Some(NameSeen {
                name: server.address.to_string(),
                addresses: addresses.iter().map(|it| it.endpoint).collect(),
                answered: *answered,
            }),
        });
        PoolSeen {
            label: self.name.0.clone(),
            config: self.config.clone(),
            servers: listed,
            names: names.collect(),
        }
    }

    fn why(&self, server: &Server) -> Option<Arc<str>> {
        match server.state() {
            "up" => None,
            "marked" => Some("failures of sessions".into()),
            "drain" | "maintenance" if server.version() == 0 => Some("the configuration".into()),
            _ => self.reasons.get(&server.settings().id).cloned(),
        }
    }

    fn server(&self, id: ServerId) -> Option<Arc<Server>> {
        let mut known = self.known.values();
        known.find(|it| it.settings().id == id).cloned()
    }

    /// Whether no other server takes sessions.
    fn is_last(&self, server: &Server) -> bool {
        let id = server.settings().id;
        let mut others = self.set.members().iter();
        server.standing.is_up()
            && !others.any(|it| it.server.settings().id != id && it.server.standing.is_up())
    }

    /// An operator has given it this weight.
    fn weigh(&mut self, server: &Server, weight: u32) {
        let id = server.settings().id;
        let place = self.known.iter().find(|(_, it)| it.settings().id == id);
        if let Some((place, _)) = place {
            self.weights.insert(place.clone(), weight);
        }
    }
}
