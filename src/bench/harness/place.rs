//! Where a layout runs and what all subjects of it share: CPUs, the origin, patience.

use std::net::SocketAddr;
use std::time::Duration;

use super::options::{BenchOptions, Layout};
use super::result::Cell;
use crate::bench::load;
use crate::bench::load::shape::Shape;
use crate::bench::origin::{DatagramOptions, Handlers, Origin, OriginOptions};
use crate::bench::path::PathSpec;
use crate::bench::precedence::Precedence;

/// Whether small messages are measured beside bulk.
pub(super) fn has_mix(options: &BenchOptions) -> bool {
    let mixed = |shape: &Shape| shape.quiet().is_some() || shape.burst.is_some();
    options.shapes.iter().any(mixed)
}

/// Whether datagrams are measured.
pub(super) fn has_datagrams(options: &BenchOptions) -> bool {
    options.shapes.iter().any(Shape::is_datagrams)
}

/// At the far end of the path, or on loopback.
pub(super) fn start_origin(
    options: &BenchOptions,
    threads: usize,
    precedence: Precedence,
) -> Result<Origin, String> {
    let mut origin = OriginOptions {
        threads: options.threads.unwrap_or(threads),
        prompt: has_mix(options).then_some(precedence),
        congestion: options.congestion.clone(),
        ..OriginOptions::default()
    };
    let streams = options.shapes.iter().filter_map(|shape| shape.stream);
    origin.datagrams = has_datagrams(options).then(|| DatagramOptions {
        // At the number of the command port, so that a subject has one upstream.
        address: None,
        streams: true,
        in_trains: streams.into_iter().any(|stream| stream.train > 1),
    });
    if options.subjects.iter().any(|it| it.size.servers > 1) {
        origin.command = Some(SocketAddr::from(([0, 0, 0, 0], 0)));
    }
    let started = match &options.path {
        None => Origin::start(&origin, Handlers::default()),
        Some(path) => {
            let far = path.far();
            origin.command = Some(SocketAddr::from((far.address(), 0)));
            far.run(|| Origin::start(&origin, Handlers::default()))
                .map_err(|error| error.to_string())?
        }
    };
    started.map_err(|error| format!("the origin cannot start: {error}"))
}

/// Until what `flows` may have buffered on either side of a forwarder has crossed the
/// path: some round trips, and at its rate what autotuned buffers hold at the most.
pub(super) fn patience(path: &PathSpec, flows: usize) -> Duration {
    const BUFFERED: u64 = 16 << 20;
    const LONGEST: Duration = Duration::from_secs(600);
    let seconds = (flows as u64 * BUFFERED) as f64 / path.rate as f64;
    let most = load::PATIENCE + path.rtt * 20 + Duration::from_secs_f64(seconds);
    most.min(LONGEST)
}

pub(super) fn cells(shapes: usize, subjects: usize) -> Vec<Cell> {
    (0..shapes * subjects)
        .map(|index| Cell {
            subject: index % subjects,
            shape: index / subjects,
            samples: Vec::new(),
            failure: None,
            cut_short: 0,
        })
        .collect()
}

/// The forwarder's CPUs and the others'. The last CPUs go to the forwarder: the
/// first one gets most of a machine's interrupts.
pub(super) fn split(
    layout: Layout,
    cpus: &[usize],
    workers: usize,
) -> Result<(Vec<usize>, Vec<usize>), String> {
    match layout {
        Layout::OneCore => {
            let last = cpus.last().ok_or("no CPU to run on")?;
            Ok((vec![*last], vec![*last]))
        }
        Layout::OwnCore if cpus.len() > workers => {
            let (others, forwarder) = cpus.split_at(cpus.len() - workers);
            Ok((forwarder.to_vec(), others.to_vec()))
        }
        Layout::OwnCore => Err(format!(
            "the layout own-core needs more than {workers} CPUs, there are {}",
            cpus.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forwarder_gets_the_last_cpus() {
        assert_eq!(split(Layout::OneCore, &[2, 5], 1), Ok((vec![5], vec![5])));
        assert_eq!(
            split(Layout::OwnCore, &[0, 1, 2, 3], 2),
            Ok((vec![2, 3], vec![0, 1]))
        );
        assert!(split(Layout::OwnCore, &[0], 1).is_err());
    }

    #[test]
    fn a_slow_path_gets_more_patience() {
        let path = |text: &str| text.parse::<PathSpec>().unwrap();
        let fast = patience(&path("rtt=1ms,rate=10Gbit"), 4);
        let slow = patience(&path("rtt=100ms,rate=10Mbit"), 4);
        assert!(fast < Duration::from_secs(4), "{fast:?}");
        // 64 MiB at 1.25 MB/s.
        assert!(slow > Duration::from_secs(53), "{slow:?}");
        assert_eq!(patience(&path("rtt=1s,rate=1kbit"), 4).as_secs(), 600);
    }
}
