//! The contract of `engine::Engine`, point by point, on every engine: one suite,
//! and a [`World`] for each engine that plays the peers.

mod ahead;
mod listening;
mod moving;
mod rig;
mod simulated;
mod sockets;

use std::time::Duration;

#[cfg(feature = "uring")]
use thalweg::engine::uring::Sizes;
use thalweg::engine::{Engine, Event, Peeked, Start};
use thalweg::relay::lane::{Next, PathPolicy, Progress};
use thalweg::relay::session::Close;
use thalweg::relay::{Direction, Side};

use rig::{KEY, Rig, TURNS, World};

fn a_refused_connect_has_one_outcome_and_leaves_nothing<W: World>(world: &mut W) {
    let nobody = world.nobody();
    let mut rig = Rig::accepted(world, PathPolicy::Auto);
    assert_eq!(rig.connect(&nobody), Err(()));
    for _ in 0..20 {
        rig.collect();
        let late = |event: &Event| {
            matches!(
                event,
                Event::Connected(KEY)
                    | Event::ConnectFailed(KEY, _)
                    | Event::Ready(KEY, Side::Upstream, _)
            )
        };
        assert!(
            !rig.events.iter().any(late),
            "an event after the outcome: {:?}",
            rig.events
        );
    }
    assert_eq!(
        rig.world.engine().close(KEY, Side::Upstream, Close::Reset),
        Start::Done(()),
        "something is left"
    );
    // The slot dials again, as a session that tries its next server does.
    let server = rig.world.server();
    assert_eq!(rig.connect(&server), Ok(()));
    rig.close_both();
}

fn bytes_cross_in_order_and_an_end_after_the_last<W: World>(world: &mut W, policy: PathPolicy) {
    let mut rig = Rig::relaying(world, policy);
    let mut taken = 0;
    for n in [1, 70_000, 3, 900_000, 900_000, 900_000, 900_000, 900_000, 5] {
        rig.world.sends(KEY, Side::Client, n);
        taken = 0;
        rig.until("a burst crosses", |rig| {
            taken += rig.world.takes(KEY, Side::Upstream).unwrap_or(0);
            taken == n
        });
    }
    assert_eq!(taken, 5);
    rig.world.sends(KEY, Side::Client, 777);
    rig.world.ends(KEY, Side::Client);
    let mut last = 0;
    rig.until("the end crosses", |rig| {
        match rig.world.takes(KEY, Side::Upstream) {
            Some(n) => {
                last += n;
                false
            }
            None => true,
        }
    });
    assert_eq!(last, 777, "bytes before the end");
    assert_eq!(rig.lanes[0].progress(), Progress::Finished);
    assert_eq!(
        rig.lanes[1].progress(),
        Progress::Open,
        "the other direction goes on"
    );
    rig.world.sends(KEY, Side::Upstream, 4321);
    let mut back = 0;
    rig.until("bytes come back after the end", |rig| {
        back += rig.world.takes(KEY, Side::Client).unwrap_or(0);
        back == 4321
    });
    rig.close_both();
}

/// Short messages to and fro, which an engine may take another way than bulk: it
/// may change its mind at any time, and nothing is lost or out of order.
fn a_dialogue_goes_on_around_bursts_and_an_end<W: World>(world: &mut W, policy: PathPolicy) {
    let mut rig = Rig::relaying(world, policy);
    for burst in [900_000, 8 * 1024, 8 * 1024 + 1, 100_000, 900_000] {
        for n in 1..20 {
            for side in Side::BOTH {
                rig.crosses(side, n * 100);
            }
        }
        rig.crosses(Side::Upstream, burst);
    }
    for n in 1..20 {
        rig.crosses(Side::Client, n);
    }
    // Several messages and the end, with no turn between.
    for n in 1..8 {
        rig.world.sends(KEY, Side::Client, n);
    }
    rig.world.ends(KEY, Side::Client);
    let mut last = 0;
    rig.until("the end crosses", |rig| {
        match rig.world.takes(KEY, Side::Upstream) {
            Some(n) => {
                last += n;
                false
            }
            None => true,
        }
    });
    assert_eq!(last, 28, "bytes before the end");
    for n in 1..20 {
        rig.crosses(Side::Upstream, n);
    }
    rig.close_both();
    assert_eq!(rig.world.engine().holdings().held_bytes, 0);
}

fn a_close_in_the_middle_of_a_dialogue_is_the_last_event<W: World>(world: &mut W) {
    let mut rig = Rig::relaying(world, PathPolicy::Auto);
    for n in 1..20 {
        rig.crosses(Side::Client, n);
        rig.crosses(Side::Upstream, n);
    }
    // On its way when the side is closed.
    rig.world.sends(KEY, Side::Upstream, 100);
    if rig.close(Side::Upstream, Close::Orderly) {
        for _ in 0..20 {
            let stray = |event: &Event| matches!(event, Event::Ready(KEY, Side::Upstream, _));
            assert!(
                !rig.events.iter().any(stray),
                "an event after the last: {:?}",
                rig.events
            );
            rig.collect();
        }
    }
    rig.close(Side::Client, Close::Reset);
}

fn a_slow_reader_costs_a_bounded_tail_and_loses_nothing<W: World>(
    world: &mut W,
    policy: PathPolicy,
) {
    let mut rig = Rig::relaying(world, policy);
    let total = 24_000_000;
    let mut sent = 0;
    // Until the lane is stalled: the peer does not read.
    for _ in 0..600 {
        if sent < total {
            rig.world.sends(KEY, Side::Client, 40_000);
            sent += 40_000;
        }
        rig.collect();
        while !matches!(rig.lanes[0].next(), Next::Park | Next::Done) {
            if !rig.pump(Direction::Up).more {
                break;
            }
        }
    }
    assert!(
        rig.lanes[0].held() <= 1 << 20,
        "{} bytes held",
        rig.lanes[0].held()
    );
    let mut taken = 0;
    rig.until("everything arrives", |rig| {
        taken += rig.world.takes(KEY, Side::Upstream).unwrap_or(0);
        taken == sent
    });
    assert_eq!(rig.world.engine().holdings().held_bytes, 0);
    rig.close_both();
}

fn what_came_before_a_reset_is_delivered<W: World>(world: &mut W, policy: PathPolicy) {
    let mut rig = Rig::relaying(world, policy);
    rig.world.sends(KEY, Side::Upstream, 50_000);
    let mut taken = 0;
    rig.until("the bytes cross", |rig| {
        taken += rig.world.takes(KEY, Side::Client).unwrap_or(0);
        taken == 50_000
    });
    rig.world.resets(KEY, Side::Upstream);
    rig.until("the reset is noticed", |rig| {
        rig.failures.contains(&Side::Upstream)
    });
    assert_eq!(
        rig.lanes[1].progress(),
        Progress::SourceFailed,
        "a reset is no orderly end"
    );
    rig.close_both();
}

fn dropped_bytes_are_not_held_any_more<W: World>(world: &mut W, policy: PathPolicy) {
    let mut rig = Rig::relaying(world, policy);
    for _ in 0..600 {
        rig.world.sends(KEY, Side::Client, 40_000);
        rig.collect();
        while !matches!(rig.lanes[0].next(), Next::Park | Next::Done) {
            if !rig.pump(Direction::Up).more {
                break;
            }
        }
        if rig.lanes[0].held() > 0 {
            break;
        }
    }
    rig.lanes[0].sink_failed();
    rig.world.engine().drop_held(KEY, Direction::Up);
    assert_eq!(rig.world.engine().holdings().held_bytes, 0);
    rig.close_both();
    assert_eq!(
        rig.world.engine().holdings().pipes,
        0,
        "a pipe stayed with a closed session"
    );
}

fn an_absent_side_closes_at_once_and_a_closed_one_is_silent<W: World>(world: &mut W) {
    let mut rig = Rig::relaying(world, PathPolicy::Auto);
    rig.close(Side::Client, Close::Orderly);
    rig.world.sends(KEY, Side::Client, 100);
    for _ in 0..20 {
        rig.collect();
        let stray = |event: &Event| {
            matches!(
                event,
                Event::Ready(KEY, Side::Client, _) | Event::Closed(KEY, Side::Client)
            )
        };
        assert!(
            !rig.events.iter().any(stray),
            "an event after the last: {:?}",
            rig.events
        );
    }
    assert_eq!(
        rig.world.engine().close(KEY, Side::Client, Close::Orderly),
        Start::Done(())
    );
    rig.close(Side::Upstream, Close::Reset);
}

fn what_is_peeked_at_stays_until_it_is_taken<W: World>(world: &mut W) {
    let mut rig = Rig::accepted(world, PathPolicy::Auto);
    let mut buffer = [0; 64];
    let mut peek = |rig: &mut Rig<'_, W>| rig.world.engine().peek(KEY, Side::Client, &mut buffer);
    // So many bytes are there, as soon as an event says so.
    let mut awaits = |rig: &mut Rig<'_, W>, wanted: Peeked| {
        for _ in 0..TURNS {
            let peeked = peek(rig);
            if peeked == wanted {
                return;
            }
            // The rest of what was sent is on its way.
            rig.collect();
            let mut turns = 0;
            while peeked == Peeked::Empty
                && !rig.events.iter().any(|it| matches!(it, Event::Ready(..)))
            {
                rig.collect();
                turns += 1;
                assert!(turns < TURNS, "no event told of {wanted:?}");
            }
        }
        panic!("never {wanted:?}");
    };
    assert_eq!(
        rig.world.engine().peek(KEY, Side::Client, &mut [0; 8]),
        Peeked::Empty
    );
    rig.world.sends(KEY, Side::Client, 10);
    awaits(&mut rig, Peeked::Bytes(10));
    awaits(&mut rig, Peeked::Bytes(10));
    assert_eq!(rig.world.engine().take(KEY, Side::Client, 4), Ok(()));
    awaits(&mut rig, Peeked::Bytes(6));
    assert_eq!(rig.world.engine().take(KEY, Side::Client, 6), Ok(()));
    awaits(&mut rig, Peeked::Empty);
    rig.world.sends(KEY, Side::Client, 5);
    awaits(&mut rig, Peeked::Bytes(5));
    assert_eq!(rig.world.engine().take(KEY, Side::Client, 5), Ok(()));
    rig.world.ends(KEY, Side::Client);
    awaits(&mut rig, Peeked::Ended);
    assert_eq!(
        rig.world.engine().say(KEY, Side::Client, b"farewell"),
        Ok(8)
    );
    rig.world.engine().conclude(KEY, Side::Client);
    rig.close(Side::Client, Close::Orderly);
}

fn time_goes_on_only_in_wait<W: World>(world: &mut W) {
    let before = world.engine().now();
    assert_eq!(world.engine().now(), before);
    let until = before + Duration::from_millis(5);
    let mut events = Vec::new();
    world.engine().wait(until, &mut events).expect("a wait");
    assert!(world.engine().now() > before);
}

/// Runs the suite on the engines that a module's `world()` makes.
macro_rules! suite {
    ($name:ident, $world:expr) => {
        mod $name {
            use super::*;

            const PATHS: [PathPolicy; 3] = [PathPolicy::Auto, PathPolicy::Copy, PathPolicy::Splice];

            #[test]
            fn a_refused_connect_has_one_outcome_and_leaves_nothing() {
                let Some(mut world) = $world else { return };
                super::a_refused_connect_has_one_outcome_and_leaves_nothing(&mut world);
            }

            #[test]
            fn bytes_cross_in_order_and_an_end_after_the_last() {
                for path in PATHS {
                    let Some(mut world) = $world else { return };
                    super::bytes_cross_in_order_and_an_end_after_the_last(&mut world, path);
                }
            }

            #[test]
            fn a_dialogue_goes_on_around_bursts_and_an_end() {
                for path in PATHS {
                    let Some(mut world) = $world else { return };
                    super::a_dialogue_goes_on_around_bursts_and_an_end(&mut world, path);
                }
            }

            #[test]
            fn a_close_in_the_middle_of_a_dialogue_is_the_last_event() {
                let Some(mut world) = $world else { return };
                super::a_close_in_the_middle_of_a_dialogue_is_the_last_event(&mut world);
            }

            #[test]
            fn a_slow_reader_costs_a_bounded_tail_and_loses_nothing() {
                for path in PATHS {
                    let Some(mut world) = $world else { return };
                    super::a_slow_reader_costs_a_bounded_tail_and_loses_nothing(&mut world, path);
                }
            }

            #[test]
            fn what_came_before_a_reset_is_delivered() {
                for path in PATHS {
                    let Some(mut world) = $world else { return };
                    super::what_came_before_a_reset_is_delivered(&mut world, path);
                }
            }

            #[test]
            fn dropped_bytes_are_not_held_any_more() {
                for path in PATHS {
                    let Some(mut world) = $world else { return };
                    super::dropped_bytes_are_not_held_any_more(&mut world, path);
                }
            }

            #[test]
            fn an_absent_side_closes_at_once_and_a_closed_one_is_silent() {
                let Some(mut world) = $world else { return };
                super::an_absent_side_closes_at_once_and_a_closed_one_is_silent(&mut world);
            }

            #[test]
            fn what_is_peeked_at_stays_until_it_is_taken() {
                let Some(mut world) = $world else { return };
                super::what_is_peeked_at_stays_until_it_is_taken(&mut world);
            }

            #[test]
            fn a_listener_is_removed_and_comes_back() {
                let Some(mut world) = $world else { return };
                listening::a_listener_is_removed_and_comes_back(&mut world);
            }

            #[test]
            fn what_was_pending_for_a_removed_listener_is_nobody_elses() {
                let Some(mut world) = $world else { return };
                listening::what_was_pending_for_a_removed_listener_is_nobody_elses(&mut world);
            }

            #[test]
            fn many_listeners_come_and_go() {
                let Some(mut world) = $world else { return };
                listening::many_listeners_come_and_go(&mut world);
            }

            #[test]
            fn a_dialogue_goes_on_though_it_moves() {
                let Some(mut world) = $world else { return };
                moving::a_dialogue_goes_on_though_it_moves(&mut world);
            }

            #[test]
            fn a_half_closed_session_moves() {
                let Some(mut world) = $world else { return };
                moving::a_half_closed_session_moves(&mut world);
            }

            #[test]
            fn what_is_held_moves_along() {
                for path in [PathPolicy::Copy, PathPolicy::Splice] {
                    let Some(mut world) = $world else { return };
                    moving::what_is_held_moves_along(&mut world, path);
                }
            }

            #[test]
            fn a_transfer_moves_again_and_again() {
                for path in PATHS {
                    let Some(mut world) = $world else { return };
                    moving::a_transfer_moves_again_and_again(&mut world, path);
                }
            }

            #[test]
            fn a_reset_is_told_though_it_comes_with_the_move() {
                let Some(mut world) = $world else { return };
                moving::a_reset_is_told_though_it_comes_with_the_move(&mut world);
            }

            #[test]
            fn time_goes_on_only_in_wait() {
                let Some(mut world) = $world else { return };
                super::time_goes_on_only_in_wait(&mut world);
            }
        }
    };
}

suite!(epoll, Some(sockets::epoll()));
#[cfg(feature = "uring")]
suite!(io_uring, sockets::io_uring(Sizes::default()));
// Every queue overflows and buffers are short all the time (behaviour 63).
#[cfg(feature = "uring")]
suite!(
    io_uring_cramped,
    sockets::io_uring(Sizes {
        submissions: 2,
        completions: 4,
        buffers: 2,
    })
);
#[test]
fn b129_from_epoll_to_epoll_and_back() {
    for path in [PathPolicy::Copy, PathPolicy::Splice] {
        let there = moving::an_epoll;
        moving::there_and_back(sockets::epoll(), there, moving::an_epoll, path);
    }
}

#[cfg(feature = "uring")]
#[test]
fn b129_from_io_uring_to_epoll_and_back() {
    for path in [PathPolicy::Copy, PathPolicy::Splice] {
        let Some(world) = sockets::io_uring(Sizes::default()) else {
            return;
        };
        moving::there_and_back(world, moving::an_epoll, moving::an_io_uring, path);
    }
}

#[cfg(feature = "uring")]
#[test]
fn b129_from_epoll_to_io_uring_and_back() {
    for path in [PathPolicy::Copy, PathPolicy::Splice] {
        if sockets::io_uring(Sizes::default()).is_none() {
            return;
        }
        let there = moving::an_io_uring;
        moving::there_and_back(sockets::epoll(), there, moving::an_epoll, path);
    }
}

/// Or the suite on the engine above would prove little.
#[cfg(all(feature = "uring", feature = "probes"))]
#[test]
fn the_cramped_engine_runs_out_of_buffers() {
    let sizes = Sizes {
        submissions: 2,
        completions: 4,
        buffers: 2,
    };
    let Some(mut world) = sockets::io_uring(sizes) else {
        return;
    };
    thalweg::relay::probe::take_visited();
    a_dialogue_goes_on_around_bursts_and_an_end(&mut world, PathPolicy::Copy);
    assert!(thalweg::relay::probe::take_visited().contains(&("receive", "no buffer")));
}

suite!(simulator, Some(simulated::world()));
