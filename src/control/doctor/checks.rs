//! One function for each thing that is looked at: facts and needs in, a finding out.
//! Pure.

use super::{Facts, Finding, Needs, State, Trial, Verdict};
use crate::config::units::format_size;

/// Below this many descriptors a busy forwarder runs into the limit.
const DESCRIPTORS_USUAL: u64 = 65_536;

/// A start with room for fewer sessions is none.
const SESSIONS_LEAST: u64 = 100;

/// What is advised where a configuration does not say.
const SESSIONS_USUAL: u64 = 10_000;

/// The kernel's own default since 5.4.
const SOMAXCONN_USUAL: u64 = 4096;

/// Half-open connections: the kernel's default on a machine with some memory.
const SYN_BACKLOG_USUAL: u64 = 1024;

/// Where the kernel's autotuning ends by default (6 MiB and 4 MiB) or sooner on a
/// machine with little memory.
const AUTOTUNED_USUAL: u64 = 4 << 20;

/// The kernel's default range has 28,232.
const PORTS_USUAL: u64 = 28_000;

/// What thalweg asks for each pipe unless told otherwise.
const PIPE_USUAL: u64 = 1 << 20;

/// Clocks that are read without entering the kernel.
const FAST_CLOCKS: [&str; 5] = [
    "tsc",
    "kvm-clock",
    "hyperv_clocksource_tsc_page",
    "arch_sys_counter",
    "riscv_clocksource",
];

/// Every finding, in the order of the table.
pub(super) fn all(facts: &Facts, needs: &Needs) -> Vec<Finding> {
    let mut findings: Vec<Finding> = facts.trials.iter().map(trial).collect();
    findings.extend([
        descriptors(facts, needs),
        cpus(facts, needs),
        limit(
            "net.core.somaxconn",
            facts.somaxconn,
            needs.backlog,
            SOMAXCONN_USUAL,
        ),
        limit(
            "net.ipv4.tcp_max_syn_backlog",
            facts.syn_backlog,
            None,
            SYN_BACKLOG_USUAL,
        ),
        receive_buffer(facts, needs),
        buffer("net.core.wmem_max", facts.send_max, needs.send_buffer),
        autotuned("net.ipv4.tcp_rmem", facts.receive_autotuned),
        autotuned("net.ipv4.tcp_wmem", facts.send_autotuned),
        ports(facts, needs),
        time_wait(facts),
        pipe_size(facts, needs),
        pipe_pages(facts),
        congestion(facts),
        migration(facts),
        mtu_probing(facts),
        io_uring(facts, needs),
        offloads(facts),
        clock(facts),
    ]);
    findings.extend(facts.refused.iter().map(|refused| {
        Finding::new(
            format!("{}: {}", refused.place, refused.option),
            refused.granted.clone(),
        )
        .wanted(refused.asked.clone())
        .short(refused.remedy.clone())
    }));
    findings
}

fn trial(trial: &Trial) -> Finding {
    let finding = Finding::new(&trial.name, &trial.found);
    match &trial.verdict {
        Verdict::Fine => finding,
        Verdict::Note(what) => finding.note(what),
        Verdict::Refused(remedy) => finding.short(remedy),
    }
}

/// A value that the kernel may keep to itself.
fn number(name: &str, value: Option<u64>) -> Finding {
    match value {
        Some(value) => Finding::new(name, value.to_string()),
        None => Finding::unknown(name),
    }
}

/// The same in bytes.
fn bytes(name: impl Into<String>, value: Option<u64>) -> Finding {
    match value {
        Some(value) => Finding::new(name, format_size(value)),
        None => Finding::unknown(name),
    }
}

fn descriptors(facts: &Facts, needs: &Needs) -> Finding {
    const NAME: &str = "RLIMIT_NOFILE";
    let Some((soft, hard)) = facts.descriptors else {
        return Finding::unknown(NAME);
    };
    let finding = Finding::new(NAME, format!("soft {soft}, hard {hard}"));
    let own = needs.own.unwrap_or(0);
    let fit = hard.saturating_sub(own) / 2;
    let remedy = |wanted: u64| {
        format!(
            "about {fit} sessions fit (thalweg raises the soft limit to the hard one itself); raise \
             the hard limit: LimitNOFILE={wanted} in a systemd unit, `ulimit -Hn {wanted}` as root"
        )
    };
    let (listeners, reactors) = (needs.listeners, needs.started);
    if needs.own.is_some() && fit < SESSIONS_LEAST {
        let wanted = own + 2 * needs.sessions.unwrap_or(SESSIONS_USUAL).max(SESSIONS_LEAST);
        let finding = finding.wanted(format!(
            "{wanted}: {listeners} listeners on {reactors} reactors take {own}"
        ));
        return finding.short(format!("{}; or fewer reactors", remedy(wanted)));
    }
    match needs.descriptors {
        Some(needed) => {
            let sessions = needs.sessions.unwrap_or(0);
            let finding = finding.wanted(format!("{needed} for {sessions} sessions"));
            if hard < needed {
                finding.short(remedy(needed))
            } else {
                finding
            }
        }
        None if hard < DESCRIPTORS_USUAL.max(own * 2) => {
            let usual = DESCRIPTORS_USUAL.max(own * 2);
            finding.wanted(usual.to_string()).note(remedy(usual))
        }
        None => finding,
    }
}

fn cpus(facts: &Facts, needs: &Needs) -> Finding {
    let quota = match facts.cpu_quota {
        Some(quota) => format!("quota of {quota}"),
        None => "no quota".to_owned(),
    };
    let online = match facts.cpus_online {
        Some(count) => count.to_string(),
        None => "unknown how many".to_owned(),
    };
    let finding = Finding::new(
        "CPUs",
        format!("{online} online, {} allowed, {quota}", facts.cpus_allowed),
    );
    let usable = facts
        .cpu_quota
        .map_or(facts.cpus_allowed, |quota| quota.min(facts.cpus_allowed));
    let widen = "widen the affinity (CPUAffinity=, taskset, cpuset) or the quota (CPUQuota=, \
                 cpu.max, docker --cpus)";
    if let Some(reactors) = needs.reactors {
        let finding = finding.wanted(format!("{reactors} for the reactors"));
        if usable < reactors {
            return finding.short(format!("reactors = \"auto\" takes {usable}; or {widen}"));
        }
        return finding;
    }
    if facts.cpus_allowed == 0 {
        return Finding::unknown("CPUs");
    }
    if facts.cpus_online.is_some_and(|online| usable < online) {
        return finding.note(format!(
            "thalweg starts {usable} reactors; for more {widen}"
        ));
    }
    finding
}

/// A sysctl that cuts what is asked for.
fn limit(name: &str, found: Option<u64>, needed: Option<u64>, usual: u64) -> Finding {
    let finding = number(name, found);
    let Some(value) = found else {
        return match needed {
            Some(needed) => finding.wanted(needed.to_string()),
            None => finding,
        };
    };
    let remedy = |wanted| format!("`sysctl -w {name}={wanted}`");
    match needed {
        Some(needed) => {
            let finding = finding.wanted(needed.to_string());
            if value < needed {
                finding.short(remedy(needed))
            } else {
                finding
            }
        }
        None if value < usual => finding.wanted(usual.to_string()).note(remedy(usual)),
        None => finding,
    }
}

/// Buffers that are set are cut to these; buffers that are not set are not.
fn buffer(name: &str, found: Option<u64>, needed: Option<u64>) -> Finding {
    let finding = bytes(name, found);
    let Some(needed) = needed else {
        return finding;
    };
    let finding = finding.wanted(format_size(needed));
    let Some(value) = found else {
        return finding;
    };
    if value >= needed {
        return finding;
    }
    finding.short(format!(
        "`sysctl -w {name}={needed}`, or leave the buffer to the kernel, which is not bound by this"
    ))
}

/// Likewise; and the socket of a listener of UDP, which has the datagrams of all clients, asks for more
/// than the kernel grants by default.
fn receive_buffer(facts: &Facts, needs: &Needs) -> Finding {
    const NAME: &str = "net.core.rmem_max";
    let finding = buffer(NAME, facts.receive_max, needs.receive_buffer);
    let (Some(granted), Some(asked)) = (facts.receive_max, needs.datagram_buffer) else {
        return finding;
    };
    if finding.state == State::Short || granted >= asked {
        return finding;
    }
    let asks = needs.receive_buffer.map_or(asked, |other| other.max(asked));
    finding.wanted(format_size(asks)).note(format!(
        "the listeners of UDP get a queue of {} and lose what a burst has beyond it (receive_queue); \
         `sysctl -w {NAME}={asks}`",
        format_size(granted)
    ))
}

fn autotuned(name: &str, found: Option<u64>) -> Finding {
    let finding = bytes(format!("{name} (largest)"), found);
    match found {
        Some(value) if value < AUTOTUNED_USUAL => {
            let most = value * 8 * 1000 / 80 / 1_000_000;
            finding.wanted(format_size(AUTOTUNED_USUAL)).note(format!(
                "at 80 ms no connection carries more than {most} Mbit/s; `sysctl -w {name}=\"4096 \
                 131072 {AUTOTUNED_USUAL}\"`"
            ))
        }
        _ => finding,
    }
}

fn ports(facts: &Facts, needs: &Needs) -> Finding {
    const NAME: &str = "net.ipv4.ip_local_port_range";
    let finding = match facts.ports {
        Some(ports) => Finding::new(NAME, format!("{ports} ports")),
        None => Finding::unknown(NAME),
    };
    let remedy = format!(
        "`sysctl -w {NAME}=\"10240 65535\"`; more servers or more `source` addresses multiply them"
    );
    match needs.ports {
        Some(needed) => {
            let finding = finding.wanted(format!("{needed} towards one server"));
            if facts.ports.is_some_and(|ports| ports < needed) {
                finding.short(remedy)
            } else {
                finding
            }
        }
        None if facts.ports.is_some_and(|ports| ports < PORTS_USUAL) => {
            finding.wanted(PORTS_USUAL.to_string()).note(remedy)
        }
        None => finding,
    }
}

/// A port rests for a minute after the end that closed first, which towards servers is
/// often this one; without reuse, ports divided by 60 s is the rate that can be kept up.
fn time_wait(facts: &Facts) -> Finding {
    const NAME: &str = "net.ipv4.tcp_tw_reuse";
    const REST_SECONDS: u64 = 60;
    let Some(value) = facts.time_wait_reuse else {
        return Finding::unknown(NAME);
    };
    let words = match value {
        0 => "0 (never)",
        1 => "1",
        2 => "2 (on loopback only)",
        _ => return Finding::new(NAME, value.to_string()),
    };
    let finding = Finding::new(NAME, words);
    let rate = facts.ports.unwrap_or(PORTS_USUAL) / REST_SECONDS;
    let rest = format!(
        "ports of connections that have ended towards a server rest for {REST_SECONDS} s, so that \
         about {rate} connections a second to each can be kept up"
    );
    match (value, facts.timestamps) {
        (1, Some(false)) => finding.note(format!(
            "without net.ipv4.tcp_timestamps it has no effect: {rest}; \
             `sysctl -w net.ipv4.tcp_timestamps=1`"
        )),
        (1, _) => finding,
        _ => finding
            .wanted("1")
            .note(format!("{rest}; `sysctl -w {NAME}=1`")),
    }
}

fn pipe_size(facts: &Facts, needs: &Needs) -> Finding {
    const NAME: &str = "fs.pipe-max-size";
    let finding = bytes(NAME, facts.pipe_max);
    let Some(value) = facts.pipe_max else {
        return match needs.pipe_size {
            Some(wanted) => finding.wanted(format_size(wanted)),
            None => finding,
        };
    };
    if facts.pipes_unlimited {
        return finding;
    }
    let wanted = needs.pipe_size.unwrap_or(PIPE_USUAL);
    if value >= wanted {
        return match needs.pipe_size {
            Some(wanted) => finding.wanted(format_size(wanted)),
            None => finding,
        };
    }
    let finding = finding.wanted(format_size(wanted));
    let remedy = format!("`sysctl -w {NAME}={wanted}`, or run with CAP_SYS_RESOURCE");
    if needs.pipe_size.is_some() {
        finding.short(remedy)
    } else {
        finding.note(remedy)
    }
}

fn pipe_pages(facts: &Facts) -> Finding {
    const NAME: &str = "fs.pipe-user-pages-soft";
    let Some(bytes) = facts.pipe_user_soft else {
        return Finding::unknown(NAME);
    };
    if facts.pipes_unlimited || bytes == 0 {
        let why = if bytes == 0 {
            "none"
        } else {
            "not for this user"
        };
        return Finding::new(NAME, format!("{} ({why})", format_size(bytes)));
    }
    let pipes = bytes / PIPE_USUAL;
    Finding::new(NAME, format_size(bytes)).note(format!(
        "{pipes} directions splice at a time through pipes of 1 MiB, the others copy; `sysctl -w \
         {NAME}=0` lifts it, CAP_SYS_RESOURCE exempts from it"
    ))
}

fn congestion(facts: &Facts) -> Finding {
    let found = &facts.congestion;
    if found.default.is_empty() {
        return Finding::unknown("congestion control");
    }
    let permitted = if found.may_choose_any {
        &found.available
    } else {
        &found.allowed
    };
    let finding = Finding::new(
        "congestion control",
        format!(
            "default {}, permitted {}",
            found.default,
            permitted.join(" ")
        ),
    );
    let forbidden: Vec<&str> = found
        .available
        .iter()
        .filter(|name| !permitted.contains(name))
        .map(String::as_str)
        .collect();
    if found.default.starts_with("bbr") {
        return finding.note(
            "suits long paths and can halve the speed of short ones: give the short leg a \
             profile with congestion = \"cubic\"",
        );
    }
    if !forbidden.is_empty() {
        return finding.note(format!(
            "also loaded, and not for this user: {}; `sysctl -w \
             net.ipv4.tcp_allowed_congestion_control=\"{}\"`",
            forbidden.join(" "),
            found.available.join(" ")
        ));
    }
    finding
}

fn migration(facts: &Facts) -> Finding {
    const NAME: &str = "net.ipv4.tcp_migrate_req";
    match facts.migrate_requests {
        None => Finding {
            found: "unknown (before Linux 5.14)".to_owned(),
            ..Finding::unknown(NAME)
        },
        Some(true) => Finding::new(NAME, "1"),
        Some(false) => Finding::new(NAME, "0").wanted("1").note(format!(
            "handshakes under way when an instance ends are lost even if another one listens on \
             the same port; `sysctl -w {NAME}=1`"
        )),
    }
}

/// A router says "too big" by ICMP, which comes to whichever node of a fleet its hash picks, or is filtered.
fn mtu_probing(facts: &Facts) -> Finding {
    const NAME: &str = "net.ipv4.tcp_mtu_probing";
    match facts.mtu_probing {
        None => Finding::unknown(NAME),
        Some(0) => Finding::new(NAME, "0 (never)").wanted("1").note(format!(
            "where a path takes less than its ends and ICMP is lost, as with several nodes behind one address, \
             large segments never arrive; `sysctl -w {NAME}=1`, or `mss` of the clients' leg"
        )),
        Some(value) => Finding::new(NAME, value.to_string()),
    }
}

fn io_uring(facts: &Facts, needs: &Needs) -> Finding {
    let found = match (&facts.io_uring.refused, &facts.io_uring.engine) {
        (Some(why), _) => format!("not permitted: {why}"),
        (None, Some(why)) => format!("permitted; {why}"),
        (None, None) => "permitted".to_owned(),
    };
    let finding = Finding::new("io_uring", found);
    if !needs.io_uring {
        return finding;
    }
    let finding = finding.wanted("engine = \"io_uring\"");
    match (&facts.io_uring.refused, &facts.io_uring.engine) {
        (None, None) => finding,
        (Some(_), _) => finding.short(
            "`sysctl -w kernel.io_uring_disabled=0` or another seccomp profile; or engine = \
             \"auto\"",
        ),
        (None, Some(_)) => finding.short("build with --features uring; or engine = \"auto\""),
    }
}

fn offloads(facts: &Facts) -> Finding {
    let Some(interface) = &facts.interface else {
        return Finding {
            found: "unknown: no default route".to_owned(),
            ..Finding::unknown("offloads")
        };
    };
    let (interface, offloads) = (&interface.name, &interface.offloads);
    let words: Vec<String> = offloads
        .iter()
        .map(|(name, on)| match on {
            Some(true) => format!("{name} on"),
            Some(false) => format!("{name} off"),
            None => format!("{name} unknown"),
        })
        .collect();
    let finding = Finding::new(format!("offloads of {interface}"), words.join(", "));
    let off: Vec<&str> = offloads
        .iter()
        .filter(|(_, on)| *on == Some(false))
        .map(|(name, _)| *name)
        .collect();
    if off.is_empty() {
        let unknown = offloads.iter().any(|(_, on)| on.is_none());
        return Finding {
            state: if unknown { State::Unknown } else { State::Fine },
            ..finding
        };
    }
    let switches: Vec<String> = off
        .iter()
        .map(|name| format!("{} on", feature(name)))
        .collect();
    finding.note(format!(
        "each packet is handled by itself, which costs CPU at high rates; `ethtool -K {interface} \
         {}` where the card can",
        switches.join(" ")
    ))
}

/// As `ethtool -K` spells it.
fn feature(name: &str) -> &str {
    match name {
        "tx-csum" => "tx",
        other => other,
    }
}

fn clock(facts: &Facts) -> Finding {
    let Some(source) = &facts.clock_source else {
        return Finding::unknown("clock source");
    };
    let finding = Finding::new("clock source", source.clone());
    if FAST_CLOCKS.contains(&source.as_str()) {
        return finding;
    }
    finding.wanted("tsc").note(
        "each look at the clock is a system call; see why the kernel gave up tsc (`dmesg | grep \
         -i clocksource`)",
    )
}
