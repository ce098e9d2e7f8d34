//! `connect_rate =` and what stands beside it: how fast connections may come, of a client, a forward or to a server.

use std::time::Duration;

use super::kind::{Int, Special, int, text_schema};
use super::report::Fault;
use super::text::quote;
use super::units;
use super::values;
use crate::policy::connect_rate::ConnectRate;

/// So many connections in a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WrittenRate {
    /// Connections.
    pub count: u32,
    /// In this time.
    pub per: Period,
}

/// The time of a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Period {
    /// `/s`
    Second,
    /// `/m`
    Minute,
    /// `/h`
    Hour,
}

impl Period {
    const ALL: [(&'static str, Self, u64); 3] = [
        ("s", Self::Second, 1),
        ("m", Self::Minute, 60),
        ("h", Self::Hour, 3_600),
    ];
}

impl WrittenRate {
    /// Between two connections, in the long run.
    pub fn interval(self) -> Duration {
        let found = Period::ALL
            .iter()
            .find(|(_, period, _)| *period == self.per);
        let seconds = found.map_or(1, |(_, _, seconds)| *seconds);
        Duration::from_secs(seconds) / self.count
    }

    /// As it is kept to; without a word those of a second come at once.
    pub fn with_burst(self, burst: Option<u32>) -> ConnectRate {
        let interval = self.interval();
        let of_a_second = 1_000_000 / interval.as_micros().max(1);
        ConnectRate {
            interval,
            burst: burst.unwrap_or(of_a_second as u32).max(1),
        }
    }
}

pub(super) fn connect_rate() -> Special<WrittenRate> {
    Special {
        read: |node| read_rate(values::string(node)?),
        write: |rate| {
            let found = Period::ALL
                .iter()
                .find(|(_, period, _)| *period == rate.per);
            quote(&format!("{}/{}", rate.count, found.map_or("s", |it| it.0)))
        },
        words: "number in a time",
        schema: || {
            let mut schema = text_schema();
            schema["pattern"] = "^[1-9][0-9]*/[smh]$".into();
            schema
        },
    }
}

fn read_rate(text: &str) -> Result<WrittenRate, Fault> {
    let fault = || {
        Fault::new("this must be a number of connections in a time")
            .remedy("such as \"10/s\", \"600/m\" or \"1000/h\"")
    };
    let (count, per) = text.split_once('/').ok_or_else(fault)?;
    let count = units::parse_count(count.trim()).map_err(|_| fault())?;
    let per = per.trim();
    let found = Period::ALL.iter().find(|(word, ..)| *word == per);
    let (_, per, _) = found.ok_or_else(fault)?;
    let count = u32::try_from(count)
        .ok()
        .filter(|it| (1..=1_000_000).contains(it));
    let count = count.ok_or_else(|| {
        Fault::new("this many connections are no limit").remedy("1 to 1000000 in a time")
    })?;
    Ok(WrittenRate { count, per: *per })
}

/// So many at once, after a pause.
pub(super) fn connect_burst() -> Int<u32> {
    int(1..=1_000_000)
}

/// So many at a time.
pub(super) fn max_per_client() -> Int<u32> {
    int(1..=i64::from(u32::MAX))
}
