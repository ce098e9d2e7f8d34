//! Tune.
pub mod diagnose;
pub mod objective;
pub mod race;
pub mod space;
