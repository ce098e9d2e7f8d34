//! What an option costs although the kernel granted it.
//!
//! The kernel sizes the buffers of a connection to its bandwidth and round trip
//! time, unless `SO_RCVBUF` or `SO_SNDBUF` fix them. A window that never grows past
//! W bytes cannot carry more than W for each round trip, however fast the path.

use std::fmt;
use std::time::Duration;

use super::readback::bytes;
use super::table::{OptionName, Setting, SocketOptions, row};
use crate::net::limits::sysctl;

/// The round trip time of the examples: a continent, or a bad mobile network.
const EXAMPLE_RTT: Duration = Duration::from_millis(80);

/// A warning about an option that limits throughput. Displays as one sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advice {
    /// Which option.
    pub option: OptionName,
    /// The most that can be under way at a time, bytes: what was asked for, or
    /// what the kernel grants of it.
    pub window: u64,
}

impl SocketOptions {
    /// What a person should know about these options before they wonder why
    /// transfers over long paths are slow.
    pub fn advice(&self) -> Vec<Advice> {
        let fixed = [
            OptionName::ReceiveBuffer,
            OptionName::SendBuffer,
            OptionName::WindowClamp,
        ];
        fixed
            .into_iter()
            .filter_map(row)
            .filter_map(|row| {
                let Some(Setting::Number(asked)) = row.get(self) else {
                    return None;
                };
                let limit = row.sysctl.and_then(sysctl);
                let limit = limit.and_then(|text| text.parse().ok());
                let option = row.name;
                let window = limit.map_or(asked, |limit: u64| asked.min(limit));
                Some(Advice { option, window })
            })
            .collect()
    }
}

impl Advice {
    /// Bits a second that the window allows at a round trip time of `rtt`.
    pub fn ceiling(&self, rtt: Duration) -> u64 {
        let bits = u128::from(self.window) * 8;
        let rate = bits * 1_000_000_000 / rtt.as_nanos().max(1);
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let window = bytes(i128::from(self.window));
        let millis = EXAMPLE_RTT.as_millis();
        let ceiling = Rate(self.ceiling(EXAMPLE_RTT));
        write!(f, "{} of {window} ", self.option)?;
        match self.option {
            OptionName::ReceiveBuffer => write!(
                f,
                "turns receive autotuning off: {window} at {millis} ms is {ceiling} at the most; \
                 unset it to let the kernel tune up to net.ipv4.tcp_rmem"
            ),
            OptionName::SendBuffer => write!(
                f,
                "turns send autotuning off: {window} at {millis} ms is {ceiling} at the most; \
                 unset it to let the kernel tune up to net.ipv4.tcp_wmem"
            ),
            _ => write!(
                f,
                "bounds what a peer may send: {window} at {millis} ms is {ceiling} at the most"
            ),
        }
    }
}

/// Bits a second, for people: two digits or the whole part.
struct Rate(u64);

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, size) = match self.0 {
            1_000_000_000.. => ("Gbit/s", 1e9),
            1_000_000.. => ("Mbit/s", 1e6),
            1_000.. => ("kbit/s", 1e3),
            _ => ("bit/s", 1.0),
        };
        let value = self.0 as f64 / size;
        let digits = usize::from(value < 10.0);
        write!(f, "{value:.digits$} {unit}")
    }
}
