//! Who may come in at a forward: its rules about networks, and its limits by client.
//!
//! Asked once for each client, when it has been accepted, and shared by all reactors. What
//! was granted is a [`ClientPermit`] that the session holds: however the session ends, its place
//! is given back once, because the permit is dropped once.

mod table;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

pub(super) use table::ClientPermit;
pub use table::{ClientTable, ConnectRate, Full, Limits, TableSettings};

use crate::net::address::Endpoint;
use crate::net::turn_away::TurnAway;
use crate::observe::notice::Notice;
use crate::policy::clients::{ClientRules, Place};
use crate::relay::id::ForwardId;

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
    /// What happens to whom it does not let in.
    pub turns_away: TurnAway,
    /// Nobody is turned away; whoever would be is counted.
    pub dry_run: bool,
}

/// A rule as it is written.
#[derive(Debug)]
pub struct WrittenRule {
    /// Its text.
    pub text: Arc<str>,
    /// Clients that it has turned away, or would have in a dry run.
    pub denied: AtomicU64,
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
}

impl ClientPolicy {
    /// Lets a client in, or says why not. One without an address, of a unix socket, has no
    /// limits.
    pub(super) fn admit(
        &self,
        client: Option<IpAddr>,
    ) -> Result<Option<Box<ClientPermit>>, Denied> {
        if let Some(place) = self.rules.denied_by(client) {
            if let Some(rule) = self.written.get(place as usize) {
                rule.denied.fetch_add(1, Ordering::Relaxed);
            }
            return Err(Denied::Rule(place));
        }
        let (Some((limits, table)), Some(ip)) = (&self.limits, client) else {
            return Ok(None);
        };
        let admitted = ClientTable::admit(table, self.forward, ip, limits, Instant::now());
        admitted.map(|permit| permit.map(Box::new))
    }

    /// A client that was let in elsewhere counts here from now on: no limit keeps it out.
    pub(super) fn readmit(&self, client: IpAddr) -> Option<Box<ClientPermit>> {
        let (_, table) = self.limits.as_ref()?;
        ClientTable::readmit(table, self.forward, client).map(Box::new)
    }

    /// The rule's number for the throttle of lines; a limit's is none of a rule.
    pub(super) const fn subject(denied: Denied) -> u32 {
        match denied {
            Denied::Rule(place) => place,
            Denied::Connections => u32::MAX,
            Denied::Rate => u32::MAX - 1,
            Denied::TableFull => u32::MAX - 2,
            Denied::Share => u32::MAX - 3,
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

impl Denied {
    /// The `cause` of lines about it. Their `code` is `PR`, as HAProxy has it for what the
    /// proxy itself refuses.
    const fn cause(self) -> &'static str {
        match self {
            Self::Rule(_) => "access",
            Self::Connections => "max_per_client",
            Self::Rate => "connect_rate",
            Self::TableFull => "client_table",
            Self::Share => "share",
        }
    }
}
