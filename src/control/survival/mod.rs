//! Sessions that outlive this process: what control's thread has to do with them, as the way
//! between reactors, which have them, and a service manager, which keeps their descriptors.
//!
//! ```text
//!  reactor ── Told::Old ─► slot, FDSTORE ── Order::Note ─► reactor notes … drops the mark
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

use crate::engine::choice::Kind;
use crate::net::journal::{self, Journal};
use crate::net::notify::monotonic_micros;
use crate::observe::notice::Notice;
use crate::reactor::{OldSession, SessionStore};
use crate::relay::ending::Cause;

use super::inbox::{Teller, Told};
use super::running::Running;
use super::wire::Order;
use found::{Fates, Survivors, name_of};
use state::{Survival, released};

/// The way of one reactor's sessions to control's thread.
#[derive(Debug)]
struct Asks(Teller, u16);

impl SessionStore for Asks {
    fn store(&self, session: OldSession) {
        self.0.tell(Told::Old(self.1, session));
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
                self.survival = Some(Survival {
                    journal,
                    is_stored,
                    has_missed: false,
                    is_full: false,
                });
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
        if self.survival.is_none() {
            return;
        }
        for (number, reactor) in &self.reactors {
            let store = Box::new(Asks(self.teller.clone(), *number));
            reactor.send(Order::KeepIn(store)).forget();
        }
    }

    /// What was shown while the manager did not heed this process is shown again.
    pub(super) fn keep_what_was_missed(&mut self) {
        if self.probation.is_some() {
            return;
        }
        if let Some(survival) = self.survival.as_mut().filter(|it| it.has_missed) {
            survival.has_missed = false;
            self.have_sessions_kept();
        }
    }

    /// A session is to be kept.
    pub(super) fn keep_session(&mut self, reactor: u16, session: &OldSession) {
        let Some(survival) = &mut self.survival else {
            return;
        };
        if self.probation.is_some() {
            survival.has_missed = true;
            return;
        }
        let manager = &mut self.manager;
        if !survival.is_stored {
            let name = journal::journal_name(survival.journal.id());
            survival.is_stored = manager.keep_beside(name, &[survival.journal.as_fd()]);
        }
        let mark = survival.journal.take(&session.text);
        let sides = session.sides.each_ref().map(|fd| fd.as_fd());
        let mark = mark
            .filter(|it| survival.is_stored && manager.keep_beside(it.name().to_string(), &sides));
        match (mark, self.reactors.get(&reactor)) {
            (Some(mark), Some(reactor)) => reactor.send(Order::Note(session.key, mark)).forget(),
            (None, _) if !survival.is_full => {
                survival.is_full = true;
                let (keeps, slots) = (manager.keeps(), journal::SLOTS);
                self.log.notice(Notice::SessionsNotKept {
                    reason: format!(
                        "there is no room for more of them: the service manager keeps {keeps} \
                         descriptors, three quarters of them for sessions, two for each of {slots} \
                         at the most; raise FileDescriptorStoreMax="
                    ),
                });
            }
            _ => {}
        }
    }
}
