//! `rate =` and its like: bytes a second, each way or of each way by itself.

use std::time::Duration;

use serde_json::{Value as Json, json};

use super::kind::{Kind, Rate, Time, time};
use super::raw::{Node, TableReader, Value};
use super::report::{Fault, Report};
use super::section::read_key;
use super::text::{inline, quote};
use super::units::format_rate;
use crate::policy::meter;

/// Bytes a second up and down; `None`: any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ByteRate {
    /// To the server.
    pub up: Option<u64>,
    /// To the client.
    pub down: Option<u64>,
}

impl ByteRate {
    /// As it is kept to, with what may flow at once after a pause.
    pub fn with_burst(self, burst: Duration) -> [meter::Rate; 2] {
        [self.up, self.down].map(|per_second| meter::Rate {
            per_second: per_second.unwrap_or(0),
            burst,
        })
    }
}

/// What a rate lets flow in this time may flow at once, unless it is said otherwise.
pub(super) const RATE_BURST: Duration = Duration::from_millis(100);

/// What may be said of it.
pub(super) fn rate_burst() -> Time {
    time(Duration::from_millis(10)..=Duration::from_secs(10))
}

/// A [`ByteRate`].
pub(super) struct ByteRateKey;

impl Kind for ByteRateKey {
    type Value = ByteRate;

    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<ByteRate> {
        let Value::Table(_) = node.value else {
            let both = Rate.read(key, node, report);
            return both.map(|rate| ByteRate {
                up: Some(rate),
                down: Some(rate),
            });
        };
        let mut table = TableReader::open(node, format!("`{key}`"), report)?;
        let up = read_key(&mut table, "up", &Rate, report);
        let down = read_key(&mut table, "down", &Rate, report);
        if up.is_none() && down.is_none() {
            let fault = Fault::new(format!("`{key}` has neither `up` nor `down`"));
            let remedy = "such as { up = \"1MB/s\" }, or \"1MB/s\" for each way";
            report.consequence(&node.span, fault.remedy(remedy));
        }
        table.close(report, &[]);
        Some(ByteRate { up, down })
    }

    fn write(&self, rate: &ByteRate) -> Option<String> {
        if rate.up == rate.down {
            return Some(quote(&format_rate(rate.up?)));
        }
        let ways = [("up", rate.up), ("down", rate.down)];
        let ways = ways
            .into_iter()
            .filter_map(|(way, rate)| Some((way, rate?)));
        let ways: Vec<_> = ways
            .map(|(way, rate)| (way, quote(&format_rate(rate))))
            .collect();
        Some(inline(&ways))
    }

    fn words(&self) -> String {
        "rate, or a table of `up` and `down`".to_owned()
    }

    fn schema(&self) -> Json {
        let rate = Rate.schema();
        json!({ "anyOf": [
            rate,
            {
                "type": "object",
                "properties": { "up": rate, "down": rate },
                "minProperties": 1,
                "additionalProperties": false,
            },
        ]})
    }
}
