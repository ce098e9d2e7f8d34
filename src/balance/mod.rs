//! Which server is tried next: pure, with seed and clock as parameters.
