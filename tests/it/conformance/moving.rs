//! Point 10 of the contract: a session's sides move from one engine to another, with
//! whatever is on its way.

use std::os::fd::BorrowedFd;
use std::time::Instant;

use thalweg::engine::detached::{Baggage, Detached, HeldNote};
use thalweg::engine::epoll::Epoll;
use thalweg::engine::{Engine, Event, Listener, Start};
use thalweg::relay::lane::{Lane, Next, PathPolicy, Progress};
use thalweg::relay::{Direction, Side};

use super::rig::{KEY, Rig, TURNS, World};
use super::sockets::{Sockets, setup};

/// Bytes of a transfer with moves in it.
const BULK: u64 = 12_000_000;

impl<W: World> Rig<'_, W> {
    /// Lets go of the session, pumping as ever until it is quiet.
    fn detach(&mut self) -> <W::Engine as Engine>::Detached {
        if self.world.engine().quiesce(KEY) == Start::Pending {
            self.until("it is quiet", |rig| rig.events.contains(&Event::Quiet(KEY)));
        }
        for direction in Direction::BOTH {
            let lane = &mut self.lanes[direction.index()];
            let pumped = self.world.engine().pump(KEY, direction, lane, 0);
            self.failures.extend(pumped.failure.map(|it| it.side));
        }
        let engine = self.world.engine();
        let detached = engine.detach(KEY, &mut self.lanes).expect("it is quiet");
        let held = detached.held().map(HeldNote::len);
        assert_eq!(held, self.lanes.each_ref().map(Lane::held));
        let left = engine.holdings();
        assert_eq!((left.held_bytes, left.pipes), (0, 0), "something is left");
        detached
    }

    /// Moves it to where it was.
    fn moves(&mut self) {
        let detached = self.detach();
        let attached = self.world.engine().attach(KEY, detached);
        assert!(attached.is_ok(), "{attached:?}");
    }

    /// Pumps what can be pumped now, once.
    fn pump_a_little(&mut self) {
        self.collect();
        for direction in Direction::BOTH {
            if !matches!(
                self.lanes[direction.index()].next(),
                Next::Park | Next::Done
            ) {
                self.pump(direction);
            }
        }
    }

    /// Until so much has come out on a side.
    fn arrives(&mut self, side: Side, n: u64) {
        let mut taken = 0;
        self.until("it arrives", |rig| {
            taken += rig.world.takes(KEY, side).unwrap_or(0);
            taken >= n
        });
        assert_eq!(taken, n);
    }

    /// Until a lane holds something, and its sink takes nothing.
    fn stalls(&mut self) -> u64 {
        let mut sent = 0;
        for _ in 0..TURNS {
            if self.lanes[0].is_stalled() {
                return sent;
            }
            self.world.sends(KEY, Side::Client, 40_000);
            sent += 40_000;
            self.pump_a_little();
        }
        panic!("the sink takes everything");
    }
}

pub(super) fn a_dialogue_goes_on_though_it_moves<W: World>(world: &mut W) {
    let mut rig = Rig::relaying(world, PathPolicy::Auto);
    for round in 0..30 {
        for side in Side::BOTH {
            rig.crosses(side, 100 + round);
        }
        // On its way both ways while it moves.
        rig.world.sends(KEY, Side::Client, 3_000);
        rig.world.sends(KEY, Side::Upstream, 9_000);
        rig.moves();
        rig.arrives(Side::Upstream, 3_000);
        rig.arrives(Side::Client, 9_000);
    }
    rig.close_both();
}

pub(super) fn a_half_closed_session_moves<W: World>(world: &mut W) {
    let mut rig = Rig::relaying(world, PathPolicy::Auto);
    rig.world.sends(KEY, Side::Client, 777);
    rig.world.ends(KEY, Side::Client);
    rig.moves();
    rig.until("the end crosses", |rig| {
        rig.world.takes(KEY, Side::Upstream).is_none()
    });
    rig.moves();
    assert_eq!(rig.lanes[0].progress(), Progress::Finished);
    assert_eq!(rig.lanes[0].bytes_out(), 777);
    for _ in 0..5 {
        rig.world.sends(KEY, Side::Upstream, 4_321);
        rig.moves();
        rig.arrives(Side::Client, 4_321);
    }
    rig.world.ends(KEY, Side::Upstream);
    rig.moves();
    // The last end is told by the close that follows it.
    rig.until("the other end comes", |rig| {
        rig.lanes[1].progress() == Progress::Finished
    });
    rig.close_both();
}

pub(super) fn what_is_held_moves_along<W: World>(world: &mut W, policy: PathPolicy) {
    let mut rig = Rig::relaying(world, policy);
    let sent = rig.stalls();
    let held = rig.lanes[0].held();
    assert!(held > 0);
    let detached = rig.detach();
    let piped = detached.held().iter().any(|it| it.is_piped());
    assert_eq!(piped, policy == PathPolicy::Splice, "{:?}", detached.held());
    let attached = rig.world.engine().attach(KEY, detached);
    assert!(attached.is_ok());
    assert!(rig.lanes[0].held() >= held);
    rig.moves();
    rig.arrives(Side::Upstream, sent);
    rig.close_both();
    let left = rig.world.engine().holdings();
    assert_eq!((left.held_bytes, left.pipes), (0, 0));
}

pub(super) fn a_transfer_moves_again_and_again<W: World>(world: &mut W, policy: PathPolicy) {
    let mut rig = Rig::relaying(world, policy);
    let (mut sent, mut taken) = ([0; 2], [0; 2]);
    for turn in 0.. {
        assert!(turn < 20 * TURNS, "{taken:?} of {sent:?}");
        if taken == [BULK; 2] {
            break;
        }
        for side in Side::BOTH {
            let n = 150_000.min(BULK - sent[side.index()]);
            // No more than the peers' buffers are behind, so that the end is near.
            if n > 0 && sent[side.index()] - taken[side.other().index()] < 3_000_000 {
                rig.world.sends(KEY, side, n);
                sent[side.index()] += n;
            }
        }
        rig.pump_a_little();
        if turn % 7 == 0 {
            rig.moves();
        }
        // One reads now and then.
        for side in Side::BOTH {
            if turn % 5 > 1 || sent == [BULK; 2] {
                taken[side.index()] += rig.world.takes(KEY, side).unwrap_or(0);
            }
        }
    }
    rig.close_both();
}

pub(super) fn a_reset_is_told_though_it_comes_with_the_move<W: World>(world: &mut W) {
    let mut rig = Rig::relaying(world, PathPolicy::Auto);
    rig.crosses(Side::Client, 100);
    rig.world.resets(KEY, Side::Upstream);
    rig.moves();
    rig.until("the reset is noticed", |rig| {
        rig.failures.contains(&Side::Upstream)
    });
    rig.close_both();
}

/// Copies of everything, as another process gets them; what was here is closed.
fn posted(detached: Detached) -> Detached {
    let copy = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().expect("a descriptor");
    let descriptors = detached.descriptors().into_iter().map(copy).collect();
    let bytes = [detached.tail(Direction::Up), detached.tail(Direction::Down)].concat();
    let put_together =
        Detached::put_together(detached.sides(), detached.held(), descriptors, &bytes);
    put_together
        .expect("descriptors")
        .expect("all of what was sent")
}

/// From one engine to another, through what processes exchange. The one that let go hears
/// nothing of it any more.
fn goes_over<A, B>(world: Sockets<A>, detached: Detached, mut engine: B) -> (Sockets<B>, A)
where
    A: Engine<Listener = Listener, Detached = Detached>,
    B: Engine<Listener = Listener, Detached = Detached>,
{
    let attached = engine.attach(KEY, posted(detached));
    assert!(attached.is_ok(), "{attached:?}");
    let (world, mut left) = world.with_engine(engine);
    let mut events = Vec::new();
    let until = left.now() + std::time::Duration::from_millis(5);
    left.wait(until, &mut events).expect("a wait");
    assert!(!events.iter().any(is_of_it), "{events:?}");
    (world, left)
}

fn is_of_it(event: &Event) -> bool {
    matches!(
        event,
        Event::Ready(KEY, ..) | Event::Closed(KEY, _) | Event::Quiet(KEY)
    )
}

/// Behaviour 129: there and back, in every state.
pub(super) fn there_and_back<A, B>(
    mut world: Sockets<A>,
    there: impl Fn() -> B,
    back: impl Fn() -> A,
    policy: PathPolicy,
) where
    A: Engine<Listener = Listener, Detached = Detached>,
    B: Engine<Listener = Listener, Detached = Detached>,
{
    let mut rig = Rig::relaying(&mut world, policy);
    for n in 1..8 {
        for side in Side::BOTH {
            rig.crosses(side, n * 50);
        }
    }
    let sent = rig.stalls();
    rig.world.sends(KEY, Side::Upstream, 70_000);
    let detached = rig.detach();
    let lanes = rig.lanes;
    let (mut world, _there) = goes_over(world, detached, there());
    let mut rig = Rig::resumed(&mut world, lanes);
    rig.arrives(Side::Client, 70_000);
    rig.arrives(Side::Upstream, sent);
    let sent = rig.stalls();
    rig.world.sends(KEY, Side::Upstream, 1_000);
    let detached = rig.detach();
    let lanes = rig.lanes;
    let (mut world, _back) = goes_over(world, detached, back());
    let mut rig = Rig::resumed(&mut world, lanes);
    rig.arrives(Side::Client, 1_000);
    rig.arrives(Side::Upstream, sent);
    for n in 1..20 {
        for side in Side::BOTH {
            rig.crosses(side, n * 50);
        }
    }
    rig.close_both();
    for side in Side::BOTH {
        rig.until("the peer is told of the end", |rig| {
            rig.world.takes(KEY, side).is_none()
        });
    }
}

pub(super) fn an_epoll() -> Epoll {
    Epoll::new(&setup(), Instant::now()).expect("an epoll engine")
}

#[cfg(feature = "uring")]
pub(super) fn an_io_uring() -> thalweg::engine::uring::Uring {
    thalweg::engine::uring::Uring::new(&setup(), Instant::now()).expect("an io_uring engine")
}
