//! What a path is like, as text: `rtt=40ms,rate=200Mbit,loss=0.1%`.
//!
//! Strict: an unknown, repeated or senseless part is an error that names the part
//! and what to write instead. Invariant: what [`PathSpec`] displays reads back as
//! the same path.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::config::units::{
    format_duration, format_rate, format_size, parse_duration, parse_rate, parse_size,
};

/// The largest packet that a TUN device takes, bytes.
const MTU_MAX: u32 = 65_521;

/// RFC 791: every path carries 576 bytes; TCP options need most of less.
const MTU_MIN: u32 = 576;

/// A queue that nobody asked for: one bandwidth-delay product, and no less.
const QUEUE_MIN: u64 = 64 * 1024;

/// Bytes that may be on their way in one direction, so that memory has a bound.
const UNDER_WAY_MAX: u64 = 512 << 20;

/// A minute: beyond the patience of TCP.
const RTT_MAX: Duration = Duration::from_secs(60);

/// The parts, for messages.
const PARTS: &str = "rtt, rate, loss, mtu, queue, jitter and seed";

/// A path between two ends, the same in both directions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathSpec {
    /// Round trip time of a small packet on the idle path; half of it each way.
    pub rtt: Duration,
    /// Bytes of IP packets a second, each way.
    pub rate: u64,
    /// Share of the packets that is lost at random, each way.
    pub loss: Loss,
    /// The largest IP packet, bytes; 576 to 65521. Default 1500.
    pub mtu: u32,
    /// Bytes that may wait for the line, the packet on it included; what does not
    /// fit is dropped. Default: what the line carries in one `rtt`, at least 64 KiB.
    pub queue: u64,
    /// A packet takes up to so much longer, uniformly, each way. No packet
    /// overtakes another: where they follow closer than this, the slow ones hold
    /// the next ones up, and most take nearly all of it.
    pub jitter: Duration,
    /// Decides which packets are lost and how late each is. Default 1.
    pub seed: u64,
}

/// A probability in units of 10⁻⁹, displayed in per cent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Loss(u32);

/// What is wrong with a path's text, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("path `{part}`: {problem}; {remedy}")]
pub struct SpecError {
    /// The part that is wrong, as it stands in the text, or the name of a missing one.
    pub part: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

impl SpecError {
    fn new(part: &str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            part: part.chars().take(60).flat_map(char::escape_debug).collect(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }
}

impl PathSpec {
    /// Bytes that fill the path: rate times round trip time.
    pub fn bandwidth_delay_product(&self) -> u64 {
        let product = u128::from(self.rate) * self.rtt.as_nanos() / 1_000_000_000;
        u64::try_from(product).unwrap_or(u64::MAX)
    }
}

impl Loss {
    /// In units of 10⁻⁹; `None` for one and more.
    pub fn from_billionths(billionths: u32) -> Option<Self> {
        (billionths < 1_000_000_000).then_some(Self(billionths))
    }

    /// Whether a draw, uniform over all of `u64`, is a loss.
    pub(super) fn strikes(self, draw: u64) -> bool {
        // The upper bits of the product: uniform over 0..10⁹.
        let billionths = (u128::from(draw) * 1_000_000_000) >> 64;
        billionths < u128::from(self.0)
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = format!("{}.{:07}", self.0 / 10_000_000, self.0 % 10_000_000);
        let short = digits.trim_end_matches('0').trim_end_matches('.');
        write!(f, "{short}%")
    }
}

impl FromStr for Loss {
    type Err = String;

    /// `0.1%`; at most seven decimals.
    fn from_str(text: &str) -> Result<Self, String> {
        const REMEDY: &str = "write per cent such as 0.1% or 2%, below 100%";
        let Some(number) = text.strip_suffix('%') else {
            return Err(format!("it has no per cent sign; {REMEDY}"));
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let exact = digits(whole) && digits(fraction) && fraction.len() <= 7 && whole.len() <= 3;
        let billionths = format!("{whole}{fraction:0<7}").parse().ok();
        billionths
            .filter(|_| exact)
            .and_then(Self::from_billionths)
            .ok_or_else(|| format!("it is not a share that can be lost; {REMEDY}"))
    }
}

impl fmt::Display for PathSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "rtt={},rate={},loss={},mtu={},queue={},jitter={},seed={}",
            format_duration(self.rtt),
            format_rate(self.rate),
            self.loss,
            self.mtu,
            format_size(self.queue),
            format_duration(self.jitter),
            self.seed
        )
    }
}

/// The parts as they were given.
#[derive(Default)]
struct Parts {
    rtt: Option<Duration>,
    rate: Option<u64>,
    loss: Option<Loss>,
    mtu: Option<u32>,
    queue: Option<u64>,
    jitter: Option<Duration>,
    seed: Option<u64>,
}

impl FromStr for PathSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let mut parts = Parts::default();
        for part in text.split(',').map(str::trim) {
            let Some((name, value)) = part.split_once('=') else {
                let remedy = format!("write NAME=VALUE with commas between; the parts are {PARTS}");
                return Err(SpecError::new(part, "it has no value", remedy));
            };
            parts.take(part, name.trim(), value.trim())?;
        }
        parts.resolve()
    }
}

impl Parts {
    fn take(&mut self, part: &str, name: &str, value: &str) -> Result<(), SpecError> {
        let wrong = |(problem, remedy): (String, String)| SpecError::new(part, problem, remedy);
        let unit = |e: crate::config::units::UnitError| wrong((e.problem, e.remedy));
        let number = |remedy: &str| {
            let problem = "it is not a whole number in range".to_owned();
            wrong((problem, remedy.to_owned()))
        };
        let repeated = match name {
            "rtt" => self
                .rtt
                .replace(parse_duration(value).map_err(unit)?)
                .is_some(),
            "rate" => self
                .rate
                .replace(parse_rate(&bits(value)).map_err(unit)?)
                .is_some(),
            "loss" => {
                let loss = value.parse().map_err(|error: String| {
                    let (problem, remedy) = error.split_once("; ").unwrap_or((&error, ""));
                    wrong((problem.to_owned(), remedy.to_owned()))
                })?;
                self.loss.replace(loss).is_some()
            }
            "mtu" => {
                let remedy = format!("write bytes, {MTU_MIN} to {MTU_MAX}: mtu=1500");
                let mtu = value.parse().map_err(|_| number(&remedy))?;
                if !(MTU_MIN..=MTU_MAX).contains(&mtu) {
                    return Err(number(&remedy));
                }
                self.mtu.replace(mtu).is_some()
            }
            "queue" => self
                .queue
                .replace(parse_size(value).map_err(unit)?)
                .is_some(),
            "jitter" => self
                .jitter
                .replace(parse_duration(value).map_err(unit)?)
                .is_some(),
            "seed" => {
                let seed = value
                    .parse()
                    .map_err(|_| number("write a number: seed=7"))?;
                self.seed.replace(seed).is_some()
            }
            _ => {
                let problem = "there is no such part".to_owned();
                return Err(wrong((problem, format!("the parts are {PARTS}"))));
            }
        };
        if repeated {
            let problem = format!("{name} is given twice");
            return Err(wrong((problem, "give each part once".to_owned())));
        }
        Ok(())
    }

    fn resolve(self) -> Result<PathSpec, SpecError> {
        let missing = |name: &str, example: &str| {
            SpecError::new(name, "it is missing", format!("add {example}"))
        };
        let rtt = self.rtt.ok_or_else(|| missing("rtt", "rtt=40ms"))?;
        let rate = self.rate.ok_or_else(|| missing("rate", "rate=200Mbit"))?;
        let mut spec = PathSpec {
            rtt,
            rate,
            loss: self.loss.unwrap_or_default(),
            mtu: self.mtu.unwrap_or(1500),
            queue: 0,
            jitter: self.jitter.unwrap_or_default(),
            seed: self.seed.unwrap_or(1),
        };
        let usual = QUEUE_MIN.max(u64::from(spec.mtu) * 4);
        let filling = spec.bandwidth_delay_product();
        spec.queue = self.queue.unwrap_or(filling.max(usual));
        spec.check()?;
        Ok(spec)
    }
}

impl PathSpec {
    fn check(&self) -> Result<(), SpecError> {
        if self.rtt > RTT_MAX || self.jitter > RTT_MAX {
            let longer = if self.rtt > RTT_MAX { "rtt" } else { "jitter" };
            return Err(SpecError::new(longer, "it is too long", "write at most 1m"));
        }
        if self.rate == 0 {
            let problem = "nothing would ever arrive";
            return Err(SpecError::new("rate", problem, "write more, such as 1Mbit"));
        }
        if self.queue < u64::from(self.mtu) {
            return Err(SpecError::new(
                "queue",
                format!("a packet of {} bytes never fits", self.mtu),
                "write at least the mtu; a few times that lets a sender work",
            ));
        }
        let one_way = (self.rtt / 2 + self.jitter).as_nanos();
        let flying = u128::from(self.rate) * one_way / 1_000_000_000;
        if flying + u128::from(self.queue) > u128::from(UNDER_WAY_MAX) {
            return Err(SpecError::new(
                "rate",
                format!(
                    "with this rtt, jitter and queue more than {} can be on the way",
                    format_size(UNDER_WAY_MAX)
                ),
                "lower one of them",
            ));
        }
        Ok(())
    }
}

/// `1gbit` as it is often written: a small letter before `bit` means the same.
fn bits(value: &str) -> String {
    let start = value.find(|c: char| c.is_ascii_alphabetic());
    match start.map(|at| value.split_at(at)) {
        Some((number, unit)) if unit.trim_end_matches("/s") == "gbit" => {
            format!("{number}Gbit")
        }
        Some((number, unit)) if unit.trim_end_matches("/s") == "mbit" => {
            format!("{number}Mbit")
        }
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_part_is_read() {
        let text = "rtt=40ms,rate=1gbit,loss=0.1%,mtu=1500,queue=256KiB,jitter=1ms,seed=7";
        let spec: PathSpec = text.parse().unwrap();
        assert_eq!(spec.rtt, Duration::from_millis(40));
        assert_eq!(spec.rate, 125_000_000);
        assert_eq!(spec.loss, Loss(1_000_000));
        assert_eq!((spec.mtu, spec.queue, spec.seed), (1500, 256 * 1024, 7));
        assert_eq!(spec.jitter, Duration::from_millis(1));
        assert_eq!(spec.to_string(), text.replace("gbit", "Gbit"));
        assert_eq!(spec.bandwidth_delay_product(), 5_000_000);
    }

    #[test]
    fn what_is_left_out_is_harmless() {
        let spec: PathSpec = "rate=200Mbit, rtt=40ms".parse().unwrap();
        assert_eq!((spec.loss, spec.mtu), (Loss(0), 1500));
        assert_eq!(spec.queue, 1_000_000, "one bandwidth-delay product");
        let spec: PathSpec = "rate=10mbit/s,rtt=0s".parse().unwrap();
        assert_eq!(spec.queue, 65_536);
    }

    #[test]
    fn an_error_names_the_part_and_the_remedy() {
        for (text, part, word) in [
            ("", "", "NAME=VALUE"),
            ("rtt", "rtt", "NAME=VALUE"),
            ("rtt=40ms", "rate", "add rate=200Mbit"),
            ("rate=1Gbit", "rtt", "add rtt=40ms"),
            ("rtt=40,rate=1Gbit", "rtt=40", "40ms"),
            ("rtt=40ms,rate=1G", "rate=1G", "did you mean `1Gbit`"),
            ("rtt=40ms,rate=0bit", "rate", "nothing would ever arrive"),
            ("rtt=40ms,rate=1Gbit,los=1%", "los=1%", "loss"),
            ("rtt=40ms,rate=1Gbit,loss=1", "loss=1", "0.1%"),
            ("rtt=40ms,rate=1Gbit,loss=100%", "loss=100%", "below 100%"),
            ("rtt=40ms,rate=1Gbit,loss=-1%", "loss=-1%", "below 100%"),
            (
                "rtt=40ms,rate=1Gbit,loss=0.00000001%",
                "loss=0.00000001%",
                "0.1%",
            ),
            ("rtt=40ms,rate=1Gbit,mtu=100", "mtu=100", "576"),
            ("rtt=40ms,rate=1Gbit,mtu=70000", "mtu=70000", "65521"),
            (
                "rtt=40ms,rate=1Gbit,queue=1KiB",
                "queue",
                "at least the mtu",
            ),
            ("rtt=40ms,rate=1Gbit,seed=x", "seed=x", "seed=7"),
            ("rtt=40ms,rate=1Gbit,rtt=1ms", "rtt=1ms", "once"),
            ("rtt=2m,rate=1Gbit", "rtt", "at most 1m"),
            ("rtt=10s,rate=100Gbit", "rate", "lower one"),
        ] {
            let error = text.parse::<PathSpec>().unwrap_err();
            assert_eq!(error.part, part, "{text}: {error}");
            assert!(error.to_string().contains(word), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_displayed_reads_back(
            rtt in 0_u64..60_000_000,
            rate in 1_u64..200_000_000,
            loss in 0_u32..1_000_000_000,
            mtu in MTU_MIN..=MTU_MAX,
            queue in 65_521_u64..10_000_000,
            jitter in 0_u64..10_000,
            seed in any::<u64>(),
        ) {
            let spec = PathSpec {
                rtt: Duration::from_micros(rtt),
                rate,
                loss: Loss(loss),
                mtu,
                queue,
                jitter: Duration::from_micros(jitter),
                seed,
            };
            prop_assume!(spec.check().is_ok());
            prop_assert_eq!(spec.to_string().parse(), Ok(spec));
        }

        #[test]
        fn no_text_panics(text in "[a-z0-9=,.% KMG]{0,60}") {
            let _ = text.parse::<PathSpec>();
        }
    }
}
