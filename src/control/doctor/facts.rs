//! What the kernel says; nothing is judged here.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;

use super::start::{self, Trial};
use crate::config::{Config, Forward, Pool};
use crate::engine::choice;
use crate::net::limits::{self, sysctl};
use crate::net::options::{Leg, OptionName, SocketOptions};
use crate::net::{device, options};

// linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_RESOURCE: u32 = 24;

/// Everything that is looked at. `None` where the kernel does not say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// `RLIMIT_NOFILE`, soft and hard.
    pub descriptors: Option<(u64, u64)>,
    /// `net.core.somaxconn`.
    pub somaxconn: Option<u64>,
    /// `net.ipv4.tcp_max_syn_backlog`.
    pub syn_backlog: Option<u64>,
    /// `net.core.rmem_max`, bytes.
    pub receive_max: Option<u64>,
    /// `net.core.wmem_max`, bytes.
    pub send_max: Option<u64>,
    /// The largest of `net.ipv4.tcp_rmem`, bytes: where autotuning ends.
    pub receive_autotuned: Option<u64>,
    /// The largest of `net.ipv4.tcp_wmem`, bytes.
    pub send_autotuned: Option<u64>,
    /// How many ports `net.ipv4.ip_local_port_range` has.
    pub ports: Option<u64>,
    /// `net.ipv4.tcp_tw_reuse`: 0 never, 1 always, 2 on loopback.
    pub time_wait_reuse: Option<u64>,
    /// `net.ipv4.tcp_timestamps`, without which ports in TIME_WAIT are never reused.
    pub timestamps: Option<bool>,
    /// `fs.pipe-max-size`, bytes.
    pub pipe_max: Option<u64>,
    /// `fs.pipe-user-pages-soft` in bytes; zero is no limit.
    pub pipe_user_soft: Option<u64>,
    /// Whether limits on pipes do not apply (`CAP_SYS_RESOURCE` or `CAP_SYS_ADMIN`).
    pub pipes_unlimited: bool,
    /// Congestion controls.
    pub congestion: Congestion,
    /// `net.ipv4.tcp_migrate_req`.
    pub migrate_requests: Option<bool>,
    /// `net.ipv4.tcp_mtu_probing`: 0 never, 1 when nothing gets through, 2 always.
    pub mtu_probing: Option<u64>,
    /// io_uring.
    pub io_uring: IoUring,
    /// The interface of the default route, and its offloads.
    pub interface: Option<Interface>,
    /// What time is read from.
    pub clock_source: Option<String>,
    /// CPUs of the machine that are on.
    pub cpus_online: Option<usize>,
    /// CPUs this process may run on.
    pub cpus_allowed: usize,
    /// CPUs' worth of time that its cgroup grants, rounded up; `None`: all.
    pub cpu_quota: Option<usize>,
    /// Options of the configuration that were tried and not granted, other than those
    /// that are judged by the limits above.
    pub refused: Vec<Refused>,
    /// What a start takes hold of, tried.
    pub trials: Vec<Trial>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// What it offloads: as ethtool(8) calls it, and whether it is on; `None` where
    /// the driver does not say.
    pub offloads: Vec<(&'static str, Option<bool>)>,
}

/// Congestion controls of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Congestion {
    /// What a socket gets that asks for none.
    pub default: String,
    /// Those that are loaded.
    pub available: Vec<String>,
    /// Those that anybody may choose.
    pub allowed: Vec<String>,
    /// Whether this process may choose any (`CAP_NET_ADMIN`).
    pub may_choose_any: bool,
}

/// Whether io_uring can be had.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IoUring {
    /// Why the kernel gives none; `None` when it would.
    pub refused: Option<String>,
    /// Why this build's engine does not run on it; `None` when it does.
    pub engine: Option<String>,
}

/// An option that is not in force as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Whose, and on which leg.
    pub place: String,
    /// The key.
    pub option: String,
    /// What is in force.
    pub granted: String,
    /// What was asked for.
    pub asked: String,
    /// What to change.
    pub remedy: String,
}

impl Facts {
    /// Looks at this machine as this process sees it.
    pub fn collect(config: Option<&Config>) -> Self {
        // First: trying a congestion control may load it.
        let refused = config.map(refused).unwrap_or_default();
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
        let page = page.ok().flatten().map_or(4096, |size| size as u64);
        Self {
            descriptors: limits::descriptor_limits().ok(),
            somaxconn: number("net.core.somaxconn"),
            syn_backlog: number("net.ipv4.tcp_max_syn_backlog"),
            receive_max: number("net.core.rmem_max"),
            send_max: number("net.core.wmem_max"),
            receive_autotuned: largest("net.ipv4.tcp_rmem"),
            send_autotuned: largest("net.ipv4.tcp_wmem"),
            ports: limits::known_ephemeral_ports().map(|ports| ports.count() as u64),
            time_wait_reuse: number("net.ipv4.tcp_tw_reuse"),
            timestamps: number("net.ipv4.tcp_timestamps").map(|value| value != 0),
            pipe_max: number("fs.pipe-max-size"),
            pipe_user_soft: number("fs.pipe-user-pages-soft").map(|pages| pages * page),
            pipes_unlimited: limits::has_capability(CAP_SYS_RESOURCE)
                || limits::has_capability(CAP_SYS_ADMIN),
            congestion: congestion(),
            mtu_probing: number("net.ipv4.tcp_mtu_probing"),
            migrate_requests: number("net.ipv4.tcp_migrate_req").map(|value| value != 0),
            io_uring: IoUring {
                refused: limits::io_uring_refusal(),
                engine: choice::io_uring().err(),
            },
            interface: device::default_route().map(|name| {
                let offloads = device::offloads(&name);
                Interface { name, offloads }
            }),
            clock_source: fs::read_to_string(
                "/sys/devices/system/clocksource/clocksource0/current_clocksource",
            )
            .ok()
            .map(|text| text.trim().to_owned()),
            cpus_online: cpus_online(),
            cpus_allowed: limits::allowed_cpus().len(),
            cpu_quota: limits::cgroup_cpus(),
            refused,
            trials: config.map(start::trials).unwrap_or_default(),
        }
    }
}

fn number(name: &str) -> Option<u64> {
    sysctl(name)?.parse().ok()
}

fn largest(name: &str) -> Option<u64> {
    sysctl(name)?.split_whitespace().last()?.parse().ok()
}

fn congestion() -> Congestion {
    let words = |name: &str| {
        let text = sysctl(name).unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    Congestion {
        default: sysctl("net.ipv4.tcp_congestion_control").unwrap_or_default(),
        available: words("net.ipv4.tcp_available_congestion_control"),
        allowed: words("net.ipv4.tcp_allowed_congestion_control"),
        may_choose_any: limits::has_capability(CAP_NET_ADMIN),
    }
}

/// `/sys/devices/system/cpu/online`: `0-3,5`.
fn cpus_online() -> Option<usize> {
    count_cpus(&fs::read_to_string("/sys/devices/system/cpu/online").ok()?)
}

pub(super) fn count_cpus(text: &str) -> Option<usize> {
    let ranges = text.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        (last + 1).checked_sub(first)
    });
    ranges.sum()
}

/// Tries the options of every forward's legs, and the interfaces of pools, on sockets
/// that go nowhere.
fn refused(config: &Config) -> Vec<Refused> {
    let mut refused: Vec<Refused> = Vec::new();
    let mut add = |place: &dyn Fn() -> String, leg, options: &SocketOptions| {
        let shortfalls = options.granted(leg);
        let shortfalls = shortfalls.into_iter().filter(|it| !by_limit(it));
        refused.extend(shortfalls.map(|it| Refused {
            place: place(),
            option: it.option.to_string(),
            granted: it.granted,
            asked: it.asked,
            remedy: it.remedy,
        }));
    };
    let mut seen: HashSet<*const Pool> = HashSet::new();
    let mut tried: HashSet<(Leg, &str)> = HashSet::new();
    for forward in &config.forwards {
        // A range of ports makes thousands of forwards with the same two profiles.
        let legs = [
            (Leg::Client, &forward.client, &forward.client_profile),
            (Leg::Upstream, &forward.upstream, &forward.upstream_profile),
        ];
        for (leg, options, profile) in legs {
            if tried.insert((leg, profile)) {
                let place = || format!("forward {}, {leg} leg", forward.name);
                add(&place, leg, options);
            }
        }
        if let Some(interface) = &forward.pool.interface
            && seen.insert(Arc::as_ptr(&forward.pool))
        {
            let options = SocketOptions {
                interface: Some(interface.clone()),
                ..SocketOptions::default()
            };
            add(
                &|| format!("pool {}", label(forward)),
                Leg::Upstream,
                &options,
            );
        }
    }
    refused
}

fn label(forward: &Forward) -> &str {
    forward.pool.name.as_deref().unwrap_or(&forward.name)
}

/// Whether a limit that is looked at by itself explains it.
fn by_limit(shortfall: &options::Shortfall) -> bool {
    matches!(
        shortfall.option,
        OptionName::Backlog | OptionName::SendBuffer | OptionName::ReceiveBuffer
    )
}
