//! Sessions that outlive this process: what control's thread has to do with them, as the way
//! between reactors, which have them, and a service manager, which keeps their descriptors.
//!
//! ```text
//!  reactor ── Told::Old ─► slot, FDSTORE ── Order::Note ─► reactor notes … drops the mark
//!                          no slot ── Order::NoPlace ─► it waits, and is shown again
//!                                  └─ Order::MakeRoom ─► another one's mark is dropped
//!  reactor ── Told::Gone ─► FDSTOREREMOVE
//!
//!  at a start    journal, descriptors ─► clean: adopted with its mark │ dirty: adopted and reset
//! ```
//! Invariant: what is found clean is in the very slot that says so when it is adopted, so that a
//! second kill finds it as it is then.

pub(super) mod found;
pub(super) mod state;

use std::collections::HashSet;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::engine::choice::Kind;
use crate::net::journal::{self, Journal, SlotName};
use crate::net::notify::monotonic_micros;
use crate::observe::notice::Notice;
use crate::reactor::{KeptSession, OldSession, SessionStore};
use crate::relay::ending::Cause;

use super::inbox::{Teller, Told};
use super::running::Running;
use super::wire::Order;
use found::{Fates, Survivors, name_of};
use state::{Survival, released};

/// The way of one reactor's sessions to control's thread.
#[derive(Debug)]
struct Asks {
    teller: Teller,
    reactor: u16,
    has_room: Arc<AtomicBool>,
}

impl SessionStore for Asks {
    fn store(&self, session: OldSession) {
        self.teller.tell(Told::Old(self.reactor, session));
    }

    fn has(&self, session: KeptSession) {
        self.teller.tell(Told::Has(self.reactor, session));
    }

    fn has_room(&self) -> bool {
        self.has_room.load(Ordering::Relaxed)
    }
}

impl Running {
    /// Sessions of the process before go on here, as far as they can; and those of this one will
    /// in the next, if they are to.
    pub(super) fn survive(&mut self, survivors: Survivors) {
        let is_wanted = self.config.global.survive_crash && self.kind == Kind::Epoll;
        let may = is_wanted && self.manager.keeps() > 0;
        if self.config.global.survive_crash && !may {
            let reason = "no service manager keeps descriptors: FileDescriptorStoreMax=, and \
                          NOTIFY_SOCKET and FDSTORE in the environment";
            self.log.notice(Notice::SessionsNotKept {
                reason: reason.to_owned(),
            });
        }
        let journal = self.take_survivors(survivors, may);
        if !may {
            return;
        }
        let is_stored = journal.is_some();
        let journal = journal.map_or_else(|| self.new_journal(), Ok);
        match journal {
            Ok(journal) => {
                self.survival = Some(Survival::new(journal, is_stored));
                self.have_sessions_kept();
            }
            Err(error) => self.log.notice(Notice::SessionsNotKept {
                reason: error.to_string(),
            }),
        }
    }

    fn new_journal(&self) -> std::io::Result<Arc<Journal>> {
        let now = monotonic_micros();
        let age = self.origin.elapsed().as_micros() as u64;
        let names = (now, now.saturating_sub(age));
        Journal::new(names, released(&self.teller)).map(Arc::new)
    }

    /// The journal to go on with, if there is one and this process `may`.
    fn take_survivors(&mut self, survivors: Survivors, may: bool) -> Option<Arc<Journal>> {
        if survivors.names.is_empty() {
            return None;
        }
        for (name, count) in &survivors.names {
            self.manager.had_beside(name.clone(), *count);
        }
        let journal = survivors.journal.clone();
        let fates = Fates::of(survivors, &self.berths(), may);
        let reset = fates.lost + fates.end.len() as u64;
        let reasons = fates.reasons.iter();
        let reasons: Vec<_> = reasons
            .map(|(why, count)| format!("{why}: {count}"))
            .collect();
        for reactor in self.reactors.values() {
            reactor.send(Order::NumberFrom(fates.last_id, 0)).forget();
        }
        let mut stays: HashSet<String> = fates.go_on.iter().filter_map(name_of).collect();
        self.end_arrivals(fates.end, Cause::Crashed);
        let sessions = self.arrived(fates.go_on);
        let journal = journal.filter(|_| may);
        stays.extend(journal.iter().map(|it| journal::journal_name(it.id())));
        self.manager.forget_beside_but(|name| stays.contains(name));
        self.log.notice(Notice::Survived {
            sessions,
            reset,
            reasons: reasons.join(", "),
        });
        journal
    }

    /// Reactors show their sessions from now on, those that they have included.
    pub(super) fn have_sessions_kept(&self) {
        let Some(survival) = &self.survival else {
            return;
        };
        for (number, reactor) in &self.reactors {
            let store = Asks {
                teller: self.teller.clone(),
                reactor: *number,
                has_room: survival.has_room.clone(),
            };
            reactor.send(Order::KeepIn(Box::new(store))).forget();
        }
    }

    /// What was shown while the manager did not heed this process is shown again.
    pub(super) fn keep_what_was_missed(&mut self) {
        if !self.manager.is_heeded() {
            return;
        }
        if let Some(survival) = self.survival.as_mut().filter(|it| it.has_missed) {
            survival.has_missed = false;
            self.have_sessions_kept();
        }
    }

    /// A session is to be kept.
    pub(super) fn keep_session(&mut self, reactor: u16, session: OldSession) {
        let Some(survival) = &mut self.survival else {
            return;
        };
        if !self.manager.is_heeded() {
            survival.has_missed = true;
            return;
        }
        if !journal::may_have(&session.text) {
            // Nor would it later.
            return;
        }
        let order = if self.has_place() {
            self.give_place(reactor, &session)
        } else {
            self.say_full();
            self.make_room_for(reactor, session)
        };
        if let Some((to, order)) = order
            && let Some(reactor) = self.reactors.get(&to)
        {
            reactor.send(order).forget();
        }
        self.tell_room();
    }

    /// Whether the manager and the journal have room for a session.
    fn has_place(&self) -> bool {
        let survival = self.survival.as_ref();
        let has_slot = survival.is_some_and(|it| it.journal.has_free());
        has_slot && self.manager.has_room_beside(2)
    }

    fn give_place(&mut self, reactor: u16, session: &OldSession) -> Option<(u16, Order)> {
        let (survival, manager) = (self.survival.as_mut()?, &mut self.manager);
        if !survival.is_stored {
            let name = journal::journal_name(survival.journal.id());
            survival.is_stored = manager.keep_beside(name, &[survival.journal.as_fd()]);
        }
        let mark = survival.journal.take(&session.text);
        let sides = session.sides.each_ref().map(|fd| fd.as_fd());
        let mark = mark
            .filter(|it| survival.is_stored && manager.keep_beside(it.name().to_string(), &sides));
        let (key, client) = (session.key, session.client);
        let order = match mark {
            Some(mark) => {
                let name = mark.name();
                let kept = KeptSession { key, client, name };
                survival.places.take(reactor, kept);
                Order::Note(key, mark)
            }
            // The manager does not listen just now.
            None => Order::NoPlace(key),
        };
        Some((reactor, order))
    }

    /// There is no place for a session: one of whoever has most may make room.
    fn make_room_for(&mut self, reactor: u16, session: OldSession) -> Option<(u16, Order)> {
        let survival = self.survival.as_mut()?;
        let promised = survival.places.promise(reactor, session);
        Some(match promised {
            Ok((name, of, key)) => (of, Order::MakeRoom(key, name)),
            Err(session) => (reactor, Order::NoPlace(session.key)),
        })
    }

    fn say_full(&mut self) {
        let keeps = self.manager.keeps();
        let Some(survival) = self.survival.as_mut().filter(|it| !it.is_full) else {
            return;
        };
        survival.is_full = true;
        let slots = journal::SLOTS;
        self.log.notice(Notice::SessionsNotKept {
            reason: format!(
                "there is no room for more of them: the service manager keeps {keeps} \
                 descriptors, three quarters of them for sessions, two for each of {slots} \
                 at the most; raise FileDescriptorStoreMax="
            ),
        });
    }

    /// A session is kept already: it has come so, or from another reactor.
    pub(super) fn has_kept(&mut self, reactor: u16, session: KeptSession) {
        if let Some(survival) = &mut self.survival {
            survival.places.take(reactor, session);
        }
    }

    /// A session is kept no more, and its place may be promised to another one.
    pub(super) fn forget_session(&mut self, name: SlotName) {
        self.manager.forget_beside(&name.to_string());
        let has_place = self.has_place();
        if let Some(survival) = &mut self.survival {
            survival.places.free(name);
            let next = has_place.then(|| survival.places.next_promised());
            if let Some((reactor, next)) = next.flatten() {
                self.keep_session(reactor, next);
            }
        }
        self.tell_room();
    }

    fn tell_room(&self) {
        if let Some(survival) = &self.survival {
            survival.tell_room(self.has_place());
        }
    }
}
