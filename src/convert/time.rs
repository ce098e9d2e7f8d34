//! Durations and sizes as the originals write them, and as we do.

use std::time::Duration;

use crate::config::units::format_duration;

/// `1h30m`, `10s`, `500ms`, where a number alone is in `unit` of a millisecond (nginx 1000,
/// HAProxy 1). Parts follow one another, with blanks or without.
pub(super) fn parse(text: &str, unit_ms: u64) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut micros: u64 = 0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let number: u64 = rest[..digits].parse().ok()?;
        let after = &rest[digits..];
        let (factor, length) = unit(after).unwrap_or((unit_ms * 1000, 0));
        if length == 0 && !after.trim_start().is_empty() {
            return None;
        }
        micros = micros.checked_add(number.checked_mul(factor)?)?;
        rest = after[length..].trim_start();
    }
    Some(Duration::from_micros(micros))
}

/// A unit at the front: its microseconds and how long it is.
fn unit(text: &str) -> Option<(u64, usize)> {
    const SECOND: u64 = 1_000_000;
    let units = [
        ("ms", 1000),
        ("us", 1),
        ("s", SECOND),
        ("m", 60 * SECOND),
        ("h", 3600 * SECOND),
        ("d", 86_400 * SECOND),
        ("w", 7 * 86_400 * SECOND),
        ("M", 30 * 86_400 * SECOND),
        ("y", 365 * 86_400 * SECOND),
    ];
    let (name, factor) = units.into_iter().find(|(name, _)| text.starts_with(name))?;
    Some((factor, name.len()))
}

/// Our longest timeout; what is longer is as good as never.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 86_400);

/// As a timeout of ours.
pub(super) fn timeout(duration: Duration) -> String {
    match duration {
        Duration::ZERO => "off".to_owned(),
        duration if duration > TIMEOUT_MAX => "off".to_owned(),
        duration => format_duration(duration),
    }
}

/// As a duration of ours that is at least `least`.
pub(super) fn at_least(duration: Duration, least: Duration) -> String {
    format_duration(duration.max(least))
}

/// `16k`, `4m`, `1g`, or a number of bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let factor = match text[digits..].to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_alone_is_in_the_unit_of_the_format() {
        assert_eq!(parse("10", 1000), Some(Duration::from_secs(10)));
        assert_eq!(parse("10", 1), Some(Duration::from_millis(10)));
        assert_eq!(parse("1h30m", 1000), Some(Duration::from_secs(5400)));
        assert_eq!(parse("1h 30m 5", 1000), Some(Duration::from_secs(5405)));
        assert_eq!(parse("250us", 1), Some(Duration::from_micros(250)));
        for wrong in ["", "x", "10x", "-1", "99999999999999999999", "s10"] {
            assert_eq!(parse(wrong, 1), None, "{wrong}");
        }
        assert_eq!(timeout(Duration::ZERO), "off");
        assert_eq!(timeout(Duration::from_secs(90)), "1m30s");
        assert_eq!(size("16k"), Some(16384));
        assert_eq!(size("16q"), None);
    }
}
