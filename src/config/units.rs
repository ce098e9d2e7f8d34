//! Quantities with units: `10s`, `1m30s`, `64KiB`, `2Gbit`, both ways.
//!
//! Pure. Invariant: what a `format_…` writes, the `parse_…` of the same kind reads
//! back as the same number. Arithmetic is exact: a fraction that does not come out
//! in whole microseconds or bytes is an error, never rounded.

use std::fmt::Write as _;
use std::time::Duration;

/// Why a text is not a quantity, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {remedy}")]
pub struct UnitError {
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

fn error<T>(problem: impl Into<String>, remedy: impl Into<String>) -> Result<T, UnitError> {
    Err(UnitError {
        problem: problem.into(),
        remedy: remedy.into(),
    })
}

/// Units of time in nanoseconds, largest first. Below a microsecond nothing here
/// can be timed.
const TIMES: [(&str, u128); 6] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
];

/// The longest duration that can be written: a century, far from any overflow.
const DURATION_MAX: Duration = Duration::from_secs(36_500 * 86_400);

/// Binary units first, because they are what `format_size` prefers.
const SIZES: [(&str, u128); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Units of rate in bits a second; `bit` units may be followed by `/s`.
const RATES: [(&str, u128); 14] = [
    ("Tbit", 1_000_000_000_000),
    ("Gbit", 1_000_000_000),
    ("Mbit", 1_000_000),
    ("kbit", 1_000),
    ("Kbit", 1_000),
    ("bit", 1),
    ("GiB/s", 8 << 30),
    ("MiB/s", 8 << 20),
    ("KiB/s", 8 << 10),
    ("GB/s", 8_000_000_000),
    ("MB/s", 8_000_000),
    ("kB/s", 8_000),
    ("KB/s", 8_000),
    ("B/s", 8),
];

/// Reads `10s`, `500ms`, `1m30s`, `1.5h`; a number alone is an error.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    const REMEDY: &str = "write such as 500ms, 10s, 1m30s or 2h (units: us, ms, s, m, h, d)";
    if text.is_empty() {
        return error("the duration is empty", REMEDY);
    }
    let mut nanos: u128 = 0;
    let mut smallest = u128::MAX;
    let mut rest = text;
    while !rest.is_empty() {
        let Some((number, after)) = Number::take(rest) else {
            return error(format!("`{}` is not a duration", shown(text)), REMEDY);
        };
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let Some(factor) = time_unit(unit) else {
            return unknown_time_unit(text, number.text, unit);
        };
        if factor >= smallest {
            return error(
                format!("the units of `{}` are not in order", shown(text)),
                "write the larger unit first, each once: 1h30m",
            );
        }
        smallest = factor;
        let Some(part) = number.times(factor) else {
            return error(
                format!("`{}` is too long or too fine a time", shown(text)),
                "write whole microseconds, and at most 36500d",
            );
        };
        nanos = nanos.saturating_add(part);
        rest = after;
    }
    if nanos > DURATION_MAX.as_nanos() || !nanos.is_multiple_of(1_000) {
        return error(
            format!("`{}` is too long or too fine a time", shown(text)),
            "write whole microseconds, and at most 36500d",
        );
    }
    let seconds = (nanos / 1_000_000_000) as u64;
    Ok(Duration::new(seconds, (nanos % 1_000_000_000) as u32))
}

fn time_unit(unit: &str) -> Option<u128> {
    let unit = if unit == "µs" { "us" } else { unit };
    TIMES.iter().find(|(name, _)| *name == unit).map(|u| u.1)
}

fn unknown_time_unit<T>(text: &str, number: &str, unit: &str) -> Result<T, UnitError> {
    if unit.is_empty() {
        return error(
            format!("`{}` has no unit", shown(text)),
            format!(
                "add a unit: {number}s for seconds, {number}ms for milliseconds (us, ms, s, m, h, d)"
            ),
        );
    }
    let meant = match unit.trim().to_ascii_lowercase().as_str() {
        "s" | "sec" | "secs" | "second" | "seconds" => Some("s"),
        "m" | "min" | "mins" | "minute" | "minutes" => Some("m"),
        "h" | "hr" | "hrs" | "hour" | "hours" => Some("h"),
        "d" | "day" | "days" => Some("d"),
        "ms" | "msec" | "millisecond" | "milliseconds" => Some("ms"),
        "us" | "usec" | "microsecond" | "microseconds" => Some("us"),
        _ => None,
    };
    error(
        format!("`{}` is not a unit of time", shown(unit.trim())),
        match meant {
            Some(meant) => format!("did you mean `{number}{meant}`?"),
            None => "the units are us, ms, s, m, h and d".to_owned(),
        },
    )
}

/// A timeout: a duration, or `0`, `0s` and `off`, which mean "never" and are
/// [`Duration::MAX`].
pub fn parse_timeout(text: &str) -> Result<Duration, UnitError> {
    if matches!(text, "0" | "off") {
        return Ok(Duration::MAX);
    }
    let duration = parse_duration(text)?;
    Ok(if duration.is_zero() {
        Duration::MAX
    } else {
        duration
    })
}

/// Writes a duration as [`parse_duration`] reads it: `1m30s`. What is below a
/// microsecond is dropped.
pub fn format_duration(duration: Duration) -> String {
    let mut nanos = duration.as_nanos();
    let mut text = String::new();
    for (unit, factor) in TIMES {
        if nanos >= factor {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}{unit}", nanos / factor);
            nanos %= factor;
        }
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

/// Writes a timeout as [`parse_timeout`] reads it: `10m`, or `off` for never.
pub fn format_timeout(timeout: Duration) -> String {
    if timeout == Duration::MAX {
        return "off".to_owned();
    }
    format_duration(timeout)
}

/// Reads `512B`, `64KiB`, `1.5MB`, and a number alone as bytes.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    const REMEDY: &str = "write such as 512B, 64KiB or 4MiB (1024s), or 1MB (1000s)";
    let Some((number, unit)) = Number::take(text) else {
        return error(format!("`{}` is not a size", shown(text)), REMEDY);
    };
    let factor = match unit {
        "" => Some(1),
        _ => SIZES.iter().find(|(name, _)| *name == unit).map(|u| u.1),
    };
    let Some(factor) = factor else {
        let letter = unit.chars().next().map_or(' ', |c| c.to_ascii_uppercase());
        let n = number.text;
        return error(
            format!("`{}` is not a unit of size", shown(unit)),
            match letter {
                'K' => format!("did you mean `{n}KiB` (1024s) or `{n}kB` (1000s)?"),
                'M' | 'G' | 'T' => {
                    format!("did you mean `{n}{letter}iB` (1024s) or `{n}{letter}B` (1000s)?")
                }
                _ => REMEDY.to_owned(),
            },
        );
    };
    match number.times(factor).map(u64::try_from) {
        Some(Ok(bytes)) => Ok(bytes),
        _ => error(
            format!("`{}` is not a whole number of bytes in range", shown(text)),
            REMEDY,
        ),
    }
}

/// Writes a size as [`parse_size`] reads it, in the largest unit that is exact.
pub fn format_size(bytes: u64) -> String {
    largest_exact(u128::from(bytes), &SIZES).unwrap_or_else(|| format!("{bytes}B"))
}

/// Reads `2Gbit`, `100Mbit/s`, `10MB/s` as bytes a second.
pub fn parse_rate(text: &str) -> Result<u64, UnitError> {
    const REMEDY: &str = "write such as 100Mbit, 2Gbit (bits a second) or 10MB/s, 1GiB/s (bytes)";
    let Some((number, unit)) = Number::take(text) else {
        return error(format!("`{}` is not a rate", shown(text)), REMEDY);
    };
    let n = number.text;
    let name = match unit.strip_suffix("/s") {
        Some(bits) if bits.ends_with("bit") => bits,
        _ => unit,
    };
    let Some(factor) = RATES.iter().find(|(known, _)| *known == name).map(|u| u.1) else {
        let lower = unit.to_ascii_lowercase();
        return error(
            match unit {
                "" => format!("`{}` has no unit", shown(text)),
                _ => format!("`{}` is not a unit of rate", shown(unit)),
            },
            match lower.as_str() {
                "" => format!("add a unit: {n}Mbit for bits a second, {n}MB/s for bytes"),
                "mbps" | "m" | "mbits" => format!("did you mean `{n}Mbit`?"),
                "gbps" | "g" | "gbits" => format!("did you mean `{n}Gbit`?"),
                "kbps" | "k" | "kbits" => format!("did you mean `{n}kbit`?"),
                _ if SIZES.iter().any(|(size, _)| *size == unit) => {
                    format!("did you mean `{n}{unit}/s`?")
                }
                _ => REMEDY.to_owned(),
            },
        );
    };
    match number.times(factor) {
        Some(bits) if bits.is_multiple_of(8) && bits / 8 <= u128::from(u64::MAX) => {
            Ok((bits / 8) as u64)
        }
        _ => error(
            format!(
                "`{}` is not a whole number of bytes a second in range",
                shown(text)
            ),
            REMEDY,
        ),
    }
}

/// Writes bytes a second as [`parse_rate`] reads them.
pub fn format_rate(bytes_per_second: u64) -> String {
    let bits = u128::from(bytes_per_second) * 8;
    // Bits in thousands are how rates are spoken of; other numbers stay bytes.
    largest_exact(bits, &RATES[..4]).unwrap_or_else(|| format!("{bytes_per_second}B/s"))
}

/// Reads a number of things or events: `500`, `20k`, `1.5M`.
pub fn parse_count(text: &str) -> Result<u64, UnitError> {
    const REMEDY: &str = "write a whole number, such as 500, 20k (thousands) or 1.5M (millions)";
    let Some((number, unit)) = Number::take(text) else {
        return error(format!("`{}` is not a count", shown(text)), REMEDY);
    };
    let factor = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        _ => {
            let problem = format!("`{}` is not a unit of a count", shown(unit));
            return match unit {
                "K" => error(problem, format!("did you mean `{}k`?", number.text)),
                "m" => error(problem, format!("did you mean `{}M`?", number.text)),
                _ => error(problem, REMEDY),
            };
        }
    };
    match number.times(factor).map(u64::try_from) {
        Some(Ok(count)) => Ok(count),
        _ => error(
            format!("`{}` is not a whole number in range", shown(text)),
            REMEDY,
        ),
    }
}

/// Reads `10%`: whole percents from none to all.
pub fn parse_percent(text: &str) -> Result<u8, UnitError> {
    const REMEDY: &str = "write a whole number from 0% to 100%";
    let number = text.strip_suffix('%').map(str::trim_end);
    let digits = number.filter(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    let percent = digits.and_then(|digits| digits.parse().ok());
    match percent.filter(|percent| *percent <= 100) {
        Some(percent) => Ok(percent),
        None => error(format!("`{}` is not a percentage", shown(text)), REMEDY),
    }
}

/// Writes whole percents as [`parse_percent`] reads them.
pub fn format_percent(percent: u8) -> String {
    format!("{percent}%")
}

fn largest_exact(value: u128, units: &[(&str, u128)]) -> Option<String> {
    units
        .iter()
        .find(|(_, factor)| value > 0 && value.is_multiple_of(*factor))
        .map(|(unit, factor)| format!("{}{unit}", value / factor))
}

/// A decimal number as it is written: `1`, `1.5`.
struct Number<'t> {
    text: &'t str,
    /// All digits as one integer, and how many of them follow the point.
    digits: u128,
    decimals: u32,
}

impl<'t> Number<'t> {
    /// Takes the number at the start of `text`; `None` where none stands.
    fn take(text: &'t str) -> Option<(Self, &'t str)> {
        let end = text
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .unwrap_or(text.len());
        let (number, rest) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        if whole.is_empty() || fraction.is_empty() || fraction.contains('.') {
            return None;
        }
        // 24 digits hold any u64 with decimals to spare, and no product overflows.
        let fraction = fraction.trim_end_matches('0');
        if whole.len() + fraction.len() > 24 {
            return None;
        }
        Some((
            Self {
                text: number,
                digits: format!("{whole}{fraction}").parse().ok()?,
                decimals: fraction.len() as u32,
            },
            rest,
        ))
    }

    /// The number times `factor`; `None` where that is not whole or overflows.
    fn times(&self, factor: u128) -> Option<u128> {
        let product = self.digits.checked_mul(factor)?;
        let divisor = 10u128.pow(self.decimals);
        product.is_multiple_of(divisor).then_some(product / divisor)
    }
}

/// A text fit for a message: short, and without control characters.
fn shown(text: &str) -> String {
    text.chars().take(40).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read_exactly() {
        for (text, micros) in [
            ("10s", 10_000_000),
            ("500ms", 500_000),
            ("1m30s", 90_000_000),
            ("2h", 7_200_000_000),
            ("1d", 86_400_000_000),
            ("1.5s", 1_500_000),
            ("50us", 50),
            ("50µs", 50),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_micros(micros)));
        }
        for never in ["0", "0s", "0ms", "off"] {
            assert_eq!(parse_timeout(never), Ok(Duration::MAX), "{never}");
        }
    }

    #[test]
    fn a_wrong_duration_is_answered_with_a_right_one() {
        for (text, expected) in [
            ("10", "10s for seconds"),
            ("", "empty"),
            ("10 s", "did you mean `10s`"),
            ("10sec", "did you mean `10s`"),
            ("5min", "did you mean `5m`"),
            ("10x", "not a unit of time"),
            ("s", "not a duration"),
            ("-5s", "not a duration"),
            ("30s1m", "larger unit first"),
            ("1s1s", "larger unit first"),
            ("1.2.3s", "not a duration"),
            ("0.0001ms", "too fine"),
            ("99999999d", "too long"),
            ("99999999999999999999999999s", "not a duration"),
        ] {
            let message = parse_duration(text).expect_err(text).to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn sizes_rates_and_percents_are_read_exactly() {
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("1MB"), Ok(1_000_000));
        assert_eq!(parse_size("1.5MiB"), Ok(1_572_864));
        assert_eq!(parse_size("512B"), Ok(512));
        assert_eq!(parse_size("512"), Ok(512));
        assert_eq!(parse_rate("2Gbit"), Ok(250_000_000));
        assert_eq!(parse_rate("100Mbit/s"), Ok(12_500_000));
        assert_eq!(parse_rate("10MB/s"), Ok(10_000_000));
        assert_eq!(parse_rate("1GiB/s"), Ok(1 << 30));
        for (text, expected) in [
            ("64k", "`64KiB` (1024s) or `64kB`"),
            ("4m", "`4MiB`"),
            ("big", "not a size"),
            ("0.3B", "whole number"),
            ("99999999TiB", "in range"),
        ] {
            let message = parse_size(text).expect_err(text).to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
        assert_eq!(parse_percent("0%"), Ok(0));
        assert_eq!(parse_percent("100%"), Ok(100));
        for text in ["", "%", "10", "-1%", "+1%", "101%", "1.5%", "999%", "10%%"] {
            let message = parse_percent(text).expect_err(text).to_string();
            assert!(message.contains("from 0% to 100%"), "{text}: {message}");
        }
        for (text, expected) in [
            ("100", "100Mbit"),
            ("100Mbps", "`100Mbit`"),
            ("10MB", "`10MB/s`"),
            ("fast", "not a rate"),
            ("3bit", "whole number of bytes"),
        ] {
            let message = parse_rate(text).expect_err(text).to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
        assert_eq!(parse_count("500"), Ok(500));
        assert_eq!(parse_count("20k"), Ok(20_000));
        assert_eq!(parse_count("1.5M"), Ok(1_500_000));
        for (text, expected) in [
            ("", "not a count"),
            ("-1", "not a count"),
            ("1K", "did you mean `1k`"),
            ("1m", "did you mean `1M`"),
            ("1 k", "not a unit"),
            ("0.5", "whole number"),
            ("99999999999999999999", "in range"),
        ] {
            let message = parse_count(text).expect_err(text).to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(format_duration(Duration::from_secs(90)), "1m30s");
        assert_eq!(format_duration(Duration::ZERO), "0s");
        assert_eq!(format_timeout(Duration::MAX), "off");
        assert_eq!(format_size(4 << 20), "4MiB");
        assert_eq!(format_size(1_000_000), "1MB");
        assert_eq!(format_size(1_000), "1kB");
        assert_eq!(format_size(0), "0B");
        assert_eq!(format_rate(250_000_000), "2Gbit");
        assert_eq!(format_rate(7), "7B/s");
    }

    proptest! {
        #[test]
        fn quantities_read_back(n in any::<u64>(), shift in 0u32..64) {
            let n = n >> shift;
            prop_assert_eq!(parse_size(&format_size(n)), Ok(n));
            prop_assert_eq!(parse_rate(&format_rate(n)), Ok(n));
            let time = Duration::from_micros(n).min(DURATION_MAX);
            prop_assert_eq!(parse_duration(&format_duration(time)), Ok(time));
            if !time.is_zero() {
                prop_assert_eq!(parse_timeout(&format_timeout(time)), Ok(time));
            }
        }

        #[test]
        fn no_text_panics(text in r".{0,20}|[0-9.]{0,30}[a-zA-Z/%]{0,5}") {
            let _ = parse_duration(&text);
            let _ = parse_size(&text);
            let _ = parse_rate(&text);
            let _ = parse_count(&text);
            if let Ok(percent) = parse_percent(&text) {
                prop_assert_eq!(parse_percent(&format_percent(percent)), Ok(percent));
            }
        }
    }
}
