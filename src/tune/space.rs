//! The space that is searched: which options, and a candidate as what differs from
//! the kernel's defaults.
//!
//! A candidate's values are TOML, as they stand in a configuration, and its socket
//! options come from reading that: so what is measured is what the profile says, and
//! `thalweg check` accepts it because it was accepted here first.
//!
//! The order of the search: each option alone against the defaults ([`values`]),
//! then combinations of those that surely helped ([`combinations`]). Options that
//! help only together are not found: the number of pairs outgrows any patience.

mod searched;
pub mod values;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::config::{Config, FileText, Inputs, Override, Pair};
use crate::net::options::{Leg, SocketOptions};

pub use searched::{Place, Searched};

/// The most options that one candidate combines.
const COMBINED_MAX: usize = 4;

/// What the profile is called while nobody has named it.
const SCRATCH: &str = "candidate";

/// One setting that differs from the defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Change {
    /// Where it stands.
    pub place: Place,
    /// Its key there.
    pub key: String,
    /// Its value as TOML: `"64KiB"`, `1460`, `true`.
    pub value: String,
}

impl Change {
    /// A setting of an option that is searched over.
    pub fn of(option: Searched, value: impl Into<String>) -> Self {
        Self {
            place: option.place(),
            key: option.key().to_owned(),
            value: value.into(),
        }
    }

    /// The option as reports call it.
    pub fn option(&self) -> String {
        match self.place {
            Place::Global if self.key == "busy_poll" => format!("global.{}", self.key),
            _ => self.key.clone(),
        }
    }

    /// The value without the quotes that TOML wants.
    pub fn shown(&self) -> &str {
        let text = self.value.as_str();
        text.strip_prefix('"')
            .and_then(|text| text.strip_suffix('"'))
            .unwrap_or(text)
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.option(), self.shown())
    }
}

impl FromStr for Change {
    type Err = String;

    /// `KEY=VALUE` of a profile. What is no TOML value is text.
    fn from_str(text: &str) -> Result<Self, String> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| format!("`{text}` is not KEY=VALUE, such as receive_buffer=64KiB"))?;
        let (key, value) = (key.trim(), value.trim());
        let value = match value.parse::<toml_edit::Value>() {
            Ok(_) => value.to_owned(),
            Err(_) => toml_edit::Value::from(value).to_string(),
        };
        Ok(Self {
            place: Place::Profile,
            key: key.to_owned(),
            value,
        })
    }
}

/// Settings that are measured together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Candidate {
    /// What differs from the defaults; nothing: the defaults themselves.
    pub changes: Vec<Change>,
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.changes.is_empty() {
            return f.write_str("kernel's defaults");
        }
        for (index, change) in self.changes.iter().enumerate() {
            let blank = if index > 0 { " " } else { "" };
            write!(f, "{blank}{change}")?;
        }
        Ok(())
    }
}

impl Candidate {
    /// One setting alone.
    pub fn single(change: Change) -> Self {
        Self {
            changes: vec![change],
        }
    }

    /// Everything that either sets; what both set is as in `other`.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        let same = |a: &Change, b: &Change| a.place == b.place && a.key == b.key;
        let mut changes = self.changes.clone();
        changes.retain(|mine| !other.changes.iter().any(|theirs| same(mine, theirs)));
        changes.extend(other.changes.iter().cloned());
        Self { changes }
    }

    /// All but one setting.
    #[must_use]
    pub fn without(&self, index: usize) -> Self {
        let mut changes = self.changes.clone();
        changes.remove(index);
        Self { changes }
    }

    /// The lines of one place, `key = value`.
    pub fn lines(&self, place: Place) -> impl Iterator<Item = String> {
        let here = self.changes.iter().filter(move |it| it.place == place);
        here.map(|change| format!("{} = {}", change.key, change.value))
    }

    /// What a forwarder is given by `--set`: its settings, and the profile on `legs`.
    pub fn overrides(&self, legs: &[Leg]) -> Vec<String> {
        let mut overrides: Vec<String> = self
            .changes
            .iter()
            .map(|change| {
                let table = match change.place {
                    Place::Profile => format!("profile.{SCRATCH}"),
                    Place::Defaults => "defaults".to_owned(),
                    Place::Global => "global".to_owned(),
                };
                format!("{table}.{}={}", change.key, change.value)
            })
            .collect();
        if self.changes.iter().any(|it| it.place == Place::Profile) {
            overrides.extend(
                legs.iter()
                    .map(|leg| format!("defaults.{leg}_profile={SCRATCH}")),
            );
        }
        overrides
    }

    /// The socket options of the leg, as a configuration with this profile has them.
    ///
    /// # Errors
    /// What the configuration has against it, with a remedy.
    pub fn options(&self) -> Result<SocketOptions, String> {
        let overrides = self
            .overrides(&[Leg::Upstream])
            .into_iter()
            .map(|text| Override {
                flag: "--set".to_owned(),
                key: None,
                text,
            });
        let config = load(None, overrides.collect())?;
        Ok(match config.profiles.get(SCRATCH) {
            Some(options) => options.clone(),
            None => SocketOptions::default(),
        })
    }

    /// The profile of a file: the one named, or the only one.
    ///
    /// # Errors
    /// What is wrong with the file, or that it does not say which profile.
    pub fn from_file(text: &str, file: &str, name: Option<&str>) -> Result<Self, String> {
        let document = toml_edit::Document::parse(text).map_err(|e| format!("{file}: {e}"))?;
        let bytes = text.as_bytes().to_vec();
        let name_of_file = file.to_owned();
        // A file with forwards needs no other; one that holds a profile alone does.
        load(
            Some(FileText {
                name: name_of_file,
                bytes,
            }),
            Vec::new(),
        )?;
        let profiles = document
            .get("profile")
            .and_then(|item| item.as_table_like());
        let names: Vec<&str> = profiles
            .iter()
            .flat_map(|table| table.iter())
            .map(|(name, _)| name)
            .collect();
        let chosen = match (name, names.as_slice()) {
            (Some(name), names) if names.contains(&name) => name,
            (Some(name), _) => {
                return Err(format!(
                    "{file}: there is no [profile.{name}]; there are: {}",
                    names.join(", ")
                ));
            }
            (None, [only]) => only,
            (None, []) => return Err(format!("{file}: there is no [profile.NAME] in it")),
            (None, _) => {
                return Err(format!(
                    "{file}: which of its profiles? add --from-profile with one of: {}",
                    names.join(", ")
                ));
            }
        };
        let table = profiles
            .and_then(|profiles| profiles.get(chosen)?.as_table_like())
            .ok_or_else(|| format!("{file}: [profile.{chosen}] is not a table"))?;
        let changes = table.iter().map(|(key, item)| Change {
            place: Place::Profile,
            key: key.to_owned(),
            value: item.to_string().trim().to_owned(),
        });
        Ok(Self {
            changes: changes.collect(),
        })
    }
}

/// Reads a configuration that need not forward anything.
fn load(file: Option<FileText>, overrides: Vec<Override>) -> Result<Config, String> {
    let inputs = Inputs {
        file,
        pairs: vec![Pair {
            listen: Some("127.0.0.1:1".to_owned()),
            upstream: Some("127.0.0.1:2".to_owned()),
        }],
        overrides,
    };
    Config::load(&inputs).map_err(|errors| {
        let each = errors.problems().iter().map(|problem| {
            let remedy = problem.remedy.as_ref();
            let remedy = remedy.map_or_else(String::new, |text| format!("; {text}"));
            let source = &problem.place.source;
            let source = source.replace(&format!("profile.{SCRATCH}."), "");
            format!("{source}: {}{remedy}", problem.message)
        });
        each.collect::<Vec<_>>().join("\n")
    })
}

/// Combinations of candidates that each surely helped, best first: of every option
/// the best value, then the best two, three and four together.
pub fn combinations(helped: &[Candidate]) -> Vec<Candidate> {
    let mut best: Vec<&Candidate> = Vec::new();
    for candidate in helped {
        let [change] = candidate.changes.as_slice() else {
            continue;
        };
        let known = |other: &&Candidate| {
            let other = &other.changes[0];
            other.place == change.place && other.key == change.key
        };
        if !best.iter().any(known) {
            best.push(candidate);
        }
    }
    (2..=best.len().min(COMBINED_MAX))
        .map(|count| {
            let start = Candidate::default();
            best[..count]
                .iter()
                .fold(start, |sum, candidate| sum.with(candidate))
        })
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_is_read_as_a_configuration_reads_it() {
        let candidate = Candidate {
            changes: ["receive_buffer=64KiB", "mss=1400", "congestion=cubic"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
        };
        let options = candidate.options().unwrap();
        assert_eq!(options.receive_buffer, Some(65_536));
        assert_eq!(options.mss, Some(1400));
        assert_eq!(options.congestion.as_deref(), Some("cubic"));
        assert_eq!(
            candidate.to_string(),
            "receive_buffer=64KiB mss=1400 congestion=cubic"
        );
        assert_eq!(
            candidate.lines(Place::Profile).next().unwrap(),
            "receive_buffer = \"64KiB\""
        );
        let defaults = Candidate::default();
        assert_eq!(defaults.options().unwrap(), SocketOptions::default());
    }

    #[test]
    fn what_a_configuration_would_refuse_is_refused_with_its_remedy() {
        for (text, word) in [
            ("recieve_buffer=64KiB", "receive_buffer"),
            ("mss=7", "88"),
            ("receive_buffer=64k", "64KiB"),
        ] {
            let candidate = Candidate::single(text.parse().unwrap());
            let error = candidate.options().unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        assert!("mss".parse::<Change>().is_err());
    }

    #[test]
    fn the_profile_of_a_file_is_found() {
        let one = "[profile.wan]\n# old\nreceive_buffer = \"64KiB\" # small\nmss = 1400\n";
        let candidate = Candidate::from_file(one, "a.toml", None).unwrap();
        assert_eq!(candidate.to_string(), "receive_buffer=64KiB mss=1400");
        let two = format!("{one}[profile.lan]\nnodelay = true\n");
        let error = Candidate::from_file(&two, "a.toml", None).unwrap_err();
        assert!(error.contains("--from-profile") && error.contains("wan, lan"));
        assert!(Candidate::from_file(&two, "a.toml", Some("lan")).is_ok());
        let error = Candidate::from_file(&two, "a.toml", Some("x")).unwrap_err();
        assert!(error.contains("no [profile.x]"), "{error}");
        assert!(Candidate::from_file("[profile.a]\nmsss = 1\n", "a", None).is_err());
    }

    #[test]
    fn combinations_take_the_best_value_of_each_option() {
        let list: Vec<Candidate> = [
            "congestion=cubic",
            "send_buffer=4MiB",
            "congestion=reno",
            "mss=536",
            "quickack=true",
            "busy_poll=50us",
        ]
        .map(|text| Candidate::single(text.parse().unwrap()))
        .to_vec();
        let combined = combinations(&list);
        let names: Vec<String> = combined.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "congestion=cubic send_buffer=4MiB",
                "congestion=cubic send_buffer=4MiB mss=536",
                "congestion=cubic send_buffer=4MiB mss=536 quickack=true",
            ]
        );
        assert!(combinations(&list[..1]).is_empty());
    }
}
