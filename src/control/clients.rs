//! Who may come in, made ready from the configuration: the files that `access` names are
//! read here, at the start and at each reload.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ipnet::IpNet;
use thiserror::Error;

use super::plan::Plan;
use crate::config::ByteRate;
use crate::config::clients::{
    AccessRule, AccessScope, ClientAccess, ClientMemory, OnDeny, WhenFull, network_of,
};
use crate::net::turn_away::TurnAway;
use crate::policy::clients::{ClientRule, ClientRules, Whom};
use crate::policy::meter::Buckets;
use crate::reactor::{
    ByteRates, ClientPolicy, ClientTable, ConnectRate, ForwardRate, Full, Limits, TableSettings,
    WrittenRule,
};
use crate::relay::id::ForwardId;

/// Bytes of a file of networks at the most: a few million networks.
const FILE_MAX: u64 = 128 << 20;

/// Why the networks of a rule cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AccessFileError {
    /// The file cannot be read.
    #[error("access: cannot read {}: {why}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// A line is no network.
    #[error("access: {}:{line}: {problem}; {remedy}", path.display())]
    Line {
        /// Of which file.
        path: PathBuf,
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
        /// What to write.
        remedy: String,
    },
}

/// An empty table as it is configured.
pub(super) fn table(memory: &ClientMemory) -> ClientTable {
    ClientTable::new(TableSettings {
        entries_max: memory.entries_max as usize,
        full: match memory.full {
            WhenFull::LetIn => Full::LetIn,
            WhenFull::TurnAway => Full::TurnAway,
        },
        prefix_v4: memory.prefix_v4,
        prefix_v6: memory.prefix_v6,
    })
}

/// Of each forward that does not let everybody in; the name of the forward stands beside
/// an error. Rules that are written as `before` go on with what they have counted.
pub(super) fn policies(
    plan: &Plan<'_>,
    table: &Arc<ClientTable>,
    before: &BTreeMap<ForwardId, Arc<ClientPolicy>>,
) -> Result<BTreeMap<ForwardId, Arc<ClientPolicy>>, (String, AccessFileError)> {
    let mut policies = BTreeMap::new();
    let mut files = Files::default();
    // Forwards of a range of ports have the same list, one after the other.
    let mut last: Option<(&[AccessRule], ClientRules)> = None;
    for forward in &plan.forwards {
        let clients = &forward.config.clients;
        if clients.lets_everybody_in() {
            continue;
        }
        let rules = match &last {
            Some((known, rules)) if *known == clients.access => rules.clone(),
            _ => {
                let rules = compile(&clients.access, &mut files);
                rules.map_err(|error| (forward.config.name.clone(), error))?
            }
        };
        last = Some((&clients.access, rules.clone()));
        let mut known = CountedRules::of(before.get(&forward.id));
        let written = clients.access.iter().map(|rule| {
            let text: Arc<str> = rule.to_string().into();
            let denied = known.denied(&text);
            WrittenRule { text, denied }
        });
        let limits = Limits {
            connections: clients.max_per_client,
            rate: clients.connect_rate.map(|rate| ConnectRate {
                interval: rate.interval(),
                burst: clients.burst(),
            }),
            bytes: clients
                .rate_per_client
                .map(|it| it.with_burst(clients.rate_burst)),
        };
        let policy = ClientPolicy {
            forward: forward.id,
            name: forward.config.name.as_str().into(),
            rules,
            written: written.collect(),
            limits: clients.has_limits().then(|| (limits, table.clone())),
            rates: byte_rates(clients, before.get(&forward.id)),
            turns_away: match clients.on_deny {
                OnDeny::Reset => TurnAway::Reset,
                OnDeny::Close => TurnAway::Close,
                OnDeny::Drop => TurnAway::Drop,
            },
            dry_run: clients.dry_run,
        };
        policies.insert(forward.id, Arc::new(policy));
    }
    Ok(policies)
}

/// What the rules of a forward have counted so far.
struct CountedRules<'a>(Vec<&'a WrittenRule>);

impl<'a> CountedRules<'a> {
    fn of(policy: Option<&'a Arc<ClientPolicy>>) -> Self {
        Self(policy.iter().flat_map(|it| &*it.written).collect())
    }

    /// The counter of a rule that is written like this; of several each has its own.
    fn denied(&mut self, text: &str) -> Arc<AtomicU64> {
        match self.0.iter().position(|it| &*it.text == text) {
            Some(at) => self.0.remove(at).denied.clone(),
            None => Arc::default(),
        }
    }
}

/// What a forward has moved stays moved when its rate changes: its buckets are carried on.
/// A rate that is new to a forward goes by buckets of its own.
fn byte_rates(clients: &ClientAccess, before: Option<&Arc<ClientPolicy>>) -> ByteRates {
    let rates = |rate: Option<ByteRate>| rate.map(|it| it.with_burst(clients.rate_burst));
    let known = before.and_then(|it| it.rates.forward.clone());
    ByteRates {
        session: rates(clients.rate_per_session),
        forward: rates(clients.rate).map(|rates| ForwardRate {
            rates,
            buckets: known.map_or_else(|| Arc::new(Buckets::new(rates)), |it| it.buckets),
        }),
    }
}

/// The new rates are in force; those of sessions and clients are so by themselves.
pub(super) fn apply_rates(policies: &BTreeMap<ForwardId, Arc<ClientPolicy>>) {
    let rates = policies.values().filter_map(|it| it.rates.forward.as_ref());
    for rate in rates {
        rate.buckets.set_rates(rate.rates);
    }
}

fn compile(rules: &[AccessRule], files: &mut Files) -> Result<ClientRules, AccessFileError> {
    let compiled: Result<Vec<_>, _> = rules
        .iter()
        .map(|rule| {
            let whom = match &rule.whom {
                AccessScope::All => Whom::All,
                AccessScope::Network(network) => Whom::Networks(vec![*network]),
                AccessScope::File(path) => Whom::Networks(files.read(path)?.to_vec()),
            };
            Ok(ClientRule {
                denies: rule.denies,
                whom,
            })
        })
        .collect();
    Ok(ClientRules::new(&compiled?))
}

/// Files that were read, each once.
#[derive(Debug, Default)]
struct Files(HashMap<PathBuf, Arc<[IpNet]>>);

impl Files {
    fn read(&mut self, path: &Path) -> Result<Arc<[IpNet]>, AccessFileError> {
        if let Some(known) = self.0.get(path) {
            return Ok(known.clone());
        }
        let networks: Arc<[IpNet]> = read_file(path)?.into();
        self.0.insert(path.to_owned(), networks.clone());
        Ok(networks)
    }
}

fn read_file(path: &Path) -> Result<Vec<IpNet>, AccessFileError> {
    let unreadable = |why: String| AccessFileError::Unreadable {
        path: path.to_owned(),
        why,
    };
    // A pipe or a device would be waited for.
    let metadata = fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    if !metadata.is_file() {
        let why = "it is no regular file; write the networks to one, a line each";
        return Err(unreadable(why.to_owned()));
    }
    if metadata.len() > FILE_MAX {
        let why = format!("it is larger than {} MiB", FILE_MAX >> 20);
        return Err(unreadable(why));
    }
    let text = fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    networks_of(path, &text)
}

/// A network a line; what follows a `#` is a remark.
fn networks_of(path: &Path, text: &str) -> Result<Vec<IpNet>, AccessFileError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().enumerate().filter_map(|(number, line)| {
        let line = line.split('#').next().unwrap_or_default().trim();
        (!line.is_empty()).then_some((number + 1, line))
    });
    lines
        .map(|(line, text)| {
            network_of(text).map_err(|error| AccessFileError::Line {
                path: path.to_owned(),
                line,
                problem: error.problem,
                remedy: error.remedy,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_remarks_and_names_the_line_that_is_wrong() {
        let path = Path::new("partners.txt");
        let text = "\u{feff}# partners\r\n10.0.0.0/8 # ours\r\n\r\n192.0.2.1\r\n2001:db8::/32";
        let networks = networks_of(path, text).expect("networks");
        let shown: Vec<_> = networks.iter().map(IpNet::to_string).collect();
        assert_eq!(shown, ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]);
        for wrong in [
            "10.0.0.1/8",
            "10.0.0.0/33",
            "fe80::1%eth0",
            "::ffff:192.0.2.0/120",
            "nobody",
        ] {
            let error = networks_of(path, &format!("10.0.0.0/8\n\n{wrong}\n"));
            let error = error.expect_err(wrong).to_string();
            assert!(error.contains("partners.txt:3: "), "{error}");
        }
    }

    /// What it takes is told by the group `access` of `benches/core.rs`.
    #[test]
    fn b74_a_hundred_thousand_networks_are_read() {
        let lines = (0..100_000_u32).map(|n| {
            let [a, b, c, _] = (n << 8).to_be_bytes();
            format!("{a}.{b}.{c}.0/24\n")
        });
        let networks = networks_of(Path::new("many"), &lines.collect::<String>());
        assert_eq!(networks.map(|it| it.len()), Ok(100_000));
    }
}
