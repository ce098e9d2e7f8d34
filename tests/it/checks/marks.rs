//! Marks in passing, as reactors share them.

use std::time::Duration;

use thalweg::balance::health::{Admission, Change, PassiveMarks};
use thalweg::relay::time::Time;

fn at(millis: u64) -> Time {
    Time::from_micros(millis * 1000)
}

/// How often it is so, asked by four threads at once.
fn count(ask: &(impl Fn() -> bool + Sync)) -> usize {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..5000).filter(|_| ask()).count()))
            .collect();
        threads.into_iter().map(|it| it.join().unwrap()).sum()
    })
}

#[test]
fn many_reactors_mark_a_server_once_and_one_session_tries_it() {
    let marks = PassiveMarks::new(5, Duration::from_secs(10));
    let marked = || marks.failed(Admission::Free, at(1)) == Some(Change::Down);
    assert_eq!(count(&marked), 1);
    assert_eq!(count(&|| marks.admit(at(2)) != Admission::Marked), 0);
    assert_eq!(count(&|| marks.admit(at(10_001)) == Admission::Trial), 1);
    let cleared = || marks.succeeded(Admission::Trial) == Some(Change::Up);
    assert_eq!(count(&cleared), 1);
    assert_eq!(
        count(&|| marks.admit(at(10_002)) == Admission::Free),
        20_000
    );
}
