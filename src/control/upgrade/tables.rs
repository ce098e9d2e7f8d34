//! What a process knows besides its sockets, as plain data by name: so the next one may
//! have another configuration, and may be another build.

use serde::{Deserialize, Serialize};

/// See the module's documentation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::control) struct Tables {
    /// Of the configuration.
    pub(in crate::control) generation: u64,
    /// Since time zero of its reactors, in microseconds: ages count from there.
    pub(in crate::control) age: u64,
    /// The highest number that a session has had.
    pub(in crate::control) last_session: u64,
}
