//! Which figures a report shows, and in which order: the tables of a run.

use super::model::{Column, Note, Table, Tone, Unit, Value};
use super::{Costs, CpuShares, LayoutReport, Report, Row, ShapeReport};
use crate::bench::harness::{IdleCost, SubjectFacts};
use crate::bench::load::shape::Figure;
use crate::bench::stats::{Estimate, Verdict};

/// One shape: a row for each subject.
pub(super) fn shape(layout: &LayoutReport, shape: &ShapeReport, baseline: &str) -> Table {
    let rows: &[Row] = &shape.rows;
    let names = rows.iter().map(|row| row.subject.clone());
    let mut table = Table::new(shape.name.clone(), names);
    let of = |what: &str| format!("{}, {what}", shape.name);
    if shape.is_burst {
        burst(&mut table, rows, &of);
    }
    if shape.has_stream {
        let rate = Column::new("datagrams").summed_up(of("datagrams a second"));
        table.add(rate, rows, |row| {
            Value::spread(row.datagrams.map(|it| it.arrived), Unit::Rate)
        });
    }
    if shape.has_datagrams {
        table.add(Column::new("lost").summed_up(of("lost")), rows, |row| {
            let lost = row.datagrams.map(|it| it.lost_share);
            lost.map_or(Value::Missing, |it| Value::Number(it, Unit::Share))
        });
    }
    if shape.has_bulk || shape.has_stream {
        let throughput = Column::new("throughput").summed_up(of("throughput"));
        table.add(throughput, rows, |row| {
            Value::spread(row.throughput, Unit::BitRate)
        });
    }
    if shape.has_exchanges {
        exchanges(&mut table, rows, &of);
    }
    if !shape.is_burst {
        cpu(&mut table, shape, &of);
    }
    if shape.has_bulk && shape.has_exchanges {
        quiet(&mut table, rows, &of);
    }
    comparisons(&mut table, layout, shape, baseline);
    for (line, row) in table.lines.iter_mut().zip(rows) {
        let failed = row.failure.iter().map(|why| Note {
            tone: Tone::Failed,
            text: format!("NOT COMPARED: {why}"),
        });
        let remarks = row.remarks.iter().map(|remark| Note {
            tone: Tone::Doubt,
            text: remark.clone(),
        });
        line.notes.extend(failed.chain(remarks));
    }
    table
}

fn burst(table: &mut Table, rows: &[Row], of: &dyn Fn(&str) -> String) {
    let share = |of: fn(&super::BurstReport) -> Estimate| {
        move |row: &Row| Value::spread(row.burst.as_ref().map(of), Unit::Share)
    };
    let last = Column::new("bulk before last byte").summed_up(of("bulk before the last byte"));
    table.add(last, rows, share(|it| it.last));
    table.add(Column::new("before half"), rows, share(|it| it.median));
    table.add(Column::new("all moved in"), rows, |row| {
        Value::spread(row.burst.map(|it| it.seconds), Unit::Seconds)
    });
}

fn exchanges(table: &mut Table, rows: &[Row], of: &dyn Fn(&str) -> String) {
    let rate = Column::new("rate").summed_up(of("a second"));
    table.add(rate, rows, |row| Value::spread(row.exchanges, Unit::Rate));
    let time = |of: fn(&super::Latency) -> u64| {
        move |row: &Row| {
            row.latency.map_or(Value::Missing, |latency| {
                Value::Number(of(&latency) as f64, Unit::Nanoseconds)
            })
        }
    };
    table.add(Column::new("p50"), rows, time(|it| it.p50));
    table.add(Column::new("p90").on_page(), rows, time(|it| it.p90));
    table.add(Column::new("p99"), rows, time(|it| it.p99));
    table.add(Column::new("p99.9"), rows, time(|it| it.p999));
    table.add(Column::new("max"), rows, time(|it| it.max));
    let both = Column::of_summary(of("p50 / p99"));
    table.add(both, rows, |row| p50_and_p99(row.latency));
}

fn p50_and_p99(latency: Option<super::Latency>) -> Value {
    let Some(latency) = latency else {
        return Value::Missing;
    };
    let time = |ns: u64| Value::Number(ns as f64, Unit::Nanoseconds);
    Value::pair(time(latency.p50), time(latency.p99))
}

fn cpu(table: &mut Table, shape: &ShapeReport, of: &dyn Fn(&str) -> String) {
    let rows: &[Row] = &shape.rows;
    let (unit, each) = if shape.has_exchanges {
        ("µs/op", "µs each")
    } else if shape.has_stream {
        ("µs/dgram", "µs each")
    } else {
        ("s/GB", "s/GB")
    };
    // In the document it is seconds for all.
    let is_each = shape.has_exchanges || shape.has_stream;
    let scale = if is_each { 1e6 } else { 1.0 };
    let of_costs = |of: fn(&Costs) -> Option<Estimate>| {
        move |row: &Row| {
            let cost = row.cost.as_ref().and_then(|cost| of(cost.costs()));
            // `direct` has no forwarder.
            let cost = cost.filter(|it| it.estimate > 0.0);
            Value::spread(cost.map(|it| it.map(|value| value * scale)), Unit::Plain)
        }
    };
    let forwarder = Column::new(format!("cpu {unit}"));
    let forwarder = forwarder.summed_up(of(&format!("forwarder's CPU, {each}")));
    table.add(forwarder, rows, of_costs(|it| it.forwarder));
    let ends = Column::new(format!("ends {unit}"));
    let ends = if shape.has_exchanges {
        ends.on_page()
    } else {
        ends
    };
    table.add(ends, rows, of_costs(|it| it.ends));
    let path = Column::new(format!("path {unit}")).on_page();
    table.add(path, rows, of_costs(|it| Some(it.path)));
    table.add(Column::new(format!("hop {unit}")), rows, |row| {
        let hop = row.cost.and_then(|cost| cost.costs().hop);
        hop.map_or(Value::Missing, |hop| {
            Value::Number(hop * scale, Unit::Plain)
        })
    });
    if shape.has_exchanges {
        let added = |of: fn(&super::Hop) -> f64| {
            move |row: &Row| {
                let ns = row.hop.as_ref().map(of);
                ns.map_or(Value::Missing, |ns| {
                    Value::Difference(ns, Unit::Nanoseconds)
                })
            }
        };
        table.add(Column::new("hop p50"), rows, added(|hop| hop.p50));
        table.add(Column::new("hop p99").on_page(), rows, added(|hop| hop.p99));
    }
    let used = if shape.has_bulk && shape.has_exchanges {
        Column::new("cpu used")
    } else {
        Column::new("cpu used").on_page()
    };
    let part = |of: fn(&CpuShares) -> f64| {
        move |row: &Row| Value::Number(of(&row.cpu_shares), Unit::Share)
    };
    table.add(used, rows, part(|it| it.forwarder));
    let generator = Column::new("by generator").on_page();
    table.add(generator, rows, part(|it| it.generator));
    let origin = Column::new("by origin").on_page();
    table.add(origin, rows, part(|it| it.origin));
    table.add(Column::new("switches").on_page(), rows, |row| {
        let switches = row.cost.and_then(|cost| cost.costs().context_switches);
        switches.map_or(Value::Missing, |it| Value::Number(it, Unit::Plain))
    });
}

fn quiet(table: &mut Table, rows: &[Row], of: &dyn Fn(&str) -> String) {
    table.add(Column::new("quiet rate"), rows, |row| {
        Value::spread(row.quiet.map(|it| it.exchanges), Unit::Rate)
    });
    let latency = Column::new("quiet p50 / p99").summed_up(of("p50 / p99 without the bulk"));
    table.add(latency, rows, |row| {
        p50_and_p99(row.quiet.map(|it| it.latency))
    });
    let p50 = Column::new("p50 to quiet").summed_up(of("p50, ratio to without"));
    table.add(p50, rows, |row| {
        Value::ratio(row.quiet.and_then(|it| it.p50))
    });
    let p99 = Column::new("p99 to quiet").summed_up(of("p99, ratio to without"));
    table.add(p99, rows, |row| {
        Value::ratio(row.quiet.and_then(|it| it.p99))
    });
}

fn comparisons(table: &mut Table, layout: &LayoutReport, shape: &ShapeReport, baseline: &str) {
    let rows: &[Row] = &shape.rows;
    let ratio = |row: &Row, against: &str| {
        deciding(shape, row, against).map_or(Value::Missing, |(ratio, verdict)| {
            Value::Ratio(ratio, Some(verdict))
        })
    };
    let against = Column::new(format!("vs {baseline}"));
    let against = against.summed_up(format!("{}, ratio to {baseline}", shape.name));
    table.add(against, rows, |row| ratio(row, baseline));
    table.add(Column::new("verdict"), rows, |row| {
        deciding(shape, row, baseline).map_or(Value::Missing, |it| Value::verdict(it.1))
    });
    if baseline != "direct" && !shape.is_burst {
        table.add(Column::new("vs direct"), rows, |row| ratio(row, "direct"));
    }
    if layout.subjects.iter().any(|it| it.smaller.is_some()) && !shape.is_burst {
        let small = Column::new("cpu vs small");
        let small = small.summed_up(format!("{}, CPU, ratio to a small one", shape.name));
        table.add(small, rows, |row| Value::ratio(growth(layout, row)));
    }
    let mut others = vec![baseline, "direct"];
    others.dedup();
    for other in others {
        let all = Column::new(format!("against {other}")).on_page();
        table.add(all, rows, |row| {
            let ratios = row.ratios.iter().filter(|it| it.against == other);
            let ratios: Vec<_> = ratios.map(|it| (it.of, it.ratio, it.verdict)).collect();
            if ratios.is_empty() {
                Value::Missing
            } else {
                Value::Ratios(ratios)
            }
        });
    }
}

/// The ratio of the figure by which the shape is judged.
pub(super) fn deciding(
    shape: &ShapeReport,
    row: &Row,
    against: &str,
) -> Option<(Estimate, Verdict)> {
    let of = match shape.figure {
        Figure::Throughput => "throughput",
        Figure::Requests | Figure::Connections => "exchanges",
        Figure::Share => "share",
        Figure::Datagrams => "datagrams",
        Figure::Cpu => "cpu",
        Figure::Latency => "p99",
    };
    row.ratios
        .iter()
        .find(|ratio| ratio.against == against && ratio.of == of)
        .map(|ratio| (ratio.ratio, ratio.verdict))
}

/// What a large configuration costs: the forwarder's CPU against that of the same subject
/// with a small one.
fn growth(layout: &LayoutReport, row: &Row) -> Option<Estimate> {
    let facts = layout.subjects.iter().find(|it| it.name == row.subject)?;
    let smaller = &layout.subjects[facts.smaller?].name;
    let mut ratios = row.ratios.iter();
    let found = ratios.find(|it| it.of == "cpu" && it.against == *smaller)?;
    Some(found.ratio)
}

/// What deciding means, in words.
pub(super) fn judged_by(shape: &ShapeReport) -> &'static str {
    match shape.figure {
        Figure::Throughput => "throughput",
        Figure::Requests => "requests a second",
        Figure::Connections => "connections a second",
        Figure::Datagrams => "datagrams a second",
        Figure::Cpu => "the forwarder's CPU for each, less is better",
        Figure::Share => "bulk before a single byte, less is better",
        Figure::Latency => "99th percentile, less is better",
    }
}

/// Every subject against the baseline, over all layouts and shapes.
pub(super) fn verdicts(report: &Report) -> Table {
    let mut names = Vec::new();
    let mut rows = Vec::new();
    for layout in &report.layouts {
        for shape in &layout.shapes {
            for row in &shape.rows {
                let Some((ratio, verdict)) = deciding(shape, row, &report.baseline) else {
                    continue;
                };
                let name = layout.layout.name();
                names.push(format!("{name}, {} ({})", shape.name, judged_by(shape)));
                rows.push((row.subject.clone(), ratio, verdict));
            }
        }
    }
    let mut table = Table::new("layout, shape", names);
    table.add(Column::new("subject"), &rows, |row| {
        Value::word(row.0.clone())
    });
    let confidence = report.head.confidence * 100.0;
    let ratio = Column::new(format!("ratio and {confidence:.0} % interval"));
    table.add(ratio, &rows, |row| Value::Ratio(row.1, Some(row.2)));
    table.add(Column::new("verdict"), &rows, |row| Value::verdict(row.2));
    table
}

/// What starting each subject takes, where that was measured.
pub(super) fn starts(report: &Report) -> Option<Table> {
    let starts = &report.layouts.first()?.starts[..];
    let names = starts.iter().map(|start| start.subject.clone());
    let mut table = Table::new("a start takes", names);
    let seconds = |of| Value::spread(Some(of), Unit::Seconds);
    table.add(Column::new("time"), starts, |it| seconds(it.seconds));
    table.add(Column::new("CPU"), starts, |it| seconds(it.cpu));
    if starts.iter().any(|it| it.seconds_ratio.is_some()) {
        table.add(Column::new("time vs small"), starts, |it| {
            Value::ratio(it.seconds_ratio)
        });
        table.add(Column::new("CPU vs small"), starts, |it| {
            Value::ratio(it.cpu_ratio)
        });
    }
    Some(table).filter(|table| !table.lines.is_empty())
}

/// What an idle session costs, where that was measured.
pub(super) fn idle(report: &Report) -> Option<Table> {
    idle_costs(report, "an idle session costs", |it| it.idle)
}

/// The same of a flow of datagrams.
pub(super) fn idle_flow(report: &Report) -> Option<Table> {
    idle_costs(report, "an idle flow costs", |it| it.idle_flow)
}

fn idle_costs(
    report: &Report,
    title: &str,
    of: fn(&SubjectFacts) -> Option<IdleCost>,
) -> Option<Table> {
    let subjects = report.layouts.first()?.subjects.iter();
    let rows: Vec<&SubjectFacts> = subjects.filter(|it| of(it).is_some()).collect();
    let names = rows.iter().map(|it| it.name.clone());
    let mut table = Table::new(title, names);
    let figure = |row: &&SubjectFacts, value: fn(&IdleCost) -> Value| {
        of(row).as_ref().map_or(Value::Missing, value)
    };
    table.add(Column::new("memory"), &rows, |row| {
        figure(row, |it| Value::Number(it.bytes, Unit::Bytes))
    });
    table.add(Column::new("descriptors"), &rows, |row| {
        figure(row, |it| Value::word(format!("{:.2}", it.descriptors)))
    });
    table.add(Column::new("pipe ends"), &rows, |row| {
        figure(row, |it| Value::word(format!("{:.2}", it.pipe_ends)))
    });
    table.add(Column::new("measured with").on_page(), &rows, |row| {
        figure(row, |it| Value::word(format!("{} of them", it.sessions)))
    });
    Some(table).filter(|table| !table.lines.is_empty())
}
