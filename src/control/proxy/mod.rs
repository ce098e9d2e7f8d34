//! Deciding about CONNECT requests, off the reactors: who asks, and where he may go.
//!
//! ```text
//!  reactor ── decide ─► credentials remembered? ─right─► route ─► an address: held against
//!             │                │ no        └ wrong         ▲      the access list; a name:
//!             gone             ▼                           │      the resolver, then that
//!             └──────►  fair queue, verifier's threads ── right
//!                              └ wrong, or it would come too late
//!  reactor ◄── decided ── ruling
//! ```
//! Credentials are verified fairly ([`fair`]): each client has a line of its own, and one
//! that fails again and again waits longer each time.
//! Invariants: a request gets one ruling; what is dialled is an address that the
//! access list was held against, never a name; a reactor never waits for a hash or for
//! DNS.

mod fair;
pub(super) mod users;
mod verifier;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use crate::engine::SessionKey;
use crate::net::address::Endpoint;
use crate::net::own::OwnListeners;
use crate::observe::log::Log;
use crate::observe::notice::Notice;
use crate::policy::access::Access;
use crate::proto::prelude::Facts;
use crate::proto::target::{Host, Target};
use crate::reactor::{Decider, Decision, Ruling};
use crate::relay::ending::Cause;
use crate::relay::id::ForwardId;

use super::clients::read_rules;
use super::error::StartError;
use super::plan::{ForwardPlan, Plan};
use super::resolve::{LookupError, LookupId, Resolver};
use super::wire::Wire;
use users::{Credentials, Users, UsersError};
use verifier::{JobId, Verdict, Verification, Verifier};

/// Whether a file of users can be read and means something.
pub(super) fn check_users(path: &Path) -> Result<(), UsersError> {
    Users::read(path).map(drop)
}

/// Everything that deciding takes, for all reactors.
#[derive(Debug)]
pub(super) struct Deciders {
    /// Of forwards, and their routes, whose clients make requests.
    rules: HashMap<(ForwardId, Option<u16>), ForwardRules>,
    resolver: Arc<Resolver>,
    /// What this process listens on.
    own: Arc<OwnListeners>,
    /// Only if any forward has users.
    verifier: Option<Arc<Verifier>>,
}

/// What one forward goes by.
#[derive(Debug, Clone)]
struct ForwardRules {
    access: Arc<Access>,
    users: Option<Arc<Users>>,
}

impl ForwardRules {
    /// With what it has as before in its place: those who were verified are remembered.
    fn kept(mut self, before: Option<&Self>) -> Self {
        let Some(before) = before else {
            return self;
        };
        if *before.access == *self.access {
            self.access = before.access.clone();
        }
        if let (Some(known), Some(users)) = (&before.users, &mut self.users)
            && known.is_as(users)
        {
            *users = known.clone();
        }
        self
    }

    /// Whether nothing of it differs, where what is as before was kept.
    fn is_kept(&self, before: &Self) -> bool {
        let users = (&self.users, &before.users);
        Arc::ptr_eq(&self.access, &before.access)
            && match users {
                (Some(users), Some(known)) => Arc::ptr_eq(users, known),
                (None, None) => true,
                _ => false,
            }
    }
}

impl Deciders {
    /// Reads the files of users. What `earlier` ones go by and the plan does not know is
    /// kept, for sessions whose forward was removed. Where nothing differs they are the earlier ones.
    pub(super) fn new(
        plan: &Plan,
        resolver: Arc<Resolver>,
        own: Arc<OwnListeners>,
        log: &Log,
        earlier: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, StartError> {
        let mut rules = earlier.map(|it| it.rules.clone()).unwrap_or_default();
        let requests = plan
            .forwards
            .iter()
            .flat_map(|forward| forward.requests().map(move |it| (forward, it)));
        for (ForwardPlan { id, config, .. }, (route, connect)) in requests {
            let users = connect.users.as_deref().map(Users::read).transpose();
            let users = users.map_err(|error| StartError::Users {
                forward: config.name.clone(),
                error,
            })?;
            if let Some((users, path)) = users.as_ref().zip(connect.users.as_ref()) {
                for problem in users.advice() {
                    log.notice(Notice::UsersAdvice {
                        forward: config.name.as_str().into(),
                        path: path.clone(),
                        problem,
                    });
                }
            }
            let access = connect.access.compile(read_rules);
            let access = access.map_err(|error| StartError::Access {
                forward: config.name.clone(),
                error,
            })?;
            let rule = ForwardRules {
                access: Arc::new(access),
                users: users.map(Arc::new),
            };
            let before = earlier.and_then(|it| it.rules.get(&(*id, route)));
            rules.insert((*id, route), rule.kept(before));
        }
        let mut all = rules.values();
        let verifier = all.any(|rule| rule.users.is_some());
        let known = earlier.and_then(|it| it.verifier.clone());
        let verifier = match known {
            None if verifier => {
                let started = Verifier::start(log.clone());
                Some(Arc::new(started.map_err(StartError::Verifier)?))
            }
            known => known,
        };
        let new = Self {
            rules,
            resolver,
            own,
            verifier,
        };
        let same = earlier.filter(|it| new.is_as(it)).cloned();
        Ok(same.unwrap_or_else(|| Arc::new(new)))
    }

    /// Whether nothing differs, where what is as before was kept.
    fn is_as(&self, before: &Self) -> bool {
        let verifier = |it: &Self| it.verifier.as_ref().map(Arc::as_ptr);
        let is_kept = |(at, rule): (&_, &ForwardRules)| {
            let known = before.rules.get(at);
            known.is_some_and(|known| rule.is_kept(known))
        };
        Arc::ptr_eq(&self.resolver, &before.resolver)
            && Arc::ptr_eq(&self.own, &before.own)
            && verifier(self) == verifier(before)
            && self.rules.len() == before.rules.len()
            && self.rules.iter().all(is_kept)
    }

    /// As a reactor asks them.
    pub(super) fn for_reactor(self: &Arc<Self>, wire: Wire, reactor: u16) -> Box<dyn Decider> {
        Box::new(ReactorDecider::new(self.clone(), wire, reactor))
    }

    /// Who asks? Then where to.
    fn ask(self: &Arc<Self>, question: Asked, at: (ForwardId, Option<u16>), facts: Facts) {
        let Some(rule) = self.rules.get(&at) else {
            return question.reject(Cause::Stopped);
        };
        // An opening without a target is none that is asked about here.
        let Some(target) = facts.target else {
            return question.reject(Cause::BadRequest);
        };
        let access = rule.access.clone();
        let Some(users) = &rule.users else {
            return self.route(question, &access, target);
        };
        let credentials = facts.authorization.as_ref();
        let Some(credentials) = credentials.and_then(Credentials::of) else {
            return question.reject(Cause::Unauthorised);
        };
        let question = question.of(&credentials);
        match users.known(&credentials) {
            Some(true) => return self.route(question, &access, target),
            Some(false) => return question.reject(Cause::Unauthorised),
            None => {}
        }
        let Some(verifier) = &self.verifier else {
            return question.reject(Cause::Stopped);
        };
        let (deciders, id, client) = (self.clone(), question.id(), question.client.into());
        let job = Verification {
            users: users.clone(),
            credentials,
            then: Box::new(move |verdict| match verdict {
                Verdict::Right => deciders.route(question, &access, target),
                Verdict::Wrong => question.reject(Cause::Unauthorised),
                Verdict::Busy => question.reject(Cause::Busy),
            }),
        };
        verifier.submit(client, id, job);
    }

    /// A session is gone: what was not begun for it is not.
    fn forget(&self, id: JobId) {
        self.resolver.cancel(id);
        if let Some(verifier) = &self.verifier {
            verifier.cancel(id);
        }
    }

    fn route(&self, question: Asked, access: &Arc<Access>, target: Target) {
        match target.host {
            Host::Address(ip) => {
                let found = vec![SocketAddr::new(ip, target.port)];
                question.ruling(allowed(access, &self.own, None, found));
            }
            Host::Name(name) if access.is_hopeless(&name, target.port) => {
                question.reject(Cause::Denied);
            }
            Host::Name(name) => {
                // Nothing that holds the resolver: its own thread calls this.
                let (access, own, asked) = (access.clone(), self.own.clone(), name.clone());
                let whose = (question.id(), question.client);
                let wanted = (name.as_str(), target.port);
                self.resolver.lookup(whose, wanted, move |found| {
                    question.ruling(match found {
                        Ok(found) => allowed(&access, &own, Some(&asked), found),
                        Err(error) => Err(cause_of(&error)),
                    });
                });
            }
        }
    }
}

/// Those of the addresses that may be dialled; never none. What this process listens on
/// itself is no target, a listener on all addresses included, unless it is listed by its
/// very address: clients would come round again, or reach what is meant for others.
fn allowed(
    access: &Access,
    own: &OwnListeners,
    name: Option<&str>,
    mut found: Vec<SocketAddr>,
) -> Result<Vec<SocketAddr>, Cause> {
    found.retain(|address| {
        access.admits(name, *address)
            && (access.lists(*address) || own.owner(&Endpoint::Inet(*address)).is_none())
    });
    if found.is_empty() {
        // The client is not told whether the name is there.
        Err(match name {
            Some(_) => Cause::AddressDenied,
            None => Cause::Denied,
        })
    } else {
        Ok(found)
    }
}

const fn cause_of(error: &LookupError) -> Cause {
    match error {
        LookupError::TimedOut(_) => Cause::NameTimeout,
        LookupError::Busy => Cause::Busy,
        LookupError::Stopped => Cause::Stopped,
        LookupError::NoSuchName
        | LookupError::NoRecord(_)
        | LookupError::Chain
        | LookupError::NotOffered
        | LookupError::ServerFailure(..)
        | LookupError::Unreachable(_)
        | LookupError::Answer(_)
        | LookupError::NotAName(_) => Cause::NameFailed,
    }
}

/// A request that waits for its ruling, and the way back.
#[derive(Debug, Clone)]
struct Asked {
    wire: Wire,
    reactor: u16,
    key: SessionKey,
    client: Option<IpAddr>,
    user: Option<String>,
}

impl Asked {
    const fn id(&self) -> LookupId {
        (self.reactor, self.key)
    }

    fn of(mut self, credentials: &Credentials) -> Self {
        self.user = Some(credentials.user().to_owned());
        self
    }

    fn reject(self, cause: Cause) {
        self.ruling(Err(cause));
    }

    fn ruling(self, outcome: Result<Vec<SocketAddr>, Cause>) {
        let user = self.user;
        let decision = outcome.map_or_else(Decision::Refuse, Decision::from);
        self.wire.decided(self.key, Ruling { user, decision });
    }
}

/// The deciders as one reactor sees it.
#[derive(Debug)]
pub(super) struct ReactorDecider {
    deciders: Arc<Deciders>,
    wire: Wire,
    reactor: u16,
}

impl ReactorDecider {
    pub(super) fn new(deciders: Arc<Deciders>, wire: Wire, reactor: u16) -> Self {
        Self {
            deciders,
            wire,
            reactor,
        }
    }
}

impl Decider for ReactorDecider {
    fn decide(&self, key: SessionKey, forward: ForwardId, route: Option<u16>, facts: Facts) {
        let question = Asked {
            wire: self.wire.clone(),
            reactor: self.reactor,
            key,
            client: facts.client,
            user: None,
        };
        self.deciders.ask(question, (forward, route), facts);
    }

    fn gone(&self, key: SessionKey) {
        self.deciders.forget((self.reactor, key));
    }
}
