//! What a configuration is once it has been read.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::admin::{Admin, AdminListen, Metrics};
use super::forward::Forward;
use super::global::Global;
use super::log::Log;
use super::remembered::Recollection;
use crate::net::address::Address;
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
    /// What it was read from; see [`Config::load_again`].
    pub(super) remembered: Recollection,
}

impl Config {
    /// Where the process itself listens, by the section that says so.
    pub(super) fn own_listeners(&self) -> [(&'static str, &[Address]); 2] {
        let admin = match &self.admin.listen {
            AdminListen::At(addresses) => addresses.as_slice(),
            AdminListen::Auto => &[],
        };
        [("admin", admin), ("metrics", &self.metrics.listen)]
    }
}
