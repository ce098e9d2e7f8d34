//! What control's thread knows of sessions that are to outlive this process.

use std::sync::Arc;

use crate::control::inbox::{Teller, Told};
use crate::net::journal::{Journal, Released};

/// What it takes to have sessions outlive this process.
#[derive(Debug)]
pub(in crate::control) struct Survival {
    pub(super) journal: Arc<Journal>,
    /// The service manager has the journal.
    pub(super) is_stored: bool,
    /// Some sessions were not kept because this process is on trial: it is not the service yet,
    /// and the manager does not heed it.
    pub(super) has_missed: bool,
    /// That there is no room has been said.
    pub(super) is_full: bool,
}

/// Control's thread is told of slots that are free again.
pub(super) fn released(teller: &Teller) -> Released {
    let teller = teller.clone();
    Box::new(move |name| teller.tell(Told::Gone(name)))
}
