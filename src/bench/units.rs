//! Measured numbers as a table shows them: three digits and a unit. How exact ones are
//! written and read is `config::units`.

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
    fn figures_keep_three_digits() {
        assert_eq!(bit_rate(5.25e9), "42.0 Gb/s");
        assert_eq!(rate(121_000.0), "121 k/s");
        assert_eq!(latency(43_210.0), "43.2 µs");
        assert_eq!(latency(4_321_000.0), "4.32 ms");
        assert_eq!(size(591.0), "591 B");
        assert_eq!(digits(0.0), "0");
    }
}
