//! What this process may use: descriptors, CPUs, ports.
//!
//! Everything is read from the kernel when asked, nothing is cached, because
//! `prlimit`, cgroups and sysctls change under a running process.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;

use super::sys;

/// Raises the soft limit of descriptors to the hard one and returns it.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// How many descriptors this process may have open now.
pub fn descriptor_limit() -> io::Result<u64> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}

/// How many descriptors this process may have open now, and how many it may allow
/// itself.
pub fn descriptor_limits() -> io::Result<(u64, u64)> {
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?)
}

/// How many reactors this process can keep busy: the CPUs it may run on, or fewer
/// if a cgroup gives it less time. Part of a CPU counts as a whole one, since a
/// quota of 1.5 is not used up by one thread. At least 1.
pub fn reactor_count() -> usize {
    let cpus = allowed_cpus().len();
    cgroup_cpus().map_or(cpus, |quota| quota.min(cpus)).max(1)
}

/// The CPUs this process may run on, in order. Those of its first thread: a
/// reactor that has pinned itself must not see its own CPU alone.
pub fn allowed_cpus() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::this()) else {
        return Vec::new();
    };
    (0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect()
}

/// How many descriptors this process has open. The kernel tells it as the size of the
/// directory since 6.2; before, they are counted one by one, which takes milliseconds for
/// tens of thousands.
pub fn open_descriptors() -> io::Result<u64> {
    let told = std::fs::metadata(DESCRIPTORS)?.len();
    if told > 0 {
        return Ok(told);
    }
    Ok(std::fs::read_dir(DESCRIPTORS)?.count() as u64)
}

const DESCRIPTORS: &str = "/proc/self/fd";

/// The CPU that reactor `index` belongs on; they are dealt out in turn.
pub fn cpu_of_reactor(index: usize) -> Option<usize> {
    let cpus = allowed_cpus();
    let turn = index.checked_rem(cpus.len())?;
    cpus.get(turn).copied()
}

/// The longest slice that a thread may ask for (Linux 6.12; kernel/sched/syscalls.c).
const LONGEST_SLICE: Duration = Duration::from_millis(100);

/// Lets other threads go before this one: it has less of a CPU by so many steps of nice(2), and
/// whoever wakes where it runs has the CPU at once. Needs no privilege.
///
/// nice alone does not do that: since Linux 6.6 a thread that runs keeps its CPU for the shortest
/// slice among those that want it, some milliseconds, whatever its weight. One that asks for a
/// longer slice than others has no such protection from them (`PREEMPT_SHORT`, Linux 6.12;
/// kernels before it ignore the slice).
pub fn lower_priority(steps: i32) -> io::Result<()> {
    // Of a thread and not of the process, as Linux has it.
    let nice = rustix::process::getpriority_process(None)? + steps;
    rustix::process::setpriority_process(None, nice)?;
    sys::set_batch(nice, LONGEST_SLICE)?;
    Ok(())
}

/// Pins the calling thread to one CPU.
pub fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)?;
    Ok(())
}

/// The range that connects take their local ports from; the kernel's default where it
/// does not say.
pub fn ephemeral_ports() -> RangeInclusive<u16> {
    known_ephemeral_ports().unwrap_or(32_768..=60_999)
}

/// The range that connects take their local ports from, as the kernel says.
pub fn known_ephemeral_ports() -> Option<RangeInclusive<u16>> {
    sysctl("net.ipv4.ip_local_port_range").and_then(|text| parse_port_range(&text))
}

fn parse_port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut ends = text.split_whitespace().map(str::parse);
    match (ends.next(), ends.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Some(first..=last),
        _ => None,
    }
}

/// The first port that needs no privilege to listen on.
pub fn first_unprivileged_port() -> u16 {
    sysctl("net.ipv4.ip_unprivileged_port_start")
        .and_then(|text| text.parse().ok())
        .unwrap_or(1024)
}

/// Why this process may not make an io_uring; `None` when it may.
pub fn io_uring_refusal() -> Option<String> {
    let errno = sys::io_uring_refusal()?;
    let switch = sysctl("kernel.io_uring_disabled").filter(|value| value != "0");
    Some(match (errno, switch) {
        (Errno::EPERM, Some(value)) => format!("kernel.io_uring_disabled is {value}"),
        (Errno::EPERM, None) => "a seccomp filter or a security module forbids it".to_owned(),
        (Errno::ENOSYS, _) => "the kernel has none, or a filter says so".to_owned(),
        (errno, _) => errno.desc().to_owned(),
    })
}

/// Whether this process has a capability by its number (linux/capability.h), in
/// effect.
pub fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> number & 1 == 1)
}

/// The value of a sysctl by its dotted name, trimmed; `None` where there is none.
pub(crate) fn sysctl(name: &str) -> Option<String> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

/// CPUs' worth of time the cgroup of this process grants, rounded up; `None`
/// without a quota.
pub fn cgroup_cpus() -> Option<usize> {
    of_this_process("cpu", Hierarchy::quota)
}

/// Bytes of memory the cgroup of this process grants; `None` without a limit.
pub fn cgroup_memory() -> Option<u64> {
    of_this_process("memory", Hierarchy::memory)
}

/// What each reactor may hold for slow receivers: what is configured, and no more than its
/// share of half of what the cgroup grants, if there is a reactor for each CPU.
pub fn buffers_of_each(configured: u64) -> u64 {
    buffers_within(configured, reactor_count(), cgroup_memory())
}

fn buffers_within(configured: u64, reactors: usize, memory: Option<u64>) -> u64 {
    const LEAST: u64 = 1 << 20;
    let share = |memory: u64| (memory / 2 / reactors.max(1) as u64).max(LEAST);
    memory.map_or(configured, |it| configured.min(share(it)))
}

type Files<'a> = &'a dyn Fn(&Path) -> Option<String>;

fn of_this_process<T: Ord>(
    controller: &str,
    granted: impl Fn(&Hierarchy, Files<'_>) -> Option<T>,
) -> Option<T> {
    let membership = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let read: Files<'_> = &|path| fs::read_to_string(path).ok();
    tightest(controller, (&membership, &mounts), |it| granted(it, read))
}

/// The tightest limit from the process's cgroup up to the root of each hierarchy that has
/// the controller (v1 or v2; hosts with both are common).
fn tightest<T: Ord>(
    controller: &str,
    (membership, mounts): (&str, &str),
    granted: impl Fn(&Hierarchy) -> Option<T>,
) -> Option<T> {
    mounts
        .lines()
        .filter_map(|line| Hierarchy::of_mount(line, membership, controller))
        .filter_map(|hierarchy| granted(&hierarchy))
        .min()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// A mounted cgroup hierarchy, and where in it the process is.
struct Hierarchy {
    version: Version,
    mount: PathBuf,
    inside: PathBuf,
}

impl Hierarchy {
    /// From a line of /proc/self/mountinfo (`proc_pid_mountinfo(5)`).
    fn of_mount(line: &str, membership: &str, controller: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let (root, mount) = (left.next()?, left.next()?);
        let mut right = right.split(' ');
        let (kind, options) = (right.next()?, right.nth(1)?);
        let version = match kind {
            "cgroup2" => Version::V2,
            "cgroup" if options.split(',').any(|it| it == controller) => Version::V1,
            _ => return None,
        };
        let path = membership.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (number, controllers) = (fields.next()?, fields.next()?);
            let ours = match version {
                Version::V2 => number == "0" && controllers.is_empty(),
                Version::V1 => controllers.split(',').any(|it| it == controller),
            };
            ours.then(|| fields.next())?
        })?;
        // Outside a cgroup namespace the path leads from the true root although
        // only a part of the tree is mounted. What lies outside the mount
        // (`/../..`) cannot be seen; the top of the mount is the best there is.
        let inside = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        Some(Self {
            version,
            mount: PathBuf::from(mount),
            inside: inside.strip_prefix("/").unwrap_or(inside).to_owned(),
        })
    }

    /// The least quota of the process's cgroup and those above it.
    fn quota(&self, read: Files<'_>) -> Option<usize> {
        self.inside
            .ancestors()
            .filter_map(|part| {
                let directory = self.mount.join(part);
                match self.version {
                    Version::V2 => {
                        let text = read(&directory.join("cpu.max"))?;
                        let (quota, period) = text.trim().split_once(' ')?;
                        cpus(quota, period)
                    }
                    Version::V1 => cpus(
                        &read(&directory.join("cpu.cfs_quota_us"))?,
                        &read(&directory.join("cpu.cfs_period_us"))?,
                    ),
                }
            })
            .min()
    }

    /// Likewise of memory.
    fn memory(&self, read: Files<'_>) -> Option<u64> {
        /// What version 1 says without a limit is more than any machine has.
        const NONE: u64 = 1 << 60;
        let file = match self.version {
            Version::V2 => "memory.max",
            Version::V1 => "memory.limit_in_bytes",
        };
        let parts = self.inside.ancestors();
        parts
            .filter_map(|part| read(&self.mount.join(part).join(file))?.trim().parse().ok())
            .filter(|bytes| *bytes < NONE)
            .min()
    }
}

/// `None` for "max" and -1, which mean no quota.
fn cpus(quota: &str, period: &str) -> Option<usize> {
    let quota: u64 = quota.trim().parse().ok()?;
    let period: u64 = period.trim().parse().ok().filter(|period| *period > 0)?;
    usize::try_from(quota.div_ceil(period)).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const V2_MOUNT: &str =
        "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";

    fn quota(membership: &str, mounts: &str, files: &[(&str, &str)]) -> Option<usize> {
        let files: HashMap<_, _> = files.iter().copied().collect();
        let read: Files<'_> = &|path| Some((*files.get(path.to_str().unwrap())?).to_owned());
        tightest("cpu", (membership, mounts), |it| it.quota(read))
    }

    #[test]
    fn b159_a_quota_of_one_cpu_is_one_reactor() {
        let file = ("/sys/fs/cgroup/pod/cpu.max", "100000 100000\n");
        let quota = quota("0::/pod\n", V2_MOUNT, &[file]);
        assert_eq!(quota, Some(1));
    }

    #[test]
    fn b159_a_limit_of_memory_bounds_what_is_held() {
        let memory = |membership, mounts, path: &str, text: &str| {
            let read: Files<'_> = &|asked| (asked == Path::new(path)).then(|| text.to_owned());
            tightest("memory", (membership, mounts), |it| it.memory(read))
        };
        let v2 = |text| memory("0::/pod\n", V2_MOUNT, "/sys/fs/cgroup/pod/memory.max", text);
        assert_eq!(v2("268435456\n"), Some(256 << 20));
        assert_eq!(v2("max\n"), None);
        let v1 = "41 30 0:31 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        let v1 = |text| {
            let file = "/sys/fs/cgroup/memory/pod/memory.limit_in_bytes";
            memory("4:memory:/pod\n", v1, file, text)
        };
        assert_eq!(v1("134217728\n"), Some(128 << 20));
        assert_eq!(v1("9223372036854771712\n"), None);
        // Half of it, in equal shares, and never less than what a limit may be.
        assert_eq!(buffers_within(256 << 20, 2, Some(256 << 20)), 64 << 20);
        assert_eq!(buffers_within(32 << 20, 2, Some(256 << 20)), 32 << 20);
        assert_eq!(buffers_within(32 << 20, 2, Some(1 << 20)), 1 << 20);
        assert_eq!(buffers_within(32 << 20, 2, None), 32 << 20);
    }

    #[test]
    fn a_v2_quota_is_rounded_up() {
        let file = ("/sys/fs/cgroup/a/b/cpu.max", "150000 100000\n");
        assert_eq!(quota("0::/a/b\n", V2_MOUNT, &[file]), Some(2));
        let file = ("/sys/fs/cgroup/a/b/cpu.max", "10000 100000\n");
        assert_eq!(quota("0::/a/b\n", V2_MOUNT, &[file]), Some(1));
    }

    #[test]
    fn the_tightest_quota_above_counts() {
        let files = [
            ("/sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/a/cpu.max", "300000 100000\n"),
            ("/sys/fs/cgroup/cpu.max", "800000 100000\n"),
        ];
        assert_eq!(quota("0::/a/b\n", V2_MOUNT, &files), Some(3));
        assert_eq!(quota("0::/a/b\n", V2_MOUNT, &files[..1]), None);
    }

    #[test]
    fn a_v1_quota_of_a_container_without_its_own_namespace() {
        let mount = "40 30 0:30 /docker/x /sys/fs/cgroup/cpu,cpuacct ro master:5 - \
                     cgroup cgroup rw,cpu,cpuacct";
        let membership = "5:cpuset:/docker/x\n4:cpu,cpuacct:/docker/x\n0::/\n";
        let files = [
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "400000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota(membership, mount, &files), Some(4));
        let unlimited = [(files[0].0, "-1\n"), files[1]];
        assert_eq!(quota(membership, mount, &unlimited), None);
    }

    #[test]
    fn a_hybrid_host_takes_the_lesser_of_both() {
        let mounts = format!(
            "{}\n41 30 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n",
            V2_MOUNT.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified ")
        );
        let files = [
            ("/sys/fs/cgroup/unified/cpu.max", "500000 100000\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(quota("1:cpu:/\n0::/\n", &mounts, &files), Some(2));
    }

    #[test]
    fn malformed_files_are_no_quota() {
        for text in ["", "max", "1 0", "x y", "-5 100"] {
            let file = ("/sys/fs/cgroup/cpu.max", text);
            assert_eq!(quota("0::/\n", V2_MOUNT, &[file]), None, "{text:?}");
        }
        assert_eq!(quota("", "one two three", &[]), None);
        assert_eq!(quota("0::/../../x\n", V2_MOUNT, &[]), None);
    }

    #[test]
    fn descriptors_are_counted() {
        let before = open_descriptors().unwrap();
        let held: Vec<_> = (0..100).map(|_| std::fs::File::open("/dev/null")).collect();
        assert!(held.iter().all(Result::is_ok));
        // Other tests of this process open and close some, too.
        assert!(open_descriptors().unwrap() + 50 > before);
        assert!(open_descriptors().unwrap() >= 100);
    }

    #[test]
    fn reactors_follow_the_affinity_of_the_process() {
        let cpus = allowed_cpus();
        assert!(!cpus.is_empty());
        assert!((1..=cpus.len()).contains(&reactor_count()));
        assert_eq!(cpu_of_reactor(cpus.len()), Some(cpus[0]));
    }

    #[test]
    fn a_pinned_thread_does_not_narrow_the_process() {
        let before = allowed_cpus();
        let cpu = *before.last().unwrap();
        std::thread::spawn(move || {
            pin_to_cpu(cpu).unwrap();
            let mine = sched_getaffinity(Pid::from_raw(0)).unwrap();
            assert!((0..CpuSet::count()).all(|it| mine.is_set(it).unwrap() == (it == cpu)));
        })
        .join()
        .unwrap();
        assert_eq!(allowed_cpus(), before);
    }

    #[test]
    fn a_thread_that_lets_others_go_first_does_so_in_each_way() {
        let thread = std::thread::spawn(|| {
            let before = rustix::process::getpriority_process(None).unwrap();
            lower_priority(3).unwrap();
            assert_eq!(
                rustix::process::getpriority_process(None).unwrap(),
                before + 3
            );
            let policy = fs::read_to_string("/proc/thread-self/stat").unwrap();
            // proc_pid_stat(5): the 41st field, 39 behind the name.
            let fields = policy.rsplit_once(") ").unwrap().1.split(' ');
            assert_eq!(
                fields.clone().nth(38),
                Some(libc::SCHED_BATCH.to_string()).as_deref()
            );
        });
        thread.join().unwrap();
    }

    #[test]
    fn b33_the_descriptor_limit_is_read_anew() {
        let hard = getrlimit(Resource::RLIMIT_NOFILE).unwrap().1;
        assert_eq!(raise_descriptor_limit().unwrap(), hard);
        assert_eq!(descriptor_limit().unwrap(), hard);
        // One less, as prlimit might do to a living process, and back.
        setrlimit(Resource::RLIMIT_NOFILE, hard - 1, hard).unwrap();
        assert_eq!(descriptor_limit().unwrap(), hard - 1);
        assert_eq!(raise_descriptor_limit().unwrap(), hard);
    }

    #[test]
    fn ports_are_ranges() {
        assert_eq!(parse_port_range("32768\t60999"), Some(32_768..=60_999));
        assert_eq!(parse_port_range("32768"), None);
        assert!(!ephemeral_ports().is_empty());
    }
}
