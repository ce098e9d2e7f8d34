//! What `[[forward]]`s refer to by name: profiles and pools.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use super::pool::{Pool, PoolKeys};
use super::report::{Fault, nearest};
use super::written_pool::WrittenPool;
use crate::net::options::SocketOptions;

/// What `[[forward]]`s refer to by name.
#[derive(Default)]
pub(super) struct Scope {
    pub(super) profiles: BTreeMap<String, SocketOptions>,
    pub(super) pools: BTreeMap<String, WrittenPool>,
    /// What pools start from.
    pub(super) base_pool: PoolKeys,
    /// Profiles and pools that some forward names.
    pub(super) used_profiles: BTreeSet<String>,
    pub(super) used_pools: BTreeSet<String>,
    /// Named pools that some forward has.
    pub(super) shared: HashSet<Arc<Pool>>,
}

impl Scope {
    /// What pools start from that do not say otherwise.
    pub(super) fn base_pool(&self) -> &PoolKeys {
        &self.base_pool
    }

    /// Checks that a profile exists.
    pub(super) fn check_profile(&self, name: &str) -> Result<(), Fault> {
        if self.profiles.contains_key(name) {
            return Ok(());
        }
        let short: String = name.chars().take(60).collect();
        let fault = Fault::new(format!("there is no profile named `{short}`"));
        let known = self.profiles.keys().map(String::as_str);
        Err(match nearest(name, known.clone()) {
            Some(near) => fault.remedy(format!("did you mean `{near}`?")),
            None => fault.remedy(format!(
                "define [profile.{short}], or use one of: {}",
                known.collect::<Vec<_>>().join(", ")
            )),
        })
    }

    /// The options of a profile that a forward uses.
    pub(super) fn profile(&mut self, name: &str) -> SocketOptions {
        self.used_profiles.insert(name.to_owned());
        // An unknown name has been reported where it was read.
        self.profiles.get(name).cloned().unwrap_or_default()
    }

    /// One `Arc` for equal pools of the same name, however many forwards have it:
    /// what is learnt about their servers is then learnt once. Pools that are
    /// written in their forwards stay apart.
    pub(super) fn share(&mut self, pool: Pool) -> Arc<Pool> {
        if pool.name.is_none() {
            return Arc::new(pool);
        }
        if let Some(shared) = self.shared.get(&pool) {
            return shared.clone();
        }
        let pool = Arc::new(pool);
        self.shared.insert(pool.clone());
        pool
    }

    /// Whether a pool in a forward can have this name.
    pub(super) fn check_free(&self, name: &str) -> Result<(), Fault> {
        if !self.pools.contains_key(name) {
            return Ok(());
        }
        let fault = Fault::new(format!("there is an [upstream.{name}] already"));
        Err(fault.remedy(format!("write upstream = \"{name}\", or another name")))
    }

    /// The pool of that name, which a forward uses. Where no pool can be meant, because
    /// it is an address or because there is none (`-r HOST`), the port is what is missing.
    pub(super) fn pool(&mut self, name: &str) -> Result<&WrittenPool, Fault> {
        let short: String = name.chars().take(60).collect();
        self.used_pools.insert(name.to_owned());
        self.pools.get(name).ok_or_else(|| {
            let address = name.parse::<IpAddr>().is_ok()
                || name.contains('.')
                || name == "localhost"
                || name.starts_with('[');
            let near = nearest(name, self.pools.keys().map(String::as_str));
            if near.is_none() && (address || self.pools.is_empty()) {
                let fault = Fault::new(format!("the port of `{short}` is missing"));
                let mut remedy = format!("write `{short}:PORT`, such as `{short}:443`");
                if !address {
                    remedy.push_str("; or define a pool of that name: ");
                    let _ = write!(remedy, "[upstream.{short}]");
                }
                return match name.parse::<u16>() {
                    Ok(port) => Fault::new(format!("`{port}` is a port without a host"))
                        .remedy(format!("write `HOST:{port}`, such as `127.0.0.1:{port}`")),
                    Err(_) => fault.remedy(remedy),
                };
            }
            let fault = Fault::new(format!("there is no pool named `{short}`"));
            match near {
                Some(near) => fault.remedy(format!("did you mean `{near}`?")),
                None => fault.remedy(format!(
                    "define [upstream.{short}], or write an address: {short}:PORT"
                )),
            }
        })
    }
}
