use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::config::{TapDirection, TapFilter, TapFormat, TapTarget};
use crate::relay::Direction::{Down, Up};

fn source(max: u64, direction: TapDirection) -> (Source, Receiver<Item>, Arc<Budget>) {
    let tap = Tap {
        format: TapFormat::Hex,
        to: TapTarget::Stderr,
        max_bytes_per_session: max,
        filter: TapFilter {
            direction,
            ..TapFilter::default()
        },
        rotate: None,
        mode: 0o600,
        mask: Vec::new(),
        unmask: false,
    };
    let (queue, items) = channel();
    let budget = Arc::<Budget>::default();
    let source = Source::new(Arc::new(tap), 0, queue, budget.clone());
    (source, items, budget)
}

fn open(source: &Source, id: u64) -> Feed {
    *beside(source, id, None).expect("nothing filters it out")
}

fn beside(source: &Source, id: u64, feed: Option<Box<Feed>>) -> Option<Box<Feed>> {
    let sight = Sight {
        id,
        forward: &"web".into(),
        client: &Endpoint::Unnamed,
        listener: &Endpoint::Unnamed,
        before: [0; 2],
    };
    source.open(&sight, feed)
}

const CLOSING: Closing = Closing {
    moved_to: None,
    ending: None,
    totals: [0; 2],
};

#[test]
fn a_feed_is_sated_by_both_directions_together() {
    let (source, items, _) = source(10, TapDirection::Both);
    let mut feed = open(&source, 1);
    assert_eq!(feed.chunk(Up, b"123456"), Appetite::Hungry);
    assert_eq!(feed.chunk(Down, b"123456"), Appetite::Sated);
    assert_eq!(feed.chunk(Up, b"7"), Appetite::Sated);
    feed.end(Up, StreamEnd::Orderly, 7);
    feed.end(Up, StreamEnd::Failed, 7);
    feed.close(CLOSING);
    let items: Vec<Item> = items.try_iter().collect();
    assert!(
        matches!(
            &items[..],
            [
                Item::Open(..),
                Item::Chunk(_, Chunk { last: false, .. }),
                Item::Chunk(_, Chunk { last: true, bytes, .. }),
                Item::End(_, End { how: StreamEnd::Orderly, total: 7, .. }),
                Item::Close(..),
            ] if **bytes == *b"1234"
        ),
        "{items:?}"
    );
}

#[test]
fn a_direction_that_is_not_wanted_is_not_looked_at() {
    let (source, items, _) = source(10, TapDirection::Down);
    let mut feed = open(&source, 1);
    assert_eq!(feed.chunk(Up, b"1"), Appetite::Sated);
    feed.end(Up, StreamEnd::Orderly, 1);
    assert!(items.try_recv().is_err());
    assert_eq!(feed.chunk(Down, b"1"), Appetite::Hungry);
}

#[test]
fn what_does_not_fit_is_missing_in_the_next_that_does() {
    let (source, items, budget) = source(1 << 40, TapDirection::Both);
    let mut feed = open(&source, 1);
    let chunk = vec![0; 1 << 20];
    for _ in 0..10 {
        feed.chunk(Up, &chunk);
    }
    let mut offered = 10 << 20;
    let before = source.dropped_bytes();
    while source.dropped_bytes() == before {
        feed.chunk(Up, b"x");
        offered += 1;
    }
    // A session of which nothing fits is counted, and leaves nothing behind.
    let mut unseen = open(&source, 2);
    unseen.chunk(Up, &chunk);
    unseen.close(CLOSING);
    let (mut given, mut missing) = (0, 0);
    while let Ok(item) = items.try_recv() {
        match item {
            Item::Chunk(_, chunk) => {
                budget.give_back(chunk.cost());
                given += chunk.bytes.len();
                missing += chunk.missing;
            }
            Item::Open(number, opening) => {
                assert_eq!(number.id, 1);
                opening.budget.give_back(OPENING_COST);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(given as u64 <= QUEUE_BYTES);
    let dropped = source.dropped_bytes();
    assert_eq!(dropped + given as u64, offered + (1 << 20));
    assert_eq!(budget.take_dropped_sessions(), 1);
    feed.chunk(Up, b"x");
    let Ok(Item::Chunk(_, next)) = items.try_recv() else {
        panic!("there is room again");
    };
    assert_eq!(missing + next.missing + (1 << 20), dropped);
    assert_eq!(source.dropped_bytes(), dropped);
    budget.give_back(next.cost());
    assert_eq!(budget.queued.load(Ordering::Relaxed), 0);
}

#[test]
fn whoever_looks_beside_another_costs_the_other_nothing() {
    let (first, first_items, _) = source(4, TapDirection::Both);
    let (second, second_items, _) = source(100, TapDirection::Up);
    let over = Arc::new(AtomicBool::new(false));
    let second = second.until(over.clone());
    let feed = beside(&first, 1, None);
    let feed = beside(&second, 1, feed);
    // Twice is once.
    let mut feed = beside(&second, 1, feed).unwrap();
    assert_eq!(feed.chunk(Up, b"123456"), Appetite::Hungry);
    assert_eq!(feed.chunk(Down, b"123456"), Appetite::Sated);
    over.store(true, Ordering::Relaxed);
    assert_eq!(feed.chunk(Up, b"7"), Appetite::Sated);
    assert!(!feed.takes(Up));
    // Who looks no more is forgotten with the next one who does.
    let (third, third_items, _) = source(100, TapDirection::Both);
    let mut feed = beside(&third, 1, Some(feed)).unwrap();
    assert!(!feed.shows_to(&second) && feed.shows_to(&first));
    assert_eq!(feed.chunk(Down, b"8"), Appetite::Hungry);
    feed.close(CLOSING);
    let count = |items: &Receiver<Item>| items.try_iter().count();
    // An opening, bytes, and an end where it was seen.
    assert_eq!(count(&first_items), 3);
    assert_eq!(count(&second_items), 2);
    assert_eq!(count(&third_items), 3);
}

#[test]
fn the_end_of_the_only_one_ends_its_target() {
    let (source, items, _) = source(4, TapDirection::Both);
    let (outlet, orders) = channel();
    let source = source.only(outlet);
    open(&source, 1).close(CLOSING);
    let last = items.try_iter().last();
    assert!(matches!(last, Some(Item::Nothing)));
    assert!(matches!(orders.try_recv(), Ok(Order::Close)));
}
