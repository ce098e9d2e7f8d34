//! The loop of one core: accept, sessions, timers, drain.
