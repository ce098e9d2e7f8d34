//! How many checks it takes, when they are made, and what is logged.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use thalweg::balance::health::Change;
use thalweg::config::{CheckKind, LogFormat, LogLevel, LogTarget};
use thalweg::control::health::CheckPlan;
use thalweg::net::address::Endpoint;
use thalweg::observe::log::Log;
use thalweg::relay::id::ServerId;

use super::origin::{Closed, Manner, Origin};
use super::watch::{Watch, plan, with};
use crate::kit::directory::Directory;
use crate::kit::{PATIENCE, wait_until};

const GOOD: Manner = Manner::Answers(b"yes");
const BAD: Manner = Manner::Answers(b"no");

fn question() -> CheckKind {
    CheckKind::Exchange {
        send: b"well?".to_vec(),
        expect: b"yes".to_vec(),
    }
}

fn null_log() -> Log {
    let target = LogTarget::File("/dev/null".into());
    Log::start(LogLevel::Info, LogFormat::Text, &target)
        .unwrap()
        .0
}

/// A server that answers by a script, good or bad, and well when that is over; and
/// how many checks it has answered.
fn scripted(script: &'static [bool]) -> (Origin, Arc<AtomicUsize>) {
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    let origin = Origin::with(move |number| {
        count.store(number + 1, Ordering::SeqCst);
        if script.get(number).copied().unwrap_or(true) {
            GOOD
        } else {
            BAD
        }
    });
    (origin, served)
}

#[test]
fn b31_rise_and_fall_are_exact_over_the_wire() {
    // Two failures are not three, one success is not two.
    let (origin, served) = scripted(&[
        true, false, false, true, false, false, false, // down with the 7th
        true, false, true, true, // up with the 11th
    ]);
    let plan = with(plan(origin.address, question()), |it| {
        it.rise = 2;
        it.fall = 3;
    });
    // Nothing is checked while the verdict is given, so the count is exact.
    let seen = Arc::new(AtomicUsize::new(0));
    let note = {
        let seen = seen.clone();
        move || seen.store(served.load(Ordering::SeqCst), Ordering::SeqCst)
    };
    let (resume, pause) = std::sync::mpsc::sync_channel::<()>(0);
    let pause = std::sync::Mutex::new(pause);
    let watch = Watch::with_log(vec![plan], null_log(), move || {
        note();
        let _ = pause.lock().unwrap().recv_timeout(PATIENCE);
    });
    for (way, reason, checks) in [
        (Change::Down, "3 of 3 checks failed", 7),
        (Change::Up, "2 of 2 checks passed", 11),
    ] {
        wait_until("a verdict", PATIENCE, || {
            seen.load(Ordering::SeqCst) >= checks
        });
        assert_eq!(seen.load(Ordering::SeqCst), checks);
        resume.send(()).unwrap();
        let told = watch.goes(way);
        assert!(told.ends_with(reason), "{told}");
    }
}

#[test]
fn b31_a_first_failure_is_enough() {
    let closed = Closed::new();
    let plan = with(plan(closed.address, CheckKind::Tcp), |it| it.fall = 1000);
    let reason = Watch::new(vec![plan]).goes(Change::Down);
    assert_eq!(reason, "connect refused, the first check failed");
}

#[test]
fn a_change_is_logged_once_with_its_reason() {
    let directory = Directory::new();
    let path = directory.join("log");
    let (log, writer) = Log::start(
        LogLevel::Info,
        LogFormat::Text,
        &LogTarget::File(path.clone()),
    )
    .unwrap();
    let (origin, served) = scripted(&[true, false, false, false, false, false, false]);
    let plan = with(plan(origin.address, question()), |it| it.fall = 3);
    let watch = Watch::with_log(vec![plan], log, || {});
    watch.goes(Change::Down);
    watch.goes(Change::Up);
    wait_until("more checks", PATIENCE, || {
        served.load(Ordering::SeqCst) > 12
    });
    drop(watch);
    writer.finish(PATIENCE);
    let text = std::fs::read_to_string(path).unwrap();
    let down = " of tested is down: answer does not start as expected (\"no\"), \
                3 of 3 checks failed";
    let lines = |what: &str| {
        text.lines()
            .filter(|line| line.replace('\\', "").contains(what))
            .count()
    };
    assert_eq!(lines(down), 1, "{text}");
    assert_eq!(lines(" of tested is up: 1 of 1 checks passed"), 1, "{text}");
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn many_servers_are_checked_by_one_thread_and_a_silent_one_delays_nobody() {
    let silent = Origin::new(Manner::Silent);
    let closed = Closed::new();
    let numbered = |number: u32, address| {
        let plan = plan(address, question());
        CheckPlan {
            id: ServerId::new(number),
            ..with(plan, |it| it.interval = Duration::from_millis(200))
        }
    };
    let mut plans: Vec<_> = (0..100)
        .map(|number| numbered(number, closed.address))
        .collect();
    // With an ample time limit: they are on their way all the while.
    plans.extend((100..120).map(|number| numbered(number, silent.address)));
    let watch = Watch::new(plans);
    let mut down: Vec<u32> = (0..100).map(|_| watch.next().0.number()).collect();
    down.sort_unstable();
    assert_eq!(down, (0..100).collect::<Vec<_>>());
}

#[test]
fn what_this_host_lacks_is_no_answer() {
    let (origin, served) = scripted(&[]);
    let mut lacking = with(plan(origin.address, CheckKind::Tcp), |it| it.fall = 1);
    // An interface that does not exist: no server is to blame.
    let options = thalweg::net::options::SocketOptions {
        interface: Some("thalweg-none".into()),
        ..Default::default()
    };
    lacking.options = Arc::new(options.plan(thalweg::net::options::Leg::Upstream));
    let able = CheckPlan {
        id: ServerId::new(2),
        endpoint: Endpoint::Inet(Closed::new().address),
        ..plan(origin.address, CheckKind::Tcp)
    };
    let watch = Watch::new(vec![lacking, able]);
    assert_eq!(watch.next().0, ServerId::new(2));
    assert!(watch.is_quiet_for(Duration::from_millis(300)));
    assert_eq!(served.load(Ordering::SeqCst), 0);
}
