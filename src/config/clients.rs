//! Who may come in at a forward, as an operator writes it down: `access`, and the limits
//! of each client. What a list means is in [`policy::clients`].
//!
//! [`policy::clients`]: crate::policy::clients

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde_json::json;

use super::byte_rate::{ByteRate, ByteRateKey, RATE_BURST, rate_burst};
use super::connect_rate::{WrittenRate, connect_burst, connect_rate, max_per_client};
use super::kind::{Composite, Optional, Switch, choice, int};
use super::raw::{Node, Value};
use super::report::{Fault, ListFile, Report};
use super::section::section;
use super::text::quote;
use super::values;
use super::words::words;
use crate::net::network;
use crate::policy::connect_rate::ConnectRate;

section! {
    /// Who may come in at a forward.
    #[derive(Debug, Clone, PartialEq)]
    pub struct ClientAccess, ClientAccessKeys {
        keys {
            /// Which clients may come in: rules, of which the first that is about a client
            /// decides; without one that is, it may. After `deny` or `allow` stand `all`, a
            /// network, or `@` and a file of networks, a line each.
            access: Vec<AccessRule> = Vec::new(), access(), Live,
                shown "everybody", example "[\"allow 10.0.0.0/8\", \"deny all\"]";
            /// What happens to a client that is not let in: a reset, the end of the connection, or
            /// nothing at all, which needs `CAP_NET_ADMIN` (a reset without it).
            on_deny: OnDeny = OnDeny::Reset, choice(), Live;
            /// Connections that one client may have at a time. The next is turned away as
            /// `on_deny` says.
            max_per_client: Option<u32> = None, Optional(max_per_client()), Live,
                example "100";
            /// New connections that one client may make in a time, in the long run: `"10/s"`,
            /// `"600/m"`. What is faster is turned away.
            connect_rate: Option<WrittenRate> = None, Optional(connect_rate()), Live,
                example "\"10/s\"";
            /// So many of them at once, after a pause; by default those of a second, one at
            /// least.
            connect_burst: Option<u32> = None, Optional(connect_burst()), Live,
                example "20";
            /// Bytes a second of all sessions of a forward together, each way, or of each way by
            /// itself: `"10MB/s"`, `{ up = "1MB/s", down = "10MB/s" }`. What is faster is held
            /// back, by not reading it.
            rate: Option<ByteRate> = None, Optional(ByteRateKey), Live,
                example "\"100MB/s\"";
            /// Bytes a second of all sessions of one client together.
            rate_per_client: Option<ByteRate> = None, Optional(ByteRateKey), Live,
                example "\"10MB/s\"";
            /// Bytes a second of each session.
            rate_per_session: Option<ByteRate> = None, Optional(ByteRateKey), Live,
                example "{ down = \"1MB/s\" }";
            /// What these rates let flow in this time may flow at once, after a pause.
            rate_burst: Duration = RATE_BURST, rate_burst(), Live;
            /// Nobody is turned away or held back by `access` and these limits; whoever would be
            /// is counted, and logged if turned away.
            dry_run: bool = false, Switch, Live;
        }
    }
}

section! {
    /// What is remembered of clients, of all forwards together.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ClientMemory, ClientMemoryKeys {
        keys {
            /// Clients of which connections and rates are remembered at a time, each forward's
            /// by itself; up to 200 bytes each. Those without connections are forgotten first.
            entries_max as "client_table": u32 = 65_536, int(16..=16_777_216), Restart;
            /// What happens to further clients while all of those have connections: they are
            /// let in and not limited, or turned away.
            full as "client_table_full": WhenFull = WhenFull::LetIn, choice(), Restart;
            /// Leading bits of an IPv4 address that make one client.
            prefix_v4 as "client_prefix_v4": u8 = 32, int(0..=32), Restart;
            /// Leading bits of an IPv6 address that make one client.
            prefix_v6 as "client_prefix_v6": u8 = 64, int(0..=128), Restart;
        }
    }
}

words! {
    /// What happens to a client that is not let in.
    pub enum OnDeny {
        /// A reset.
        Reset = "reset",
        /// The end of the connection.
        Close = "close",
        /// Nothing: no packet.
        Drop = "drop",
    }
}

words! {
    /// What happens to clients of which nothing can be remembered.
    pub enum WhenFull {
        /// They are let in.
        LetIn = "let_in",
        /// They are turned away.
        TurnAway = "turn_away",
    }
}

/// A rule of `access`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRule {
    /// Turned away, or let in.
    pub denies: bool,
    /// Whom it is about.
    pub whom: AccessScope,
}

/// Whom a rule of `access` is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessScope {
    /// Everybody.
    All,
    /// The addresses of a network.
    Network(IpNet),
    /// Those of the networks in a file, read at the start and at a reload.
    File(PathBuf),
}

impl ClientAccess {
    /// Whether everybody may come in, as often as they like.
    pub fn lets_everybody_in(&self) -> bool {
        self.access.is_empty()
            && !self.has_limits()
            && self.rate.is_none()
            && self.rate_per_session.is_none()
    }

    /// Whether clients must be told apart.
    pub fn has_limits(&self) -> bool {
        self.max_per_client.is_some()
            || self.connect_rate.is_some()
            || self.rate_per_client.is_some()
    }

    /// How fast one client may make connections.
    pub fn connects(&self) -> Option<ConnectRate> {
        Some(self.connect_rate?.with_burst(self.connect_burst))
    }
}

const FORMS: &str = "such as \"allow 10.0.0.0/8\", \"deny @bad.txt\", \"deny all\"";

/// What is wrong with the text of a rule, or of a line in a file of networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessError {
    /// What is wrong.
    pub problem: String,
    /// What to write.
    pub remedy: String,
}

impl FromStr for AccessRule {
    type Err = AccessError;

    fn from_str(text: &str) -> Result<Self, AccessError> {
        let wrong = |problem: &str| AccessError {
            problem: problem.to_owned(),
            remedy: FORMS.to_owned(),
        };
        let (verb, whom) = text
            .split_once(' ')
            .ok_or_else(|| wrong("a rule is `allow` or `deny`, a space, and whom it is about"))?;
        let denies = match verb {
            "deny" => true,
            "allow" => false,
            _ => return Err(wrong("a rule begins with `allow` or `deny`")),
        };
        let whom = match whom.trim() {
            "all" => AccessScope::All,
            "" | "@" => return Err(wrong("nobody is named behind `allow` or `deny`")),
            whom => match whom.strip_prefix('@') {
                Some(path) => AccessScope::File(path.into()),
                None => AccessScope::Network(network_of(whom)?),
            },
        };
        Ok(Self { denies, whom })
    }
}

/// A network as rules and files have it.
pub fn network_of(text: &str) -> Result<IpNet, AccessError> {
    network::parse(text).map_err(|error| AccessError {
        problem: error.problem,
        remedy: error.remedy,
    })
}

impl fmt::Display for AccessRule {
    /// As it can be read again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.denies { "deny " } else { "allow " })?;
        match &self.whom {
            AccessScope::All => f.write_str("all"),
            AccessScope::Network(network) => write!(f, "{network}"),
            AccessScope::File(path) => write!(f, "@{}", path.display()),
        }
    }
}

/// A list of rules, each with errors of its own.
fn access() -> Composite<Vec<AccessRule>> {
    Composite {
        read: read_access,
        write: |rules| {
            let texts: Vec<_> = rules.iter().map(|it| quote(&it.to_string())).collect();
            (!rules.is_empty()).then(|| format!("[{}]", texts.join(", ")))
        },
        words: "list of rules",
        schema: || {
            json!({ "type": "array", "items": {
                "type": "string", "pattern": "^(allow|deny) (all|@.+|[0-9a-fA-F:./]+)$",
            }})
        },
    }
}

fn read_access(key: &str, node: &Node, report: &mut Report) -> Option<Vec<AccessRule>> {
    let Value::Array(items) = &node.value else {
        let fault = Fault::new("this must be a list of rules").remedy(FORMS);
        report.error(&node.span, fault.of_key(key));
        return None;
    };
    let mut rules: Vec<AccessRule> = Vec::new();
    for item in items {
        let rule = values::string(item).and_then(|text| {
            text.parse::<AccessRule>()
                .map_err(|error: AccessError| Fault::new(error.problem).remedy(error.remedy))
        });
        match rule {
            Err(fault) => report.error(&item.span, fault.of_key(key)),
            Ok(rule) => {
                if let AccessScope::File(path) = &rule.whom {
                    report.names_list(ListFile::Clients(path.clone()));
                }
                if let Some(before) = rules.iter().find(|it| it.covers(&rule)) {
                    let fault = Fault::new(format!("`{rule}` is never reached behind `{before}`"));
                    let fault = fault.remedy(
                        "the first rule about a client decides: move or \
                                              remove one of the two",
                    );
                    report.error(&item.span, fault.of_key(key));
                }
                rules.push(rule);
            }
        }
    }
    Some(rules)
}

impl AccessRule {
    /// Whether nothing of the other one is left behind this one.
    fn covers(&self, other: &Self) -> bool {
        match (&self.whom, &other.whom) {
            (AccessScope::All, _) => true,
            (AccessScope::Network(a), AccessScope::Network(b)) => a.contains(b),
            (AccessScope::File(a), AccessScope::File(b)) => a == b,
            _ => false,
        }
    }
}
