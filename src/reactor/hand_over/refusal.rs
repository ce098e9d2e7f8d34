//! Why a session is not taken.

use std::fmt;

use crate::relay::ending::Cause;

/// Why a session is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Its forward is not in the configuration.
    NoForward,
    /// Its forward has no such route.
    NoRoute,
    /// Its server is not in the configuration.
    NoServer,
    /// What was told of it cannot be.
    Inconsistent(&'static str),
    /// The engine cannot have it, by this cause.
    Engine(Cause),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoForward => f.write_str("its forward is not in the configuration"),
            Self::NoRoute => f.write_str("its forward has no such route"),
            Self::NoServer => f.write_str("its server is not in the configuration"),
            Self::Inconsistent(why) => write!(f, "it is not consistent: {why}"),
            Self::Engine(cause) => write!(f, "the engine cannot have it: {}", cause.name()),
        }
    }
}
