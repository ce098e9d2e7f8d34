//! A verdict in words, with the arithmetic written out and what would lift it.

use super::{Diagnosis, Evidence, Limit, Sender};
use crate::bench::units;

/// The finding, and the remedy where there is one.
pub(super) fn explain(this: &Diagnosis, evidence: &Evidence<'_>) -> (String, Option<String>) {
    match this.limit {
        Limit::ReceiverWindow => (receiver_window(this), Some(receive_buffer(this, evidence))),
        Limit::SendBuffer => (send_buffer(this), Some(send_buffer_remedy(this, evidence))),
        Limit::Losses => losses(this),
        Limit::Path => path(this, evidence),
        Limit::Pacing => pacing(this, evidence),
        Limit::CongestionWindow => congestion_window(this),
        Limit::Application => application(this),
        Limit::Receiver => receiver(this),
        Limit::Cpu => cpu(this, evidence.loopback),
        Limit::Unknown => unknown(evidence),
    }
}

fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 1.0 {
        format!("{} %", units::digits(percent))
    } else {
        format!("{percent:.0} %")
    }
}

fn rtt(time: std::time::Duration) -> String {
    units::latency(time.as_nanos() as f64)
}

/// `25.0 Mb/s × 40.0 ms = 122 KiB`.
fn product(this: &Diagnosis) -> String {
    format!(
        "bandwidth-delay product of a flow: {} × {} = {}",
        units::bit_rate(this.rate),
        rtt(this.rtt_min),
        units::size(this.bandwidth_delay as f64)
    )
}

fn receiver_window(this: &Diagnosis) -> String {
    let ceiling = this.window as f64 / this.rtt_min.as_secs_f64().max(1e-6);
    let waited = if this.shares.receiver_window > 0.0 {
        let share = percent(this.shares.receiver_window);
        format!("{share} of the time the sender waited for it; ")
    } else {
        String::new()
    };
    format!(
        "the receiver's window: {waited}{} each {} is {} at the most, {} were carried",
        units::size(this.window as f64),
        rtt(this.rtt_min),
        units::bit_rate(ceiling),
        units::bit_rate(this.rate),
    )
}

fn receive_buffer(this: &Diagnosis, evidence: &Evidence<'_>) -> String {
    let most = units::size(evidence.bounds.tcp_rmem as f64);
    match evidence.receive_buffer {
        Some(bytes) => format!(
            "`receive_buffer` is set to {}: leave it out, and the kernel tunes the window up to \
             net.ipv4.tcp_rmem ({most})",
            units::size(bytes as f64),
        ),
        None if this.window < evidence.bounds.tcp_rmem / 4 => format!(
            "the kernel tunes it, up to net.ipv4.tcp_rmem at the receiver ({most} here), and had \
             not come to the end of that; {}",
            product(this)
        ),
        // Half of the memory is reckoned as overhead of the packets (tcp_adv_win_scale).
        None => format!(
            "raise the third number of net.ipv4.tcp_rmem at the receiver ({most} here; a window \
             takes about twice its bytes); {}",
            product(this)
        ),
    }
}

fn send_buffer(this: &Diagnosis) -> String {
    format!(
        "the send buffer: {} of the time all that fits was sent and not yet acknowledged; {}",
        percent(this.shares.send_buffer),
        product(this)
    )
}

fn send_buffer_remedy(this: &Diagnosis, evidence: &Evidence<'_>) -> String {
    let most = units::size(evidence.bounds.tcp_wmem as f64);
    match evidence.send_buffer {
        Some(bytes) => format!(
            "`send_buffer` is set to {}: leave it out, and the kernel tunes it up to \
             net.ipv4.tcp_wmem ({most})",
            units::size(bytes as f64),
        ),
        None => format!(
            "raise the third number of net.ipv4.tcp_wmem ({most}) to at least {}",
            units::size(this.bandwidth_delay.max(1) as f64 * 4.0)
        ),
    }
}

fn losses(this: &Diagnosis) -> (String, Option<String>) {
    let finding = format!(
        "losses: {} of the bytes were sent again, and each loss cuts the congestion window ({} in \
         the middle, {} segments of {} bytes); {}",
        percent(this.retransmitted),
        units::size(this.congestion_window as f64),
        this.congestion_window / u64::from(this.mss.max(1)),
        this.mss,
        product(this),
    );
    let remedy = "no sysctl mends losses; a congestion control that does not take each for \
                  congestion (bbr) carries more: net.ipv4.tcp_congestion_control, or `congestion` \
                  in the profile"
        .to_owned();
    (finding, Some(remedy))
}

fn path(this: &Diagnosis, evidence: &Evidence<'_>) -> (String, Option<String>) {
    let why = match evidence.path_rate {
        _ if this.is_queued() => format!(
            "packets wait at its bottleneck (rtt {} against {} at the least), so it is full",
            rtt(this.rtt),
            rtt(this.rtt_min)
        ),
        Some(rate) => format!(
            "{} of its {} were carried, and headers are the rest",
            units::bit_rate(evidence.throughput),
            units::bit_rate(rate)
        ),
        None => format!(
            "the sender is paced at what it delivers, and its congestion window of {} is well above \
             what is under way",
            units::size(this.congestion_window as f64)
        ),
    };
    let finding = format!("the path itself: {why}; {}{}", product(this), resent(this));
    (finding, None)
}

fn pacing(this: &Diagnosis, evidence: &Evidence<'_>) -> (String, Option<String>) {
    let finding = format!(
        "`max_pacing_rate`: it lets {} through for each flow, {} were carried",
        units::bit_rate(evidence.pacing.unwrap_or(0) as f64),
        units::bit_rate(this.rate),
    );
    (finding, Some("raise it, or leave it out".to_owned()))
}

fn congestion_window(this: &Diagnosis) -> (String, Option<String>) {
    let what = if this.has_spare_window() {
        "the congestion control, which paces below what the path carries"
    } else {
        "the congestion window"
    };
    let finding = format!(
        "{what}: {} of the time segments were under way, neither the peer's window nor a buffer was \
         in the way; window {}, {}{}",
        percent(this.shares.network),
        units::size(this.congestion_window as f64),
        product(this),
        resent(this),
    );
    let remedy = "`congestion` in the profile, or net.ipv4.tcp_congestion_control for all; on a \
                  long path a flow may also still be growing"
        .to_owned();
    (finding, Some(remedy))
}

fn resent(this: &Diagnosis) -> String {
    if this.retransmitted > 0.0 {
        format!(
            "; {} of the bytes were sent again",
            percent(this.retransmitted)
        )
    } else {
        String::new()
    }
}

fn application(this: &Diagnosis) -> (String, Option<String>) {
    let finding = format!(
        "the application: {} of the time there was nothing to send",
        percent(this.shares.application)
    );
    (finding, None)
}

fn receiver(this: &Diagnosis) -> (String, Option<String>) {
    let finding = format!(
        "the receiving application: {} of the time the sender waited for its window, which at {} \
         could have carried more: it is read too slowly, or too seldom",
        percent(this.shares.receiver_window),
        units::size(this.window as f64),
    );
    (finding, None)
}

fn cpu(this: &Diagnosis, loopback: bool) -> (String, Option<String>) {
    let finding = format!(
        "this machine's CPU: {}the busiest thread used {} of a core, all processes together {} of \
         the machine",
        if loopback {
            "on loopback nothing else is in the way; "
        } else {
            ""
        },
        percent(this.busiest_thread.min(1.0)),
        percent(this.machine.min(1.0)),
    );
    let remedy = "no socket option makes a CPU faster; fewer bytes touched (splice), larger \
                  segments and a cheaper congestion control help, and so does a quieter machine"
        .to_owned();
    (finding, Some(remedy))
}

fn unknown(evidence: &Evidence<'_>) -> (String, Option<String>) {
    let finding = match evidence.sender {
        Sender::Far => "the sender is the far end, whose TCP_INFO cannot be read from here",
        Sender::Near => "too few samples for a verdict",
    };
    let remedy = (evidence.sender == Sender::Far)
        .then(|| "run `thalweg tune` at the far end, or measure --direction up".to_owned());
    (finding.to_owned(), remedy)
}
