//! The words a configuration chooses from: one table for each, read and printed
//! from the same lines.

use super::check::CheckWord;
use super::http_connect::ModeWord;
use super::{
    AdminState, Balance, DataPath, EngineChoice, HashKey, LogFormat, LogLevel, OnDown, Resolve,
    SessionLog, TapDirection, TapFormat,
};

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

pub(super) const MODES: &[(&str, ModeWord)] = &[
    ("tcp", ModeWord::Tcp),
    ("http-connect", ModeWord::HttpConnect),
];

pub(super) const DATA_PATHS: &[(&str, DataPath)] = &[
    ("auto", DataPath::Auto),
    ("copy", DataPath::Copy),
    ("splice", DataPath::Splice),
];

pub(super) const BALANCES: &[(&str, Balance)] = &[
    ("round_robin", Balance::RoundRobin),
    ("least_conn", Balance::LeastConn),
    ("p2c", Balance::PowerOfTwo),
    ("random", Balance::Random),
    ("hash_address", Balance::Hash(HashKey::Address)),
    ("hash_address_port", Balance::Hash(HashKey::AddressPort)),
    ("first", Balance::First),
];

/// What other forwarders call these policies: the name, whose it is, and ours.
/// nginx's `random` and `HAProxy`'s `first` and `random` are called the same here.
pub(super) const FOREIGN_BALANCES: &[(&str, &str, &str)] = &[
    ("random two", "nginx", "p2c"),
    ("random two least_conn", "nginx", "p2c"),
    ("least_time", "nginx", "least_conn"),
    ("ip_hash", "nginx", "hash_address"),
    ("hash", "nginx", "hash_address"),
    ("hash $remote_addr", "nginx", "hash_address"),
    ("hash $remote_addr consistent", "nginx", "hash_address"),
    ("hash $binary_remote_addr", "nginx", "hash_address"),
    (
        "hash $binary_remote_addr consistent",
        "nginx",
        "hash_address",
    ),
    ("roundrobin", "HAProxy", "round_robin"),
    ("static-rr", "HAProxy", "round_robin"),
    ("leastconn", "HAProxy", "least_conn"),
    ("source", "HAProxy", "hash_address"),
    ("random(2)", "HAProxy", "p2c"),
    ("least_request", "Envoy", "p2c"),
    ("maglev", "Envoy", "hash_address"),
    ("ring_hash", "Envoy", "hash_address"),
];

pub(super) const RESOLVES: &[(&str, Resolve)] = &[("all", Resolve::All), ("first", Resolve::First)];

pub(super) const ADMIN_STATES: &[(&str, AdminState)] = &[
    ("active", AdminState::Active),
    ("drain", AdminState::Drain),
    ("maintenance", AdminState::Maintenance),
];

pub(super) const CHECKS: &[(&str, CheckWord)] = &[
    ("tcp", CheckWord::Tcp),
    ("exchange", CheckWord::Exchange),
    ("http", CheckWord::Http),
    ("tls", CheckWord::Tls),
    ("command", CheckWord::Command),
];

pub(super) const ON_DOWNS: &[(&str, OnDown)] = &[("keep", OnDown::Keep), ("close", OnDown::Close)];

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
