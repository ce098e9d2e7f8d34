//! Engines: who waits for the kernel, and owns the bytes meanwhile.
