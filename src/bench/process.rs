//! What a process tree, or some threads of this process, have used: CPU time,
//! context switches, memory, descriptors. And where they may run.
//!
//! A tree is a process, its descendants, and whatever shares its process group, so
//! that a forwarder that forks for each connection is counted whole. Everything is
//! read from `/proc` when asked; processes that vanish meanwhile are skipped.

use std::fs;
use std::path::Path;

use nix::unistd::Pid;

use super::load::pin;

/// What has been used since the start of the processes or threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Nanoseconds on a CPU.
    pub cpu_ns: u64,
    /// Context switches, voluntary and not.
    pub switches: u64,
}

impl Usage {
    /// From `earlier` to here.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            switches: self.switches.saturating_sub(earlier.switches),
        }
    }
}

/// One line of `/proc/PID/stat`, what is needed of it.
#[derive(Debug, Clone, Copy)]
struct Stat {
    pid: i32,
    parent: i32,
    group: i32,
    /// Clock ticks of the process itself, its threads that ended included.
    own_ticks: u64,
    /// Clock ticks of children that ended and were waited for.
    reaped_ticks: u64,
}

/// The processes of a tree.
pub fn tree(root: i32) -> Vec<i32> {
    stats_of_tree(root).iter().map(|stat| stat.pid).collect()
}

/// Whether every process of a tree has been stopped by a signal.
pub(crate) fn is_stopped(root: i32) -> bool {
    tree(root).into_iter().all(|pid| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The state stands behind the command, which may contain anything.
        text.rsplit_once(')')
            .is_none_or(|(_, rest)| rest.trim_start().starts_with('T'))
    })
}

/// What a tree has used.
pub fn usage_of_tree(root: i32) -> Usage {
    let ticks_per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)
        .ok()
        .flatten()
        .unwrap_or(100)
        .max(1) as u64;
    let ns = |ticks: u64| ticks * (1_000_000_000 / ticks_per_second);
    let mut total = Usage::default();
    for stat in stats_of_tree(root) {
        let threads = usage_of_threads_in(&format!("/proc/{}/task", stat.pid));
        // The scheduler counts in nanoseconds, but only for threads that live; the
        // ticks know those that ended. Whichever is more has lost less.
        let tick = ns(1);
        let own = if ns(stat.own_ticks) > threads.cpu_ns + 2 * tick {
            ns(stat.own_ticks)
        } else {
            threads.cpu_ns
        };
        total.cpu_ns += own + ns(stat.reaped_ticks);
        total.switches += threads.switches;
    }
    total
}

/// What some threads of this process have used.
pub fn usage_of_threads(threads: &[i32]) -> Usage {
    let mut total = Usage::default();
    for thread in threads {
        add_thread(&mut total, Path::new(&format!("/proc/self/task/{thread}")));
    }
    total
}

fn usage_of_threads_in(directory: &str) -> Usage {
    let mut total = Usage::default();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        add_thread(&mut total, &entry.path());
    }
    total
}

fn add_thread(total: &mut Usage, thread: &Path) {
    let schedstat = fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    let on_cpu = schedstat.split_whitespace().next();
    total.cpu_ns += on_cpu.and_then(|ns| ns.parse().ok()).unwrap_or(0);
    let status = fs::read_to_string(thread.join("status")).unwrap_or_default();
    total.switches += ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"]
        .iter()
        .filter_map(|name| field(&status, name))
        .sum::<u64>();
}

/// Bytes of anonymous memory: what the processes allocated for themselves. Pages
/// shared by fork count in proportion.
pub fn memory_of_tree(root: i32) -> u64 {
    tree(root)
        .into_iter()
        .filter_map(|pid| {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
            let pss = rollup.as_deref().and_then(|text| field(text, "Pss_Anon:"));
            pss.or_else(|| {
                let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
                field(&status, "RssAnon:")
            })
        })
        .map(|kibibytes| kibibytes * 1024)
        .sum()
}

/// Open descriptors, and how many of them are ends of pipes.
pub fn descriptors_of_tree(root: i32) -> (u64, u64) {
    let (mut all, mut pipes) = (0, 0);
    for pid in tree(root) {
        let directory = fs::read_dir(format!("/proc/{pid}/fd"));
        for entry in directory.into_iter().flatten().flatten() {
            all += 1;
            let target = fs::read_link(entry.path()).unwrap_or_default();
            pipes += u64::from(target.to_string_lossy().starts_with("pipe:"));
        }
    }
    (all, pipes)
}

/// Lets every thread of a tree run on these CPUs only.
///
/// # Errors
/// What the kernel refused.
pub fn pin_tree(root: i32, cpus: &[usize]) -> Result<(), String> {
    for pid in tree(root) {
        let tasks = fs::read_dir(format!("/proc/{pid}/task"));
        for entry in tasks.into_iter().flatten().flatten() {
            let Some(thread) = entry.file_name().to_str().and_then(|id| id.parse().ok()) else {
                continue;
            };
            let pinned = pin(Pid::from_raw(thread), cpus);
            // A thread that has ended meanwhile needs no CPU.
            if entry.path().exists() {
                pinned?;
            }
        }
    }
    Ok(())
}

/// Nanoseconds that these CPUs were busy for processes (user, nice and system; not
/// interrupts, which are mostly the traffic's own), or taken by the hypervisor.
pub fn busy_ns(cpus: &[usize]) -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    stat.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let cpu: usize = words.next()?.strip_prefix("cpu")?.parse().ok()?;
            let ticks: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
            let busy = ticks.first()? + ticks.get(1)? + ticks.get(2)? + ticks.get(7)?;
            cpus.contains(&cpu).then_some(busy * 10_000_000)
        })
        .sum()
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
}

fn stats_of_tree(root: i32) -> Vec<Stat> {
    let all: Vec<Stat> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(stat)
        .collect();
    let Some(group) = all.iter().find(|stat| stat.pid == root).map(|s| s.group) else {
        return Vec::new();
    };
    let mut members: Vec<i32> = vec![root];
    let mut found: Vec<Stat> = Vec::new();
    // Parents come before children in `members`, not necessarily in `all`.
    loop {
        let before = found.len();
        for stat in &all {
            let belongs = members.contains(&stat.pid)
                || members.contains(&stat.parent)
                || (group == root && stat.group == group);
            if belongs && !found.iter().any(|known| known.pid == stat.pid) {
                members.push(stat.pid);
                found.push(*stat);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The command in the second field may contain anything, spaces and parentheses
/// included; the last `)` ends it (proc_pid_stat(5)).
fn parse_stat(text: &str) -> Option<Stat> {
    let (head, rest) = text.rsplit_once(')')?;
    let pid = head.split_whitespace().next()?.parse().ok()?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let number = |field: usize| words.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        pid,
        parent: words.get(1)?.parse().ok()?,
        group: words.get(2)?.parse().ok()?,
        own_ticks: number(14)? + number(15)?,
        reaped_ticks: number(16)? + number(17)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_with_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) b (c)) S 7 42 42 0 -1 4194304 1 2 3 4 11 22 33 44 20 0 1 0 5 6 7";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.pid, stat.parent, stat.group), (42, 7, 42));
        assert_eq!((stat.own_ticks, stat.reaped_ticks), (33, 77));
    }

    #[test]
    fn this_process_is_seen_to_work() {
        let own = nix::unistd::Pid::this().as_raw();
        let before = usage_of_tree(own);
        let mut random = crate::balance::Random::new(1);
        let mut drawn = 0_u64;
        let deadline = std::time::Instant::now() + std::time::Duration::from_millis(50);
        while std::time::Instant::now() < deadline {
            drawn = drawn.wrapping_add(random.draw());
        }
        let used = usage_of_tree(own).since(before);
        assert!(used.cpu_ns > 10_000_000, "{used:?} after {drawn}");
        assert!(memory_of_tree(own) > 0);
        assert!(descriptors_of_tree(own).0 > 2);
    }
}
