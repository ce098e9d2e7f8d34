//! Verdicts on constructed samples.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use super::*;
use crate::net::tcp_info::State;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

fn info() -> TcpInfo {
    TcpInfo {
        state: State::Established,
        rtt: MILLISECOND * 41,
        rtt_variance: MILLISECOND,
        min_rtt: Some(MILLISECOND * 40),
        rto: MILLISECOND * 240,
        retransmits: 0,
        lost: 0,
        unacked: 0,
        sacked: 0,
        // 66 608 bytes, where 65 600 are under way.
        cwnd: 46,
        send_mss: 1_448,
        receive_mss: 1_448,
        path_mtu: 1_500,
        reordering: 3,
        delivery_rate: 1_600_000,
        delivery_rate_app_limited: false,
        pacing_rate: None,
        bytes_acked: 0,
        bytes_received: 0,
        bytes_sent: 0,
        bytes_retransmitted: 0,
        notsent_bytes: 0,
        send_window: 4 << 20,
        busy: Duration::ZERO,
        window_limited: Duration::ZERO,
        send_buffer_limited: Duration::ZERO,
        since_last_ack: Duration::ZERO,
        since_last_data: Duration::ZERO,
    }
}

/// Ten samples over a second in which `each` says how the flow stands.
fn samples(each: impl Fn(u32, &mut TcpInfo)) -> Vec<Sample> {
    (0..=10)
        .map(|step| {
            let mut one = info();
            one.busy = SECOND * step / 10;
            one.bytes_sent = u64::from(step) * 160_000;
            each(step, &mut one);
            Sample {
                at: SECOND * step / 10,
                near: vec![one],
                far: Vec::new(),
            }
        })
        .collect()
}

fn evidence(samples: &[Sample]) -> Evidence<'_> {
    Evidence {
        samples,
        sender: Sender::Near,
        window: (Duration::ZERO, SECOND),
        throughput: 1.6e6,
        flows: 1,
        loopback: false,
        loss_based: true,
        busiest_thread: 0.2,
        machine: 0.3,
        receive_buffer: None,
        send_buffer: None,
        pacing: None,
        path_rate: None,
        bounds: Bounds {
            tcp_rmem: 6 << 20,
            tcp_wmem: 4 << 20,
        },
    }
}

#[test]
fn a_small_receive_buffer_is_found_and_named() {
    let samples = samples(|step, info| {
        info.window_limited = SECOND * step / 11;
        info.send_window = 65_536;
    });
    let mut evidence = evidence(&samples);
    evidence.receive_buffer = Some(65_536);
    let diagnosis = diagnose(&evidence);
    assert_eq!(diagnosis.limit, Limit::ReceiverWindow);
    assert!(
        diagnosis
            .finding
            .contains("64.0 KiB each 40.0 ms is 13.1 Mb/s"),
        "{diagnosis:?}"
    );
    let remedy = diagnosis.remedy.unwrap();
    assert!(
        remedy.contains("leave it out") && remedy.contains("tcp_rmem"),
        "{remedy}"
    );
    // A busy machine does not hide what the window explains by itself.
    evidence.machine = 1.0;
    evidence.busiest_thread = 1.0;
    assert_eq!(diagnose(&evidence).limit, Limit::ReceiverWindow);
    // A paced sender waits for less of the time.
    let paced = self::samples(|step, info| {
        info.window_limited = SECOND * step / 30;
        info.send_window = 65_536;
    });
    let paced = Evidence {
        samples: &paced,
        ..evidence.clone()
    };
    assert_eq!(diagnose(&paced).limit, Limit::ReceiverWindow);
    // Without the setting it is the kernel's bound that is raised.
    evidence.receive_buffer = None;
    let remedy = diagnose(&evidence).remedy.unwrap();
    assert!(remedy.contains("the kernel tunes it"), "{remedy}");
    evidence.bounds.tcp_rmem = 131_072;
    let remedy = diagnose(&evidence).remedy.unwrap();
    assert!(
        remedy.contains("third number of net.ipv4.tcp_rmem"),
        "{remedy}"
    );
}

#[test]
fn a_receiver_that_cannot_keep_up_is_a_matter_of_cpu() {
    // The window is closed most of the time, but it could carry far more.
    let samples = samples(|step, info| info.window_limited = SECOND * step / 11);
    let mut evidence = evidence(&samples);
    evidence.busiest_thread = 0.99;
    assert_eq!(diagnose(&evidence).limit, Limit::Cpu);
    // With CPU to spare it is the receiver itself.
    evidence.busiest_thread = 0.3;
    assert_eq!(diagnose(&evidence).limit, Limit::Receiver);
}

#[test]
fn a_machine_that_others_keep_busy_is_not_the_limit_of_an_idle_transfer() {
    let samples = samples(|_, _| {});
    let mut evidence = evidence(&samples);
    evidence.machine = 1.0;
    assert_eq!(diagnose(&evidence).limit, Limit::CongestionWindow);
    evidence.busiest_thread = 0.5;
    assert_eq!(diagnose(&evidence).limit, Limit::Cpu);
}

#[test]
fn on_loopback_there_is_no_path_to_be_full() {
    let samples = samples(|_, info| info.rtt = MILLISECOND * 90);
    let mut evidence = evidence(&samples);
    assert_eq!(diagnose(&evidence).limit, Limit::Path);
    evidence.loopback = true;
    let diagnosis = diagnose(&evidence);
    assert_eq!(diagnosis.limit, Limit::Cpu);
    assert!(diagnosis.finding.contains("on loopback"), "{diagnosis:?}");
    // There a transfer that gets little of a full machine wants more.
    let starved = self::samples(|step, info| info.busy = SECOND * step / 50);
    let mut evidence = self::evidence(&starved);
    (evidence.loopback, evidence.machine) = (true, 1.0);
    assert_eq!(diagnose(&evidence).limit, Limit::Cpu);
}

#[test]
fn a_small_send_buffer_is_found() {
    let samples = samples(|step, info| info.send_buffer_limited = SECOND * step / 12);
    let mut evidence = evidence(&samples);
    evidence.send_buffer = Some(32_768);
    let diagnosis = diagnose(&evidence);
    assert_eq!(diagnosis.limit, Limit::SendBuffer);
    assert!(
        diagnosis
            .remedy
            .unwrap()
            .contains("`send_buffer` is set to 32.0 KiB")
    );
    // 1.6 MB/s over 40 ms.
    assert_eq!(diagnosis.bandwidth_delay, 64_000);
}

#[test]
fn losses_a_full_path_and_a_growing_window_are_told_apart() {
    let lossy = samples(|step, info| info.bytes_retransmitted = u64::from(step) * 300);
    let diagnosis = diagnose(&evidence(&lossy));
    assert_eq!(diagnosis.limit, Limit::Losses);
    assert!(diagnosis.remedy.unwrap().contains("bbr"));
    // One that does not heed losses is not held back by them.
    let unimpressed = Evidence {
        loss_based: false,
        ..evidence(&lossy)
    };
    assert_eq!(diagnose(&unimpressed).limit, Limit::CongestionWindow);
    let queued = samples(|step, info| {
        info.rtt = MILLISECOND * 90;
        info.bytes_retransmitted = u64::from(step) * 300;
    });
    let diagnosis = diagnose(&evidence(&queued));
    assert_eq!(diagnosis.limit, Limit::Path);
    assert!(diagnosis.remedy.is_none());
    let growing = samples(|_, _| {});
    assert_eq!(diagnose(&evidence(&growing)).limit, Limit::CongestionWindow);
}

#[test]
fn under_bbr_a_full_path_is_the_path() {
    // Twice what is under way, no queue, no losses: bbr at the rate of the path.
    let paced = samples(|_, info| info.cwnd = 92);
    let bbr = Evidence {
        loss_based: false,
        ..evidence(&paced)
    };
    let diagnosis = diagnose(&bbr);
    assert_eq!(diagnosis.limit, Limit::Path);
    assert!(diagnosis.finding.contains("paced"), "{diagnosis:?}");
    assert_eq!((diagnosis.remedy, diagnosis.remedy_option), (None, None));

    // A rate that is the path's is the path, whatever the windows.
    let samples = samples(|_, _| {});
    let known = |rate| Evidence {
        path_rate: Some(rate),
        loss_based: false,
        ..evidence(&samples)
    };
    let diagnosis = diagnose(&known(1.7e6));
    assert_eq!(diagnosis.limit, Limit::Path);
    assert!(
        diagnosis.finding.contains("12.8 Mb/s of its 13.6 Mb/s"),
        "{diagnosis:?}"
    );
    // A path that carries more than the congestion control lets through is not full.
    let diagnosis = diagnose(&known(8e6));
    assert_eq!(diagnosis.limit, Limit::CongestionWindow);
    assert_eq!(diagnosis.remedy_option, Some("congestion"));
    let slow = Evidence {
        path_rate: Some(8e6),
        ..bbr
    };
    let diagnosis = diagnose(&slow);
    assert_eq!(diagnosis.limit, Limit::CongestionWindow);
    assert!(diagnosis.finding.contains("paces below"), "{diagnosis:?}");
}

#[test]
fn a_pacing_rate_of_the_settings_is_named() {
    let samples = samples(|_, info| info.cwnd = 92);
    let mut evidence = evidence(&samples);
    evidence.pacing = Some(1_650_000);
    let diagnosis = diagnose(&evidence);
    assert_eq!(diagnosis.limit, Limit::Pacing);
    assert!(diagnosis.finding.contains("13.2 Mb/s"), "{diagnosis:?}");
    evidence.pacing = Some(16_000_000);
    assert_eq!(diagnose(&evidence).limit, Limit::Path);
}

#[test]
fn nothing_to_send_is_the_application() {
    let samples = samples(|step, info| info.busy = SECOND * step / 50);
    let diagnosis = diagnose(&evidence(&samples));
    assert_eq!(diagnosis.limit, Limit::Application);
    assert!((diagnosis.shares.application - 0.8).abs() < 0.01);
}

#[test]
fn idle_flows_beside_the_load_do_not_blur_it() {
    let mut samples = samples(|step, info| {
        info.window_limited = SECOND * step / 11;
        info.send_window = 65_536;
    });
    for sample in &mut samples {
        sample.near.push(info());
    }
    assert_eq!(diagnose(&evidence(&samples)).limit, Limit::ReceiverWindow);
}

#[test]
fn a_sender_elsewhere_is_unknown_and_says_what_to_do() {
    let samples = samples(|_, _| {});
    let mut evidence = evidence(&samples);
    evidence.sender = Sender::Far;
    let diagnosis = diagnose(&evidence);
    assert_eq!(diagnosis.limit, Limit::Unknown);
    assert!(diagnosis.remedy.unwrap().contains("--direction up"));
    // What the receiver fixed itself it can tell.
    evidence.receive_buffer = Some(65_536);
    let diagnosis = diagnose(&evidence);
    assert_eq!(diagnosis.limit, Limit::ReceiverWindow);
    assert!(
        diagnosis.finding.contains("64.0 KiB each 40.0 ms"),
        "{diagnosis:?}"
    );
    evidence.receive_buffer = Some(4 << 20);
    assert_eq!(diagnose(&evidence).limit, Limit::Unknown);
    assert_eq!(
        diagnose(&Evidence {
            samples: &[],
            ..evidence
        })
        .limit,
        Limit::Unknown
    );
}
