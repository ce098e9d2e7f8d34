//! Numbers as people write them: `64KiB`, `1.5s`, `20k`; and as a table shows
//! them, three digits and a unit.

use std::time::Duration;

/// Bytes: `4096`, `64KiB`, `1MiB`, `1k` (1000), `1MB`.
///
/// # Errors
/// What is wrong, in words.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kb" => 1e3,
        "m" | "mb" => 1e6,
        "g" | "gb" => 1e9,
        "ki" | "kib" => 1024.0,
        "mi" | "mib" => 1024.0 * 1024.0,
        "gi" | "gib" => 1024.0 * 1024.0 * 1024.0,
        _ => {
            return Err(format!(
                "`{text}`: unknown unit `{unit}` (B, kB, KiB, MB, MiB, GB, GiB)"
            ));
        }
    };
    Ok((number * factor).round() as u64)
}

/// A count or a rate: `500`, `20k`, `1.5M`.
///
/// # Errors
/// What is wrong, in words.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "" => 1.0,
        "k" | "K" => 1e3,
        "m" | "M" => 1e6,
        _ => return Err(format!("`{text}`: unknown unit `{unit}` (k, M)")),
    };
    Ok((number * factor).round() as u64)
}

/// A span of time: `1.5s`, `200ms`, `2m`; a bare number is seconds.
///
/// # Errors
/// What is wrong, in words.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split(text)?;
    let factor = match unit {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("`{text}`: unknown unit `{unit}` (us, ms, s, m, h)")),
    };
    Duration::try_from_secs_f64(number * factor).map_err(|error| format!("`{text}`: {error}"))
}

fn split(text: &str) -> Result<(f64, &str), String> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a number"))?;
    Ok((number, unit.trim()))
}

/// Three significant digits, no exponent: `0.0123`, `4.56`, `78.9`, `1234`.
pub fn digits(value: f64) -> String {
    let size = value.abs();
    if !value.is_finite() {
        return "–".to_owned();
    }
    let places = match size {
        s if s == 0.0 || s >= 99.95 => 0,
        s if s >= 9.995 => 1,
        s if s >= 0.9995 => 2,
        s if s >= 0.0995 => 3,
        _ => 4,
    };
    format!("{value:.places$}")
}

/// Bits a second from bytes a second.
pub fn bit_rate(bytes_per_second: f64) -> String {
    let bits = bytes_per_second * 8.0;
    match bits {
        b if b >= 1e9 => format!("{} Gb/s", digits(b / 1e9)),
        b if b >= 1e6 => format!("{} Mb/s", digits(b / 1e6)),
        b => format!("{} kb/s", digits(b / 1e3)),
    }
}

/// Events a second, with `k` and `M`.
pub fn rate(per_second: f64) -> String {
    match per_second {
        r if r >= 1e6 => format!("{} M/s", digits(r / 1e6)),
        r if r >= 1e3 => format!("{} k/s", digits(r / 1e3)),
        r => format!("{} /s", digits(r)),
    }
}

/// A latency in nanoseconds, in the unit that fits.
pub fn latency(nanoseconds: f64) -> String {
    match nanoseconds {
        n if n >= 1e9 => format!("{} s", digits(n / 1e9)),
        n if n >= 1e6 => format!("{} ms", digits(n / 1e6)),
        n => format!("{} µs", digits(n / 1e3)),
    }
}

/// Bytes, binary units.
pub fn size(bytes: f64) -> String {
    match bytes {
        b if b.abs() >= 1024.0 * 1024.0 * 1024.0 => {
            format!("{} GiB", digits(b / (1024.0 * 1024.0 * 1024.0)))
        }
        b if b.abs() >= 1024.0 * 1024.0 => format!("{} MiB", digits(b / (1024.0 * 1024.0))),
        b if b.abs() >= 1024.0 => format!("{} KiB", digits(b / 1024.0)),
        b => format!("{} B", digits(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_counts_and_durations_carry_units() {
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert_eq!(parse_size("1.5k"), Ok(1_500));
        assert_eq!(parse_count("20k"), Ok(20_000));
        assert_eq!(parse_duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(parse_duration("2"), Ok(Duration::from_secs(2)));
        assert!(parse_size("x").is_err());
        assert!(parse_size("3 parsecs").is_err_and(|e| e.contains("parsecs")));
        assert!(parse_duration("1e400s").is_err());
    }

    #[test]
    fn figures_keep_three_digits() {
        assert_eq!(bit_rate(5.25e9), "42.0 Gb/s");
        assert_eq!(rate(121_000.0), "121 k/s");
        assert_eq!(latency(43_210.0), "43.2 µs");
        assert_eq!(latency(4_321_000.0), "4.32 ms");
        assert_eq!(size(591.0), "591 B");
        assert_eq!(digits(0.0), "0");
    }
}
