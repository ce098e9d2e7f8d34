//! What the kernel knows of this process, from /proc.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::net::limits;
use crate::observe::counters::ProcessFigures;

/// The figures of this process; what cannot be read is 0.
pub(super) fn figures(started: SystemTime) -> ProcessFigures {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the process stands in parentheses and may contain anything.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let fields: Vec<u64> = fields
        .split_ascii_whitespace()
        .map(|field| field.parse().unwrap_or(0))
        .collect();
    // proc_pid_stat(5), whose fields are counted from 1: `state` is the third.
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
    let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
    let ticks = ticks.ok().flatten().unwrap_or(100).max(1) as u64;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    let page = page.ok().flatten().unwrap_or(4096) as u64;
    ProcessFigures {
        cpu_micros: (field(14) + field(15)) * (1_000_000 / ticks),
        resident_bytes: field(24) * page,
        virtual_bytes: field(23),
        descriptors: limits::open_descriptors().unwrap_or(0),
        descriptors_max: limits::descriptor_limit().unwrap_or(0),
        threads: field(20),
        started_micros: micros(started),
    }
}

/// Since the epoch.
pub(super) fn micros(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_micros() as u64
}

/// The thread of a reactor, for the kernel's account of it.
#[derive(Debug, Clone)]
pub(super) struct ThreadStat(PathBuf);

/// What the kernel has accounted a thread for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ThreadTimes {
    /// On a CPU.
    pub(super) ran: Duration,
    /// Ready to run, and waiting for a CPU.
    pub(super) waited: Duration,
}

impl ThreadStat {
    /// The thread of this name.
    pub(super) fn find(name: &str) -> Option<Self> {
        let threads = fs::read_dir("/proc/self/task").ok()?;
        for thread in threads.flatten() {
            let path = thread.path();
            let found = fs::read_to_string(path.join("comm")).unwrap_or_default();
            if found.trim_end() == name {
                return Some(Self(path.join("schedstat")));
            }
        }
        None
    }

    /// `None` once it has ended, and where the kernel does not tell.
    pub(super) fn times(&self) -> Option<ThreadTimes> {
        let text = fs::read_to_string(&self.0).ok()?;
        let mut numbers = text.split_ascii_whitespace();
        let mut next = || Some(Duration::from_nanos(numbers.next()?.parse().ok()?));
        Some(ThreadTimes {
            ran: next()?,
            waited: next()?,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_process_knows_itself() {
        let figures = figures(SystemTime::now());
        assert!(figures.resident_bytes > 1 << 20, "{figures:?}");
        assert!(
            figures.virtual_bytes > figures.resident_bytes,
            "{figures:?}"
        );
        assert!(
            figures.threads >= 1 && figures.descriptors >= 3,
            "{figures:?}"
        );
        assert!(
            figures.descriptors_max >= figures.descriptors,
            "{figures:?}"
        );
    }

    #[test]
    fn a_thread_is_found_by_its_name() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("b139-thread".to_owned())
            .spawn(move || stopped.recv())
            .unwrap();
        let stat = (0..1000).find_map(|_| {
            std::thread::sleep(Duration::from_millis(1));
            ThreadStat::find("b139-thread")
        });
        assert!(stat.unwrap().times().is_some());
        drop(stop);
        let _ = thread.join();
    }
}
