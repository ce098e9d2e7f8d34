use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn client(last: u8) -> Client {
    Client::from(Some(IpAddr::from([192, 0, 2, last])))
}

fn id(number: u32) -> LookupId {
    let key = SessionKey {
        slot: number,
        generation: 0,
    };
    (0, key)
}

fn ask(queue: &mut LookupQueue<u32>, host: &str, of: u8, number: u32) -> LookupStep<u32> {
    let asker = Asker {
        id: id(number),
        client: client(of),
        reply: number,
    };
    queue.ask(host, asker, false)
}

#[track_caller]
fn started(asked: LookupStep<u32>) -> LookupStart {
    let LookupStep::Start(start) = asked else {
        panic!("{asked:?}");
    };
    start
}

fn replies(askers: Vec<Asker<u32>>) -> Vec<u32> {
    askers.into_iter().map(|it| it.reply).collect()
}

#[test]
fn equal_names_are_asked_for_once() {
    let mut queue = LookupQueue::default();
    let start = started(ask(&mut queue, "a.test", 1, 1));
    assert_eq!(ask(&mut queue, "a.test", 1, 2), LookupStep::Waits);
    assert_eq!(ask(&mut queue, "a.test", 2, 3), LookupStep::Waits);
    assert_eq!(replies(queue.finish(&start)), [1, 2, 3]);
    assert!(queue.names.is_empty() && queue.lines.is_empty() && queue.wants.is_empty());
    // Another asking is not answered by the end of the first.
    let again = started(ask(&mut queue, "a.test", 1, 4));
    assert_eq!(replies(queue.finish(&start)), [0; 0]);
    assert_eq!(replies(queue.finish(&again)), [4]);
}

#[test]
fn a_client_leaves_places_and_room_for_others() {
    let mut queue = LookupQueue::default();
    let mut refused = 0;
    for n in 0..1000 {
        match ask(&mut queue, &format!("n{n}.silent.test"), 1, n) {
            LookupStep::Refused(_) => refused += 1,
            LookupStep::Start(_) | LookupStep::Waits => {}
        }
    }
    assert_eq!((queue.asked, queue.waiting), (PLACES / 2, ROOM / 2));
    assert_eq!(refused, 1000 - PLACES / 2 - ROOM / 2);
    // However many others do the same, whoever has none finds a place.
    for other in 2..5 {
        for n in 0..1000 {
            ask(
                &mut queue,
                &format!("n{n}.{other}.test"),
                other,
                1000 * u32::from(other) + n,
            );
        }
        started(ask(
            &mut queue,
            &format!("innocent{other}.test"),
            100 + other,
            100_000 + u32::from(other),
        ));
    }
}

#[test]
fn lines_are_served_in_turn() {
    let mut queue = LookupQueue::default();
    let mut starts = Vec::new();
    for n in 0..100 {
        if let LookupStep::Start(start) = ask(&mut queue, &format!("n{n}.test"), 1, n) {
            starts.push(start);
        }
    }
    // Two others take what is left, down to nothing, and wait.
    for of in 2..40 {
        for n in 0..3 {
            ask(
                &mut queue,
                &format!("n{n}.of{of}.test"),
                of,
                1000 * u32::from(of) + n,
            );
        }
    }
    assert_eq!(queue.asked, PLACES);
    assert_eq!(queue.next(|_| false), None);
    // The one with half of the places gets none of those that become free.
    for start in starts.iter().take(4) {
        queue.finish(start);
        let next = queue.next(|_| false).expect("somebody waits");
        assert!(next.host.contains(".of"), "{next:?}");
    }
}

#[test]
fn a_name_that_an_innocent_client_wants_too_is_asked_in_his_turn() {
    let mut queue = LookupQueue::default();
    let mut starts = Vec::new();
    for n in 0..100 {
        if let LookupStep::Start(start) = ask(&mut queue, &format!("n{n}.test"), 1, n) {
            starts.push(start);
        }
    }
    // It stands far back in the line of the first, who is at the end of his share.
    assert_eq!(ask(&mut queue, "n90.test", 2, 1000), LookupStep::Waits);
    let next = queue
        .next(|_| false)
        .expect("a place is free for the second");
    assert_eq!(next.host, "n90.test");
    assert_eq!(replies(queue.finish(&next)), [90, 1000]);
}

#[test]
fn what_nobody_waits_for_is_not_asked_for() {
    let mut queue = LookupQueue::default();
    let start = started(ask(&mut queue, "a.test", 1, 1));
    ask(&mut queue, "a.test", 2, 2);
    assert_eq!(queue.cancel(id(1)), Some((1, None)));
    assert!(queue.is_wanted(&start));
    assert_eq!(queue.cancel(id(2)), Some((2, Some(start.number))));
    assert!(!queue.is_wanted(&start));
    assert_eq!(queue.cancel(id(2)), None);
    assert_eq!((queue.asked, queue.waiting), (0, 0));
    assert!(queue.names.is_empty() && queue.lines.is_empty() && queue.zones.is_empty());
}

#[test]
fn a_silent_zone_has_few_places() {
    let mut queue = LookupQueue::default();
    for of in 1..100 {
        let asker = Asker {
            id: id(of.into()),
            client: client(of),
            reply: 0,
        };
        queue.ask(&format!("n{of}.silent.test"), asker, true);
    }
    assert_eq!(queue.asked, PLACES_OF_A_SILENT_ZONE);
    assert_eq!(queue.next(|host| host.ends_with(".silent.test")), None);
    started(ask(&mut queue, "n.other.test", 100, 1000));
}

#[derive(Debug, Clone)]
enum Step {
    Ask(u8, u8),
    Cancel(u8),
    Finish(u8),
    Next,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..60_u8, 0..6_u8).prop_map(|(name, of)| Step::Ask(name, of)),
        2 => any::<u8>().prop_map(Step::Cancel),
        2 => any::<u8>().prop_map(Step::Finish),
        1 => Just(Step::Next),
    ]
}

proptest! {
    #[test]
    fn every_question_ends_once_and_counts_are_right(steps in prop::collection::vec(any_step(), 0..300)) {
        let mut queue: LookupQueue<u32> = LookupQueue::default();
        let (mut open, mut starts, mut asked) = (Vec::new(), Vec::new(), 0);
        for step in steps {
            match step {
                Step::Ask(name, of) => {
                    asked += 1;
                    match ask(&mut queue, &format!("n{name}.z{}.test", name % 3), of, asked) {
                        LookupStep::Start(start) => { open.push(asked); starts.push(start); }
                        LookupStep::Waits => open.push(asked),
                        LookupStep::Refused(reply) => prop_assert_eq!(reply, asked),
                    }
                }
                Step::Cancel(n) if !open.is_empty() => {
                    let number = open.swap_remove(usize::from(n) % open.len());
                    let (reply, stopped) = queue.cancel(id(number)).expect("it is open");
                    prop_assert_eq!(reply, number);
                    starts.retain(|it: &LookupStart| Some(it.number) != stopped);
                }
                Step::Finish(n) if !starts.is_empty() => {
                    let start = starts.swap_remove(usize::from(n) % starts.len());
                    let told = replies(queue.finish(&start));
                    prop_assert!(!told.is_empty());
                    for reply in told {
                        let at = open.iter().position(|it| *it == reply);
                        open.swap_remove(at.expect("it is open"));
                    }
                }
                Step::Next => starts.extend(queue.next(|_| false)),
                Step::Cancel(_) | Step::Finish(_) => {}
            }
            prop_assert_eq!(queue.asked, starts.len());
            prop_assert_eq!(queue.waiting, queue.names.len() - starts.len());
            prop_assert_eq!(queue.wants.len(), open.len());
            prop_assert!(queue.asked <= PLACES && queue.waiting <= ROOM);
            let places: usize = queue.lines.values().map(|it| it.places).sum();
            prop_assert_eq!(places, queue.asked);
        }
        while !starts.is_empty() {
            for start in std::mem::take(&mut starts) {
                queue.finish(&start);
            }
            while let Some(start) = queue.next(|_| false) {
                starts.push(start);
            }
        }
        // Nobody is left behind.
        prop_assert!(queue.names.is_empty() && queue.turn.is_empty(), "{:?}", queue.names);
        prop_assert!(queue.lines.is_empty() && queue.wants.is_empty() && queue.zones.is_empty());
    }
}
