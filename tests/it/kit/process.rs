//! A process as `/proc` shows it: descriptors, memory, time.

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The system calls in which engines wait.
const WAITS: &[libc::c_long] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_io_uring_enter,
];

/// A process that is running, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process(pub(crate) u32);

/// Its open descriptors, by what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Descriptors {
    pub(crate) sockets: usize,
    /// Ends of pipes: two for each pipe.
    pub(crate) pipe_ends: usize,
    pub(crate) eventfds: usize,
    pub(crate) rings: usize,
    pub(crate) others: usize,
}

/// Its memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Memory {
    /// Everything that is resident.
    pub(crate) resident: u64,
    /// Heap and stacks: what the program itself asked for.
    pub(crate) anonymous: u64,
}

impl Process {
    fn path(self, name: &str) -> PathBuf {
        format!("/proc/{}/{name}", self.0).into()
    }

    /// Whether it runs; one that has ended and waits to be reaped does not.
    pub(crate) fn is_alive(self) -> bool {
        let stat = fs::read_to_string(self.path("stat")).unwrap_or_default();
        let state = stat.rsplit_once(')').map(|(_, rest)| rest.trim_start());
        state.is_some_and(|state| !state.starts_with(['Z', 'X']))
    }

    /// What each descriptor points to, as in `/proc/PID/fd`.
    pub(crate) fn descriptor_targets(self) -> Vec<(u32, String)> {
        let entries = fs::read_dir(self.path("fd")).into_iter().flatten();
        let target = |entry: std::io::Result<fs::DirEntry>| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            // One that was closed meanwhile.
            let target = fs::read_link(entry.path()).ok()?;
            Some((number, target.to_string_lossy().into_owned()))
        };
        entries.filter_map(target).collect()
    }

    pub(crate) fn descriptors(self) -> Descriptors {
        let mut found = Descriptors::default();
        for (_, target) in self.descriptor_targets() {
            let kind = match target.as_str() {
                "anon_inode:[eventfd]" => &mut found.eventfds,
                "anon_inode:[io_uring]" => &mut found.rings,
                target if target.starts_with("socket:") => &mut found.sockets,
                target if target.starts_with("pipe:") => &mut found.pipe_ends,
                _ => &mut found.others,
            };
            *kind += 1;
        }
        found
    }

    /// Bytes that lie in its pipes, but for its standard streams.
    pub(crate) fn bytes_in_pipes(self) -> usize {
        let pipes = self.descriptor_targets().into_iter();
        let pipes = pipes.filter(|(number, target)| *number > 2 && target.starts_with("pipe:"));
        let mut seen = Vec::new();
        let mut bytes = 0;
        for (number, target) in pipes {
            if !seen.contains(&target) {
                bytes += bytes_in_pipe(&self.path(&format!("fd/{number}")));
                seen.push(target);
            }
        }
        bytes
    }

    fn status(self, key: &str) -> u64 {
        let status = fs::read_to_string(self.path("status")).unwrap_or_default();
        number_after(&status, key)
    }

    pub(crate) fn memory(self) -> Memory {
        Memory {
            resident: self.status("VmRSS:") * 1024,
            anonymous: self.status("RssAnon:") * 1024,
        }
    }

    /// Names of its threads.
    pub(crate) fn threads(self) -> Vec<String> {
        let names = self.of_each_thread("comm");
        names.iter().map(|name| name.trim().to_owned()).collect()
    }

    /// How many of the threads whose name begins so wait for events: those of a reactor do
    /// once it stands, and what it needs is open. Asleep they may be for any reason.
    pub(crate) fn waiting_for_events(self, name: &str) -> usize {
        let tasks = fs::read_dir(self.path("task")).into_iter().flatten();
        let waits = |task: std::io::Result<fs::DirEntry>| {
            let task = task.ok()?.path();
            let its_name = fs::read_to_string(task.join("comm")).ok()?;
            // Of a thread that runs: the word. See proc_pid_syscall(5).
            let call = fs::read_to_string(task.join("syscall")).ok()?;
            let number = call.split(' ').next()?.parse().ok()?;
            Some(its_name.starts_with(name) && WAITS.contains(&number))
        };
        tasks.filter_map(waits).filter(|waits| *waits).count()
    }

    /// Whether every thread is asleep, but for those whose name begins so: one that waits to be let run is not.
    pub(crate) fn sleeps_but_for(self, name: &str) -> bool {
        let threads = self.of_each_thread("stat");
        let mut others = threads.iter().filter_map(|stat| {
            let (before, after) = stat.rsplit_once(") ")?;
            let (_, its_name) = before.split_once('(')?;
            (!its_name.starts_with(name)).then_some(after)
        });
        others.all(|state| state.starts_with('S'))
    }

    /// The number of its thread of that name.
    pub(crate) fn thread(self, name: &str) -> Option<i32> {
        let mut tasks = fs::read_dir(self.path("task")).ok()?.flatten();
        let task = tasks.find(|task| {
            let its_name = fs::read_to_string(task.path().join("comm"));
            its_name.is_ok_and(|it| it.trim() == name)
        })?;
        task.file_name().to_str()?.parse().ok()
    }

    fn of_each_thread(self, file: &str) -> Vec<String> {
        let tasks = fs::read_dir(self.path("task")).into_iter().flatten();
        let read = |task: std::io::Result<fs::DirEntry>| {
            fs::read_to_string(task.ok()?.path().join(file)).ok()
        };
        tasks.filter_map(read).collect()
    }

    /// Processor time of all threads that live, to the nanosecond where the kernel
    /// counts it so.
    pub(crate) fn processor_time(self) -> Duration {
        let precise = self.of_each_thread("schedstat");
        let nanos = |text: &String| text.split(' ').next()?.parse::<u64>().ok();
        let precise: u64 = precise.iter().filter_map(nanos).sum();
        if precise > 0 {
            return Duration::from_nanos(precise);
        }
        let stat = fs::read_to_string(self.path("stat")).unwrap_or_default();
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        // utime and stime are fields 14 and 15 of proc(5); the state is field 3.
        let ticks = after_name.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|text| text.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 10)
    }

    /// Voluntary context switches of the threads whose name begins so: how often
    /// they went to sleep, and thus how often they woke up.
    pub(crate) fn sleeps(self, thread: &str) -> u64 {
        let threads = self.of_each_thread("status").into_iter();
        let name = |status: &String| {
            let name = status.lines().find_map(|line| line.strip_prefix("Name:"));
            name.is_some_and(|name| name.trim().starts_with(thread))
        };
        threads
            .filter(name)
            .map(|status| number_after(&status, "voluntary_ctxt_switches:"))
            .sum()
    }

    /// The share of one core that it used over `window`.
    pub(crate) fn processor_share(self, window: Duration) -> f64 {
        let (before, start) = (self.processor_time(), Instant::now());
        std::thread::sleep(window);
        let used = self.processor_time().saturating_sub(before);
        used.as_secs_f64() / start.elapsed().as_secs_f64()
    }

    /// Stops it (SIGSTOP) and waits until every thread stands still: the signal alone
    /// lets those on other cores run on for a moment.
    #[track_caller]
    pub(crate) fn stop(self) {
        self.signal(nix::sys::signal::Signal::SIGSTOP);
        super::wait_until("it stands still", super::PATIENCE, || {
            let threads = self.of_each_thread("stat");
            let stopped = |stat: &String| {
                let state = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
                state.starts_with('T')
            };
            !threads.is_empty() && threads.iter().all(stopped)
        });
    }

    /// Sends a signal.
    pub(crate) fn signal(self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(self.0 as i32), signal).unwrap();
    }
}

/// The number after `key` at the beginning of a line.
fn number_after(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Opens the pipe anew through `/proc` and takes out what lies in it: it is looked
/// at only when nothing should lie there.
fn bytes_in_pipe(path: &std::path::Path) -> usize {
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let Ok(mut file) = file else { return 0 };
    let mut buffer = vec![0; 64 * 1024];
    let mut bytes = 0;
    while let Ok(n) = file.read(&mut buffer) {
        if n == 0 {
            break;
        }
        bytes += n;
    }
    bytes
}
