//! Who is asked for next, of all names that clients want: pure, without time.
//!
//! ```text
//!  ask ─► the name is asked for already ──────────────► its client joins
//!     ├─► a place is free, within the client's share ─► Start
//!     ├─► there is room to wait, within the share ────► in the client's line
//!     └─► neither ────────────────────────────────────► Refused
//!  finish, cancel ─► places are free ─► the lines in turn ─► Start
//! ```
//! Invariants: a client has no more than as many places as are left free, so a client that
//! has none finds one even if others do their worst; the same goes for room to wait. A
//! name is asked for once, whoever wants it, for as long as anybody does.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use crate::engine::SessionKey;
use crate::policy::client::Client;

/// Names that are asked for at the same time.
pub(in crate::control::resolve) const PLACES: usize = 32;

/// Names that may wait for a place.
pub(super) const ROOM: usize = 256;

/// Places that names of a zone may have which has met with silence.
pub(super) const PLACES_OF_A_SILENT_ZONE: usize = PLACES / 4;

/// A question of a session, to take it back: the number of its reactor, and its key there.
pub type LookupId = (u16, SessionKey);

/// Which asking for a name: it may be asked for again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct LookupNumber(u64);

/// A name to be asked for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LookupStart {
    pub(super) host: String,
    pub(super) number: LookupNumber,
}

/// Whoever waits for a name.
#[derive(Debug)]
pub(super) struct Asker<R> {
    pub(super) id: LookupId,
    pub(super) client: Client,
    /// What is done with the outcome.
    pub(super) reply: R,
}

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum LookupStep<R> {
    /// It is asked now.
    Start(LookupStart),
    /// It is answered with another's, or in its turn.
    Waits,
    /// Too many are under way, of its client or of all.
    Refused(R),
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct LookupQueue<R> {
    names: HashMap<String, Wanted<R>>,
    lines: HashMap<Client, LookupLine>,
    /// Clients whose lines are not empty, in their order.
    turn: VecDeque<Client>,
    asked: usize,
    waiting: usize,
    wants: HashMap<LookupId, String>,
    /// Names under way of each zone.
    zones: HashMap<String, usize>,
    next: u64,
}

#[derive(Debug)]
struct Wanted<R> {
    /// Whose place it takes; `None`: it waits.
    place: Option<(Client, LookupNumber)>,
    askers: Vec<Asker<R>>,
}

#[derive(Debug, Default)]
struct LookupLine {
    names: VecDeque<String>,
    places: usize,
}

impl<R> Default for LookupQueue<R> {
    fn default() -> Self {
        Self {
            names: HashMap::new(),
            lines: HashMap::new(),
            turn: VecDeque::new(),
            asked: 0,
            waiting: 0,
            wants: HashMap::new(),
            zones: HashMap::new(),
            next: 0,
        }
    }
}

impl<R> LookupQueue<R> {
    /// Somebody wants the addresses of a host; `is_silent` says of its zone that names in
    /// it were not answered lately.
    pub(super) fn ask(&mut self, host: &str, asker: Asker<R>, is_silent: bool) -> LookupStep<R> {
        let (client, id) = (asker.client, asker.id);
        if let Some(wanted) = self.names.get_mut(host) {
            let waits = wanted.place.is_none();
            wanted.askers.push(asker);
            self.wants.insert(id, host.to_owned());
            if waits {
                // Whosoever turn comes first.
                self.stand_in_line(client, host);
            }
            return LookupStep::Waits;
        }
        let line = self.lines.entry(client).or_default();
        let starts = line.names.is_empty()
            && line.places < PLACES - self.asked
            && !(is_silent && self.is_zone_full(host));
        let waits = self.lines[&client].names.len() < ROOM - self.waiting;
        if !starts && !waits {
            self.forget_if_idle(client);
            return LookupStep::Refused(asker.reply);
        }
        let wanted = Wanted {
            place: None,
            askers: vec![asker],
        };
        self.names.insert(host.to_owned(), wanted);
        self.wants.insert(id, host.to_owned());
        if starts {
            LookupStep::Start(self.start(host.to_owned(), client))
        } else {
            self.waiting += 1;
            self.stand_in_line(client, host);
            LookupStep::Waits
        }
    }

    fn is_zone_full(&self, host: &str) -> bool {
        let under_way = zone(host).and_then(|zone| self.zones.get(zone));
        under_way.is_some_and(|count| *count >= PLACES_OF_A_SILENT_ZONE)
    }

    fn stand_in_line(&mut self, client: Client, host: &str) {
        let line = self.lines.entry(client).or_default();
        if !line.names.iter().any(|it| it == host) {
            if line.names.is_empty() {
                self.turn.push_back(client);
            }
            line.names.push_back(host.to_owned());
        }
    }

    fn start(&mut self, host: String, client: Client) -> LookupStart {
        self.next += 1;
        let number = LookupNumber(self.next);
        self.asked += 1;
        self.lines.entry(client).or_default().places += 1;
        if let Some(zone) = zone(&host) {
            *self.zones.entry(zone.to_owned()).or_default() += 1;
        }
        if let Some(wanted) = self.names.get_mut(&host) {
            wanted.place = Some((client, number));
        }
        LookupStart { host, number }
    }

    /// Whether this asking for the name is still wanted.
    pub(super) fn is_wanted(&self, start: &LookupStart) -> bool {
        let place = self.names.get(&start.host).and_then(|it| it.place);
        place.is_some_and(|(_, number)| number == start.number)
    }

    /// A name has been asked for: whoever waits for it.
    pub(super) fn finish(&mut self, start: &LookupStart) -> Vec<Asker<R>> {
        if !self.is_wanted(start) {
            return Vec::new();
        }
        let askers = self.remove(&start.host);
        for asker in &askers {
            self.wants.remove(&asker.id);
        }
        askers
    }

    /// The session is gone; its reply, and the asking that nobody waits for any more.
    pub(super) fn cancel(&mut self, id: LookupId) -> Option<(R, Option<LookupNumber>)> {
        let host = self.wants.remove(&id)?;
        let wanted = self.names.get_mut(&host)?;
        let at = wanted.askers.iter().position(|it| it.id == id)?;
        let gone = wanted.askers.swap_remove(at);
        let number = wanted.place.map(|(_, number)| number);
        let is_last = wanted.askers.is_empty();
        if !wanted.askers.iter().any(|it| it.client == gone.client) && number.is_none() {
            self.leave_line(gone.client, &host);
        }
        if is_last {
            self.remove(&host);
        }
        Some((gone.reply, number.filter(|_| is_last)))
    }

    fn remove(&mut self, host: &str) -> Vec<Asker<R>> {
        let Some(wanted) = self.names.remove(host) else {
            return Vec::new();
        };
        match wanted.place {
            Some((client, _)) => {
                self.asked -= 1;
                if let Some(line) = self.lines.get_mut(&client) {
                    line.places -= 1;
                }
                self.forget_if_idle(client);
                if let Some(zone) = zone(host)
                    && let Entry::Occupied(mut count) = self.zones.entry(zone.to_owned())
                {
                    *count.get_mut() -= 1;
                    if *count.get() == 0 {
                        count.remove();
                    }
                }
            }
            None => self.waiting -= 1,
        }
        wanted.askers
    }

    fn leave_line(&mut self, client: Client, host: &str) {
        if let Some(line) = self.lines.get_mut(&client) {
            line.names.retain(|it| it != host);
            if line.names.is_empty() {
                self.turn.retain(|it| *it != client);
            }
        }
        self.forget_if_idle(client);
    }

    fn forget_if_idle(&mut self, client: Client) {
        if let Entry::Occupied(line) = self.lines.entry(client)
            && line.get().places == 0
            && line.get().names.is_empty()
        {
            line.remove();
        }
    }

    /// The next name to be asked for, if a place is free: of the client whose turn it is and
    /// that is within its share. `is_silent` as for [`LookupQueue::ask`].
    pub(super) fn next(&mut self, is_silent: impl Fn(&str) -> bool) -> Option<LookupStart> {
        for _ in 0..self.turn.len() {
            let client = self.turn.pop_front()?;
            self.turn.push_back(client);
            let line = &self.lines[&client];
            if line.places >= PLACES - self.asked {
                continue;
            }
            let may = |host: &&String| !(is_silent(host) && self.is_zone_full(host));
            let Some(host) = line.names.iter().find(may).cloned() else {
                continue;
            };
            self.waiting -= 1;
            let start = self.start(host.clone(), client);
            // Out of every line that it stands in.
            let wanted = self.names.get(&host).map(|it| it.askers.as_slice());
            let clients: Vec<Client> = wanted.unwrap_or(&[]).iter().map(|it| it.client).collect();
            for client in clients {
                self.leave_line(client, &host);
            }
            return Some(start);
        }
        None
    }
}

/// What a name is in: the domain above it, if that is more than a top level domain.
pub(super) fn zone(host: &str) -> Option<&str> {
    let (_, above) = host.split_once('.')?;
    above.contains('.').then_some(above)
}

#[cfg(test)]
mod tests;
