//! Network namespaces of a test's own, in which it may cut lines and narrow limits.
//!
//! A namespace has no name and no process: descriptors keep it, so it is gone with
//! whatever a test left in it, rules included, even when the test is killed.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};

use super::{skip, test_name};

/// A network namespace with its loopback up.
#[derive(Debug)]
pub(crate) struct Namespace {
    handle: File,
}

impl Namespace {
    /// A new one; says that the test is skipped where that is not permitted.
    pub(crate) fn new() -> Option<Self> {
        let test = test_name();
        match Self::make() {
            Ok(namespace) => Some(namespace),
            Err(why) => {
                skip(&test, &format!("no network namespace: {why} (needs root)"));
                None
            }
        }
    }

    fn make() -> Result<Self, String> {
        // On a thread of its own, which does not come back from there.
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| errno.to_string())?;
            run("ip", &["link", "set", "lo", "up"])?;
            File::open("/proc/thread-self/ns/net").map_err(|error| error.to_string())
        });
        let handle = made
            .join()
            .map_err(|_| "the thread panicked".to_owned())??;
        Ok(Self { handle })
    }

    /// Where commands such as `ip link … netns` find it.
    pub(crate) fn path(&self) -> String {
        let descriptor = self.handle.as_raw_fd();
        format!("/proc/{}/fd/{descriptor}", std::process::id())
    }

    /// Runs `work` on a thread inside. Sockets that it makes and processes that it
    /// starts are inside too, and stay there.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let name = test_name();
        thread::scope(|scope| {
            let inside = thread::Builder::new().name(name).spawn_scoped(scope, || {
                setns(&self.handle, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            match inside.unwrap().join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

/// Runs a command to its end in the calling thread's namespace; an error is what it
/// said.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let line = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{}: {error}", line()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}", line(), said.trim()))
}

/// `ip …`, which must succeed.
#[track_caller]
pub(crate) fn ip(arguments: &str) {
    let words: Vec<_> = arguments.split_whitespace().collect();
    let done = run("ip", &words);
    assert!(done.is_ok(), "{done:?}");
}

/// `nft …`, which must succeed; `false`, and the test is skipped, where there is no
/// nft or the kernel has no nftables.
pub(crate) fn nft(arguments: &str) -> bool {
    match run("nft", &[arguments]) {
        Ok(_) => true,
        Err(why) => {
            skip(&test_name(), &why);
            false
        }
    }
}

/// Sets a `net.*` sysctl of the calling thread's namespace.
#[track_caller]
pub(crate) fn sysctl(name: &str, value: &str) {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    let written = std::fs::write(&path, value);
    assert!(written.is_ok(), "{path}: {written:?}");
}

/// An input chain in which rules can be put, and its rules taken out again: what it
/// drops never arrives, and the sender is not told.
#[derive(Debug)]
pub(crate) struct Firewall {
    /// Its chain, with the table.
    chain: &'static str,
}

impl Firewall {
    /// In the calling thread's namespace.
    pub(crate) fn new() -> Option<Self> {
        let chain = "inet thalweg_test input";
        let made = nft("add table inet thalweg_test")
            && nft(&format!(
                "add chain {chain} {{ type filter hook input priority 0; }}"
            ));
        made.then_some(Self { chain })
    }

    /// Drops what matches, such as `tcp dport 5000`, from now on.
    #[track_caller]
    pub(crate) fn drop_packets(&self, matching: &str) {
        self.add(&format!("{matching} drop"));
    }

    /// Adds a rule of any kind, such as `ip daddr 10.0.0.1 reject`.
    #[track_caller]
    pub(crate) fn add(&self, rule: &str) {
        assert!(nft(&format!("add rule {} {rule}", self.chain)));
    }

    /// Lets everything through again.
    #[track_caller]
    pub(crate) fn open(&self) {
        assert!(nft(&format!("flush chain {}", self.chain)));
    }
}
