//! Listeners that come and go while an engine runs.

use thalweg::engine::{AcceptError, Engine, Event, ListenerKey};

use super::rig::{World, acceptable};

/// Turns within which an event would have come.
const SILENCE: usize = 20;

/// Listeners of which an event came in some turns.
fn events<W: World>(world: &mut W) -> Vec<ListenerKey> {
    let mut events = Vec::new();
    for _ in 0..SILENCE {
        world.turn(&mut events);
    }
    let keys = events.into_iter().filter_map(|event| match event {
        Event::Acceptable(key) => Some(key),
        _ => None,
    });
    keys.collect()
}

fn finds_nothing<W: World>(world: &mut W, key: ListenerKey) {
    let nobody = world.engine().accept(key).map(|_| ());
    assert_eq!(nobody, Err(AcceptError::Empty));
    assert!(!world.engine().has_waiting(key));
    assert!(world.engine().unlisten(key).is_none(), "removed twice");
}

pub(super) fn a_listener_is_removed_and_comes_back<W: World>(world: &mut W) {
    world.client_connects();
    let first = acceptable(world);
    let socket = world.engine().unlisten(first).expect("it was there");
    finds_nothing(world, first);
    world.client_connects();
    assert_eq!(events(world), [], "an event of nobody's listener");
    let second = world.engine().listen(socket).expect("it listens again");
    assert_eq!(second.slot, first.slot, "a free slot is used again");
    assert_ne!(second.generation, first.generation);
    assert_eq!(acceptable(world), second, "who waited is told of");
    for _ in 0..2 {
        assert!(world.engine().has_waiting(second));
        assert!(world.engine().accept(second).is_ok());
    }
    finds_nothing(world, first);
    assert!(world.engine().unlisten(second).is_some());
}

pub(super) fn what_was_pending_for_a_removed_listener_is_nobody_elses<W: World>(world: &mut W) {
    // To learn its key.
    world.client_connects();
    let first = acceptable(world);
    assert!(world.engine().accept(first).is_ok());
    // Seen by the kernel, and not yet by the engine.
    world.client_connects();
    let socket = world.engine().unlisten(first).expect("it was there");
    let other = world.other_listener();
    let second = world.engine().listen(other).expect("it listens");
    assert_eq!(second.slot, first.slot);
    let others = events(world).contains(&second);
    assert!(!others, "an event for whoever has the slot now");
    finds_nothing(world, first);
    let nobody = world.engine().accept(second).map(|_| ());
    assert_eq!(nobody, Err(AcceptError::Empty));
    // Both, side by side.
    let third = world.engine().listen(socket).expect("it listens again");
    assert_ne!(third.slot, second.slot);
    assert_eq!(acceptable(world), third);
    assert!(world.engine().accept(third).is_ok());
}

pub(super) fn many_listeners_come_and_go<W: World>(world: &mut W) {
    world.client_connects();
    let entrance = acceptable(world);
    let mut keys = Vec::new();
    for round in 0..4 {
        for _ in 0..20 {
            let other = world.other_listener();
            keys.push(world.engine().listen(other).expect("it listens"));
        }
        for key in keys.drain(..).skip(round) {
            assert!(world.engine().unlisten(key).is_some());
        }
    }
    assert!(world.engine().accept(entrance).is_ok());
    world.client_connects();
    assert_eq!(acceptable(world), entrance);
}
