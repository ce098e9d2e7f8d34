//! The table of a race.

use super::Report;
use crate::bench::report::model::{Column, Note, Table, Tone, Unit, Value};
use crate::tune::race::{DEFAULTS, Decision, Fate};
use crate::tune::search::{Row, StageResult};

/// A row for each candidate, best first.
pub(super) fn stage(report: &Report, stage: &StageResult) -> Table {
    let rows = stage.ranked();
    let names = rows.iter().map(|(_, row)| {
        let present = if row.present { " (present)" } else { "" };
        format!("{}{present}", stage.name(row))
    });
    let mut table = Table::new("candidate", names);
    table.add(Column::new("throughput"), &rows, |(_, row)| {
        Value::spread(row.throughput, Unit::BitRate)
    });
    if report.terms.objective.needs_latency() {
        table.add(Column::new("p99"), &rows, |(_, row)| {
            Value::spread(row.p99, Unit::Nanoseconds)
        });
    }
    table.add(Column::new("CPU s/GB"), &rows, |(_, row)| {
        Value::spread(row.cost.map(|cost| cost.costs().path), Unit::Plain)
    });
    table.add(Column::new("×defaults, race"), &rows, |(arm, row)| {
        if *arm == DEFAULTS {
            Value::word("1")
        } else {
            Value::ratio(row.ratio)
        }
    });
    table.add(Column::new("×defaults, fresh runs"), &rows, |(_, row)| {
        row.confirmed
            .map_or_else(|| Value::word(""), |it| Value::Ratio(it, None))
    });
    table.add(Column::new("rounds"), &rows, |(_, row)| {
        Value::word(match row.rounds {
            [race, 0] => race.to_string(),
            [race, fresh] => format!("{race}+{fresh}"),
        })
    });
    table.add(Column::new("outcome"), &rows, |(arm, row)| {
        fate(row, stage, *arm)
    });
    table.add(Column::new("held back by"), &rows, |(_, row)| {
        let diagnosis = row.diagnosis.as_ref();
        diagnosis.map_or(Value::Missing, |it| Value::word(it.limit.name()))
    });
    for (line, (_, row)) in table.lines.iter_mut().zip(&rows) {
        line.notes.extend(row.granted.iter().map(|granted| Note {
            tone: Tone::Doubt,
            text: granted.clone(),
        }));
        if let Fate::Failed { why } = &row.fate {
            line.notes.push(Note {
                tone: Tone::Failed,
                text: format!("NOT MEASURED: {why}"),
            });
        }
    }
    table
}

/// What became of a row, in a word or two.
fn fate(row: &Row, stage: &StageResult, arm: usize) -> Value {
    let (word, tone) = match &row.fate {
        _ if matches!(stage.decision, Decision::Recommend { arm: it, .. } if it == arm) => {
            ("recommended", Tone::Good)
        }
        Fate::Stayed => ("", Tone::Plain),
        Fate::Worse { .. } => ("worse", Tone::Bad),
        Fate::Beaten { .. } => ("beaten", Tone::Even),
        Fate::Halved { .. } => ("behind", Tone::Even),
        Fate::Failed { .. } => ("failed", Tone::Failed),
    };
    Value::Word(word.to_owned(), tone)
}
