//! The words a configuration chooses from: one table for each, read and printed
//! from the same lines.

use super::{DataPath, EngineChoice, LogFormat, LogLevel, SessionLog, TapDirection, TapFormat};

pub(super) const ENGINES: &[(&str, EngineChoice)] = &[
    ("auto", EngineChoice::Auto),
    ("epoll", EngineChoice::Epoll),
    ("io_uring", EngineChoice::IoUring),
];

pub(super) const LOG_LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
];

pub(super) const LOG_FORMATS: &[(&str, LogFormat)] =
    &[("text", LogFormat::Text), ("json", LogFormat::Json)];

pub(super) const SESSION_LOGS: &[(&str, SessionLog)] = &[
    ("off", SessionLog::Off),
    ("close", SessionLog::Close),
    ("all", SessionLog::All),
];

pub(super) const DATA_PATHS: &[(&str, DataPath)] = &[
    ("auto", DataPath::Auto),
    ("copy", DataPath::Copy),
    ("splice", DataPath::Splice),
];

pub(super) const TAP_FORMATS: &[(&str, TapFormat)] = &[
    ("hex", TapFormat::Hex),
    ("text", TapFormat::Text),
    ("http", TapFormat::Http),
    ("pcapng", TapFormat::Pcapng),
];

pub(super) const TAP_DIRECTIONS: &[(&str, TapDirection)] = &[
    ("up", TapDirection::Up),
    ("down", TapDirection::Down),
    ("both", TapDirection::Both),
];

/// `DiffServ` code points by name: RFC 2474, 2597, 3246, 5865, 8622.
pub(super) const DSCPS: &[(&str, u8)] = &[
    ("default", 0),
    ("le", 1),
    ("cs0", 0),
    ("cs1", 8),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("cs2", 16),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("cs3", 24),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("cs4", 32),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("cs5", 40),
    ("va", 44),
    ("ef", 46),
    ("cs6", 48),
    ("cs7", 56),
];

/// The word for a value. Each table above has one for every value of its type.
pub(super) fn word<T: PartialEq>(choices: &[(&'static str, T)], value: &T) -> &'static str {
    choices
        .iter()
        .find(|(_, choice)| choice == value)
        .map_or("", |(word, _)| word)
}
