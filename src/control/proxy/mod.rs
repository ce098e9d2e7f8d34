//! Deciding about CONNECT requests, off the reactors: who asks, and where he may go.
//!
//! ```text
//!  reactor ── decide ─► credentials remembered? ─yes─► route ─► an address: held against
//!                              │ no                      ▲      the access list; a name:
//!                              ▼                         │      the resolver, then that
//!                         verifier thread ── right ──────┘
//!                              └ wrong, or its queue is full
//!  reactor ◄── decided ── ruling
//! ```
//! Invariants: a request gets one ruling; what is dialled is an address that the
//! access list was held against, never a name; a reactor never waits for a hash or for
//! DNS.

mod users;
mod verifier;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::config::Mode;
use crate::engine::SessionKey;
use crate::policy::access::Access;
use crate::proto::prelude::Facts;
use crate::proto::target::{Host, Target};
use crate::reactor::{Decider, Decision, Ruling};
use crate::relay::ending::Cause;
use crate::relay::id::ForwardId;

use super::error::StartError;
use super::plan::{ForwardPlan, Plan};
use super::resolve::{LookupError, Resolver};
use super::wire::Wire;
pub use users::UsersError;
use users::{Credentials, Users};
use verifier::{Verification, Verifier};

/// Everything that deciding takes, for all reactors.
#[derive(Debug)]
pub(super) struct Deciders {
    /// Of forwards whose clients make requests.
    rules: HashMap<ForwardId, ForwardRules>,
    resolver: Arc<Resolver>,
    /// Only if any forward has users.
    verifier: Option<Arc<Verifier>>,
}

/// What one forward goes by.
#[derive(Debug, Clone)]
struct ForwardRules {
    access: Arc<Access>,
    users: Option<Arc<Users>>,
}

impl Deciders {
    /// Reads the files of users. What `earlier` ones go by and the plan does not know is
    /// kept, for sessions whose forward was removed.
    pub(super) fn new(
        plan: &Plan<'_>,
        resolver: Arc<Resolver>,
        earlier: Option<&Self>,
    ) -> Result<Arc<Self>, StartError> {
        let mut rules = earlier.map(|it| it.rules.clone()).unwrap_or_default();
        for ForwardPlan { id, config, .. } in &plan.forwards {
            let Mode::HttpConnect(connect) = &config.mode else {
                continue;
            };
            let users = connect.users.as_deref().map(Users::read).transpose();
            let users = users.map_err(|error| StartError::Users {
                forward: config.name.clone(),
                error,
            })?;
            let rule = ForwardRules {
                access: Arc::new(connect.access.compile()),
                users: users.map(Arc::new),
            };
            rules.insert(*id, rule);
        }
        let mut all = rules.values();
        let verifier = all.any(|rule| rule.users.is_some());
        let known = earlier.and_then(|it| it.verifier.clone());
        let verifier = match known {
            None if verifier => Some(Arc::new(Verifier::start().map_err(StartError::Verifier)?)),
            known => known,
        };
        Ok(Arc::new(Self {
            rules,
            resolver,
            verifier,
        }))
    }

    /// As a reactor asks them.
    pub(super) fn for_reactor(self: &Arc<Self>, wire: Wire) -> Box<dyn Decider> {
        Box::new(ReactorDecider::new(self.clone(), wire))
    }

    /// Who asks? Then where to.
    fn ask(self: &Arc<Self>, question: Asked, forward: ForwardId, facts: Facts) {
        let Some(rule) = self.rules.get(&forward) else {
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
        if users.remembers(&credentials) {
            return self.route(question, &access, target);
        }
        let Some(verifier) = &self.verifier else {
            return question.reject(Cause::Stopped);
        };
        let (deciders, late) = (self.clone(), question.clone());
        let submitted = verifier.submit(Verification {
            users: users.clone(),
            credentials,
            then: Box::new(move |right| {
                if right {
                    deciders.route(question, &access, target);
                } else {
                    question.reject(Cause::Unauthorised);
                }
            }),
        });
        if !submitted {
            late.reject(Cause::Busy);
        }
    }

    fn route(&self, question: Asked, access: &Arc<Access>, target: Target) {
        match target.host {
            Host::Address(ip) => {
                let found = vec![SocketAddr::new(ip, target.port)];
                question.ruling(allowed(access, None, found));
            }
            Host::Name(name) if access.is_hopeless(&name, target.port) => {
                question.reject(Cause::Denied);
            }
            Host::Name(name) => {
                // Nothing that holds the resolver: its own thread calls this.
                let (access, asked) = (access.clone(), name.clone());
                self.resolver.lookup(&name, target.port, move |found| {
                    question.ruling(match found {
                        Ok(found) => allowed(&access, Some(&asked), found),
                        Err(error) => Err(cause_of(&error)),
                    });
                });
            }
        }
    }
}

/// Those of the addresses that may be dialled; never none.
fn allowed(
    access: &Access,
    name: Option<&str>,
    mut found: Vec<SocketAddr>,
) -> Result<Vec<SocketAddr>, Cause> {
    found.retain(|address| access.admits(name, *address));
    if found.is_empty() {
        Err(Cause::Denied)
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
    key: SessionKey,
    user: Option<String>,
}

impl Asked {
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
}

impl ReactorDecider {
    pub(super) fn new(deciders: Arc<Deciders>, wire: Wire) -> Self {
        Self { deciders, wire }
    }
}

impl Decider for ReactorDecider {
    fn decide(&self, key: SessionKey, forward: ForwardId, facts: Facts) {
        let question = Asked {
            wire: self.wire.clone(),
            key,
            user: None,
        };
        self.deciders.ask(question, forward, facts);
    }
}
