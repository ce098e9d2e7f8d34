//! Tune.
pub mod objective;
pub mod race;
pub mod space;
