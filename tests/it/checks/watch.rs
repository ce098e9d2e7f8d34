//! A checker whose verdicts a test waits for.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use thalweg::balance::health::Change;
use thalweg::config::{Check, CheckKind, LogFormat, LogLevel, LogTarget, OnDown};
use thalweg::control::health::{CheckChange, CheckPlan, Checker, Verdict};
use thalweg::net::address::Endpoint;
use thalweg::net::options::{Leg, SocketOptions};
use thalweg::observe::log::Log;
use thalweg::relay::id::ServerId;

use super::origin::Closed;
use crate::kit::PATIENCE;

/// A timeout that a check which should succeed keeps on any machine.
pub(crate) const AMPLE: Duration = PATIENCE;

/// Of a check that is expected to run into it.
pub(crate) const SHORT: Duration = Duration::from_millis(150);

/// A plan that goes down with the first failure in a row and up with the first
/// success, looked at often.
pub(crate) fn plan(address: SocketAddr, kind: CheckKind) -> CheckPlan {
    CheckPlan {
        id: ServerId::new(1),
        pool: "tested".into(),
        host: None,
        endpoint: Endpoint::Inet(address),
        options: Arc::new(SocketOptions::default().plan(Leg::Upstream)),
        send_proxy: None,
        check: Arc::new(Check {
            kind,
            interval: Duration::from_millis(20),
            fast_interval: None,
            timeout: AMPLE,
            rise: 1,
            fall: 1,
            jitter: 10,
            on_down: OnDown::Keep,
            port: None,
        }),
        down: false,
        while_used: None,
    }
}

/// The plan with another check.
pub(crate) fn with(mut plan: CheckPlan, change: impl FnOnce(&mut Check)) -> CheckPlan {
    change(Arc::make_mut(&mut plan.check));
    plan
}

pub(crate) struct Watch {
    checker: Checker,
    verdicts: Receiver<(ServerId, Verdict)>,
    checked: RefCell<Vec<ServerId>>,
}

impl Deref for Watch {
    type Target = Checker;

    fn deref(&self) -> &Checker {
        &self.checker
    }
}

impl Watch {
    pub(crate) fn new(plans: Vec<CheckPlan>) -> Self {
        let target = LogTarget::File("/dev/null".into());
        let (log, _) = Log::start(LogLevel::Info, LogFormat::Text, &target).unwrap();
        Self::with_log(plans, log, || {})
    }

    /// `at_verdict` is called on the checker's thread, between checks.
    pub(crate) fn with_log(
        plans: Vec<CheckPlan>,
        log: Log,
        at_verdict: impl Fn() + Send + 'static,
    ) -> Self {
        let (sender, verdicts) = channel();
        let checked = plans.iter().map(|plan| plan.id).collect();
        let on_change = move |id, verdict| {
            at_verdict();
            // A test that has seen enough listens no more.
            let _ = sender.send((id, verdict));
        };
        Self {
            checker: Checker::start(plans, log, on_change).unwrap(),
            verdicts,
            checked: RefCell::new(checked),
        }
    }

    /// Checks these from now on, and no others.
    pub(crate) fn set_plans(&self, plans: Vec<CheckPlan>) {
        let checked: Vec<ServerId> = plans.iter().map(|plan| plan.id).collect();
        let mut gone = self.checked.replace(checked.clone());
        gone.retain(|it| !checked.contains(it));
        self.change(CheckChange { gone, plans });
    }

    #[track_caller]
    pub(crate) fn next(&self) -> (ServerId, Verdict) {
        self.verdicts.recv_timeout(PATIENCE).expect("a verdict")
    }

    /// The reason of the next verdict, which is that the server went this way.
    #[track_caller]
    pub(crate) fn goes(&self, way: Change) -> String {
        let (_, verdict) = self.next();
        assert_eq!(verdict.change, way, "{}", verdict.reason);
        verdict.reason
    }

    /// Whether no verdict came within a time.
    pub(crate) fn is_quiet_for(&self, time: Duration) -> bool {
        self.verdicts.recv_timeout(time).is_err()
    }
}

/// That a server is found well. One that is up already would not be spoken of; so the
/// same server is seen down first, on a port where nobody listens.
#[track_caller]
pub(crate) fn is_well(plan: CheckPlan) {
    let closed = Closed::new();
    let mut down = plan.clone();
    down.endpoint = Endpoint::Inet(closed.address);
    down = with(down, |check| {
        check.port = None;
        if let CheckKind::Command { .. } = check.kind {
            check.kind = CheckKind::Tcp;
        }
    });
    let watch = Watch::new(vec![down]);
    watch.goes(Change::Down);
    watch.set_plans(vec![plan]);
    watch.goes(Change::Up);
}

/// Why a server is found ill.
#[track_caller]
pub(crate) fn is_ill(plan: CheckPlan) -> String {
    let reason = Watch::new(vec![plan]).goes(Change::Down);
    let (reason, count) = reason.rsplit_once(", ").unwrap();
    assert_eq!(count, "1 of 1 checks failed");
    reason.to_owned()
}
