//! One short run of a candidate: traffic between this process and an origin over the
//! path, with the candidate's options, and what it came to.
//!
//! ```text
//! direct:    load ──────options──────► origin        (options of a leg)
//! forwarder: load ──► thalweg run ──► origin         (data path, buffers, engine, spin)
//! ```
//! Each run has its own origin where that is ours, its own forwarder and its own
//! connections, and leaves nothing under way: what is in the buffers when the time is
//! over is discarded by a reset, so that it does not run into the next one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::diagnose::Sample;
use super::objective::{Figures, Objective};
use super::space::Candidate;
use super::venue::Venue;
use crate::bench::interrupt::Interrupt;
use crate::bench::load::shape::{Answer, Bulk, ConnectionLife, Direction, Exchange, Over, Shape};
use crate::bench::load::{ANSWER_TIMEOUT, Load, LoadPlan};
use crate::bench::origin::{Origin, OriginOptions, Role};
use crate::bench::preface::Preface;
use crate::bench::process::{self, Usage};
use crate::bench::subjects::asks::Asks;
use crate::bench::subjects::running::{self, Running, Workspace};
use crate::bench::subjects::size::Size;
use crate::bench::subjects::{Kind, Subject};
use crate::bench::watch::Watch;
use crate::net::options::{Leg, OptionName, OptionPlan, SocketOptions};

/// Between samples of `TCP_INFO`.
const SAMPLE: Duration = Duration::from_millis(50);

/// The same in runs of more than a few seconds.
const SAMPLE_LONG: Duration = Duration::from_millis(100);

/// Exchanges under way beside the bulk flows, and their bytes: enough of them for a
/// 99th percentile in a second, few enough not to be the load.
const EXCHANGES: usize = 16;
const EXCHANGE_SIZE: usize = 64;

/// Every connection of a run stands within this, or the run has failed.
const CONNECT: Duration = Duration::from_secs(5);

/// What every run of a search has in common.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Terms {
    /// Which way the bulk goes.
    #[serde(serialize_with = "direction_name")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub direction: Direction,
    /// Bulk flows at a time.
    pub flows: usize,
    /// What is wanted.
    pub objective: Objective,
    /// Whether the far end's sockets get a candidate's options too, where it is ours.
    pub both_ends: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn direction_name<S: serde::Serializer>(it: &Direction, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(name_of(*it))
}

/// As on the command line.
pub fn name_of(direction: Direction) -> &'static str {
    match direction {
        Direction::Up => "up",
        Direction::Down => "down",
        Direction::Both => "both",
    }
}

/// How long a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Timing {
    /// Not measured: connections grow. Seconds in JSON.
    #[serde(rename = "warm_up_seconds", serialize_with = "super::seconds")]
    #[cfg_attr(test, schemars(with = "f64"))]
    pub warm_up: Duration,
    /// Measured.
    #[serde(rename = "duration_seconds", serialize_with = "super::seconds")]
    #[cfg_attr(test, schemars(with = "f64"))]
    pub duration: Duration,
}

impl Timing {
    /// The least that says anything at this round trip time: a slow start to the
    /// size of any ordinary path takes ten of them.
    pub fn least(rtt: Duration, objective: &Objective) -> Self {
        let (rounds, least) = if objective.needs_latency() {
            (30, Duration::from_millis(400))
        } else {
            (15, Duration::from_millis(250))
        };
        let most = Duration::from_secs(4);
        Self {
            warm_up: (rtt * 10).clamp(Duration::from_millis(80), most),
            duration: (rtt * rounds).clamp(least, most),
        }
    }

    /// The same on a path that loses: after the first losses the congestion window
    /// takes tens of round trips to become what it will be, and then swings.
    pub fn lossy(rtt: Duration, objective: &Objective) -> Self {
        let least = Self::least(rtt, objective);
        Self {
            warm_up: (rtt * 25).clamp(least.warm_up, least.warm_up * 4),
            duration: least.duration * 2,
        }
    }

    /// What a run takes in all, with connecting and cleaning up.
    pub fn whole(&self, rtt: Duration, through: Through) -> Duration {
        let forwarder = match through {
            Through::Nothing => Duration::ZERO,
            Through::Forwarder => Duration::from_millis(150) + rtt * 12,
        };
        self.warm_up + self.duration + rtt * 3 + Duration::from_millis(30) + forwarder
    }
}

/// What is between the load and the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Through {
    /// Nothing: the options are on the sockets of the measurement itself.
    Nothing,
    /// A thalweg, which has them on its legs.
    Forwarder,
}

/// A candidate, compiled.
#[derive(Debug, Clone)]
pub struct Contender {
    /// It.
    pub candidate: Candidate,
    /// Its socket options.
    pub options: SocketOptions,
    /// What the kernel makes of them otherwise than asked, a sentence each.
    pub granted: Vec<String>,
    /// Those of them that it refuses outright; a buffer is only cut.
    pub refused: Vec<String>,
    near: OptionPlan,
    far: OptionPlan,
}

impl Contender {
    /// Compiles it, and asks the kernel what it grants.
    ///
    /// # Errors
    /// What a configuration has against it.
    pub fn new(candidate: Candidate) -> Result<Self, String> {
        let options = candidate.options()?;
        let shortfalls = options.granted(Leg::Upstream);
        let cut = [OptionName::SendBuffer, OptionName::ReceiveBuffer];
        let refused = shortfalls.iter().filter(|it| !cut.contains(&it.option));
        Ok(Self {
            near: options.plan(Leg::Upstream),
            far: options.plan(Leg::Client),
            granted: shortfalls.iter().map(ToString::to_string).collect(),
            refused: refused.map(ToString::to_string).collect(),
            candidate,
            options,
        })
    }
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Run {
    /// By which it is judged.
    pub figures: Figures,
    /// From the beginning of the warm-up on.
    pub samples: Vec<Sample>,
    /// The measured time, as the samples count.
    pub window: (Duration, Duration),
    /// Share of a core that the busiest thread of the measurement used.
    pub busiest_thread: f64,
    /// Share of all CPUs that was in use, by anybody.
    pub machine: f64,
    /// Congestion control of the first near socket, as it really was.
    pub congestion: Option<String>,
}

/// Why there is no run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoRun {
    /// The user wants it to end.
    Interrupted,
    /// It could not be measured.
    Failed(String),
}

impl From<String> for NoRun {
    fn from(error: String) -> Self {
        Self::Failed(error)
    }
}

/// Where runs take place.
#[derive(Debug)]
pub struct Ground<'a> {
    /// Where the origin is.
    pub venue: &'a Venue,
    /// What all runs share.
    pub terms: &'a Terms,
    /// What is between.
    pub through: Through,
    /// For files of forwarders, which need one.
    pub workspace: Option<&'a Workspace>,
    /// CPUs of this process.
    pub cpus: &'a [usize],
    /// Ends it early.
    pub interrupt: &'a Interrupt,
    /// When everything is over: no connection is waited for beyond it.
    pub deadline: Instant,
}

/// Everything that is counted, at one instant.
struct Snapshot {
    at: Instant,
    up: u64,
    down: u64,
    threads: Vec<Usage>,
    forwarder: Usage,
    busy_ns: u64,
}

/// A run in progress. Fields are dropped in this order: the forwarder before the
/// origin that it is connected to.
struct Traffic<'a> {
    ground: &'a Ground<'a>,
    load: Load,
    near: Arc<Watch>,
    far: Option<Arc<Watch>>,
    forwarder: Option<Running>,
    origin: Option<Origin>,
}

impl Ground<'_> {
    /// Measures `contender` once.
    ///
    /// # Errors
    /// Why there is no figure. By then everything of this run has ended.
    pub fn run(&self, contender: &Contender, timing: Timing) -> Result<Run, NoRun> {
        let traffic = self.start(contender)?;
        let run = traffic.measure(timing)?;
        // A figure of another congestion control than its name says would be a lie.
        match (&contender.options.congestion, &run.congestion) {
            (Some(asked), Some(real)) if asked != real && self.through == Through::Nothing => {
                Err(NoRun::Failed(format!(
                    "congestion control {asked} was asked for, {real} was in force"
                )))
            }
            _ => Ok(run),
        }
    }

    fn threads(&self) -> usize {
        self.terms.flows.min(self.cpus.len() / 2).max(1)
    }

    fn shape(&self) -> Shape {
        let exchange = self.terms.objective.needs_latency().then_some(Exchange {
            connection: ConnectionLife::Kept,
            size: EXCHANGE_SIZE,
            flows: EXCHANGES,
            rate: None,
            answer: Answer::Whole,
            over: Over::Connection,
        });
        Shape {
            name: "tune".to_owned(),
            bulk: Some(Bulk {
                direction: self.terms.direction,
                flows: self.terms.flows,
            }),
            exchange,
            idle: 0,
            burst: None,
            stream: None,
        }
    }

    fn start(&self, contender: &Contender) -> Result<Traffic<'_>, NoRun> {
        let direct = self.through == Through::Nothing;
        let both = direct && self.terms.both_ends;
        let watch = || Arc::new(Watch::new(self.terms.flows + EXCHANGES));
        let (near, far) = (watch(), watch());
        let origin = self.venue.origin(&OriginOptions {
            threads: self.threads(),
            congestion: contender.options.congestion.clone().filter(|_| both),
            options: both.then(|| contender.far.clone()),
            watch: Some(Arc::clone(&far)),
            ..OriginOptions::default()
        })?;
        let upstream = match &origin {
            Some(origin) => origin
                .address(Role::Command)
                .ok_or_else(|| "the origin has no command port".to_owned())?,
            None => self.venue.address(),
        };
        let forwarder = match self.through {
            Through::Nothing => None,
            Through::Forwarder => Some(self.forwarder(&contender.candidate, upstream)?),
        };
        let shape = self.shape();
        let load = Load::start(LoadPlan {
            target: forwarder.as_ref().map_or(upstream, |it| it.address),
            threads: self.threads(),
            exchanges_apart: None,
            shape,
            preface: Preface::Nothing,
            cpus: Vec::new(),
            congestion: contender.options.congestion.clone().filter(|_| direct),
            options: direct.then(|| contender.near.clone()),
            watch: Some(Arc::clone(&near)),
            compare_one_in: None,
            patience: Duration::ZERO,
            traffic: None,
            answer_timeout: ANSWER_TIMEOUT,
            connect_timeout: self
                .deadline
                .saturating_duration_since(Instant::now())
                .clamp(CONNECT / 20, CONNECT),
        })?;
        Ok(Traffic {
            ground: self,
            load,
            near,
            far: origin.is_some().then_some(far),
            forwarder,
            origin,
        })
    }

    fn forwarder(&self, candidate: &Candidate, upstream: SocketAddr) -> Result<Running, NoRun> {
        let workspace = self
            .workspace
            .ok_or_else(|| "a forwarder needs a directory for its files".to_owned())?;
        let subject = Subject {
            size: Size::default(),
            asks: Asks::default(),
            name: "forwarder".to_owned(),
            kind: Kind::Thalweg {
                program: None,
                engine: None,
                data_path: None,
                connect: false,
                set: candidate.overrides(self.venue.legs()),
            },
        };
        let stage = running::Stage {
            upstream,
            workers: 1,
            sessions: self.terms.flows + EXCHANGES + 16,
            datagrams: false,
            workspace,
            interrupt: self.interrupt,
        };
        Running::start(&subject, stage).map_err(|error| {
            if self.interrupt.is_raised() {
                NoRun::Interrupted
            } else {
                NoRun::Failed(error)
            }
        })
    }
}

impl Traffic<'_> {
    fn measure(self, timing: Timing) -> Result<Run, NoRun> {
        let start = Instant::now();
        let window = self.load.go(timing.warm_up, timing.duration);
        let pause = if timing.duration > Duration::from_secs(3) {
            SAMPLE_LONG
        } else {
            SAMPLE
        };
        let mut samples = Vec::new();
        self.watch_until(window.begin, start, pause, &mut samples)?;
        let begin = self.snapshot();
        self.watch_until(window.end, start, pause, &mut samples)?;
        let end = self.snapshot();
        let congestion = self.near.congestion();
        let Traffic {
            ground,
            load,
            near,
            far,
            forwarder,
            origin,
        } = self;
        near.end(true);
        let result = load.cut();
        if let Some(far) = far {
            far.end(true);
        }
        drop(forwarder);
        drop(origin);
        if result.errors > 0 {
            let first = result.first_error.unwrap_or_default();
            return Err(NoRun::Failed(format!(
                "{} connections failed, the first: {first}",
                result.errors
            )));
        }
        let seconds = end.at.duration_since(begin.at).as_secs_f64().max(1e-9);
        let latency = &result.latency;
        let p99 = (!latency.is_empty()).then(|| latency.value_at_quantile(0.99) as f64);
        Ok(Run {
            figures: figures(&begin, &end, seconds, p99),
            samples,
            window: (begin.at - start, end.at - start),
            busiest_thread: busiest(&begin, &end, seconds),
            machine: end.busy_ns.saturating_sub(begin.busy_ns) as f64
                / 1e9
                / seconds
                / ground.cpus.len().max(1) as f64,
            congestion,
        })
    }

    /// Samples until `until`.
    fn watch_until(
        &self,
        until: Instant,
        start: Instant,
        pause: Duration,
        samples: &mut Vec<Sample>,
    ) -> Result<(), NoRun> {
        loop {
            let now = Instant::now();
            samples.push(Sample {
                at: now - start,
                near: self.near.read(),
                far: self.far.as_ref().map(|it| it.read()).unwrap_or_default(),
            });
            if now >= until {
                return Ok(());
            }
            // The last sample of each part is at its end.
            if self.ground.interrupt.wait_until(until.min(now + pause)) {
                return Err(NoRun::Interrupted);
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let counters = self.load.counters();
        let mut ids = self.load.thread_ids().to_vec();
        if let Some(origin) = &self.origin {
            ids.extend(origin.thread_ids());
        }
        let forwarder = self.forwarder.as_ref().and_then(Running::process);
        Snapshot {
            at: Instant::now(),
            up: match &self.origin {
                Some(origin) => origin.counters().received.load(Relaxed),
                // What the far end's kernel has acknowledged has arrived there.
                None => self.near.read().iter().map(|info| info.bytes_acked).sum(),
            },
            down: counters.received.into_inner(),
            threads: ids
                .iter()
                .map(|id| process::usage_of_threads(&[*id]))
                .collect(),
            forwarder: forwarder.map(process::usage_of_tree).unwrap_or_default(),
            busy_ns: process::busy_ns(self.ground.cpus),
        }
    }
}

fn used(begin: &Snapshot, end: &Snapshot) -> impl Iterator<Item = u64> {
    let threads = begin.threads.iter().zip(&end.threads);
    let forwarder = end.forwarder.since(begin.forwarder).cpu_ns;
    let threads: Vec<u64> = threads.map(|(a, b)| b.since(*a).cpu_ns).collect();
    threads.into_iter().chain([forwarder])
}

fn figures(begin: &Snapshot, end: &Snapshot, seconds: f64, p99: Option<f64>) -> Figures {
    let up = end.up.saturating_sub(begin.up);
    let down = end.down.saturating_sub(begin.down);
    let bytes = (up + down) as f64;
    let cpu: u64 = used(begin, end).sum();
    Figures {
        throughput: bytes / seconds,
        p99,
        cpu: cpu as f64 / bytes.max(1.0),
    }
}

fn busiest(begin: &Snapshot, end: &Snapshot, seconds: f64) -> f64 {
    let most = used(begin, end).max().unwrap_or(0);
    most as f64 / 1e9 / seconds
}
