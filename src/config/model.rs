//! What a configuration is once it has been read.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::admin::{Admin, Metrics};
use super::forward::Forward;
use super::global::Global;
use super::log::Log;
use crate::net::options::SocketOptions;

/// A whole, validated configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// `[global]`.
    pub global: Global,
    /// `[log]`.
    pub log: Log,
    /// `[admin]`.
    pub admin: Admin,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// Every `[profile.NAME]` and the built-in `default`, as written: what the two
    /// legs of a forward make of one is in [`Forward::client`] and
    /// [`Forward::upstream`].
    pub profiles: BTreeMap<String, SocketOptions>,
    /// Every `[[forward]]`; one whose ports pair up with its upstream's is expanded
    /// to one for each pair. Never empty.
    pub forwards: Vec<Arc<Forward>>,
}
