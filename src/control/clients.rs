//! Who may come in, made ready from the configuration: the files that `access` names are
//! read here, at the start and at each reload.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ipnet::IpNet;
use thiserror::Error;

use super::plan::Plan;
use crate::config::clients::{
    AccessRule, AccessScope, ClientAccess, ClientMemory, OnDeny, WhenFull, network_of,
};
use crate::config::{ByteRate, Config, ListFile};
use crate::net::turn_away::TurnAway;
use crate::policy::access::Rule;
use crate::policy::clients::{ClientRule, ClientRules, Whom};
use crate::policy::meter::Buckets;
use crate::reactor::{
    ByteRates, ClientPolicy, ClientTable, ForwardRate, Full, Limits, TableSettings, WrittenRule,
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
    /// Some lines say nothing.
    #[error("access: {}", shown(path, wrong))]
    Lines {
        /// Of which file.
        path: PathBuf,
        /// All of them.
        wrong: Vec<WrongLine>,
    },
}

/// A line of a file that says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongLine {
    /// Which, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
    /// What to write.
    pub remedy: String,
}

/// Each with its place, the first ones of many.
fn shown(path: &Path, wrong: &[WrongLine]) -> String {
    const SHOWN_MAX: usize = 20;
    let path = path.display();
    let texts = wrong.iter().take(SHOWN_MAX).map(|it| {
        let WrongLine {
            line,
            problem,
            remedy,
        } = it;
        format!("{path}:{line}: {problem}; {remedy}")
    });
    let mut text = texts.collect::<Vec<_>>().join(". ");
    if let Some(more @ 1..) = wrong.len().checked_sub(SHOWN_MAX) {
        // Writing to a String cannot fail.
        let _ = write!(text, ". And {more} lines more");
    }
    text
}

/// What is wrong with these files of lists, which a configuration names that is wrong itself.
pub fn errors_of_files(files: &[ListFile]) -> Vec<AccessFileError> {
    let error = |file: &ListFile| match file {
        ListFile::Clients(path) => read_file(path).err(),
        ListFile::Targets(path) => read_rules(path).err(),
    };
    files.iter().filter_map(error).collect()
}

/// What is wrong with the files that the lists of a configuration name, each with the name of its
/// forward: of clients, and of where requests may go.
pub fn errors_of_lists(config: &Config) -> Vec<(String, AccessFileError)> {
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for forward in &config.forwards {
        let mut note = |path: &Path, error: Option<AccessFileError>| {
            if let Some(error) = error
                && seen.insert(path.to_owned())
            {
                errors.push((forward.name.clone(), error));
            }
        };
        for rule in &forward.clients.access {
            if let AccessScope::File(path) = &rule.whom {
                note(path, read_file(path).err());
            }
        }
        for (_, connect) in forward.requests() {
            for path in connect.access.files() {
                note(path, read_rules(path).err());
            }
        }
    }
    errors
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
/// an error. Rules that are written as `before` go on with what they have counted, and a policy
/// of which nothing differs is the very same one.
pub(super) fn policies(
    plan: &Plan,
    table: &Arc<ClientTable>,
    before: &BTreeMap<ForwardId, Arc<ClientPolicy>>,
) -> Result<BTreeMap<ForwardId, Arc<ClientPolicy>>, (String, AccessFileError)> {
    let mut policies = BTreeMap::new();
    let mut files = Files::default();
    // Forwards of a range of ports have the same list, one after the other.
    let mut last: Option<(&[AccessRule], ClientRules)> = None;
    for forward in &*plan.forwards {
        let clients = &forward.config.clients;
        // In a dry run the limits of servers are to know of it.
        if clients.lets_everybody_in() && !clients.dry_run {
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
        let earlier = before.get(&forward.id);
        let mut known = CountedRules::of(earlier);
        let written = clients.access.iter().map(|rule| {
            let text: Arc<str> = rule.to_string().into();
            let denied = known.denied(&text);
            WrittenRule { text, denied }
        });
        let limits = Limits {
            connections: clients.max_per_client,
            rate: clients.connects(),
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
            rates: byte_rates(clients, earlier),
            turns_away: match clients.on_deny {
                OnDeny::Reset => TurnAway::Reset,
                OnDeny::Close => TurnAway::Close,
                OnDeny::Drop => TurnAway::Drop,
            },
            dry_run: clients.dry_run,
        };
        let same = earlier.filter(|it| it.is_as(&policy)).cloned();
        policies.insert(forward.id, same.unwrap_or_else(|| Arc::new(policy)));
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

/// The rule by which `access` turns this client away, as it is written; `None`: it may come in.
///
/// # Errors
/// A file that the rules name cannot be read.
pub fn denied_client(
    clients: &ClientAccess,
    client: IpAddr,
) -> Result<Option<String>, AccessFileError> {
    let rules = compile(&clients.access, &mut Files::default())?;
    let place = rules.denied_by(Some(client));
    let rule = place.and_then(|place| clients.access.get(place as usize));
    Ok(rule.map(ToString::to_string))
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
    read_lines(path, network_of_line)
}

fn network_of_line(line: &str) -> Result<IpNet, (String, String)> {
    network_of(line).map_err(|error| (error.problem, error.remedy))
}

/// The networks of the text of a file, which errors name by its path.
///
/// # Errors
/// Every line that is no network.
pub fn networks_of_text(path: &Path, text: &str) -> Result<Vec<IpNet>, AccessFileError> {
    lines_of(path, text, network_of_line)
}

/// The rules of a file about where requests may go.
pub(super) fn read_rules(path: &Path) -> Result<Vec<Rule>, AccessFileError> {
    read_lines(path, |line| {
        let rule = line.parse::<Rule>();
        rule.map_err(|error| (error.problem, error.remedy))
    })
}

/// What the lines of a file say; `parse` has the problem and the remedy of one that says nothing.
fn read_lines<T>(
    path: &Path,
    parse: impl Fn(&str) -> Result<T, (String, String)>,
) -> Result<Vec<T>, AccessFileError> {
    let unreadable = |why: String| AccessFileError::Unreadable {
        path: path.to_owned(),
        why,
    };
    // A pipe or a device would be waited for.
    let metadata = fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    if !metadata.is_file() {
        let why = "it is no regular file; write the rules to one, a line each";
        return Err(unreadable(why.to_owned()));
    }
    if metadata.len() > FILE_MAX {
        let why = format!("it is larger than {} MiB", FILE_MAX >> 20);
        return Err(unreadable(why));
    }
    let text = fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    lines_of(path, &text, parse)
}

/// What follows a `#` is a remark.
fn lines_of<T>(
    path: &Path,
    text: &str,
    parse: impl Fn(&str) -> Result<T, (String, String)>,
) -> Result<Vec<T>, AccessFileError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().enumerate().filter_map(|(number, line)| {
        let line = line.split('#').next().unwrap_or_default().trim();
        (!line.is_empty()).then_some((number + 1, line))
    });
    let (mut said, mut wrong) = (Vec::new(), Vec::new());
    for (line, text) in lines {
        match parse(text) {
            Ok(value) => said.push(value),
            Err((problem, remedy)) => wrong.push(WrongLine {
                line,
                problem,
                remedy,
            }),
        }
    }
    if wrong.is_empty() {
        return Ok(said);
    }
    Err(AccessFileError::Lines {
        path: path.to_owned(),
        wrong,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks_of(path: &Path, text: &str) -> Result<Vec<IpNet>, AccessFileError> {
        lines_of(path, text, |line| {
            network_of(line).map_err(|error| (error.problem, error.remedy))
        })
    }

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

    #[test]
    fn every_wrong_line_is_named_at_once() {
        let path = Path::new("partners.txt");
        let error = networks_of(path, "x\n10.0.0.0/8\n10.0.0.1/8\n").expect_err("two");
        let text = error.to_string();
        assert!(
            text.contains("partners.txt:1: ") && text.contains("partners.txt:3: "),
            "{text}"
        );
        assert!(text.contains("write 10.0.0.0/8"), "{text}");
        let many = networks_of(path, &"x\n".repeat(50)).expect_err("fifty");
        assert!(many.to_string().ends_with("And 30 lines more"), "{many}");
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
