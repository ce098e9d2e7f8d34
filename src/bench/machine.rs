//! The facts about this machine that a figure means nothing without.

use std::fs;

use serde::Serialize;

use super::units;
use crate::net::{device, limits};

/// What the figures were taken on.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Machine {
    /// Kernel release and build.
    pub kernel: String,
    /// The processor's name.
    pub cpu: String,
    /// CPUs this process may use.
    pub cpus: Vec<usize>,
    /// Bytes of memory.
    #[serde(rename = "memory_bytes")]
    pub memory: u64,
    /// Whether a hypervisor is below.
    pub virtual_machine: bool,
    /// What time is read from.
    pub clocksource: String,
    /// Frequency governor of the first CPU, if there is one.
    pub governor: Option<String>,
    /// Open descriptors at the most.
    pub descriptors: u64,
    /// Kernel settings that matter here: name and value.
    pub sysctls: Vec<(String, String)>,
    /// Loopback: its MTU and what it offloads.
    pub loopback: String,
}

const SYSCTLS: [&str; 12] = [
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_available_congestion_control",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.core.rmem_max",
    "net.core.wmem_max",
    "net.core.somaxconn",
    "net.core.default_qdisc",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_tw_reuse",
    "fs.pipe-max-size",
    "kernel.io_uring_disabled",
];

/// Reads them. What cannot be read is left out or "unknown".
pub fn facts() -> Machine {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let value = |text: &str, name: &str| {
        text.lines()
            .find(|line| line.starts_with(name))
            .and_then(|line| line.split_once(':'))
            .map(|(_, value)| value.trim().to_owned())
    };
    let memory = value(&meminfo, "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
        .unwrap_or(0);
    Machine {
        kernel: format!(
            "{} {}",
            read("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned()),
            read("/proc/sys/kernel/version").unwrap_or_default()
        ),
        cpu: value(&cpuinfo, "model name")
            .or_else(|| value(&cpuinfo, "CPU part"))
            .unwrap_or_else(|| "unknown".to_owned()),
        cpus: limits::allowed_cpus(),
        memory: memory * 1024,
        virtual_machine: value(&cpuinfo, "flags").is_some_and(|flags| flags.contains("hypervisor")),
        clocksource: read("/sys/devices/system/clocksource/clocksource0/current_clocksource")
            .unwrap_or_else(|| "unknown".to_owned()),
        governor: read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        descriptors: limits::descriptor_limit().unwrap_or(0),
        sysctls: SYSCTLS
            .iter()
            .filter_map(|name| {
                let value = read(&format!("/proc/sys/{}", name.replace('.', "/")))?;
                Some(((*name).to_owned(), value))
            })
            .collect(),
        loopback: loopback(),
    }
}

impl Machine {
    /// One line: processor, CPUs, memory, kernel.
    pub fn summary(&self) -> String {
        format!(
            "{}{}, {} CPUs, {}, Linux {}",
            self.cpu,
            if self.virtual_machine {
                " (virtual)"
            } else {
                ""
            },
            self.cpus.len(),
            units::size(self.memory as f64),
            self.kernel.split(' ').next().unwrap_or_default(),
        )
    }
}

fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn loopback() -> String {
    let offloads: Vec<String> = device::offloads("lo")
        .into_iter()
        .map(|(name, on)| match on {
            Some(true) => format!("{name} on"),
            Some(false) => format!("{name} off"),
            None => format!("{name} unknown"),
        })
        .collect();
    // sysfs shows the namespace it was mounted in, which has the same default.
    let mtu = read("/sys/class/net/lo/mtu").unwrap_or_else(|| "unknown".to_owned());
    format!("mtu {mtu}, {}", offloads.join(", "))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_facts_are_there() {
        let facts = super::facts();
        assert!(!facts.cpus.is_empty() && facts.memory > 0, "{facts:?}");
        assert!(
            facts
                .sysctls
                .iter()
                .any(|(name, _)| name.ends_with("tcp_rmem"))
        );
        assert!(facts.loopback.contains("tso"));
    }
}
