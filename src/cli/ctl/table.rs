//! Tables for people: columns as wide as what is in them, numbers to the right.

use std::fmt::Write as _;

use crate::admin::view::Times;

/// A table.
#[derive(Debug)]
pub(super) struct Table {
    /// Each with whether it stands to the right.
    columns: Vec<(&'static str, bool)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these columns; those whose name begins with `>` have numbers.
    pub(super) fn new(columns: &[&'static str]) -> Self {
        let columns = columns.iter().map(|name| match name.strip_prefix('>') {
            Some(name) => (name, true),
            None => (*name, false),
        });
        Self {
            columns: columns.collect(),
            rows: Vec::new(),
        }
    }

    /// One more row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|cell| printable(&cell));
        self.rows.push(cells.collect());
    }

    /// As text; the heading alone where there is nothing else.
    pub(super) fn text(&self) -> String {
        let heading: Vec<String> = self.columns.iter().map(|it| it.0.to_uppercase()).collect();
        let rows = || std::iter::once(&heading).chain(&self.rows);
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|at| rows().map(|row| width(&row[at])).max().unwrap_or(0))
            .collect();
        let mut text = String::new();
        for row in rows() {
            let mut line = String::new();
            for ((cell, width_of), (_, right)) in row.iter().zip(&widths).zip(&self.columns) {
                let pad = " ".repeat(width_of - width(cell));
                let (before, behind) = if *right {
                    (pad, String::new())
                } else {
                    (String::new(), pad)
                };
                // Writing to a String cannot fail.
                let _ = write!(line, "{before}{cell}{behind}  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// Whatever a name holds, it stays on one line and cannot move a terminal's cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = escaped.is_none().then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// Bytes, to three digits: `1.2 MiB`.
pub(crate) fn bytes(n: f64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut n = n.max(0.0);
    let mut unit = 0;
    while n >= 999.5 && unit + 1 < UNITS.len() {
        n /= 1024.0;
        unit += 1;
    }
    match (unit, n) {
        (0, n) => format!("{n:.0} B"),
        (_, n) if n < 9.95 => format!("{n:.1} {}", UNITS[unit]),
        (_, n) => format!("{n:.0} {}", UNITS[unit]),
    }
}

/// A time, to what matters of it: `340us`, `12ms`, `3.4s`, `5m12s`, `3h05m`, `2d04h`.
pub(crate) fn time(seconds: f64) -> String {
    let whole = seconds.max(0.0) as u64;
    match seconds {
        s if s < 0.000_999_5 => format!("{:.0}us", s.max(0.0) * 1e6),
        s if s < 0.009_95 => format!("{:.1}ms", s * 1e3),
        s if s < 0.999_5 => format!("{:.0}ms", s * 1e3),
        s if s < 9.95 => format!("{s:.1}s"),
        s if s < 60.0 => format!("{s:.0}s"),
        _ if whole < 3600 => format!("{}m{:02}s", whole / 60, whole % 60),
        _ if whole < 86_400 => format!("{}h{:02}m", whole / 3600, whole % 3600 / 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole % 86_400 / 3600),
    }
}

/// Either, or a dash.
pub(super) fn maybe<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), text)
}

/// All but a hundredth of them took less, if there were any.
pub(super) fn p99(times: &Times) -> String {
    maybe(times.p99_seconds, time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let mut table = Table::new(&["name", ">bytes"]);
        table.row(["a\x1b[2J".to_owned(), "1".to_owned()]);
        table.row(["long name".to_owned(), "12345".to_owned()]);
        let expected = "NAME        BYTES\na\\u{1b}[2J      1\nlong name   12345\n";
        assert_eq!(table.text(), expected);
    }

    #[test]
    fn sizes_and_times_have_the_digits_that_matter() {
        let sizes = [
            (0.0, "0 B"),
            (999.0, "999 B"),
            (1000.0, "1.0 KiB"),
            (1e6, "977 KiB"),
        ];
        for (n, text) in sizes
            .into_iter()
            .chain([(5e9, "4.7 GiB"), (1e18, "888 PiB")])
        {
            assert_eq!(bytes(n), text);
        }
        let times = [
            (0.000_34, "340us"),
            (0.001, "1.0ms"),
            (0.012, "12ms"),
            (3.42, "3.4s"),
        ];
        for (n, text) in times
            .into_iter()
            .chain([(312.0, "5m12s"), (11_100.0, "3h05m")])
        {
            assert_eq!(time(n), text);
        }
    }
}
