//! A [`Table`] as text for a terminal, as HTML, and summed up as Markdown.

use std::fmt::Write as _;

use super::model::{Shown, Table, TableRow, Tone, Value};
use super::svg::escape;
use crate::bench::stats::{Estimate, Verdict};

/// What stands where there is no figure.
const NONE: &str = "–";

/// `1.43 [1.38, 1.50]`; without an interval `1.43`.
pub fn ratio_text(ratio: Estimate) -> String {
    match ratio.interval {
        Some(it) => format!("{:.2} [{:.2}, {:.2}]", ratio.estimate, it.low, it.high),
        None => format!("{:.2}", ratio.estimate),
    }
}

/// A block for a terminal; notes below, indented.
pub fn text(table: &Table) -> String {
    let shown = |at: &usize| table.columns[*at].shown == Shown::Everywhere;
    let columns: Vec<usize> = (0..table.columns.len()).filter(shown).collect();
    let mut head = vec![table.title.clone()];
    head.extend(columns.iter().map(|at| table.columns[*at].name.clone()));
    let mut lines = vec![head];
    for line in &table.lines {
        let mut cells = vec![line.name.clone()];
        cells.extend(columns.iter().map(|at| text_value(&line.values[*at])));
        lines.push(cells);
    }
    let mut out = align(&lines);
    for (line, text) in notes(table) {
        let _ = writeln!(out, "  {}: {text}", line.name);
    }
    out
}

fn text_value(value: &Value) -> String {
    match value {
        Value::Missing => NONE.to_owned(),
        Value::Word(word, _) => word.clone(),
        Value::Number(number, unit) => unit.text(*number),
        Value::Difference(number, unit) => {
            let sign = if *number < 0.0 { '-' } else { '+' };
            format!("{sign}{}", unit.text(number.abs()))
        }
        Value::Spread(it, unit) => {
            let text = unit.text(it.estimate);
            let Some(interval) = it.interval else {
                return text;
            };
            let below = it.estimate - interval.low;
            let half = below.max(interval.high - it.estimate) / it.estimate.max(f64::MIN_POSITIVE);
            format!("{text} ±{:.0}%", half * 100.0)
        }
        Value::Ratio(ratio, _) => ratio_text(*ratio),
        Value::Pair(first, second) => {
            format!("{} / {}", text_value(first), text_value(second))
        }
        Value::Ratios(ratios) => {
            let one = |(of, ratio, _): &(&str, Estimate, _)| format!("{of} {}", ratio_text(*ratio));
            ratios.iter().map(one).collect::<Vec<_>>().join(", ")
        }
    }
}

/// A table of a page, with its notes below. One with more figures than rows stands on its
/// side: a line for each figure, a column for each row.
pub fn html(table: &Table) -> String {
    let shown = |at: &usize| table.columns[*at].shown != Shown::Nowhere;
    let columns: Vec<usize> = (0..table.columns.len()).filter(shown).collect();
    let mut out = String::from("<div class=\"scroll\"><table class=\"figures\"><thead><tr>");
    let head = |out: &mut String, names: &mut dyn Iterator<Item = (&str, &str)>| {
        let _ = write!(out, "<th>{}</th>", escape(&table.title));
        for (name, class) in names {
            let _ = write!(out, "<th class=\"{class}\">{}</th>", escape(name));
        }
        out.push_str("</tr></thead><tbody>\n");
    };
    let cell = |out: &mut String, of: &str, value: &Value| {
        let (of, value) = (escape(of), html_value(value));
        let _ = write!(out, "<td data-of=\"{of}\"><span>{value}</span></td>");
    };
    if columns.len() > table.lines.len() && columns.len() > 5 {
        let state = |line: &TableRow| if line.is_failed() { "failed" } else { "" };
        let names = table.lines.iter().map(|line| (&line.name[..], state(line)));
        head(&mut out, &mut { names });
        for at in &columns {
            let name = &table.columns[*at].name;
            let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escape(name));
            for line in &table.lines {
                if line.is_failed() {
                    let failed = Value::Word("not compared".to_owned(), Tone::Failed);
                    cell(&mut out, &line.name, &failed);
                } else {
                    cell(&mut out, &line.name, &line.values[*at]);
                }
            }
            out.push_str("</tr>\n");
        }
    } else {
        let names = columns.iter().map(|at| (&table.columns[*at].name[..], ""));
        head(&mut out, &mut { names });
        for line in &table.lines {
            let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escape(&line.name));
            for at in &columns {
                cell(&mut out, &table.columns[*at].name, &line.values[*at]);
            }
            out.push_str("</tr>\n");
        }
    }
    out.push_str("</tbody></table></div>\n");
    for line in &table.lines {
        for note in &line.notes {
            let (name, text) = (escape(&line.name), escape(&note.text));
            let _ = writeln!(out, "<p class=\"{}\">{name}: {text}</p>", class(note.tone));
        }
    }
    out
}

fn html_value(value: &Value) -> String {
    match value {
        Value::Word(word, tone) => {
            format!("<span class=\"{}\">{}</span>", class(*tone), escape(word))
        }
        Value::Spread(it, unit) => match it.interval {
            Some(interval) => format!(
                "{}<small>{} to {}</small>",
                unit.text(it.estimate),
                unit.text(interval.low),
                unit.text(interval.high)
            ),
            None => unit.text(it.estimate),
        },
        Value::Pair(first, second) => {
            format!("{}<small>{}</small>", html_value(first), html_value(second))
        }
        Value::Ratios(ratios) => {
            let mut out = String::new();
            for (of, ratio, verdict) in ratios {
                // Writing to a String cannot fail.
                let _ = write!(
                    out,
                    "<small>{of} {} <span class=\"{}\">{}</span></small>",
                    ratio_text(*ratio),
                    class(Tone::of(*verdict)),
                    verdict.name()
                );
            }
            out
        }
        Value::Missing | Value::Number(..) | Value::Difference(..) | Value::Ratio(..) => {
            escape(&text_value(value))
        }
    }
}

/// The class of the style sheet.
pub fn class(tone: Tone) -> &'static str {
    match tone {
        Tone::Plain => "plain",
        Tone::Good => "faster",
        Tone::Bad => "slower",
        Tone::Even => "noise",
        Tone::Doubt => "remark",
        Tone::Failed => "failed",
    }
}

/// What of it belongs in a README, a line for each column and a cell for each row.
pub fn summary(table: &Table) -> String {
    let mut out = String::new();
    for (at, column) in table.columns.iter().enumerate() {
        let Some(name) = &column.summary else {
            continue;
        };
        let cells: Vec<String> = table
            .lines
            .iter()
            .map(|line| {
                if line.is_failed() {
                    "failed".to_owned()
                } else {
                    summary_value(&line.values[at])
                }
            })
            .collect();
        let _ = writeln!(out, "| {name} | {} |", cells.join(" | "));
    }
    out
}

fn summary_value(value: &Value) -> String {
    match value {
        Value::Spread(it, unit) => unit.text(it.estimate),
        Value::Ratio(ratio, Some(Verdict::Faster | Verdict::Slower)) => {
            format!("**{}**", ratio_text(*ratio))
        }
        Value::Pair(first, second) => {
            format!("{} / {}", summary_value(first), summary_value(second))
        }
        _ => text_value(value),
    }
}

/// Notes of all rows, in their order.
fn notes(table: &Table) -> impl Iterator<Item = (&TableRow, &str)> {
    let each = table.lines.iter();
    each.flat_map(|line| {
        line.notes
            .iter()
            .map(move |note| (line, note.text.as_str()))
    })
}

/// Columns as wide as their widest cell; the first to the left, the rest to the right.
pub(crate) fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for line in lines {
        for (column, cell) in line.iter().enumerate() {
            let pad = widths[column] - cell.chars().count();
            if column == 0 {
                out.push_str(cell);
                out.extend(std::iter::repeat_n(' ', pad));
            } else {
                out.push_str("  ");
                out.extend(std::iter::repeat_n(' ', pad));
                out.push_str(cell);
            }
        }
        out.truncate(out.trim_end_matches(' ').len());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::model::{Column, Note, Unit};
    use super::*;
    use crate::bench::stats::Interval;

    fn sample() -> Table {
        let interval = |estimate: f64| Estimate {
            estimate,
            interval: Some(Interval {
                low: estimate * 0.9,
                high: estimate * 1.1,
            }),
        };
        let mut table = Table::new("rr", ["thalweg".to_owned(), "<b>".to_owned()]);
        let rows = [(2e4, Verdict::Faster), (1e4, Verdict::Noise)];
        let rate = Column::new("rate").summed_up("rr, a second");
        table.add(rate, &rows, |row| {
            Value::Spread(interval(row.0), Unit::Rate)
        });
        let ratio = Column::of_summary("ratio");
        table.add(ratio, &rows, |row| Value::Ratio(interval(2.0), Some(row.1)));
        let pair = Column::new("p50, p99").on_page();
        let number = |value| Value::Number(value, Unit::Nanoseconds);
        table.add(pair, &rows, |_| Value::pair(number(1e3), number(2e6)));
        table.add(Column::new("hop"), &rows, |_| {
            Value::Difference(-1.5e3, Unit::Nanoseconds)
        });
        table
    }

    #[test]
    fn each_output_has_its_columns_and_its_form() {
        let table = sample();
        let terminal = text(&table);
        assert!(
            terminal.starts_with("rr                rate       hop\n"),
            "{terminal}"
        );
        assert!(terminal.contains("20.0 k/s ±10%  -1.50 µs"), "{terminal}");
        let page = html(&table);
        assert!(page.contains("<th class=\"\">p50, p99</th>"), "{page}");
        assert!(page.contains("1.00 µs<small>2.00 ms</small>"), "{page}");
        // Where there is no room for columns each figure has its name.
        assert!(page.contains("<td data-of=\"rate\">"), "{page}");
        assert!(
            page.contains("&lt;b&gt;") && !page.contains("<b>"),
            "{page}"
        );
        assert!(page.contains("20.0 k/s<small>18.0 k/s to 22.0 k/s</small>"));
        assert_eq!(
            summary(&table),
            "| rr, a second | 20.0 k/s | 10.0 k/s |\n\
             | ratio | **2.00 [1.80, 2.20]** | 2.00 [1.80, 2.20] |\n"
        );
    }

    #[test]
    fn a_row_that_failed_says_why_and_has_no_figure_in_a_summary() {
        let mut table = sample();
        table.lines[1].notes.push(Note {
            tone: Tone::Failed,
            text: "NOT COMPARED: reset".to_owned(),
        });
        assert!(text(&table).ends_with("\n  <b>: NOT COMPARED: reset\n"));
        assert!(html(&table).contains("<p class=\"failed\">&lt;b&gt;: NOT COMPARED: reset</p>"));
        assert!(summary(&table).starts_with("| rr, a second | 20.0 k/s | failed |"));
    }
}
