//! Sessions are moved at random moments: frozen, written as text, read, thawed, and put
//! where they were. Nothing that anybody can see changes.

use std::sync::{Arc, Mutex};

use thalweg::engine::Engine;
use thalweg::engine::sim::{Dice, Sim, Uprooted};
use thalweg::reactor::inspect::{Depth, Inspect as _, SessionFilter};
use thalweg::reactor::{
    Arrival, Berths, Manifest, MovedSession, Reactor, Release, ReleaseReply, Released,
};
use thalweg::relay::session::Session;

/// Moves sessions of a run.
#[derive(Debug)]
pub(crate) struct Moves {
    dice: Dice,
    /// As it is before a drain, which takes the listeners.
    berths: Option<Berths>,
    /// In percent of the turns.
    often: u64,
    under_way: bool,
    released: Arc<Mutex<Option<Released<Uprooted>>>>,
    /// How many were moved.
    pub(crate) moved: u64,
}

impl Moves {
    /// As the seed has it.
    pub(crate) fn drawn(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0x3077_ED00_0000_0000);
        Self {
            often: [0, 2, 10, 50][dice.between(0, 3) as usize],
            ..Self::none(dice)
        }
    }

    /// Never.
    pub(crate) fn never() -> Self {
        Self::none(Dice::new(0))
    }

    fn none(dice: Dice) -> Self {
        Self {
            dice,
            berths: None,
            often: 0,
            under_way: false,
            released: Arc::default(),
            moved: 0,
        }
    }

    /// Between two turns.
    pub(crate) fn some(&mut self, reactor: &mut Reactor<Sim>) {
        if self.berths.is_none() {
            self.berths = Some(reactor.berths());
        }
        if !self.under_way && self.often > 0 && self.dice.percent(self.often) {
            self.under_way = true;
            let released = self.released.clone();
            let at_most = self.dice.between(1, 5) as usize;
            let reply: ReleaseReply<Uprooted> =
                Box::new(move |it| *released.lock().expect("whole") = Some(it));
            if self.dice.percent(50) {
                reactor.release(Release { at_most, reply });
            } else {
                // As a reactor that is busy gives some away: these, whatever they are at.
                let seen = reactor.sessions(0, &SessionFilter::default(), Depth::Known);
                let keys = seen.items.iter().map(|it| it.key);
                let keys = keys.filter(|_| self.dice.percent(50)).take(at_most);
                reactor.release_these(keys.collect(), reply);
            }
        }
        let Some(released) = self.released.lock().expect("whole").take() else {
            return;
        };
        self.under_way = false;
        for moved in released.moved {
            self.moved += 1;
            if self.dice.percent(30) {
                let back = reactor.take_back(vec![moved]);
                assert_eq!(back.taken, 1, "{:?}", back.refused);
            } else {
                let berths = self.berths.as_ref().expect("made above");
                travels(moved, berths, reactor);
            }
        }
    }
}

/// As to another process and from there.
fn travels(moved: MovedSession<Uprooted>, berths: &Berths, reactor: &mut Reactor<Sim>) {
    let text = serde_json::to_string(&moved.manifest).expect("plain data");
    let manifest: Manifest = serde_json::from_str(&text).expect("as it was written");
    assert_eq!(manifest, moved.manifest, "not what was written");
    let now = reactor.engine().now();
    let session = Session::thaw(&manifest.state, now).expect("what was can be");
    session.check_invariants();
    let again = session.freeze(now).expect("it may be frozen again");
    assert_eq!(again, manifest.state, "thawing changes a session");
    let place = berths.find(&manifest).expect("it has its place");
    // The other half is what it counted by here: dropped when this is.
    let detached = away(moved);
    let adopted = reactor.adopt(vec![Arrival {
        manifest,
        detached,
        place,
    }]);
    assert_eq!(adopted.taken, 1, "{:?}", adopted.refused);
}

/// What the other process has of it.
fn away(moved: MovedSession<Uprooted>) -> Uprooted {
    moved.detached
}
