//! What holds a path back, from samples of `TCP_INFO`: a pure function.
//!
//! The kernel divides a sender's time into four: nothing to send, stopped by the
//! peer's receive window, stopped by its own send buffer, and the rest, in which the
//! congestion window, pacing, losses or the path itself set the pace. The longest
//! wins, with exceptions, because a machine that cannot keep up shows as any of them:
//! a thread of the measurement that used nearly all of a core is the limit, unless the
//! window explains the rate by itself (window / shortest rtt is what was carried); a window
//! that was waited for and could carry far more says that the receiver reads too
//! slowly; on loopback there is no path that could be full; and a congestion window that is
//! well above what was under way held nothing back: then the sender was paced, by a
//! `max_pacing_rate` of the settings, or, as bbr does, at the rate that the path delivers.
//! A rate that is the path's own is the path, whatever the windows say.

mod words;

use std::time::Duration;

use serde::Serialize;

use crate::net::tcp_info::TcpInfo;

/// A thread that used this much of a core had no time left.
const CORE_FULL: f64 = 0.92;

/// The machine as a whole had none left.
const MACHINE_FULL: f64 = 0.97;

/// A full machine is the limit of a thread that used this much; one that used less
/// had little to do, unless it is on loopback, where there is always more to do.
const CORE_CONTENDED: f64 = 0.4;

/// The window explains the rate when window / shortest rtt comes within this factor of
/// it. By the rtt as it is, any window that was waited for would (Little's law).
const EXPLAINS: f64 = 1.35;

/// From this share of the time on, waiting for a window that explains the rate is no
/// accident. Less than half, because a paced sender (bbr) spreads what the window
/// lets it send over the round trip, and that time counts as the network's: with
/// 64 KiB over 40 ms it waits for a third of the time (measured).
const WAITED: f64 = 0.1;

/// Flows that moved less than this share of the busiest one are not the load.
const IDLE_SHARE: f64 = 0.1;

/// More retransmitted than this is a path that loses.
const LOSSY: f64 = 0.0005;

/// A congestion window so many times what is under way holds nothing back (bbr keeps it
/// at twice that).
const SPARE: f64 = 1.35;

/// This share of what a path or a pacing rate lets through is all of it: headers, and
/// what a short measurement misses at its ends, are the rest.
const FILLED: f64 = 0.9;

/// A round trip so much longer than the shortest has a queue in it.
const QUEUED: f64 = 1.5;

/// Both ends at one moment.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Since the traffic began.
    pub at: Duration,
    /// Of this process's sockets, bulk flows only.
    pub near: Vec<TcpInfo>,
    /// Of the origin's, where it is ours.
    pub far: Vec<TcpInfo>,
}

/// Whose samples tell about the sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// This process's sockets.
    Near,
    /// The origin's, where it is ours.
    Far,
}

/// The kernel's bounds, which a remedy names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Bounds {
    /// Third number of `net.ipv4.tcp_rmem`: the most that autotuning gives.
    pub tcp_rmem: u64,
    /// Third number of `net.ipv4.tcp_wmem`.
    pub tcp_wmem: u64,
}

/// What a diagnosis is made from.
#[derive(Debug, Clone)]
pub struct Evidence<'a> {
    /// Over the whole run.
    pub samples: &'a [Sample],
    /// Who sends.
    pub sender: Sender,
    /// The measured time, as [`Sample::at`] counts.
    pub window: (Duration, Duration),
    /// Bytes a second over all flows.
    pub throughput: f64,
    /// Flows at a time.
    pub flows: usize,
    /// Whether both ends are on this machine with nothing between.
    pub loopback: bool,
    /// Whether the congestion control takes losses for congestion, as cubic and reno
    /// do and bbr does not.
    pub loss_based: bool,
    /// Share of a core that the busiest thread of the measurement used.
    pub busiest_thread: f64,
    /// Share of all CPUs that was in use, by anybody.
    pub machine: f64,
    /// `receive_buffer` of these settings, as granted; `None`: autotuning.
    pub receive_buffer: Option<u64>,
    /// `send_buffer` of these settings, as granted.
    pub send_buffer: Option<u64>,
    /// `max_pacing_rate` of these settings, bytes a second for each flow.
    pub pacing: Option<u64>,
    /// What the path carries, bytes a second of IP packets, where that is known.
    pub path_rate: Option<f64>,
    /// See there.
    pub bounds: Bounds,
}

/// What holds a path back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The receiver's window.
    ReceiverWindow,
    /// The sender's buffer.
    SendBuffer,
    /// The congestion window, cut by losses.
    Losses,
    /// The path is full: a queue stands at its bottleneck, or the sender is paced at what it
    /// delivers, or its rate is known.
    Path,
    /// `max_pacing_rate` of the settings.
    Pacing,
    /// The congestion window, or what else the congestion control allows, without losses and
    /// without a queue.
    CongestionWindow,
    /// There was nothing to send.
    Application,
    /// The receiver read too slowly.
    Receiver,
    /// This machine's CPU.
    Cpu,
    /// The sender is not here.
    Unknown,
}

impl Limit {
    /// As tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReceiverWindow => "receiver window",
            Self::SendBuffer => "send buffer",
            Self::Losses => "losses",
            Self::Path => "the path",
            Self::Pacing => "max_pacing_rate",
            Self::CongestionWindow => "congestion window",
            Self::Application => "the application",
            Self::Receiver => "receiving application",
            Self::Cpu => "this machine's CPU",
            Self::Unknown => "unknown",
        }
    }
}

/// Shares of the senders' time, 0 to 1, together 1.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Shares {
    /// Nothing to send.
    pub application: f64,
    /// Stopped by the peer's window.
    pub receiver_window: f64,
    /// Stopped by the own send buffer.
    pub send_buffer: f64,
    /// Everything else.
    pub network: f64,
}

/// The verdict, with what it was made from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Diagnosis {
    /// What it is.
    pub limit: Limit,
    /// Of the senders' time.
    #[serde(rename = "sender_time_shares")]
    pub shares: Shares,
    /// The shortest round trip seen, seconds in JSON.
    #[serde(rename = "rtt_min_seconds", serialize_with = "super::seconds")]
    #[cfg_attr(test, schemars(with = "f64"))]
    pub rtt_min: Duration,
    /// The middle of the smoothed ones, likewise.
    #[serde(rename = "rtt_seconds", serialize_with = "super::seconds")]
    #[cfg_attr(test, schemars(with = "f64"))]
    pub rtt: Duration,
    /// Share of the bytes sent that were sent again.
    #[serde(rename = "retransmitted_share")]
    pub retransmitted: f64,
    /// The peer's window, middle over samples and flows, bytes.
    #[serde(rename = "peer_window_bytes")]
    pub window: u64,
    /// The congestion window, middle, bytes.
    #[serde(rename = "congestion_window_bytes")]
    pub congestion_window: u64,
    /// Segment size, bytes.
    #[serde(rename = "mss_bytes")]
    pub mss: u32,
    /// Bytes a second for each flow.
    #[serde(rename = "flow_bytes_per_second")]
    pub rate: f64,
    /// Bytes that one flow must have under way for that rate: rate × shortest rtt.
    #[serde(rename = "bandwidth_delay_bytes")]
    pub bandwidth_delay: u64,
    /// Share of a core that the busiest thread used.
    #[serde(rename = "busiest_thread_share")]
    pub busiest_thread: f64,
    /// Share of all CPUs in use.
    #[serde(rename = "machine_cpu_share")]
    pub machine: f64,
    /// In words.
    pub finding: String,
    /// What would lift it, where something would.
    pub remedy: Option<String>,
    /// The option of a profile that the remedy names, if a search over it could tell.
    pub remedy_option: Option<&'static str>,
}

/// One flow over the measured time.
struct Flow {
    begin: TcpInfo,
    end: TcpInfo,
}

impl Flow {
    fn sent(&self) -> u64 {
        self.end.bytes_sent.saturating_sub(self.begin.bytes_sent)
    }
}

/// Says what held the transfer back.
pub fn diagnose(evidence: &Evidence<'_>) -> Diagnosis {
    let of = |sample: &Sample| match evidence.sender {
        Sender::Near => sample.near.clone(),
        Sender::Far => sample.far.clone(),
    };
    let inside: Vec<(Duration, Vec<TcpInfo>)> = evidence
        .samples
        .iter()
        .filter(|sample| (evidence.window.0..=evidence.window.1).contains(&sample.at))
        .map(|sample| (sample.at, of(sample)))
        .collect();
    let mut diagnosis = Diagnosis {
        limit: Limit::Unknown,
        shares: Shares::default(),
        rtt_min: Duration::ZERO,
        rtt: Duration::ZERO,
        retransmitted: 0.0,
        window: 0,
        congestion_window: 0,
        mss: 0,
        rate: evidence.throughput / evidence.flows.max(1) as f64,
        bandwidth_delay: 0,
        busiest_thread: evidence.busiest_thread,
        machine: evidence.machine,
        finding: String::new(),
        remedy: None,
        remedy_option: None,
    };
    if let (Some(first), Some(last)) = (inside.first(), inside.last())
        && last.0 > first.0
        && !first.1.is_empty()
    {
        fill(&mut diagnosis, &inside);
        diagnosis.limit = limit(&diagnosis, evidence);
    } else if evidence.sender == Sender::Far {
        from_the_receiver(&mut diagnosis, evidence);
    }
    let (finding, remedy) = words::explain(&diagnosis, evidence);
    diagnosis.finding = finding;
    diagnosis.remedy = remedy;
    diagnosis.remedy_option = match diagnosis.limit {
        Limit::Losses | Limit::CongestionWindow => Some("congestion"),
        _ => None,
    };
    diagnosis
}

fn fill(diagnosis: &mut Diagnosis, inside: &[(Duration, Vec<TcpInfo>)]) {
    let (first, last) = (&inside[0], &inside[inside.len() - 1]);
    let elapsed = last.0.saturating_sub(first.0).as_secs_f64();
    let flows: Vec<(usize, Flow)> = first
        .1
        .iter()
        .zip(&last.1)
        .map(|(begin, end)| Flow {
            begin: *begin,
            end: *end,
        })
        .enumerate()
        .collect();
    let busiest = flows.iter().map(|(_, flow)| flow.sent()).max().unwrap_or(0);
    let busy: Vec<&(usize, Flow)> = flows
        .iter()
        .filter(|(_, flow)| flow.sent() as f64 >= busiest as f64 * IDLE_SHARE)
        .collect();
    let count = busy.len().max(1) as f64;
    let share = |of: fn(&TcpInfo) -> Duration| {
        let sum: f64 = busy
            .iter()
            .map(|(_, flow)| of(&flow.end).saturating_sub(of(&flow.begin)).as_secs_f64())
            .sum();
        (sum / count / elapsed).clamp(0.0, 1.0)
    };
    let busy_share = share(|info| info.busy);
    let receiver_window = share(|info| info.window_limited);
    let send_buffer = share(|info| info.send_buffer_limited);
    diagnosis.shares = Shares {
        application: 1.0 - busy_share,
        receiver_window,
        send_buffer,
        network: (busy_share - receiver_window - send_buffer).max(0.0),
    };
    let total = |of: fn(&TcpInfo) -> u64| -> u64 {
        let each = busy.iter();
        each.map(|(_, flow)| of(&flow.end).saturating_sub(of(&flow.begin)))
            .sum()
    };
    let again = total(|info| info.bytes_retransmitted) as f64;
    diagnosis.retransmitted = again / (total(|info| info.bytes_sent) as f64).max(1.0);

    let infos = || {
        inside.iter().flat_map(|(_, infos)| {
            let seen = busy.iter().filter_map(|(index, _)| infos.get(*index));
            seen.collect::<Vec<_>>()
        })
    };
    let rtt_min = infos().filter_map(|info| info.min_rtt).min();
    diagnosis.rtt = Duration::from_micros(middle(infos().map(|info| info.rtt.as_micros() as u64)));
    diagnosis.rtt_min = rtt_min.unwrap_or(diagnosis.rtt);
    diagnosis.window = middle(infos().map(|info| u64::from(info.send_window)));
    diagnosis.congestion_window =
        middle(infos().map(|info| u64::from(info.cwnd) * u64::from(info.send_mss)));
    diagnosis.mss = middle(infos().map(|info| u64::from(info.send_mss))) as u32;
    diagnosis.bandwidth_delay = (diagnosis.rate * diagnosis.rtt_min.as_secs_f64()) as u64;
}

/// Where only the receiver is here: it knows the round trip time, and whether a
/// window that it fixed itself is all that was carried in one.
fn from_the_receiver(diagnosis: &mut Diagnosis, evidence: &Evidence<'_>) {
    let near = || evidence.samples.iter().flat_map(|sample| &sample.near);
    let Some(rtt) = near().filter_map(|info| info.min_rtt).min() else {
        return;
    };
    diagnosis.rtt_min = rtt;
    diagnosis.rtt = rtt;
    diagnosis.mss = near().map(|info| info.receive_mss).max().unwrap_or(0);
    diagnosis.bandwidth_delay = (diagnosis.rate * rtt.as_secs_f64()) as u64;
    diagnosis.window = evidence.receive_buffer.unwrap_or(0);
    if diagnosis.window_explains() {
        diagnosis.limit = Limit::ReceiverWindow;
    }
}

fn limit(this: &Diagnosis, evidence: &Evidence<'_>) -> Limit {
    let loopback = evidence.loopback;
    let loses = this.retransmitted >= LOSSY && evidence.loss_based;
    let shares = this.shares;
    let longest = [
        (shares.receiver_window, Limit::ReceiverWindow),
        (shares.send_buffer, Limit::SendBuffer),
        (shares.network, Limit::CongestionWindow),
        (shares.application, Limit::Application),
    ]
    .into_iter()
    .fold((0.0, Limit::Unknown), |best, share| {
        if share.0 > best.0 { share } else { best }
    })
    .1;
    if shares.receiver_window >= WAITED && this.window_explains() {
        return Limit::ReceiverWindow;
    }
    let wants_more = loopback || this.busiest_thread >= CORE_CONTENDED;
    let contended = this.machine >= MACHINE_FULL && wants_more;
    if this.busiest_thread >= CORE_FULL || contended {
        return Limit::Cpu;
    }
    match longest {
        Limit::ReceiverWindow => Limit::Receiver,
        Limit::CongestionWindow if loopback => Limit::Cpu,
        Limit::CongestionWindow if this.is_paced(evidence) => Limit::Pacing,
        Limit::CongestionWindow if evidence.fills_path() == Some(true) => Limit::Path,
        Limit::CongestionWindow if loses && !this.is_queued() => Limit::Losses,
        Limit::CongestionWindow if this.is_queued() => Limit::Path,
        // Where the path's rate is known and was not reached, the pacing is too slow.
        Limit::CongestionWindow if this.has_spare_window() && evidence.fills_path().is_none() => {
            Limit::Path
        }
        other => other,
    }
}

impl Evidence<'_> {
    /// Whether all flows together carried what the path can; `None`: nobody knows.
    fn fills_path(&self) -> Option<bool> {
        Some(self.throughput >= self.path_rate? * FILLED)
    }
}

impl Diagnosis {
    /// Whether the peer's window, once each round trip, is what was carried. The
    /// window that is left over counts, so a rate above it is explained too.
    fn window_explains(&self) -> bool {
        let ceiling = self.window as f64 / self.rtt_min.as_secs_f64().max(1e-6);
        self.window > 0 && ceiling <= self.rate * EXPLAINS
    }

    /// Whether `max_pacing_rate` is what was carried.
    fn is_paced(&self, evidence: &Evidence<'_>) -> bool {
        let pacing = evidence.pacing.map(|rate| rate as f64);
        pacing.is_some_and(|rate| self.rate >= rate * FILLED)
    }

    /// Whether the congestion window was well above what was under way.
    pub fn has_spare_window(&self) -> bool {
        let under_way = self.rate * self.rtt.as_secs_f64();
        under_way > 0.0 && self.congestion_window as f64 > under_way * SPARE
    }

    /// Whether packets wait somewhere on the way.
    pub fn is_queued(&self) -> bool {
        self.rtt.as_secs_f64() > self.rtt_min.as_secs_f64() * QUEUED
    }
}

/// The middle value; zero without any.
fn middle(values: impl Iterator<Item = u64>) -> u64 {
    let mut sorted: Vec<u64> = values.collect();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests;
