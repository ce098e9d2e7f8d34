//! The tap on the real binary: every format on every engine and data path, targets
//! that fail, and clients that people have. What is forwarded is checked beside
//! what is shown, byte by byte.

mod dump;
mod formats;
mod grpc;
mod packets;
mod site;
mod targets;
pub(crate) mod tools;

use std::path::Path;

use crate::kit::*;

/// A forwarder to `server` whose tap writes to `file`; `keys` are further keys of
/// the tap, as TOML.
fn tapped(case: Case, server: impl ToString, format: &str, file: &Path, keys: &str) -> Setup {
    let keys = if keys.is_empty() {
        String::new()
    } else {
        format!(", {keys}")
    };
    let tap = format!(
        "{{ format = \"{format}\", to = \"{}\"{keys} }}",
        file.display()
    );
    Setup::new(server).case(case).set("defaults.tap", tap)
}

/// What is in a file so far.
fn read(file: &Path) -> String {
    let bytes = std::fs::read(file).unwrap_or_default();
    String::from_utf8(bytes).expect("a tap in text is UTF-8")
}

/// Waits until the close of so many sessions is written, and returns all there is.
#[track_caller]
fn wait_for_closes(file: &Path, count: usize) -> String {
    let closed = || {
        let text = read(file);
        let closes = text.lines().filter(|line| line.contains(" close code="));
        (closes.count() >= count && text.ends_with('\n')).then_some(text)
    };
    poll(PATIENCE, closed).unwrap_or_else(|| panic!("no {count} closes in {}", read(file)))
}

/// Only the ends of lines and what is printable.
#[track_caller]
fn check_printable(text: &str) {
    let steers = text
        .chars()
        .find(|c| *c != '\n' && !(' '..='~').contains(c));
    assert_eq!(steers, None);
}
