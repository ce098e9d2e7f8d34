//! Connections made ahead and handed over: the rivals of a race, and spares.
//!
//! What a server does before the hand-over is played on real sockets only: the
//! simulator makes its peers when a session has them.

use std::time::Duration;

#[cfg(feature = "uring")]
use thalweg::engine::uring::Sizes;
use thalweg::engine::{Engine, Event, Listener, SessionKey, Start};
use thalweg::net::address::Endpoint;
use thalweg::relay::Side;
use thalweg::relay::lane::{PathPolicy, Progress};
use thalweg::relay::session::Close;

use super::rig::{KEY, Rig, TURNS, World};
use super::simulated;
use super::sockets::{self, Sockets};

const PATHS: [PathPolicy; 3] = [PathPolicy::Auto, PathPolicy::Copy, PathPolicy::Splice];

/// The slot in which connections are made ahead, at its n-th use.
const fn ahead(generation: u32) -> SessionKey {
    SessionKey {
        slot: 5,
        generation,
    }
}

impl<W: World> Rig<'_, W> {
    fn connect_ahead(&mut self, key: SessionKey, endpoint: &Endpoint) -> Result<(), ()> {
        self.outcome(key, endpoint, |engine, target| {
            engine.connect_ahead(key, target)
        })
    }

    /// A connection made ahead under `key`, to the server.
    fn stands_ahead(&mut self, key: SessionKey) {
        let server = self.world.server();
        assert_eq!(self.connect_ahead(key, &server), Ok(()));
        assert!(self.world.engine().is_fresh(key), "it was just made");
        // Or its server would hear of it only some time later.
        self.world.engine().acknowledge(key, Side::Upstream);
    }

    /// It becomes the upstream side of the session.
    fn hand_over(&mut self, from: SessionKey) {
        assert!(self.world.engine().hand_over(from, KEY), "handed over");
        assert!(!self.world.engine().is_fresh(from), "nothing is left of it");
        let closed = self
            .world
            .engine()
            .close(from, Side::Upstream, Close::Reset);
        assert_eq!(closed, Start::Done(()), "nothing is left to be closed");
    }

    fn close_ahead(&mut self, key: SessionKey) {
        let closed = self.world.engine().close(key, Side::Upstream, Close::Reset);
        if closed == Start::Pending {
            self.turns_until("it is closed", |events, _| {
                events.contains(&Event::Closed(key, Side::Upstream))
            });
        }
        assert!(!self.world.engine().is_fresh(key), "closed");
    }

    /// Turns without pumping until `done`, which sees the events of the turn.
    fn turns_until(&mut self, what: &str, mut done: impl FnMut(&[Event], &mut W) -> bool) {
        for _ in 0..TURNS {
            self.collect();
            if done(&self.events, self.world) {
                return;
            }
        }
        panic!("never: {what}");
    }

    /// Nothing is told of a connection that is no more.
    fn hears_nothing_of(&mut self, key: SessionKey) {
        for _ in 0..20 {
            self.collect();
            let stray = self.events.iter().find(|event| {
                matches!(event, Event::Connected(it) | Event::ConnectFailed(it, _)
                    | Event::Ready(it, ..) | Event::Closed(it, _) if *it == key)
            });
            assert_eq!(stray, None, "an event after the last");
        }
    }

    /// What the server sent arrives at the client, then the end.
    fn client_gets_then_end(&mut self, n: u64) {
        let mut taken = 0;
        self.until("the end crosses", |rig| {
            match rig.world.takes(KEY, Side::Client) {
                Some(n) => {
                    taken += n;
                    false
                }
                None => true,
            }
        });
        assert_eq!(taken, n, "bytes before the end");
    }
}

fn handed_over_it_carries_bytes_both_ways_and_ends<W: World>(world: &mut W, policy: PathPolicy) {
    let mut rig = Rig::accepted(world, policy);
    rig.stands_ahead(ahead(1));
    rig.hand_over(ahead(1));
    for n in [1, 70_000, 3, 900_000, 5] {
        rig.crosses(Side::Client, n);
        rig.crosses(Side::Upstream, n);
    }
    rig.world.sends(KEY, Side::Upstream, 4321);
    rig.world.ends(KEY, Side::Upstream);
    rig.client_gets_then_end(4321);
    rig.crosses(Side::Client, 100);
    rig.hears_nothing_of(ahead(1));
    rig.close_both();
    assert_eq!(rig.world.engine().holdings().held_bytes, 0);
}

/// The client was faster than the hand-over.
fn what_the_client_sent_meanwhile_goes_to_it<W: World>(world: &mut W, policy: PathPolicy) {
    let mut rig = Rig::accepted(world, policy);
    rig.world.sends(KEY, Side::Client, 50_000);
    rig.stands_ahead(ahead(1));
    rig.hand_over(ahead(1));
    let mut taken = 0;
    rig.until("the bytes cross", |rig| {
        taken += rig.world.takes(KEY, Side::Upstream).unwrap_or(0);
        taken == 50_000
    });
    rig.close_both();
}

fn a_refused_one_has_one_outcome_and_leaves_nothing<W: World>(world: &mut W) {
    let nobody = world.nobody();
    let mut rig = Rig::accepted(world, PathPolicy::Auto);
    assert_eq!(rig.connect_ahead(ahead(1), &nobody), Err(()));
    assert!(!rig.world.engine().is_fresh(ahead(1)));
    rig.hears_nothing_of(ahead(1));
    // The slot is free for the next.
    rig.stands_ahead(ahead(2));
    rig.hand_over(ahead(2));
    rig.crosses(Side::Upstream, 1000);
    rig.close_both();
}

fn a_slot_used_again_is_clean<W: World>(world: &mut W) {
    let mut rig = Rig::accepted(world, PathPolicy::Auto);
    for generation in 1..4 {
        rig.stands_ahead(ahead(generation));
        rig.close_ahead(ahead(generation));
        rig.world.server_parts();
        rig.hears_nothing_of(ahead(generation));
    }
    rig.stands_ahead(ahead(4));
    assert!(!rig.world.engine().is_fresh(ahead(3)), "a stale key");
    rig.hand_over(ahead(4));
    rig.crosses(Side::Client, 70_000);
    rig.crosses(Side::Upstream, 70_000);
    // A spare in the slot it left: the session does not notice its end.
    let server = rig.world.server();
    assert_eq!(rig.connect_ahead(ahead(5), &server), Ok(()));
    rig.crosses(Side::Upstream, 100);
    rig.close_ahead(ahead(5));
    rig.crosses(Side::Client, 70_000);
    rig.crosses(Side::Upstream, 70_000);
    rig.close_both();
}

// On real sockets.

fn what_a_server_said_first_comes_after_the_hand_over<E: Engine<Listener = Listener>>(
    world: &mut Sockets<E>,
    policy: PathPolicy,
) {
    for ends in [false, true] {
        let mut rig = Rig::accepted(world, policy);
        rig.stands_ahead(ahead(1));
        rig.world.sends(ahead(1), Side::Upstream, 50_000);
        // Whatever is told of them now is told too early.
        for _ in 0..10 {
            rig.collect();
        }
        let fresh = rig.world.engine().is_fresh(ahead(1));
        assert!(fresh, "unread bytes do no harm");
        if ends {
            rig.world.ends(ahead(1), Side::Upstream);
            rig.turns_until("the end is seen", |_, world| {
                !world.engine().is_fresh(ahead(1))
            });
        }
        // A caller would not; what came before the end is not lost for that.
        rig.hand_over(ahead(1));
        if ends {
            rig.client_gets_then_end(50_000);
            assert_eq!(rig.lanes[1].progress(), Progress::Finished);
        } else {
            let mut taken = 0;
            rig.until("the bytes cross", |rig| {
                taken += rig.world.takes(KEY, Side::Client).unwrap_or(0);
                taken == 50_000
            });
            rig.crosses(Side::Upstream, 1000);
        }
        rig.crosses(Side::Client, 1000);
        rig.close_both();
        rig.world.server_parts();
    }
}

fn one_that_was_ended_or_reset_is_not_fresh<E: Engine<Listener = Listener>>(
    world: &mut Sockets<E>,
) {
    let mut rig = Rig::accepted(world, PathPolicy::Auto);
    let gone = |world: &mut Sockets<E>, n| !world.engine().is_fresh(ahead(n));
    for (generation, bytes) in [(1, 0), (2, 100)] {
        rig.stands_ahead(ahead(generation));
        rig.world.sends(ahead(generation), Side::Upstream, bytes);
        rig.world.ends(ahead(generation), Side::Upstream);
        rig.turns_until("the end is seen", |_, world| gone(world, generation));
        rig.close_ahead(ahead(generation));
        rig.world.server_parts();
    }
    rig.stands_ahead(ahead(3));
    rig.world.resets(ahead(3), Side::Upstream);
    rig.turns_until("the reset is seen", |_, world| gone(world, 3));
    rig.close_ahead(ahead(3));
    rig.hears_nothing_of(ahead(3));
    rig.close(Side::Client, Close::Orderly);
}

/// The server was faster than the caller, who had just looked.
fn a_reset_before_the_hand_over_is_told_after_it<E: Engine<Listener = Listener>>(
    world: &mut Sockets<E>,
) {
    let mut rig = Rig::accepted(world, PathPolicy::Auto);
    rig.stands_ahead(ahead(1));
    rig.world.resets(ahead(1), Side::Upstream);
    rig.turns_until("the reset is seen", |_, world| {
        !world.engine().is_fresh(ahead(1))
    });
    rig.hand_over(ahead(1));
    rig.until("the reset is noticed", |rig| {
        rig.failures.contains(&Side::Upstream)
    });
    assert_eq!(rig.lanes[1].progress(), Progress::SourceFailed);
    rig.close_both();
}

fn closing_one_that_still_connects_leaves_nothing<E: Engine<Listener = Listener>>(
    world: &mut Sockets<E>,
) {
    let mute = sockets::Mute::new();
    let endpoint = mute.endpoint();
    let mut rig = Rig::accepted(world, PathPolicy::Auto);
    let options =
        thalweg::net::options::SocketOptions::default().plan(thalweg::net::options::Leg::Upstream);
    let target = thalweg::engine::Target {
        endpoint: &endpoint,
        options: &options,
        local: thalweg::net::dial::Local::Plan,
    };
    for generation in 1..4 {
        let started = rig.world.engine().connect_ahead(ahead(generation), target);
        assert_eq!(started, Start::Pending, "nobody answers");
        // At once, and when it is well under way.
        if generation > 1 {
            rig.turns_until("a SYN is sent", |_, _| mute.callers() == 1);
            assert!(!rig.world.engine().is_fresh(ahead(generation)));
        }
        rig.close_ahead(ahead(generation));
        rig.hears_nothing_of(ahead(generation));
        assert_eq!(mute.callers(), 0, "a socket is left");
    }
    rig.stands_ahead(ahead(4));
    rig.hand_over(ahead(4));
    rig.crosses(Side::Upstream, 1000);
    rig.close_both();
}

/// Its server learns of it, so its descriptor is closed.
fn a_closed_one_is_closed_at_its_server<E: Engine<Listener = Listener>>(world: &mut Sockets<E>) {
    let mut rig = Rig::accepted(world, PathPolicy::Auto);
    rig.stands_ahead(ahead(1));
    rig.close_ahead(ahead(1));
    assert_eq!(
        rig.world.server_hears_of_the_end(Duration::from_secs(10)),
        Some(std::io::ErrorKind::ConnectionReset)
    );
    rig.close(Side::Client, Close::Orderly);
}

/// Runs the tests on an engine; those on real sockets where it has some.
macro_rules! suite {
    ($name:ident, $world:expr, $($test:ident),* ; $($on_paths:ident),*) => {
        mod $name {
            use super::*;

            $(#[test]
            fn $test() {
                let Some(mut world) = $world else { return };
                super::$test(&mut world);
            })*

            $(#[test]
            fn $on_paths() {
                for path in PATHS {
                    let Some(mut world) = $world else { return };
                    super::$on_paths(&mut world, path);
                }
            })*
        }
    };
    ($name:ident, $world:expr) => {
        suite!(
            $name,
            $world,
            a_refused_one_has_one_outcome_and_leaves_nothing,
            a_slot_used_again_is_clean,
            one_that_was_ended_or_reset_is_not_fresh,
            a_reset_before_the_hand_over_is_told_after_it,
            closing_one_that_still_connects_leaves_nothing,
            a_closed_one_is_closed_at_its_server;
            handed_over_it_carries_bytes_both_ways_and_ends,
            what_the_client_sent_meanwhile_goes_to_it,
            what_a_server_said_first_comes_after_the_hand_over
        );
    };
}

suite!(epoll, Some(sockets::epoll()));
#[cfg(feature = "uring")]
suite!(io_uring, sockets::io_uring(Sizes::default()));
#[cfg(feature = "uring")]
suite!(
    io_uring_cramped,
    sockets::io_uring(Sizes {
        submissions: 2,
        completions: 4,
        buffers: 2,
    })
);
suite!(
    simulator,
    Some(simulated::world()),
    a_refused_one_has_one_outcome_and_leaves_nothing,
    a_slot_used_again_is_clean;
    handed_over_it_carries_bytes_both_ways_and_ends,
    what_the_client_sent_meanwhile_goes_to_it
);
