//! Tune.
pub mod race;
