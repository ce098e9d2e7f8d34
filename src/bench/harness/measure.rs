//! One measurement: a load in one shape on one subject, what moved and what it
//! cost between two instants, and whether every byte is accounted for.

use std::cmp::Ordering;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::result::{DatagramSample, Sample};
use crate::bench::interrupt::Interrupt;
use crate::bench::load::shape::Exchange;
use crate::bench::load::{Load, LoadPlan, LoadResult};
use crate::bench::origin::Origin;
use crate::bench::path::Link;
use crate::bench::process::{self, Usage};
use crate::bench::traffic::Way;
use crate::bench::units;

/// An open loop may leave this share of what was due unanswered at the end, beside
/// what its flows have under way. More is a backlog that grows.
const BACKLOG: f64 = 0.01;

/// What to measure.
pub(super) struct Measurement<'a> {
    pub(super) round: usize,
    pub(super) plan: LoadPlan,
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
    /// The subject's first process; `None` for `direct`.
    pub(super) process: Option<i32>,
    pub(super) origin: &'a Origin,
    /// Connections that are open there though nobody uses them.
    pub(super) ready: u64,
    /// What its threads cost is neither the subject's nor somebody else's.
    pub(super) path: Option<&'a Link>,
    /// Every CPU of the layout.
    pub(super) cpus: &'a [usize],
    pub(super) interrupt: &'a Interrupt,
}

/// Everything that is counted, at one instant.
struct Snapshot {
    at: Instant,
    up: u64,
    down: u64,
    exchanges: u64,
    /// Of a stream.
    datagrams: u64,
    forwarder: Usage,
    generator: Usage,
    origin: Usage,
    path: Usage,
    busy_ns: u64,
}

/// Runs it; also says for how many flows a half-closed connection was cut.
pub(super) fn measure(this: &Measurement<'_>) -> Result<(Sample, u64), String> {
    let received_before = this.origin.counters().received.load(Relaxed);
    let differed_before = this.origin.counters().differed.load(Relaxed);
    let stream_before = StreamCounts::of(this.origin);
    let load = Load::start(this.plan.clone())?;
    let window = load.go(this.warm_up, this.duration);
    let begin = snapshot_at(this, &load, window.begin)?;
    let end = snapshot_at(this, &load, window.end)?;
    let result = load.finish();

    let differed = this.origin.counters().differed.load(Relaxed) - differed_before;
    check(&result, differed)?;
    if let Some(exchange) = this.plan.shape.exchange {
        check_rate(&result, exchange, this.duration)?;
    }
    check_moved(this, &begin, &end)?;
    let cut_short = result.cut_short;
    if this.plan.shape.is_datagrams() {
        // Those may be lost, and how many were is a figure.
        let counts = StreamCounts::of(this.origin).since(stream_before);
        let datagrams = Some(check_datagrams(counts, &result)?);
        let mut sample = sample(this, &begin, &end, result);
        let arrived = match this.plan.shape.stream {
            Some(_) => (end.datagrams - begin.datagrams) as f64 / sample.seconds,
            None => sample.exchanges,
        };
        sample.datagrams = datagrams.map(|it| DatagramSample { arrived, ..it });
        return Ok((sample, cut_short));
    }
    check_arrived(this, received_before, result.sent)?;
    Ok((sample(this, &begin, &end, result), cut_short))
}

/// Datagrams of streams, both ways together.
#[derive(Debug, Clone, Copy, Default)]
struct StreamCounts {
    sent: u64,
    arrived: u64,
    wrong: u64,
}

impl StreamCounts {
    fn of(origin: &Origin) -> Self {
        let traffic = origin.traffic();
        let both = |of: fn(&Way) -> u64| of(&traffic.up) + of(&traffic.down);
        Self {
            sent: both(Way::sent),
            arrived: both(Way::arrived),
            wrong: both(Way::wrong),
        }
    }

    fn since(self, earlier: Self) -> Self {
        Self {
            sent: self.sent - earlier.sent,
            arrived: self.arrived - earlier.arrived,
            wrong: self.wrong - earlier.wrong,
        }
    }
}

/// How many were lost. None comes twice, and what comes is what was sent to whom it was sent.
fn check_datagrams(counts: StreamCounts, result: &LoadResult) -> Result<DatagramSample, String> {
    if counts.wrong > 0 {
        return Err(format!(
            "{} datagrams arrived cut, changed or as something else",
            counts.wrong
        ));
    }
    if counts.arrived > counts.sent {
        return Err(format!(
            "more datagrams arrived than were sent: {} sent, {} arrived",
            counts.sent, counts.arrived
        ));
    }
    // The answer to a question that was given up may meet another one at the same port.
    if result.strayed > result.lost {
        return Err(format!(
            "{} datagrams came to another client than whom they were for",
            result.strayed
        ));
    }
    Ok(DatagramSample {
        arrived: 0.0,
        sent: counts.sent + result.asked,
        lost: counts.sent - counts.arrived + result.lost,
        strayed: result.strayed,
    })
}

fn snapshot_at(this: &Measurement<'_>, load: &Load, at: Instant) -> Result<Snapshot, String> {
    if this.interrupt.wait_until(at) {
        return Err("interrupted".to_owned());
    }
    let counters = load.counters();
    Ok(Snapshot {
        // Not `at`: on a busy core this thread may get its turn later.
        at: Instant::now(),
        up: this.origin.counters().received.load(Relaxed),
        down: counters.received.into_inner(),
        exchanges: counters.exchanges.into_inner(),
        datagrams: StreamCounts::of(this.origin).arrived,
        forwarder: this.process.map(process::usage_of_tree).unwrap_or_default(),
        generator: process::usage_of_threads(load.thread_ids()),
        origin: process::usage_of_threads(this.origin.thread_ids()),
        path: this
            .path
            .map(|path| process::usage_of_threads(&path.thread_ids()))
            .unwrap_or_default(),
        busy_ns: process::busy_ns(this.cpus),
    })
}

fn sample(this: &Measurement<'_>, begin: &Snapshot, end: &Snapshot, result: LoadResult) -> Sample {
    let seconds = end.at.duration_since(begin.at).as_secs_f64();
    let rate = |from: u64, to: u64| to.saturating_sub(from) as f64 / seconds;
    let forwarder = end.forwarder.since(begin.forwarder);
    let generator = end.generator.since(begin.generator);
    let origin = end.origin.since(begin.origin);
    let path = end.path.since(begin.path);
    let ours = forwarder.cpu_ns + generator.cpu_ns + origin.cpu_ns + path.cpu_ns;
    let busy = end.busy_ns.saturating_sub(begin.busy_ns);
    let share = |ns: u64| ns as f64 / 1e9 / seconds;
    Sample {
        round: this.round,
        seconds,
        up: rate(begin.up, end.up),
        down: rate(begin.down, end.down),
        exchanges: rate(begin.exchanges, end.exchanges),
        unanswered: result.unanswered,
        forwarder_cpu: share(forwarder.cpu_ns),
        generator_cpu: share(generator.cpu_ns),
        origin_cpu: share(origin.cpu_ns),
        foreign_cpu: share(busy.saturating_sub(ours)) / this.cpus.len().max(1) as f64,
        switches: forwarder.switches as f64 / seconds,
        checked: result.checked,
        latency: result.latency,
        quiet: None,
        burst: None,
        datagrams: None,
    }
}

fn check(result: &LoadResult, differed: u64) -> Result<(), String> {
    if differed > 0 {
        return Err(format!(
            "in {differed} uploads the bytes that arrived differ from those that were sent"
        ));
    }
    if result.errors > 0 {
        let first = result.first_error.as_deref().unwrap_or("unknown");
        return Err(format!(
            "{} connections failed, the first: {first}",
            result.errors
        ));
    }
    if result.unfinished > 0 {
        return Err(format!(
            "{} connections did not come to their end in time",
            result.unfinished
        ));
    }
    Ok(())
}

/// A rate of nothing cannot be compared, and is no figure of a forwarder.
fn check_moved(this: &Measurement<'_>, begin: &Snapshot, end: &Snapshot) -> Result<(), String> {
    let bytes = end.up - begin.up + end.down - begin.down;
    if this.plan.shape.exchange.is_some() && end.exchanges == begin.exchanges {
        return Err("no request was answered in the measured time".to_owned());
    }
    let is_stream = this.plan.shape.bulk.is_some() || this.plan.shape.stream.is_some();
    if is_stream && bytes == 0 {
        return Err("nothing moved in the measured time".to_owned());
    }
    Ok(())
}

fn check_rate(result: &LoadResult, exchange: Exchange, duration: Duration) -> Result<(), String> {
    let Some(rate) = exchange.rate else {
        return Ok(());
    };
    let due = rate as f64 * duration.as_secs_f64();
    if result.unanswered as f64 <= exchange.flows as f64 + due * BACKLOG {
        return Ok(());
    }
    let answered = result.latency.len().saturating_sub(result.unanswered) as f64;
    Err(format!(
        "the rate was not reached: {} asked for, {} answered in time",
        units::rate(rate as f64),
        units::rate(answered / duration.as_secs_f64())
    ))
}

/// Every byte that left the generator must come to the origin.
fn check_arrived(this: &Measurement<'_>, before: u64, sent: u64) -> Result<(), String> {
    // What is still under way gets its time; connections that stay open longer are
    // reported by whoever measures next.
    let deadline = Instant::now() + this.plan.patience + Duration::from_secs(2);
    let _ = this.origin.wait_until_open(this.ready, deadline);
    let arrived = this.origin.counters().received.load(Relaxed) - before;
    match arrived.cmp(&sent) {
        Ordering::Equal => Ok(()),
        Ordering::Less => Err(format!(
            "bytes were lost on the way up: {sent} sent, {arrived} arrived"
        )),
        Ordering::Greater => Err(format!(
            "more bytes arrived than were sent: {sent} sent, {arrived} arrived; they came twice, or a \
             subject before this one had held them back"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::load::shape::Shape;

    #[test]
    fn a_subject_that_breaks_connections_or_changes_bytes_is_refused() {
        assert_eq!(check(&LoadResult::nothing(), 0), Ok(()));
        assert!(check(&LoadResult::nothing(), 1).is_err_and(|e| e.contains("differ")));
        let mut broken = LoadResult::nothing();
        broken.errors = 3;
        broken.first_error = Some("reset".to_owned());
        assert!(
            check(&broken, 0).is_err_and(|e| e.contains("3 connections") && e.contains("reset"))
        );
    }

    #[test]
    fn datagrams_may_be_lost_and_may_not_be_changed() {
        let counts = |sent, arrived, wrong| StreamCounts {
            sent,
            arrived,
            wrong,
        };
        let mut asked = LoadResult::nothing();
        (asked.asked, asked.lost, asked.strayed) = (10, 2, 1);
        let sample = check_datagrams(counts(100, 97, 0), &asked).unwrap();
        assert_eq!((sample.sent, sample.lost, sample.strayed), (110, 5, 1));
        let changed = check_datagrams(counts(100, 97, 4), &LoadResult::nothing());
        assert!(changed.is_err_and(|error| error.contains("4 datagrams")));
        let twice = check_datagrams(counts(100, 101, 0), &LoadResult::nothing());
        assert!(twice.is_err_and(|error| error.contains("101 arrived")));
    }

    #[test]
    fn a_rate_that_is_not_reached_is_said() {
        let exchange = "rr:rate=1k:flows=8"
            .parse::<Shape>()
            .unwrap()
            .exchange
            .unwrap();
        let second = Duration::from_secs(1);
        let mut slow = LoadResult::nothing();
        slow.latency.record_n(1_000_000, 1_000).unwrap();
        slow.unanswered = 300;
        let error = check_rate(&slow, exchange, second).unwrap_err();
        assert!(
            error.contains("1.00 k/s asked for, 700 /s answered"),
            "{error}"
        );
        // What the eight flows have under way, and one per cent.
        slow.unanswered = 18;
        assert_eq!(check_rate(&slow, exchange, second), Ok(()));
    }
}
