//! The configuration: TOML text and command-line pairs to one validated,
//! immutable [`Config`]; all errors at once, each with its line and column.
//!
//! ```text
//! file ──► raw tree ◄── -l/-r, --set      each value knows its place
//!             │ load                   keys, types, units, names, defaults
//!             ▼
//!          Config ──► to_toml             what `thalweg check` prints, readable again
//! ```
//! Nothing here touches the network or looks up a name.

mod accept_proxy;
mod addresses;
mod admin;
mod advice;
mod again;
mod alike;
mod byte_rate;
mod check;
pub mod clients;
mod confine;
pub mod connect_rate;
mod datagrams;
mod describe;
mod diff;
mod example;
mod forward;
mod forwards;
mod global;
mod http_connect;
mod inputs;
mod kind;
mod load;
mod log;
mod model;
mod names;
mod pool;
mod print;
mod profile;
mod question;
mod raw;
mod remembered;
mod report;
mod route;
mod row;
mod schema;
mod scope;
mod section;
mod send_proxy;
mod server;
mod share;
mod sources;
mod surroundings;
mod tap;
#[cfg(test)]
mod tests;
mod text;
mod udp;
pub mod units;
mod unix_file;
mod upstream;
mod values;
mod whole;
mod words;
mod written_pool;

pub use accept_proxy::AcceptProxy;
pub use admin::{Admin, AdminListen, Metrics};
pub use byte_rate::ByteRate;
pub use check::{Check, OnDown};
pub use confine::{Confine, Sandbox};
pub use describe::tables;
pub use diff::{Difference, Subject, What};
pub use example::example;
pub use forward::{DataPath, Forward, OnNoServer, Timeouts};
pub use global::{BusyPoll, EngineChoice, Global, Reactors, Rebalance, Spread};
pub use http_connect::{AccessRules, HttpConnect, Mode};
pub use inputs::{FileText, Inputs, Override, Pair};
pub use log::{Log, LogFormat, LogLevel, LogTarget, SessionLog};
pub use model::Config;
pub use names::NameSources;
pub use pool::{Balance, HashKey, OnEmpty, Pool, Resolve};
pub use question::CheckKind;
pub use report::{ConfigErrors, ListFile, Place, Problem};
pub use route::{Route, RouteTo};
pub use row::Applies;
pub use schema::schema;
pub use send_proxy::{ProxyDatagrams, SendProxy};
pub(crate) use server::WEIGHT_MAX;
pub use server::{AdminState, Server};
pub use surroundings::{Nowhere, Surroundings};
pub use tap::{Rotate, Sample, Tap, TapDirection, TapFilter, TapFormat, TapTarget};
pub use udp::{Fragment, OnServerDown, Protocol, Udp};
pub use unix_file::UnixFile;
