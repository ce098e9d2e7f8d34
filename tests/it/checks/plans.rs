//! Servers that come and go while checks run.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use thalweg::balance::health::Change;
use thalweg::config::CheckKind;
use thalweg::control::health::{CheckChange, CheckPlan};
use thalweg::net::address::Endpoint;
use thalweg::relay::id::ServerId;

use super::origin::{Closed, Manner, Origin};
use super::watch::{Watch, plan};
use crate::kit::{PATIENCE, wait_until};

fn counting() -> (Origin, Arc<AtomicUsize>) {
    let served = Arc::new(AtomicUsize::new(0));
    let count = served.clone();
    let origin = Origin::with(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Manner::Silent
    });
    (origin, served)
}

#[test]
fn a_server_that_is_gone_is_checked_no_more_and_a_new_one_is() {
    let ((old, olds), (new, news)) = (counting(), counting());
    let watch = Watch::new(vec![plan(old.address, CheckKind::Tcp)]);
    wait_until("checks", PATIENCE, || olds.load(Ordering::SeqCst) > 2);
    let next = CheckPlan {
        id: ServerId::new(2),
        ..plan(new.address, CheckKind::Tcp)
    };
    watch.set_plans(vec![next]);
    wait_until("checks", PATIENCE, || news.load(Ordering::SeqCst) > 0);
    let last = olds.load(Ordering::SeqCst);
    let far = news.load(Ordering::SeqCst) + 5;
    wait_until("checks", PATIENCE, || news.load(Ordering::SeqCst) > far);
    // One may have been in the accept queue.
    assert!(olds.load(Ordering::SeqCst) <= last + 1);
}

#[test]
fn the_state_of_a_server_outlives_a_change_of_its_plan() {
    let (closed, other, origin) = (Closed::new(), Closed::new(), Origin::new(Manner::Silent));
    let at = |address| CheckPlan {
        endpoint: Endpoint::Inet(address),
        ..plan(closed.address, CheckKind::Tcp)
    };
    let watch = Watch::new(vec![at(closed.address)]);
    watch.goes(Change::Down);
    // It is down already; nothing new.
    watch.set_plans(vec![at(other.address)]);
    assert!(watch.is_quiet_for(Duration::from_millis(200)));
    watch.set_plans(vec![at(origin.address)]);
    watch.goes(Change::Up);
}

/// Whoever is told of it would otherwise hold it for down when it returns, and it is
/// up already for the checker.
#[test]
fn a_server_that_is_down_and_checked_no_more_counts_as_up() {
    let (closed, origin) = (Closed::new(), Origin::new(Manner::Silent));
    let watch = Watch::new(vec![plan(closed.address, CheckKind::Tcp)]);
    watch.goes(Change::Down);
    watch.set_plans(vec![]);
    assert_eq!(watch.goes(Change::Up), "checked no more");
    // It begins anew: up, and nothing to be said while it is well.
    watch.set_plans(vec![plan(origin.address, CheckKind::Tcp)]);
    assert!(watch.is_quiet_for(Duration::from_millis(200)));
    watch.set_plans(vec![]);
    watch.set_plans(vec![plan(closed.address, CheckKind::Tcp)]);
    watch.goes(Change::Down);
}

/// A change names those that it is about: the others are checked as before, and one that is down stays so.
#[test]
fn whoever_a_change_is_not_about_is_checked_as_before() {
    let (closed, origin) = (Closed::new(), Origin::new(Manner::Silent));
    let one = plan(closed.address, CheckKind::Tcp);
    let other = CheckPlan {
        id: ServerId::new(one.id.number() + 1),
        ..one.clone()
    };
    let (first, second) = (one.id, other.id);
    let watch = Watch::new(vec![one.clone(), other]);
    let mut down = [watch.next().0, watch.next().0];
    down.sort_unstable();
    assert_eq!(down, [first, second]);
    watch.change(CheckChange {
        gone: vec![second],
        plans: Vec::new(),
    });
    let (id, verdict) = watch.next();
    assert!(verdict.released && id == second, "{id:?}: {verdict:?}");
    watch.change(CheckChange {
        gone: Vec::new(),
        plans: vec![CheckPlan {
            endpoint: Endpoint::Inet(origin.address),
            ..one
        }],
    });
    let (id, verdict) = watch.next();
    assert!(!verdict.released && id == first, "{id:?}: {verdict:?}");
}

#[test]
fn the_same_plans_again_change_nothing() {
    let closed = Closed::new();
    let plans = vec![plan(closed.address, CheckKind::Tcp)];
    let watch = Watch::new(plans.clone());
    watch.goes(Change::Down);
    for _ in 0..20 {
        watch.set_plans(plans.clone());
    }
    assert!(watch.is_quiet_for(Duration::from_millis(200)));
}
