//! From argv to a command and its exit code.
