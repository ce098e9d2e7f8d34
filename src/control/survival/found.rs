//! What a process that was killed has left, and what becomes of it: a session is adopted as an
//! upgrade's is, with its place by names, or ends.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::state::released;
use crate::control::inbox::Teller;
use crate::engine::Detached;
use crate::engine::detached::SideNote;
use crate::net::inherited;
use crate::net::journal::{self, Journal, Mark, Noted, SlotName};
use crate::net::notify::monotonic_micros;
use crate::net::shared;
use crate::net::tcp_info::{State, TcpInfo};
use crate::reactor::{Arrival, Berths, Manifest, Parcel, Refusal};
use crate::relay::session::Found;

/// Why sessions end of which there is everything else.
const NO_FORWARD: &str = "their forward is not in the configuration";

/// What the process before has left.
#[derive(Debug, Default)]
pub(in crate::control) struct Survivors {
    pub(super) journal: Option<Arc<Journal>>,
    sessions: HashMap<SlotName, Vec<OwnedFd>>,
    /// Everything that the service manager has of it, by name.
    pub(super) names: BTreeMap<String, usize>,
}

/// What becomes of it.
#[derive(Default)]
pub(super) struct Fates {
    pub(super) go_on: Vec<Arrival<Detached>>,
    pub(super) end: Vec<Arrival<Detached>>,
    pub(super) last_id: u64,
    /// Those that are reset without a record.
    pub(super) lost: u64,
    /// Why sessions do not go on.
    pub(super) reasons: BTreeMap<String, u64>,
}

impl Survivors {
    /// Of what was passed to this process.
    pub(in crate::control) fn of(kept: inherited::Survivors, teller: &Teller) -> Self {
        let mut survivors = Self::default();
        let mut journals = kept.journals;
        // The last one; those of processes before that have no sessions.
        journals.sort_by_key(|(id, _)| *id);
        for (id, file) in journals {
            *survivors
                .names
                .entry(journal::journal_name(id))
                .or_default() += 1;
            let opened = Journal::open(file, released(teller));
            survivors.journal = opened.ok().map(Arc::new).or(survivors.journal);
        }
        for (name, fd) in kept.sessions {
            *survivors.names.entry(name.to_string()).or_default() += 1;
            survivors.sessions.entry(name).or_default().push(fd);
        }
        survivors
    }

    /// Time zero of its reactors, so that what is noted of times stays true.
    pub(in crate::control) fn origin(&self) -> Option<Instant> {
        let origin = self.journal.as_ref()?.origin();
        let age = Duration::from_micros(monotonic_micros().saturating_sub(origin));
        Instant::now().checked_sub(age)
    }
}

/// What a session is called that goes on.
pub(super) fn name_of(arrival: &Arrival<Detached>) -> Option<String> {
    Some(arrival.detached.mark()?.name().to_string())
}

impl Fates {
    pub(super) fn of(survivors: Survivors, berths: &Berths, may: bool) -> Self {
        let mut fates = Self::default();
        let mut sessions = survivors.sessions;
        let entries = survivors.journal.iter().flat_map(Journal::noted);
        let now = monotonic_micros();
        for (noted, mark) in entries {
            let sockets = sessions.remove(&noted.name).unwrap_or_default();
            let origin = survivors.journal.as_ref().map_or(0, |it| it.origin());
            fates.decide(
                (noted, mark),
                sockets,
                now.saturating_sub(origin),
                (berths, may),
            );
        }
        // Those of which nothing is noted had ended, or were about to be kept.
        for socket in sessions.into_values().flatten() {
            end(&socket);
        }
        fates
    }

    fn decide(
        &mut self,
        (noted, mark): (Noted, Mark),
        sockets: Vec<OwnedFd>,
        now: u64,
        (berths, may): (&Berths, bool),
    ) {
        let (arrival, why) = match find(&noted, sockets, now, berths) {
            Ok(found) => found,
            Err((sockets, why)) => {
                self.lost += 1;
                sockets.iter().for_each(end);
                return self.count(why);
            }
        };
        self.last_id = self.last_id.max(arrival.manifest.came_in.id);
        let why = match why {
            _ if !may => Some("`survive_crash` is off, or not to be had"),
            None if !noted.clean => Some("it may have held bytes of them"),
            why => why,
        };
        if let Some(why) = why {
            self.count(why);
            self.end.push(arrival);
        } else {
            let detached = arrival.detached.with_mark(mark);
            self.go_on.push(Arrival {
                detached,
                ..arrival
            });
        }
    }

    fn count(&mut self, why: &str) {
        *self.reasons.entry(why.to_owned()).or_default() += 1;
    }
}

/// A session as it was when nothing of it was held, and why nobody can go on with it, if nobody
/// can; its sockets, if it is not to be had at all.
#[allow(
    clippy::type_complexity,
    reason = "what there is, and why it is not more"
)]
fn find(
    noted: &Noted,
    sockets: Vec<OwnedFd>,
    now: u64,
    berths: &Berths,
) -> Result<(Arrival<Detached>, Option<&'static str>), (Vec<OwnedFd>, &'static str)> {
    let since = |then: u64| Duration::from_micros(now.saturating_sub(then));
    let written = serde_json::from_slice::<Manifest>(&noted.text).ok();
    let manifest = written.and_then(|mut manifest| {
        manifest.state = manifest.state.found(&Found {
            bytes: noted.bytes,
            later: since(noted.written),
            first: noted.first.map(since),
            silent: noted.since.map(since),
        })?;
        // How far it was ahead of its rate is paid for, or nobody knows.
        manifest.debts = None;
        Some(manifest)
    });
    let Some(manifest) = manifest else {
        return Err((sockets, "a side of them had failed"));
    };
    let (place, why) = match berths.find(&manifest) {
        Ok(place) => (Some(place), None),
        Err(Refusal::NoRoute) => (
            berths.find_end(&manifest),
            Some("their forward has no such route"),
        ),
        Err(_) => (berths.find_end(&manifest), Some(NO_FORWARD)),
    };
    let Some(place) = place else {
        return Err((sockets, NO_FORWARD));
    };
    // In which order they were kept nobody says.
    let (mut sides, mut others) = ([None, None], Vec::new());
    for socket in sockets {
        let cookie = shared::cookie(socket.as_fd()).ok();
        let is_it = |it: &Option<SideNote>| it.map(|it| it.cookie) == cookie;
        match manifest.sides.iter().position(is_it) {
            Some(side) if sides[side].is_none() => sides[side] = Some(socket),
            _ => others.push(socket),
        }
    }
    let [Some(client), Some(upstream)] = sides else {
        others.extend(sides.into_iter().flatten());
        return Err((others, "not both of their sockets were kept"));
    };
    others.iter().for_each(end);
    let parcel = Parcel {
        manifest,
        descriptors: vec![client, upstream],
        bytes: Vec::new(),
    };
    let (manifest, detached) = parcel
        .open()
        .map_err(|_| (Vec::new(), "what is noted of them cannot be"))?;
    let arrival = Arrival {
        manifest,
        detached,
        place,
    };
    Ok((arrival, why))
}

/// Is rid of a socket of a session that does not go on. One that this side had ended keeps what
/// the kernel has still to deliver; the others are reset: an end would claim that this was all.
fn end(socket: &OwnedFd) {
    let state = TcpInfo::read(socket.as_fd()).map(|it| it.state);
    let goes_on = matches!(state, Ok(State::Established | State::CloseWait) | Err(_));
    if goes_on {
        shared::tell_reset(socket.as_fd());
    }
}
