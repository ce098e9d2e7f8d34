//! What control's thread knows of a rebalancing from one look to the next.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use super::plan::{Hysteresis, Relief};
use crate::engine::SessionKey;
use crate::reactor::{Adopted, MovedSession};

/// What a session has moved, by its key and the number by which it is known everywhere.
pub(in crate::control) type Walked = Vec<(SessionKey, (u16, u64), u64)>;

/// What is known from one look to the next.
#[derive(Debug, Default)]
pub(in crate::control) struct Rebalancing {
    pub(in crate::control) hysteresis: Hysteresis,
    pub(in crate::control) due: Option<Instant>,
    /// When it was looked at CPUs, and what each reactor had used by then.
    pub(in crate::control) before: Option<(Instant, BTreeMap<u16, Duration>)>,
    pub(in crate::control) walk: Option<Walk>,
    pub(in crate::control) moving: Option<Moving>,
    /// Sessions that were moved lately.
    pub(in crate::control) moved: HashMap<(u16, u64), Instant>,
}

/// Sessions of the busy one are looked at, twice.
#[derive(Debug)]
pub(in crate::control) struct Walk {
    pub(in crate::control) from: u16,
    pub(in crate::control) answer: Receiver<Walked>,
    pub(in crate::control) first: Option<Walked>,
}

/// Sessions are on their way.
#[derive(Debug)]
pub(in crate::control) struct Moving {
    pub(in crate::control) relief: Relief,
    pub(in crate::control) answer: Receiver<Adopted<MovedSession>>,
}
