//! Start-up, signals, drain: what is not on the hot path.
