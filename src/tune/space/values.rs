//! Which values of each option are worth trying on a path, given what a look at it
//! found; and which cannot be set here.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use serde::Serialize;

use super::{Candidate, Change, Searched};
use crate::config::units::{format_rate, format_size};
use crate::engine::choice;
use crate::net::limits::sysctl;
use crate::net::options::{Leg, OptionName};

/// A path of less than this round trip time is a short one.
const SHORT: Duration = Duration::from_millis(1);

/// What is known of the path and this machine before the search.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Facts {
    /// Segment size towards the peer with the kernel's defaults, bytes.
    #[serde(rename = "mss_bytes")]
    pub mss: u32,
    /// Least round trip time; seconds in JSON.
    #[serde(rename = "rtt_seconds", serialize_with = "crate::tune::seconds")]
    #[cfg_attr(test, schemars(with = "f64"))]
    pub rtt: Duration,
    /// What all flows together carried with the defaults, bytes a second.
    #[serde(rename = "throughput_bytes_per_second")]
    pub rate: f64,
    /// The highest rate at which one flow was delivered at any moment, bytes a second:
    /// what the path can do, where losses keep the mean far below it.
    #[serde(rename = "delivery_rate_peak_bytes_per_second")]
    pub peak: f64,
    /// How many flows that were.
    pub flows: usize,
    /// Congestion control of the defaults, as a socket really has it.
    pub congestion: String,
}

impl Facts {
    /// What one flow may well carry, bytes a second. On a short path the moments are
    /// too short for a rate of their own, and the mean is taken.
    pub fn flow_rate(&self) -> f64 {
        let mean = self.rate / self.flows.max(1) as f64;
        if self.rtt < SHORT {
            mean
        } else {
            mean.max(self.peak)
        }
    }

    /// Bytes under way on one flow at that rate.
    pub fn bandwidth_delay(&self) -> u64 {
        (self.flow_rate() * self.rtt.as_secs_f64()) as u64
    }
}

/// A value or an option that is not searched over, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Skipped {
    /// Such as `congestion=vegas`.
    pub what: String,
    /// Why, and what would change that.
    pub why: String,
}

impl Skipped {
    fn new(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            why: why.into(),
        }
    }
}

/// Each option alone, one value after the other, in the order in which they are
/// worth trying: every congestion control, then the first value of every other option,
/// then the second.
pub fn singles(options: &[Searched], facts: &Facts) -> (Vec<Candidate>, Vec<Skipped>) {
    let mut skipped = Vec::new();
    let mut columns: Vec<VecDeque<Candidate>> = options
        .iter()
        .map(|option| {
            let settable = |change: &Change| settable(change, &mut skipped);
            let values = values(*option, facts).into_iter();
            let changes = values.map(|value| Change::of(*option, value));
            changes.filter(settable).map(Candidate::single).collect()
        })
        .collect();
    // The congestion control matters more than anything: all of them first.
    let mut candidates = Vec::new();
    if let Some(first) = options.iter().position(|it| *it == Searched::Congestion) {
        candidates.extend(columns[first].drain(..));
    }
    while columns.iter().any(|column| !column.is_empty()) {
        candidates.extend(columns.iter_mut().filter_map(VecDeque::pop_front));
    }
    (candidates, skipped)
}

/// Values as TOML, the most promising first.
fn values(option: Searched, facts: &Facts) -> Vec<String> {
    let quoted = |values: &[&str]| values.iter().map(|v| format!("\"{v}\"")).collect();
    match option {
        Searched::Congestion => sysctl("net.ipv4.tcp_available_congestion_control")
            .unwrap_or_default()
            .split_whitespace()
            .filter(|name| *name != facts.congestion)
            .map(|name| format!("\"{name}\""))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        Searched::ReceiveBuffer => buffers(facts),
        Searched::SendBuffer => buffers(facts),
        Searched::Mss => segments(facts.mss),
        Searched::NotsentLowat => quoted(&["128KiB", "16KiB"]),
        Searched::MaxPacingRate => [0.95, 0.8]
            .iter()
            .map(|share| {
                let bits = facts.flow_rate() * share * 8.0;
                format!("\"{}\"", format_rate(round(bits) / 8))
            })
            .collect(),
        Searched::Quickack => vec!["true".to_owned(), "false".to_owned()],
        Searched::BusyPoll | Searched::ReactorBusyPoll => quoted(&["50us"]),
        Searched::DataPath => quoted(&["splice", "copy"]),
        Searched::ScratchBuffer => quoted(&["64KiB", "1MiB"]),
        Searched::PipeSize => quoted(&["256KiB", "64KiB"]),
        Searched::Engine => match choice::best().kind {
            choice::Kind::Epoll => quoted(&["io_uring"]),
            choice::Kind::IoUring => quoted(&["epoll"]),
        },
    }
}

/// Twice the bandwidth-delay product, which is what a window needs to keep a path
/// full through one loss; and fixed sizes around it.
fn buffers(facts: &Facts) -> Vec<String> {
    let enough = (facts.bandwidth_delay() * 2).next_power_of_two();
    let mut sizes = vec![
        enough.clamp(256 << 10, 1 << 30),
        4 << 20,
        1 << 20,
        256 << 10,
    ];
    let mut seen = Vec::new();
    sizes.retain(|size| {
        let new = !seen.contains(size);
        seen.push(*size);
        new
    });
    sizes
        .iter()
        .map(|size| format!("\"{}\"", format_size(*size)))
        .collect()
}

/// Two digits, and no less than a kilobit: nobody paces to the bit.
fn round(bits: f64) -> u64 {
    let bits = bits.max(1_000.0) as u64;
    let unit = 10_u64.pow(bits.ilog10() - 1).max(1_000);
    bits.div_ceil(unit) * unit
}

/// Below the kernel's own, which is the most that the path takes unfragmented.
fn segments(mss: u32) -> Vec<String> {
    // Loopback in large steps; jumbo frames; Ethernet; IPv6's least MTU; RFC 879.
    [32_767, 8_948, 1_448, 1_220, 536]
        .into_iter()
        .filter(|size| f64::from(*size) < f64::from(mss) * 0.95)
        .take(3)
        .map(|size| size.to_string())
        .collect()
}

/// Whether the kernel takes it as it is; what it cuts or refuses is named.
fn settable(change: &Change, skipped: &mut Vec<Skipped>) -> bool {
    if change.key == "engine" && change.value == "\"io_uring\"" {
        if let Err(why) = choice::io_uring() {
            skipped.push(Skipped::new(change.to_string(), why));
            return false;
        }
        return true;
    }
    let options = match Candidate::single(change.clone()).options() {
        Ok(options) => options,
        Err(why) => {
            skipped.push(Skipped::new(change.to_string(), why));
            return false;
        }
    };
    let Some(shortfall) = options.granted(Leg::Upstream).into_iter().next() else {
        return true;
    };
    let why = match shortfall.option {
        OptionName::SendBuffer | OptionName::ReceiveBuffer => format!(
            "the kernel grants no more than {}: {}",
            shortfall.granted, shortfall.remedy
        ),
        _ => format!("it cannot be set here: {}", shortfall.remedy),
    };
    skipped.push(Skipped::new(change.to_string(), why));
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            mss: 1_448,
            rtt: Duration::from_millis(40),
            rate: 25e6,
            peak: 20e6,
            flows: 1,
            congestion: "cubic".to_owned(),
        }
    }

    #[test]
    fn every_value_is_one_that_a_configuration_takes() {
        let mut count = 0;
        for mss in [536, 1_448, 65_483] {
            for option in Searched::ALL {
                let facts = Facts { mss, ..facts() };
                for value in values(option, &facts) {
                    let candidate = Candidate::single(Change::of(option, value));
                    assert!(candidate.options().is_ok(), "{candidate}");
                    count += 1;
                }
            }
        }
        assert!(count > 50, "{count}");
    }

    #[test]
    fn sizes_follow_the_path() {
        assert_eq!(facts().bandwidth_delay(), 1_000_000);
        // Twice a megabyte, rounded up to a power of two.
        assert_eq!(buffers(&facts())[0], "\"2MiB\"");
        assert_eq!(segments(1_448), ["1220", "536"]);
        assert_eq!(segments(65_483), ["32767", "8948", "1448"]);
        assert!(segments(500).is_empty());
        assert_eq!(round(190_040_123.0), 200_000_000);
        assert_eq!(round(27_455_032_000.0), 28_000_000_000);
        assert_eq!(round(3.0), 1_000);
        // Losses keep the mean below what the path can do.
        let lossy = Facts {
            peak: 50e6,
            ..facts()
        };
        assert_eq!(lossy.bandwidth_delay(), 2_000_000);
        let slow = Facts {
            rate: 1e3,
            peak: 0.0,
            ..facts()
        };
        assert!(buffers(&slow).iter().all(|size| size != "\"0B\""));
    }

    #[test]
    fn the_first_value_of_every_option_comes_before_any_second() {
        let options = [Searched::Mss, Searched::NotsentLowat];
        let (candidates, skipped) = singles(&options, &facts());
        let names: Vec<String> = candidates.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "mss=1220",
                "notsent_lowat=128KiB",
                "mss=536",
                "notsent_lowat=16KiB"
            ]
        );
        assert!(skipped.is_empty());
    }

    #[test]
    fn what_the_kernel_cuts_is_named_with_the_sysctl() {
        let mut skipped = Vec::new();
        let change = Change::of(Searched::ReceiveBuffer, "\"1GiB\"");
        let limit = sysctl("net.core.rmem_max").and_then(|text| text.parse::<u64>().ok());
        let taken = settable(&change, &mut skipped);
        assert_eq!(taken, limit.is_some_and(|limit| limit >= 1 << 30));
        if !taken {
            assert!(skipped[0].why.contains("net.core.rmem_max"), "{skipped:?}");
        }
    }
}
