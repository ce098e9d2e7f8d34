use std::time::Duration;

use proptest::prelude::*;

use super::*;

const RULES: FlowRules = FlowRules {
    idle: Duration::from_secs(120),
    unanswered: Duration::from_secs(30),
    requests: None,
    responses: None,
    reply_factor: None,
};

fn at(millis: u64) -> Time {
    Time::from_micros(millis * 1000)
}

#[test]
fn b98_silence_ends_a_flow_sooner_that_was_never_answered() {
    let mut flow = Flow::new(at(0));
    flow.asks(1, 100, at(10));
    assert_eq!(flow.deadline(&RULES), at(10) + RULES.unanswered);
    assert_eq!(flow.silence().cause, Cause::Unanswered);
    flow.answers(1, 10, at(20), &RULES);
    assert_eq!(flow.deadline(&RULES), at(20) + RULES.idle);
    assert_eq!(flow.silence().cause, Cause::IdleTimeout);
    flow.asks(1, 100, at(500));
    assert_eq!(flow.deadline(&RULES), at(500) + RULES.idle);
}

#[test]
fn b99_one_answer_to_each_question_and_the_flow_is_complete() {
    let rules = FlowRules {
        responses: Some(1),
        ..RULES
    };
    let mut flow = Flow::new(at(0));
    flow.asks(2, 100, at(0));
    assert_eq!(flow.answers(1, 10, at(1), &rules), Answers::Pass(1));
    assert!(!flow.is_complete(&rules));
    assert_eq!(flow.answers(2, 20, at(2), &rules), Answers::Pass(1));
    assert!(flow.is_complete(&rules));
    assert_eq!(flow.answers(1, 10, at(3), &rules), Answers::Pass(0));
}

#[test]
fn requests_bound_a_flow_and_its_answers_still_come() {
    let rules = FlowRules {
        requests: Some(2),
        responses: Some(1),
        ..RULES
    };
    let mut flow = Flow::new(at(0));
    flow.asks(1, 100, at(0));
    flow.answers(1, 10, at(0), &rules);
    assert!(flow.may_ask(&rules) == 1 && !flow.is_complete(&rules));
    flow.asks(1, 100, at(1));
    assert!(flow.may_ask(&rules) == 0 && !flow.is_complete(&rules));
    flow.answers(1, 10, at(2), &rules);
    assert!(flow.is_complete(&rules));
}

#[test]
fn b101_a_source_earns_what_it_gets_until_it_has_shown_that_it_gets_it() {
    let rules = FlowRules {
        reply_factor: Some(3),
        ..RULES
    };
    let mut flow = Flow::new(at(0));
    flow.asks(1, 100, at(0));
    assert_eq!(flow.answers(1, 301, at(1), &rules), Answers::Unearned);
    assert_eq!(flow.answers(1, 300, at(1), &rules), Answers::Pass(1));
    assert_eq!(flow.answers(1, 1, at(1), &rules), Answers::Unearned);
    flow.asks(1, 100, at(2));
    assert_eq!(flow.answers(9, 9000, at(3), &rules), Answers::Pass(9));
}

#[test]
fn b93_three_refusals_in_a_row_are_believed_and_an_answer_takes_them_back() {
    let mut flow = Flow::new(at(0));
    assert!(!flow.is_refused(1) && !flow.is_refused(1));
    flow.answers(1, 1, at(1), &RULES);
    assert!(!flow.is_refused(1) && !flow.is_refused(1));
    assert!(flow.is_refused(1));
    assert!(!flow.is_refused(1));
}

#[test]
fn b92_the_socket_of_a_flow_with_an_open_question_outlives_it() {
    let mut flow = Flow::new(at(0));
    flow.asks(1, 100, at(100));
    assert_eq!(flow.lingers_until(&RULES, at(150)), at(100) + LATE_ANSWERS);
}

proptest! {
    /// Whatever comes in whatever order, no more answers pass than were asked for.
    #[test]
    fn answers_never_exceed_what_was_asked(
        each in 0u32..4,
        steps in proptest::collection::vec((any::<bool>(), 1u32..5), 0..100),
    ) {
        let rules = FlowRules { responses: Some(each), ..RULES };
        let mut flow = Flow::new(at(0));
        let (mut asked, mut passed) = (0u64, 0u64);
        for (now, (asks, count)) in (0..).zip(steps) {
            if asks {
                flow.asks(count, 100, at(now));
                asked += u64::from(count);
            } else if let Answers::Pass(some) = flow.answers(count, 1, at(now), &rules) {
                prop_assert!(some <= count);
                passed += u64::from(some);
            }
            prop_assert!(passed <= asked * u64::from(each));
            prop_assert_eq!(flow.is_complete(&rules), passed == asked * u64::from(each));
        }
    }
}
