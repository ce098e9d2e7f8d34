//! What a run of the harness brings home, before any statistics.

use serde::Serialize;

use super::options::Layout;
use crate::bench::subjects::launch::Launch;
use crate::bench::subjects::running::StartCost;

/// One measurement.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Sample {
    /// Which round, from 0.
    pub round: usize,
    /// Measured seconds.
    pub seconds: f64,
    /// Payload bytes a second from client to origin, as they arrived.
    #[serde(rename = "up_bytes_per_second")]
    pub up: f64,
    /// Payload bytes a second from origin to client, as they arrived.
    #[serde(rename = "down_bytes_per_second")]
    pub down: f64,
    /// Exchanges a second.
    #[serde(rename = "exchanges_per_second")]
    pub exchanges: f64,
    /// Requests of an open loop that were due and not answered in time.
    #[serde(rename = "unanswered_exchanges")]
    pub unanswered: u64,
    /// CPU seconds a second of the forwarder's process tree.
    #[serde(rename = "forwarder_cpu_seconds_per_second")]
    pub forwarder_cpu: f64,
    /// CPU seconds a second of the generator.
    #[serde(rename = "generator_cpu_seconds_per_second")]
    pub generator_cpu: f64,
    /// CPU seconds a second of the origin.
    #[serde(rename = "origin_cpu_seconds_per_second")]
    pub origin_cpu: f64,
    /// Share of the CPUs that this subject's path may use, 0 to 1, that went to
    /// something else.
    #[serde(rename = "foreign_cpu_share")]
    pub foreign_cpu: f64,
    /// Context switches a second of the forwarder.
    #[serde(rename = "context_switches_per_second")]
    pub switches: f64,
    /// Bytes compared with what was sent, warm-up included.
    #[serde(rename = "checked_bytes")]
    pub checked: u64,
    /// Latency of exchanges in the measured time.
    #[serde(skip)]
    pub latency: hdrhistogram::Histogram<u64>,
    /// Of a mix: its exchanges without the bulk, in the same round.
    pub quiet: Option<Quiet>,
    /// Of a burst.
    pub burst: Option<BurstSample>,
    /// Of datagrams.
    pub datagrams: Option<DatagramSample>,
}

/// What became of datagrams.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DatagramSample {
    /// Datagrams of a stream that arrived in a second, both directions together; of questions,
    /// those that were answered.
    #[serde(rename = "arrived_per_second")]
    pub arrived: f64,
    /// Sent from the first to the last, the warm-up's included; of questions, those asked.
    pub sent: u64,
    /// Of them, those that did not arrive, or were not answered in time.
    pub lost: u64,
    /// Those that came to somebody else than whom they were for.
    pub strayed: u64,
}

/// The exchanges of a mix without its bulk.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Quiet {
    /// Exchanges a second.
    #[serde(rename = "exchanges_per_second")]
    pub exchanges: f64,
    /// CPU seconds a second of the forwarder's process tree.
    #[serde(rename = "forwarder_cpu_seconds_per_second")]
    pub forwarder_cpu: f64,
    /// Latency in the measured time.
    #[serde(skip)]
    pub latency: hdrhistogram::Histogram<u64>,
}

/// How long single bytes waited for bulk that was ready at the same moment, averaged
/// over the bursts of a round.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct BurstSample {
    /// Share of the bulk, 0 to 1, that had come to the origin before half of the bytes.
    #[serde(rename = "bulk_share_before_half")]
    pub median: f64,
    /// Before the last of them.
    #[serde(rename = "bulk_share_before_last")]
    pub last: f64,
    /// Seconds until all of the bulk had come.
    pub seconds: f64,
}

/// Every round of one subject in one shape.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Index into [`LayoutResult::subjects`].
    pub subject: usize,
    /// Index into [`BenchOptions::shapes`](super::options::BenchOptions::shapes).
    pub shape: usize,
    /// One for each round that succeeded.
    pub samples: Vec<Sample>,
    /// Why there are no more of them, and why it is not compared.
    pub failure: Option<String>,
    /// Flows whose other direction was cut when one ended.
    pub cut_short: u64,
}

/// What an idle session costs.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct IdleCost {
    /// How many there were.
    pub sessions: usize,
    /// Bytes of user memory for each.
    #[serde(rename = "memory_bytes")]
    pub bytes: f64,
    /// Descriptors for each.
    pub descriptors: f64,
    /// Of these, ends of pipes.
    pub pipe_ends: f64,
}

/// How a subject was run.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SubjectFacts {
    /// Its name in the report.
    pub name: String,
    /// Whether it is `direct`.
    pub is_direct: bool,
    /// Command line, files, version.
    pub launch: Launch,
    /// Whether a response that follows the client's end arrives whole.
    pub keeps_half_closed: bool,
    /// What an idle session costs; not for `direct`.
    #[serde(rename = "idle_session")]
    pub idle: Option<IdleCost>,
    /// What an idle flow of datagrams costs, where datagrams were measured.
    pub idle_flow: Option<IdleCost>,
    /// What each of some starts cost; not for `direct`.
    pub starts: Vec<StartCost>,
    /// Index of the subject of the same kind with one forward to one server, if this one
    /// has more.
    pub smaller: Option<usize>,
}

/// Everything measured in one layout.
#[derive(Debug, Clone)]
pub struct LayoutResult {
    /// Which.
    pub layout: Layout,
    /// The forwarder's CPUs.
    pub forwarder_cpus: Vec<usize>,
    /// Everybody else's.
    pub other_cpus: Vec<usize>,
    /// Whom.
    pub subjects: Vec<SubjectFacts>,
    /// Shape by shape, subject by subject.
    pub cells: Vec<Cell>,
    /// What to know of how this layout was measured, in words.
    pub notes: Vec<String>,
}
