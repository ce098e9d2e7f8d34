//! Judging CONNECT requests, off the reactors: who asks, and where he may go.
//!
//! ```text
//!  reactor ── Post::ask ─► credentials remembered? ─yes─► route ─► an address: judged
//!                              │ no                        ▲       a name: the resolver,
//!                              ▼                           │       then judged
//!                         verifier thread ── right ────────┘
//!                              └ wrong, or its queue is full
//!  reactor ◄── Order::Answer ── verdict
//! ```
//! Invariants: a request gets one verdict; what is dialled is an address that the
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
use crate::proto::connect::{Host, Request, Target};
use crate::reactor::{Concierge, Verdict};
use crate::relay::ending::Cause;
use crate::relay::id::ForwardId;

use super::error::StartError;
use super::plan::{ForwardPlan, Plan};
use super::resolve::{LookupError, Resolver};
use super::thread::Wire;
pub use users::UsersError;
use users::{Credentials, Users};
use verifier::{Job, Verifier};

/// Everything that judging requests takes, for all reactors.
#[derive(Debug)]
pub(super) struct Desk {
    /// Of forwards whose clients make requests.
    windows: HashMap<ForwardId, Window>,
    resolver: Arc<Resolver>,
    /// Only if any forward has users.
    verifier: Option<Verifier>,
}

/// What one forward goes by.
#[derive(Debug)]
struct Window {
    access: Arc<Access>,
    users: Option<Arc<Users>>,
}

impl Desk {
    /// Reads the files of users.
    pub(super) fn new(plan: &Plan<'_>, resolver: Arc<Resolver>) -> Result<Arc<Self>, StartError> {
        let mut windows = HashMap::new();
        for ForwardPlan { id, config, .. } in &plan.forwards {
            let Mode::HttpConnect(connect) = &config.mode else {
                continue;
            };
            let users = connect.users.as_deref().map(Users::read).transpose();
            let users = users.map_err(|error| StartError::Users {
                forward: config.name.clone(),
                error,
            })?;
            let window = Window {
                access: Arc::new(connect.access.compile()),
                users: users.map(Arc::new),
            };
            windows.insert(*id, window);
        }
        let mut all = windows.values();
        let verifier = all.any(|window| window.users.is_some());
        let verifier = verifier.then(Verifier::start).transpose();
        Ok(Arc::new(Self {
            verifier: verifier.map_err(StartError::Verifier)?,
            windows,
            resolver,
        }))
    }

    /// Who asks? Then where to.
    fn ask(self: &Arc<Self>, call: Call, forward: ForwardId, request: Request) {
        let Some(window) = self.windows.get(&forward) else {
            return call.reject(Cause::Stopped);
        };
        let access = window.access.clone();
        let Some(users) = &window.users else {
            return self.route(call, &access, request.target);
        };
        let credentials = request.authorization.as_ref();
        let Some(credentials) = credentials.and_then(Credentials::of) else {
            return call.reject(Cause::Unauthorised);
        };
        let call = call.of(&credentials);
        if users.remembers(&credentials) {
            return self.route(call, &access, request.target);
        }
        let Some(verifier) = &self.verifier else {
            return call.reject(Cause::Stopped);
        };
        let (desk, late) = (self.clone(), call.clone());
        let submitted = verifier.submit(Job {
            users: users.clone(),
            credentials,
            then: Box::new(move |right| {
                if right {
                    desk.route(call, &access, request.target);
                } else {
                    call.reject(Cause::Unauthorised);
                }
            }),
        });
        if !submitted {
            late.reject(Cause::Busy);
        }
    }

    fn route(&self, call: Call, access: &Arc<Access>, target: Target) {
        match target.host {
            Host::Address(ip) => {
                let found = vec![SocketAddr::new(ip, target.port)];
                call.verdict(allowed(access, None, found));
            }
            Host::Name(name) if access.is_hopeless(&name, target.port) => {
                call.reject(Cause::Denied);
            }
            Host::Name(name) => {
                // Nothing that holds the resolver: its own thread calls this.
                let (access, asked) = (access.clone(), name.clone());
                self.resolver.lookup(&name, target.port, move |found| {
                    call.verdict(match found {
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
        LookupError::TimedOut => Cause::NameTimeout,
        LookupError::Busy => Cause::Busy,
        LookupError::Stopped => Cause::Stopped,
        LookupError::NoSuchName
        | LookupError::NoRecord(_)
        | LookupError::Chain
        | LookupError::NotOffered
        | LookupError::ServerFailure(_)
        | LookupError::Unreachable(_)
        | LookupError::Answer(_)
        | LookupError::NotAName(_) => Cause::NameFailed,
    }
}

/// A request that waits for its verdict, and the way back.
#[derive(Debug, Clone)]
struct Call {
    wire: Wire,
    key: SessionKey,
    user: Option<String>,
}

impl Call {
    fn of(mut self, credentials: &Credentials) -> Self {
        self.user = Some(credentials.user().to_owned());
        self
    }

    fn reject(self, cause: Cause) {
        self.verdict(Err(cause));
    }

    fn verdict(self, outcome: Result<Vec<SocketAddr>, Cause>) {
        let user = self.user;
        self.wire.answer(self.key, Verdict { user, outcome });
    }
}

/// The desk as one reactor sees it.
#[derive(Debug)]
pub(super) struct Post {
    desk: Arc<Desk>,
    wire: Wire,
}

impl Post {
    pub(super) fn new(desk: Arc<Desk>, wire: Wire) -> Self {
        Self { desk, wire }
    }
}

impl Concierge for Post {
    fn ask(&self, key: SessionKey, forward: ForwardId, request: Request) {
        let call = Call {
            wire: self.wire.clone(),
            key,
            user: None,
        };
        self.desk.ask(call, forward, request);
    }
}
