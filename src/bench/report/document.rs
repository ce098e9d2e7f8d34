//! What the JSON documents of `bench` and of `tune` share, so that a key means one thing in both.
//!
//! Every number has its unit in its key, or is a count, a share (0 to 1) or a ratio. The
//! schemas, docs/bench.schema.json and docs/tune.schema.json, are made from these types.
//! [`FORMAT_VERSION`] rises whenever a key goes away or means something else; new ones may
//! come without.

use serde::Serialize;

use crate::bench::machine::Machine;
use crate::bench::stats::{self, Estimate, Verdict};

/// Of both documents.
pub const FORMAT_VERSION: u32 = 1;

/// What every document begins with.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Head {
    /// `thalweg-bench` or `thalweg-tune`.
    pub format: &'static str,
    /// Rises whenever a key goes away or means something else.
    pub format_version: u32,
    /// Of the program that made it.
    #[serde(rename = "thalweg_version")]
    pub version: String,
    /// The command line that made it.
    pub command: String,
    /// ISO 8601.
    #[serde(rename = "when_utc")]
    pub when: String,
    /// What it ran on.
    pub machine: Machine,
    /// Of every interval, 0 to 1.
    pub confidence: f64,
}

impl Head {
    /// Of a document that is made now.
    pub fn new(format: &'static str, command: String, when: String, machine: Machine) -> Self {
        Self {
            format,
            format_version: FORMAT_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command,
            when,
            machine,
            confidence: stats::CONFIDENCE,
        }
    }
}

/// A comparison.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Ratio {
    /// With whom; `defaults` in a search.
    pub against: String,
    /// Of what: `throughput`, `datagrams`, `exchanges`, `p50`, `p99`, `share` (of a burst), `cpu` (the
    /// forwarder's), `path` (CPU of the whole path); in a search `merit_racing` and
    /// `merit_fresh` (more is better, whatever the objective).
    pub of: &'static str,
    /// Over how many rounds.
    pub rounds: usize,
    /// This one's figure divided by the other's.
    pub ratio: Estimate,
    /// What that means, given which way is good.
    pub verdict: Verdict,
}

/// What a gigabyte (10⁹ bytes), an exchange or a datagram costs.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Cost {
    /// Where there are no exchanges.
    #[serde(rename = "per_gigabyte")]
    Gigabyte(Costs),
    /// Where there are.
    #[serde(rename = "per_exchange")]
    Exchange(Costs),
    /// Of a stream of datagrams, for each that arrives.
    #[serde(rename = "per_datagram")]
    Datagram(Costs),
}

impl Cost {
    /// Of a gigabyte, where only the path as a whole is known.
    pub(crate) fn of_path(path: Estimate) -> Self {
        Self::Gigabyte(Costs {
            path,
            forwarder: None,
            ends: None,
            hop: None,
            context_switches: None,
        })
    }

    /// Of any.
    pub fn costs(&self) -> &Costs {
        match self {
            Self::Gigabyte(costs) | Self::Exchange(costs) | Self::Datagram(costs) => costs,
        }
    }
}

/// CPU time of those that are on the path.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Costs {
    /// Of generator, forwarder and origin together.
    #[serde(rename = "path_cpu_seconds")]
    pub path: Estimate,
    /// Of the forwarder's process tree; in a search it is not told apart.
    #[serde(rename = "forwarder_cpu_seconds")]
    pub forwarder: Option<Estimate>,
    /// Of generator and origin: what the ends of the measurement cost; likewise.
    #[serde(rename = "ends_cpu_seconds")]
    pub ends: Option<Estimate>,
    /// Of the path, less that of `direct`: what the forwarder adds; likewise.
    #[serde(rename = "hop_cpu_seconds")]
    pub hop: Option<f64>,
    /// Of the forwarder; likewise.
    pub context_switches: Option<f64>,
}

/// A schema as it stands in docs/, made anew where the environment asks for it.
#[cfg(test)]
pub(crate) fn check_schema<T: schemars::JsonSchema>(file: &str) {
    let schema = schemars::generate::SchemaSettings::draft2020_12()
        .for_serialize()
        .into_generator()
        .into_root_schema_for::<T>();
    let text = serde_json::to_string_pretty(&schema).expect("a schema is JSON") + "\n";
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(file);
    if std::env::var_os("THALWEG_RENEW").is_some() {
        std::fs::write(&path, &text).expect("docs can be written");
    }
    let stands = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        stands == text,
        "docs/{file} is not what the types say: THALWEG_RENEW=1 cargo test --lib schema"
    );
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_schema_of_bench_is_what_its_types_say() {
        super::check_schema::<crate::bench::report::Report>("bench.schema.json");
    }
}
