//! What a process knows besides its sockets, as plain data by name: so the next one may
//! have another configuration, and may be another build.

use serde::{Deserialize, Serialize};

/// See the module's documentation.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::control) struct Tables {
    /// Of the configuration.
    pub(in crate::control) generation: u64,
}
