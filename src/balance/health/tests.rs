use proptest::prelude::*;

use super::*;

fn at(millis: u64) -> Time {
    Time::from_micros(millis * 1000)
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Answers until the server changes sides; how many it took.
fn answers(health: &mut Hysteresis, ok: bool) -> u32 {
    (1..1000)
        .find(|_| health.answer(ok).is_some())
        .expect("it changes sides in the end")
}

#[test]
fn b31_rise_and_fall_are_exact() {
    for rise in 1..6 {
        for fall in 1..6 {
            let mut health = Hysteresis::new(rise, fall);
            assert_eq!(health.answer(true), None);
            assert_eq!(answers(&mut health, false), fall, "fall {fall}");
            assert!(!health.is_up());
            assert_eq!(answers(&mut health, true), rise, "rise {rise}");
            assert!(health.is_up());
        }
    }
}

#[test]
fn b31_an_answer_to_the_contrary_starts_the_count_again() {
    let mut health = Hysteresis::new(3, 3);
    for ok in [true, false, false, true, false, false] {
        assert_eq!(health.answer(ok), None);
    }
    assert_eq!(health.answer(false), Some(Change::Down));
    for ok in [true, true, false, true, true] {
        assert_eq!(health.answer(ok), None);
    }
    assert_eq!(health.answer(true), Some(Change::Up));
}

#[test]
fn b31_a_server_starts_up_and_its_first_failure_brings_it_down() {
    let mut health = Hysteresis::new(2, 3);
    assert!(health.is_up() && health.in_transition());
    assert_eq!(health.answer(false), Some(Change::Down));
    assert!(!health.in_transition());

    let mut health = Hysteresis::new(2, 3);
    assert_eq!(health.answer(true), None);
    assert!(health.is_up() && !health.in_transition());
    assert_eq!(health.answer(false), None);
    assert!(health.in_transition() && health.against() == 1);
}

#[test]
fn counts_of_zero_are_counts_of_one() {
    let mut health = Hysteresis::new(0, 0);
    assert_eq!(health.answer(true), None);
    assert_eq!(health.answer(false), Some(Change::Down));
    assert_eq!(health.answer(true), Some(Change::Up));
}

proptest! {
    /// The state is what a reader of the whole history would say it is.
    #[test]
    fn b31_the_state_follows_from_the_history(
        rise in 1..5_usize,
        fall in 1..5_usize,
        answers in prop::collection::vec(any::<bool>(), 1..80),
    ) {
        let mut health = Hysteresis::new(rise as u32, fall as u32);
        let mut up = true;
        let mut run = 0;
        for (index, ok) in answers.iter().enumerate() {
            run = if index > 0 && answers[index - 1] == *ok { run + 1 } else { 1 };
            let turns = match (up, ok) {
                (true, false) => run >= fall || index == 0,
                (false, true) => run >= rise,
                _ => false,
            };
            let change = turns.then_some(if *ok { Change::Up } else { Change::Down });
            up = up != turns;
            prop_assert_eq!(health.answer(*ok), change);
            prop_assert_eq!(health.is_up(), up);
            prop_assert_eq!(health.in_transition(), up != *ok);
        }
    }
}

#[test]
fn one_failure_marks_for_the_time_and_a_trial_clears() {
    let marks = PassiveMarks::new(1, seconds(10));
    assert_eq!(marks.admit(at(0)), Admission::Free);
    assert_eq!(marks.failed(Admission::Free, at(0)), Some(Change::Down));
    assert!(!marks.is_open(at(9_999)));
    assert_eq!(marks.admit(at(9_999)), Admission::Marked);

    assert!(marks.is_open(at(10_000)));
    assert_eq!(marks.admit(at(10_000)), Admission::Trial);
    // One session at a time.
    assert!(!marks.is_open(at(10_001)));
    assert_eq!(marks.admit(at(10_001)), Admission::Marked);
    assert_eq!(marks.succeeded(Admission::Trial), Some(Change::Up));
    assert!(!marks.is_marked());
    assert_eq!(marks.admit(at(10_002)), Admission::Free);
}

#[test]
fn a_trial_that_fails_marks_again_for_the_time() {
    let marks = PassiveMarks::new(1, seconds(10));
    marks.failed(Admission::Free, at(0));
    assert_eq!(marks.admit(at(12_000)), Admission::Trial);
    assert_eq!(marks.failed(Admission::Trial, at(15_000)), None);
    assert!(!marks.is_open(at(24_999)));
    assert_eq!(marks.admit(at(25_000)), Admission::Trial);
}

#[test]
fn a_trial_without_an_answer_blocks_only_for_the_time() {
    let marks = PassiveMarks::new(1, seconds(10));
    marks.failed(Admission::Free, at(0));
    assert_eq!(marks.admit(at(10_000)), Admission::Trial);
    assert!(!marks.is_open(at(19_999)));
    assert_eq!(marks.admit(at(20_000)), Admission::Trial);

    marks.abandoned(Admission::Trial, at(20_500));
    assert_eq!(marks.admit(at(20_500)), Admission::Trial);
}

#[test]
fn sessions_on_their_way_neither_clear_nor_prolong_the_mark() {
    let marks = PassiveMarks::new(1, seconds(10));
    assert_eq!(marks.failed(Admission::Free, at(0)), Some(Change::Down));
    assert_eq!(marks.failed(Admission::Free, at(3_000)), None);
    assert_eq!(marks.succeeded(Admission::Free), None);
    assert!(!marks.is_open(at(9_999)) && marks.is_open(at(10_000)));
}

#[test]
fn failures_far_apart_do_not_add_up_and_a_burst_is_never_missed() {
    let marks = PassiveMarks::new(3, seconds(10));
    for second in [0, 6, 12, 18, 24] {
        assert_eq!(marks.failed(Admission::Free, at(second * 1000)), None);
    }
    // The third within ten seconds, across the end of any fixed window.
    assert_eq!(
        marks.failed(Admission::Free, at(25_000)),
        Some(Change::Down)
    );
}

#[test]
fn a_cleared_mark_forgets_what_led_to_it() {
    let marks = PassiveMarks::new(2, seconds(10));
    marks.failed(Admission::Free, at(0));
    assert_eq!(marks.failed(Admission::Free, at(1)), Some(Change::Down));
    assert_eq!(marks.admit(at(10_001)), Admission::Trial);
    assert_eq!(marks.succeeded(Admission::Trial), Some(Change::Up));
    assert_eq!(marks.failed(Admission::Free, at(10_002)), None);
    assert_eq!(
        marks.failed(Admission::Free, at(10_003)),
        Some(Change::Down)
    );
}

#[test]
fn without_max_fails_nothing_is_ever_marked() {
    let marks = PassiveMarks::new(0, seconds(10));
    for now in 0..100 {
        assert_eq!(marks.failed(Admission::Free, at(now)), None);
        assert_eq!(marks.admit(at(now)), Admission::Free);
    }
}

proptest! {
    /// Marked exactly when the last `max_fails` failures lie within `fail_timeout`.
    #[test]
    fn the_window_is_exact(
        max_fails in 1..6_usize,
        gaps in prop::collection::vec(0..4_000_u64, 1..40),
    ) {
        let marks = PassiveMarks::new(max_fails as u32, seconds(5));
        let mut failures = Vec::new();
        let mut now = 0;
        for gap in gaps {
            now += gap;
            failures.push(now);
            let within = failures
                .len()
                .checked_sub(max_fails)
                .is_some_and(|first| now - failures[first] <= 5_000);
            let change = marks.failed(Admission::Free, at(now));
            prop_assert_eq!(change, within.then_some(Change::Down));
            if within {
                break;
            }
        }
    }

    #[test]
    fn slow_start_grows_in_a_straight_line_and_never_falls(
        weight in 1..=1000_u32,
        over in 1..3_600_000_u64,
        mut parts in prop::collection::vec(0.0..1.2_f64, 2..20),
    ) {
        let over = Duration::from_millis(over);
        parts.sort_by(f64::total_cmp);
        let mut before = weight * WEIGHT_UNIT / 16;
        for part in parts {
            let now = slow_start(weight, over.mul_f64(part), over);
            prop_assert!(before <= now && now <= weight * WEIGHT_UNIT);
            let straight = (1.0_f64 / 16.0 + part * 15.0 / 16.0).min(1.0);
            let off = f64::from(now) / f64::from(weight * WEIGHT_UNIT) - straight;
            prop_assert!(off.abs() < 0.01, "off by {}", off);
            before = now;
        }
    }
}

#[test]
fn slow_start_begins_at_a_sixteenth_and_ends_at_the_weight() {
    assert_eq!(slow_start(1, Duration::ZERO, seconds(30)), 16);
    assert_eq!(slow_start(1, seconds(30), seconds(30)), 256);
    assert_eq!(slow_start(10, Duration::ZERO, Duration::ZERO), 2560);
    assert_eq!(slow_start(0, seconds(5), seconds(30)), 0);
    assert_eq!(slow_start(1, seconds(5), Duration::MAX), 16);
}
