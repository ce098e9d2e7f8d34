//! What control's thread knows of sessions that are to outlive this process: where each is
//! kept, and who waits until another one has made room.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::control::inbox::{Teller, Told};
use crate::engine::SessionKey;
use crate::net::journal::{Journal, Released, SlotName};
use crate::policy::taken::TakenPlaces;
use crate::reactor::{KeptSession, OldSession};

/// Sessions that have a place promised, each of which has two descriptors: what a reactor shows
/// in a few turns. More wait where they are.
const PROMISED_MAX: usize = 64;

/// What it takes to have sessions outlive this process.
#[derive(Debug)]
pub(in crate::control) struct Survival {
    pub(super) journal: Arc<Journal>,
    /// The service manager has the journal.
    pub(super) is_stored: bool,
    /// Some sessions were not kept because this process is not the service yet: the manager
    /// does not heed it.
    pub(super) has_missed: bool,
    /// That there is no room has been said.
    pub(super) is_full: bool,
    pub(super) places: KeptPlaces,
    /// For reactors: another session may find a place.
    pub(super) has_room: Arc<AtomicBool>,
}

/// Whose the places are.
#[derive(Debug, Default)]
pub(super) struct KeptPlaces {
    taken: TakenPlaces<SlotName>,
    /// Which session has each: its reactor, and its key there.
    sessions: BTreeMap<SlotName, (u16, SessionKey)>,
    /// Those for whom others make room.
    promised: VecDeque<(u16, OldSession)>,
}

impl Survival {
    pub(super) fn new(journal: Arc<Journal>, is_stored: bool) -> Self {
        Self {
            journal,
            is_stored,
            has_missed: false,
            is_full: false,
            places: KeptPlaces::default(),
            has_room: Arc::new(AtomicBool::new(true)),
        }
    }

    /// What reactors are told of a place that is free, if one is.
    pub(super) fn tell_room(&self, has_place: bool) {
        let has_room = has_place && self.places.promised.is_empty();
        self.has_room.store(has_room, Ordering::Relaxed);
    }
}

impl KeptPlaces {
    /// A session has a place.
    pub(super) fn take(&mut self, reactor: u16, session: KeptSession) {
        self.taken.take(session.name, session.client);
        self.sessions.insert(session.name, (reactor, session.key));
    }

    /// It has it no more.
    pub(super) fn free(&mut self, name: SlotName) {
        self.taken.free(name);
        self.sessions.remove(&name);
    }

    /// Who has a place promised for longest.
    pub(super) fn next_promised(&mut self) -> Option<(u16, OldSession)> {
        self.promised.pop_front()
    }

    /// There is no place for this session: which one makes room for it, its name and where it
    /// is. The place is promised then; else the session comes back.
    pub(super) fn promise(
        &mut self,
        reactor: u16,
        session: OldSession,
    ) -> Result<(SlotName, u16, SessionKey), OldSession> {
        let may = self.promised.len() < PROMISED_MAX;
        let makes_room = may.then(|| self.taken.makes_room(session.client)).flatten();
        let found = makes_room.and_then(|name| {
            let (reactor, key) = *self.sessions.get(&name)?;
            Some((name, reactor, key))
        });
        match found {
            Some(found) => {
                self.promised.push_back((reactor, session));
                Ok(found)
            }
            None => Err(session),
        }
    }
}

/// Control's thread is told of slots that are free again.
pub(super) fn released(teller: &Teller) -> Released {
    let teller = teller.clone();
    Box::new(move |name| teller.tell(Told::Gone(name)))
}
