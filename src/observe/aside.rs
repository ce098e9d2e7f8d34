//! A word to a person on stderr: it may be closed, full or a pipe without a reader, and
//! whoever says something must not fail for that.

use std::io::{self, Write as _};

/// Writes `text`, newlines included, in one piece; nobody learns whether it was read.
pub fn aside(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
