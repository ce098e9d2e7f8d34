//! The figures of one round of one subject.

use crate::bench::harness::Sample;
use crate::bench::load::shape::Shape;

fn throughput(sample: &Sample) -> f64 {
    sample.up + sample.down
}

/// Without what a mix's exchanges move.
pub(super) fn bulk(shape: &Shape, sample: &Sample) -> f64 {
    let each = shape.exchange.map_or(0, |exchange| 2 * exchange.size);
    (throughput(sample) - sample.exchanges * each as f64).max(0.0)
}

pub(super) fn path_cpu(sample: &Sample) -> f64 {
    sample.forwarder_cpu + sample.generator_cpu + sample.origin_cpu
}

/// What was used in a second to what was used for a gigabyte, an exchange or a datagram.
pub(super) fn per_unit(shape: &Shape, sample: &Sample, used: f64) -> f64 {
    if shape.exchange.is_some() {
        used / sample.exchanges
    } else if let Some(datagrams) = sample.datagrams {
        used / datagrams.arrived
    } else {
        used * 1e9 / throughput(sample)
    }
}

pub(super) fn quantile(sample: &Sample, quantile: f64) -> f64 {
    sample.latency.value_at_quantile(quantile) as f64
}
