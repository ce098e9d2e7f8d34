//! What the tests on the real binary share: starting `thalweg` and looking at it
//! from outside ([`forwarder`], [`log`], [`process`]), peers that check every byte
//! ([`peer`], [`pattern`]), and network namespaces ([`namespace`]).
//!
//! Rules of the house: ports come from the kernel, or from [`port`] if they must be known before; every wait has a deadline;
//! whatever a test starts, it ends when it is dropped; a test that cannot run here
//! says so ([`skip`]) and is counted.

pub(crate) mod admin;
pub(crate) mod crowd;
pub(crate) mod directory;
pub(crate) mod dns;
pub(crate) mod forwarder;
pub(crate) mod log;
pub(crate) mod namespace;
pub(crate) mod pattern;
pub(crate) mod peer;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod schema;
pub(crate) mod shortage;
pub(crate) mod stopwatch;

use std::io::Write;
use std::panic::resume_unwind;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

pub(crate) use admin::Admin;
pub(crate) use crowd::Crowd;
pub(crate) use directory::Directory;
pub(crate) use dns::{Dns, Extensions, Says};
pub(crate) use forwarder::{Forwarder, Setup};
pub(crate) use log::Record;
pub(crate) use namespace::Namespace;
pub(crate) use peer::{End, Listener, Peer};
pub(crate) use port::{free_address, free_port};
pub(crate) use stopwatch::Stopwatch;

/// How long anything may take that has no deadline of its own. Far longer than it
/// ever takes: it ends a test that hangs, and judges nothing.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) const KIB: u64 = 1024;
pub(crate) const MIB: u64 = 1024 * KIB;

/// One combination under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Case {
    /// `--engine`.
    pub(crate) engine: &'static str,
    /// `data_path`.
    pub(crate) path: &'static str,
}

/// Runs a behaviour on every engine and every data path, all at the same time: most
/// of them wait more than they work. The name of the thread tells which one failed.
pub(crate) fn on_every_path(behaviour: impl Fn(Case) + Sync) {
    let cases = engines()
        .iter()
        .flat_map(|engine| ["copy", "splice", "auto"].map(|path| Case { engine, path }));
    run_each(cases.collect(), &behaviour);
}

/// Runs a behaviour in which the data path plays no part, on every engine.
pub(crate) fn on_every_engine(behaviour: impl Fn(Case) + Sync) {
    let cases = engines().iter().map(|engine| Case {
        engine,
        path: "auto",
    });
    run_each(cases.collect(), &behaviour);
}

fn run_each(cases: Vec<Case>, behaviour: &(impl Fn(Case) + Sync)) {
    let test = std::thread::current().name().unwrap_or("?").to_owned();
    std::thread::scope(|scope| {
        let threads: Vec<_> = cases
            .into_iter()
            .map(|case| {
                let name = format!("{test} {} {}", case.engine, case.path);
                let thread = std::thread::Builder::new().name(name);
                thread.spawn_scoped(scope, move || behaviour(case)).unwrap()
            })
            .collect();
        for thread in threads {
            if let Err(panic) = thread.join() {
                resume_unwind(panic);
            }
        }
    });
}

/// The engines to test: those of `THALWEG_TEST_ENGINES` (`epoll,io_uring`), or
/// every one that is built in and permitted here.
pub(crate) fn engines() -> &'static [&'static str] {
    static ENGINES: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
        if let Ok(named) = std::env::var("THALWEG_TEST_ENGINES") {
            let known = ["epoll", "io_uring"];
            let wanted = |name: &&str| named.split(',').any(|n| n.trim() == *name);
            let engines: Vec<_> = known.into_iter().filter(wanted).collect();
            assert!(
                !engines.is_empty(),
                "THALWEG_TEST_ENGINES={named}: none of {known:?}"
            );
            return engines;
        }
        let mut engines = vec!["epoll"];
        if cfg!(feature = "uring") {
            match Setup::new("127.0.0.1:1").engine("io_uring").try_start() {
                Ok(_) => engines.push("io_uring"),
                Err(why) => skip("io_uring", &why),
            }
        }
        engines
    });
    &ENGINES
}

/// Says aloud that something cannot be tested here, and counts it: a line in the
/// file that `THALWEG_SKIP_LOG` names. Past the capture of the test harness, which
/// would swallow it.
pub(crate) fn skip(what: &str, reason: &str) {
    let line = format!("skipped: {what}: {}\n", reason.trim().replace('\n', " "));
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("THALWEG_SKIP_LOG") {
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path);
        // One write: lines of tests that run at the same time stay whole.
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        assert!(written.is_ok(), "THALWEG_SKIP_LOG: {written:?}");
    }
}

/// The name of the running test, for [`skip`].
pub(crate) fn test_name() -> String {
    let thread = std::thread::current();
    thread.name().unwrap_or("a test").to_owned()
}

/// Waits until `condition` holds; `what` is said when it does not in time.
#[track_caller]
pub(crate) fn wait_until(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    let found = poll(patience, || condition().then_some(()));
    assert!(found.is_some(), "not within {patience:?}: {what}");
}

/// Looks again and again until there is something to be seen, or time is up.
pub(crate) fn poll<T>(patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The shortest of several runs, and no more of them than needed to get below
/// `limit`, less what the machine took away during it (see [`Stopwatch`]). A machine that
/// is busy elsewhere makes one run slow, a forwarder that waits for the wrong timer makes
/// all of them slow.
pub(crate) fn best_of(runs: u32, limit: Duration, mut run: impl FnMut() -> Duration) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..runs {
        let watch = Stopwatch::start();
        let took = run();
        best = best.min(took.saturating_sub(watch.taken_away()));
        if best <= limit {
            break;
        }
    }
    best
}
