//! Who may come in at a forward: its rules about networks, and its limits by client.
//!
//! Asked once for each client, when it has been accepted, and shared by all reactors. What
//! was granted is a [`ClientGrant`] that the session holds: however the session ends, its place
//! is given back once, because the grant is dropped once.

mod table;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub(super) use table::{At, ClientPermit};
pub use table::{ClientTable, Full, Limits, TableSettings};

use crate::net::address::Endpoint;
use crate::net::turn_away::TurnAway;
use crate::observe::notice::Notice;
use crate::policy::clients::{ClientRules, Place};
use crate::policy::meter::{Buckets, Meters, Rate};
use crate::relay::id::ForwardId;
use crate::relay::time::Time;

/// Who may come in at one forward.
#[derive(Debug)]
pub struct ClientPolicy {
    /// Whose it is.
    pub forward: ForwardId,
    /// Its name.
    pub name: Arc<str>,
    /// Whom it lets in.
    pub rules: ClientRules,
    /// The rules as they are written, with what each of them has turned away.
    pub written: Box<[WrittenRule]>,
    /// How many connections one client may have, and how fast it may make them.
    pub limits: Option<(Limits, Arc<ClientTable>)>,
    /// How many bytes a second flow: of a session, and of all of them together. Those of a
    /// client are among its limits.
    pub rates: ByteRates,
    /// What happens to whom it does not let in.
    pub turns_away: TurnAway,
    /// Nobody is turned away; whoever would be is counted.
    pub dry_run: bool,
}

impl ClientPolicy {
    /// Whether it does with every client what the other one does.
    pub fn is_as(&self, other: &Self) -> bool {
        let limits = |it: &Self| it.limits.as_ref().map(|(limits, _)| *limits);
        let table = |it: &Self| it.limits.as_ref().map(|(_, table)| Arc::as_ptr(table));
        let forward_rate = |it: &Self| it.rates.forward.as_ref().map(|it| it.rates);
        let texts = |it: &Self| it.written.len();
        let written = self.written.iter().zip(&other.written);
        (self.forward, &self.name) == (other.forward, &other.name)
            && texts(self) == texts(other)
            && written.into_iter().all(|(one, two)| one.text == two.text)
            && limits(self) == limits(other)
            && table(self) == table(other)
            && self.rates.session == other.rates.session
            && forward_rate(self) == forward_rate(other)
            && (self.turns_away, self.dry_run) == (other.turns_away, other.dry_run)
            && self.rules == other.rules
    }
}

/// Bytes a second, up and down.
#[derive(Debug, Clone, Default)]
pub struct ByteRates {
    /// Of each session by itself.
    pub session: Option<[Rate; 2]>,
    /// Of all of the forward, over all reactors.
    pub forward: Option<ForwardRate>,
}

/// What all sessions of a forward share.
#[derive(Debug, Clone)]
pub struct ForwardRate {
    /// As they are configured.
    pub rates: [Rate; 2],
    /// Carried from one configuration to the next, whose rates they get when it is in
    /// force.
    pub buckets: Arc<Buckets>,
}

/// What was granted to a session, and is given back when it is dropped.
#[derive(Debug)]
pub(super) struct ClientGrant {
    /// Its place among its client's connections.
    #[allow(dead_code, reason = "held, and given back when it is dropped")]
    permit: Option<ClientPermit>,
    /// Likewise at the server that it is on or on its way to.
    at_server: Option<ClientPermit>,
    /// What holds its bytes back.
    pub(super) meters: Option<Meters>,
}

/// A rule as it is written.
#[derive(Debug)]
pub struct WrittenRule {
    /// Its text.
    pub text: Arc<str>,
    /// Clients that it has turned away, or would have in a dry run.
    pub denied: Arc<AtomicU64>,
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// By this rule.
    Rule(Place),
    /// It has as many connections as it may.
    Connections,
    /// It connects too fast.
    Rate,
    /// Nothing can be remembered of one more client, and such are not let in.
    TableFull,
    /// Places run short, and it has its share of them.
    Share,
    /// It has as many connections as it may at every server.
    AtServers,
}

impl ClientPolicy {
    /// Lets a client in, or says why not. One without an address, of a unix socket, has no
    /// limits of its own.
    pub(super) fn admit(&self, client: Option<IpAddr>) -> Result<Option<Box<ClientGrant>>, Denied> {
        if let Some(place) = self.rules.denied_by(client) {
            if let Some(rule) = self.written.get(place as usize) {
                rule.denied.fetch_add(1, Ordering::Relaxed);
            }
            return Err(Denied::Rule(place));
        }
        let permit = match (&self.limits, client) {
            (Some((limits, table)), Some(ip)) => {
                ClientTable::admit(table, At::Forward(self.forward), ip, limits, Instant::now())?
            }
            _ => None,
        };
        let of_client = permit.as_ref().and_then(ClientPermit::buckets);
        let meters = self.meters(of_client);
        let any = permit.is_some() || meters.is_some();
        Ok(any.then(|| ClientGrant::new(permit, meters)))
    }

    fn meters(&self, of_client: Option<Arc<Buckets>>) -> Option<Meters> {
        let own = self.rates.session.map(|it| Arc::new(Buckets::new(it)));
        let levels = [
            own,
            of_client,
            None,
            self.rates.forward.as_ref().map(|it| it.buckets.clone()),
        ];
        let any = levels.iter().any(Option::is_some);
        any.then(|| Meters::new(levels, self.dry_run))
    }

    /// A client that was let in elsewhere goes by these rates from now on, and counts here
    /// if it did there: no limit keeps it out. `debts` is what its session was ahead of its
    /// own rate.
    pub(super) fn readmit(
        &self,
        client: Option<IpAddr>,
        debts: Option<[i64; 2]>,
        now: Time,
    ) -> Option<Box<ClientGrant>> {
        let permit = match (&self.limits, client) {
            (Some((limits, table)), Some(ip)) => {
                ClientTable::readmit(table, At::Forward(self.forward), ip, limits)
            }
            _ => None,
        };
        let of_client = permit.as_ref().and_then(ClientPermit::buckets);
        let meters = self.meters(of_client);
        if let (Some(meters), Some(debts)) = (&meters, debts) {
            meters.set_debts(debts, now);
        }
        let any = permit.is_some() || meters.is_some();
        any.then(|| ClientGrant::new(permit, meters))
    }

    /// The rule's number for the throttle of lines; a limit's is none of a rule.
    pub(super) const fn subject(denied: Denied) -> u32 {
        match denied {
            Denied::Rule(place) => place,
            Denied::Connections => u32::MAX,
            Denied::Rate => u32::MAX - 1,
            Denied::TableFull => u32::MAX - 2,
            Denied::Share => u32::MAX - 3,
            Denied::AtServers => u32::MAX - 4,
        }
    }

    /// What the log says of it.
    pub(super) fn notice(&self, denied: Denied, client: Endpoint) -> Notice {
        let reason = match denied {
            Denied::Rule(place) => {
                let rule = self.written.get(place as usize);
                rule.map_or_else(String::new, |rule| format!("by `{}`", rule.text))
            }
            Denied::Connections => "max_per_client".to_owned(),
            Denied::Rate => "connect_rate".to_owned(),
            Denied::TableFull => "client_table is full".to_owned(),
            Denied::Share => return share_notice(self.name.clone(), client),
            Denied::AtServers => return servers_notice(self.name.clone(), client, self.dry_run),
        };
        Notice::ClientDenied {
            forward: self.name.clone(),
            client,
            code: "PR",
            cause: denied.cause(),
            reason,
            dry_run: self.dry_run,
        }
    }
}

impl ClientGrant {
    fn new(permit: Option<ClientPermit>, meters: Option<Meters>) -> Box<Self> {
        Box::new(Self {
            permit,
            at_server: None,
            meters,
        })
    }

    /// The session of this grant is on a server from now on: by this place there, and this
    /// rate. What it had of the one before is given back. In a dry run nothing is held back.
    pub(super) fn settle_at(
        grant: &mut Option<Box<Self>>,
        place: Option<ClientPermit>,
        buckets: Option<Arc<Buckets>>,
        dry_run: bool,
    ) {
        if grant.is_none() && place.is_none() && buckets.is_none() {
            return;
        }
        let grant = grant.get_or_insert_with(|| Self::new(None, None));
        grant.at_server = place;
        if let Some(meters) = &mut grant.meters {
            meters.set_server(buckets);
        } else if buckets.is_some() {
            grant.meters = Some(Meters::new([None, None, buckets, None], dry_run));
        }
        if grant.meters.as_ref().is_some_and(|it| !it.any()) {
            grant.meters = None;
        }
    }
}

/// What the log says of one that has its share of a forward's places, or of all.
pub(super) fn share_notice(forward: Arc<str>, client: Endpoint) -> Notice {
    Notice::ClientDenied {
        forward,
        client,
        code: "PR",
        cause: Denied::Share.cause(),
        reason: "places run short, and it has its share of them".to_owned(),
        dry_run: false,
    }
}

/// What the log says of one that has as many connections as it may at every server.
pub(super) fn servers_notice(forward: Arc<str>, client: Endpoint, dry_run: bool) -> Notice {
    Notice::ClientDenied {
        forward,
        client,
        code: "PR",
        cause: Denied::AtServers.cause(),
        reason: "max_per_client of the servers".to_owned(),
        dry_run,
    }
}

impl Denied {
    /// The `cause` of lines about it. Their `code` is `PR`, as HAProxy has it for what the
    /// proxy itself refuses.
    const fn cause(self) -> &'static str {
        match self {
            Self::Rule(_) => "access",
            Self::Connections | Self::AtServers => "max_per_client",
            Self::Rate => "connect_rate",
            Self::TableFull => "client_table",
            Self::Share => "share",
        }
    }
}
