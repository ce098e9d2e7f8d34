//! Counters, session records, and the log that never blocks a reactor.
