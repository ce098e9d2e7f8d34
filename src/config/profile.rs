//! `[profile.NAME]`: every socket option of a leg. The ranges are the kernel's
//! (Linux 6.18, `net/ipv4/tcp.c` and `net/core/sock.c`), so that what it would
//! refuse is refused here, with a place.

use std::time::Duration;

use crate::net::options::{Keepalive, RawOption, SocketOptions};

use super::choices::DSCPS;
use super::raw::{Node, TableReader, Value};
use super::report::{Fault, Report};
use super::values;

const MILLISECOND: Duration = Duration::from_millis(1);
const MICROSECOND: Duration = Duration::from_micros(1);
const SECOND: Duration = Duration::from_secs(1);

/// The largest value of a C `int`, which most options are.
const INT_MAX: i64 = i32::MAX as i64;

/// `MAX_TCP_KEEPIDLE` and `MAX_TCP_KEEPINTVL`, seconds.
const KEEPALIVE_MAX: Duration = Duration::from_secs(32_767);

/// What a profile starts from: a forwarder that waits for more bytes before it
/// passes on the ones it has stalls every dialogue (nginx, too, sets this).
pub(super) fn built_in() -> SocketOptions {
    SocketOptions {
        nodelay: Some(true),
        ..SocketOptions::default()
    }
}

/// The options of the leg towards upstreams: where the profile leaves it open, the
/// handshake's last ACK rides on the first data.
pub(super) fn upstream_leg(profile: &SocketOptions) -> SocketOptions {
    SocketOptions {
        quickack: profile
            .quickack
            .or((profile.mptcp != Some(true)).then_some(false)),
        ..profile.clone()
    }
}

/// Reads one profile; wrong keys are reported and left unset.
pub(super) fn read(node: &Node, title: &str, report: &mut Report) -> SocketOptions {
    let mut options = built_in();
    let Some(mut table) = TableReader::open(node, title, report) else {
        return options;
    };
    let t = &mut table;
    options.nodelay = t
        .read("nodelay", report, values::boolean)
        .or(options.nodelay);
    options.quickack = t.read("quickack", report, values::boolean);
    read_tcp(t, &mut options, report);
    read_timing(t, &mut options, report);
    read_path(t, &mut options, report);
    options.raw = raw_options(t, report);
    table.close(report, &[]);
    options
}

/// Buffers, segments, congestion control, fast open.
fn read_tcp(t: &mut TableReader<'_>, options: &mut SocketOptions, report: &mut Report) {
    let buffer = |node: &Node| values::size(node, 1..=INT_MAX as u64);
    options.send_buffer = t.read("send_buffer", report, buffer);
    options.receive_buffer = t.read("receive_buffer", report, buffer);
    // TCP_MIN_MSS to MAX_TCP_WINDOW.
    options.mss = t.read("mss", report, |node| values::integer(node, 88..=32_767));
    options.window_clamp = t.read("window_clamp", report, buffer);
    options.notsent_lowat = t.read("notsent_lowat", report, |node| {
        values::size(node, 0..=u64::from(u32::MAX))
    });
    options.congestion = t.read("congestion", report, congestion);
    options.fastopen_queue = t.read("fastopen_queue", report, |node| {
        values::integer(node, 0..=INT_MAX)
    });
    options.fastopen_connect = t.read("fastopen_connect", report, values::boolean);
    options.syn_retries = t.read("syn_retries", report, |node| values::integer(node, 1..=127));
    options.backlog = t.read("backlog", report, |node| values::integer(node, 1..=INT_MAX));
    options.mptcp = t.read("mptcp", report, values::boolean);
    options.max_pacing_rate = t.read("max_pacing_rate", report, values::rate);
}

/// Whatever is a time.
fn read_timing(t: &mut TableReader<'_>, options: &mut SocketOptions, report: &mut Report) {
    options.user_timeout = t.read("user_timeout", report, |node| {
        let longest = Duration::from_millis(INT_MAX as u64);
        values::duration(node, MILLISECOND..=longest, MILLISECOND)
    });
    options.keepalive = keepalive(t, report);
    options.defer_accept = t.read("defer_accept", report, |node| {
        values::duration(node, SECOND..=KEEPALIVE_MAX, SECOND)
    });
    options.busy_poll = t.read("busy_poll", report, |node| {
        values::duration(node, Duration::ZERO..=SECOND, MICROSECOND)
    });
    options.linger = t.read("linger", report, |node| {
        values::duration(node, Duration::ZERO..=KEEPALIVE_MAX, SECOND)
    });
}

/// How packets are marked and routed.
fn read_path(t: &mut TableReader<'_>, options: &mut SocketOptions, report: &mut Report) {
    options.tos = t.read("tos", report, |node| values::integer(node, 0..=255));
    let dscp = t.read("dscp", report, dscp);
    if let (Some(_), Some(_)) = (t.get("tos"), t.get("dscp")) {
        let fault = Fault::new(format!(
            "`tos` and `dscp` in {} are the same byte",
            t.title()
        ))
        .remedy("keep one of them");
        report.error(&t.node().span, fault);
    }
    options.tos = options.tos.or(dscp.map(|dscp| dscp << 2));
    options.mark = t.read("mark", report, |node| {
        values::integer(node, 0..=i64::from(u32::MAX))
    });
    options.priority = t.read("priority", report, |node| {
        values::integer(node, 0..=INT_MAX)
    });
    options.incoming_cpu = t.read("incoming_cpu", report, values::boolean);
    options.source = t.read("source", report, |node| {
        let text = values::string(node)?;
        text.parse().map_err(|_| {
            Fault::new(format!("`{text}` is not an IP address"))
                .remedy("write an address of this host without a port, such as \"10.0.0.2\"")
        })
    });
    options.interface = t.read("interface", report, interface);
    options.free_bind = t.read("free_bind", report, values::boolean);
}

/// `TCP_CA_NAME_MAX` is 16 with the terminator. Which names this kernel has is
/// asked when sockets are made.
fn congestion(node: &Node) -> Result<String, Fault> {
    let name = values::string(node)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 15 || !name.chars().all(plain) {
        let fault = Fault::new("this is not a name of a congestion control");
        return Err(fault.remedy("such as \"cubic\" or \"bbr\""));
    }
    Ok(name.to_owned())
}

/// `IFNAMSIZ` is 16 with the terminator.
pub(super) fn interface(node: &Node) -> Result<String, Fault> {
    let name = values::string(node)?;
    let wrong = |c: char| c.is_whitespace() || c.is_control() || c == '/';
    if name.is_empty() || name.len() > 15 || name.contains(wrong) {
        let fault = Fault::new("this is not a name of an interface");
        return Err(fault.remedy("`ip link` lists them; such as \"eth0\""));
    }
    Ok(name.to_owned())
}

/// A code point as a name or a number from 0 to 63.
fn dscp(node: &Node) -> Result<u8, Fault> {
    match &node.value {
        Value::Integer(_) => values::integer(node, 0..=63),
        _ => values::choice(node, DSCPS),
    }
}

/// `true`, `false`, a duration (silence before the first probe), or a table.
fn keepalive(t: &mut TableReader<'_>, report: &mut Report) -> Option<Keepalive> {
    let seconds = |node: &Node| values::duration(node, SECOND..=KEEPALIVE_MAX, SECOND);
    let node = t.get("keepalive")?;
    match &node.value {
        Value::Boolean(false) => None,
        Value::Boolean(true) => Some(Keepalive::default()),
        Value::Table(_) => {
            let title = format!("`keepalive` of {}", t.title());
            let mut table = TableReader::open(node, title, report)?;
            let keepalive = Keepalive {
                idle: table.read("idle", report, seconds),
                interval: table.read("interval", report, seconds),
                probes: table.read("probes", report, |node| values::integer(node, 1..=127)),
            };
            table.close(report, &[]);
            Some(keepalive)
        }
        _ => {
            let idle = t.read("keepalive", report, |node| {
                seconds(node).map_err(|fault| match fault.remedy {
                    Some(_) => fault,
                    None => fault.remedy("or { idle = \"60s\", interval = \"10s\", probes = 3 }"),
                })
            })?;
            Some(Keepalive {
                idle: Some(idle),
                ..Keepalive::default()
            })
        }
    }
}

/// `raw = [{ level = 6, name = 12, value = 1 }]`.
fn raw_options(t: &mut TableReader<'_>, report: &mut Report) -> Vec<RawOption> {
    const FORM: &str = "such as raw = [{ level = 6, name = 12, value = 1 }]";
    let Some(node) = t.get("raw") else {
        return Vec::new();
    };
    let Value::Array(nodes) = &node.value else {
        let fault = Fault::new(format!("`raw`: this must be a list, not {}", node.kind()));
        report.error(&node.span, fault.remedy(FORM));
        return Vec::new();
    };
    let mut options = Vec::new();
    for node in nodes {
        let Some(mut table) = TableReader::open(node, "an option of `raw`", report) else {
            continue;
        };
        let mut int = |key: &'static str| {
            if table.get(key).is_none() {
                let fault = Fault::new(format!("`{key}` of this raw option is missing"));
                report.consequence(&node.span, fault.remedy(FORM));
            }
            table.read(key, report, |node| {
                values::integer(node, i64::from(i32::MIN)..=INT_MAX)
            })
        };
        if let (Some(level), Some(name), Some(value)) = (int("level"), int("name"), int("value")) {
            options.push(RawOption { level, name, value });
        }
        table.close(report, &[]);
    }
    options
}
