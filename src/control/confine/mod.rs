//! What the process may do besides forwarding: whose it is, what it keeps of root's powers,
//! and a sandbox of files, TCP ports and system calls.
//!
//! ```text
//! main thread, the only one ─► user, capabilities ─► no_new_privs ─► Landlock ─► seccomp
//!                           ─► everything else: sockets, files, threads, which inherit it
//! ```
//! Both belong to a thread and to what it starts, so they come first, and a socket that a
//! later reload joins is of the same user as those it joins. Nothing of it can be taken
//! back: what a reload needs and this denies is refused before anything changes.

mod filter;
mod landed;
mod needs;
mod user;

use std::fmt::{self, Write as _};
use std::path::Path;

use crate::admin;
use crate::config::{AdminListen, Config, Sandbox};

use super::error::StartError;
use super::source::ConfigSource;

use landed::Landed;
pub(super) use needs::Reach;

/// What is in force, for as long as this process lives.
#[derive(Debug, Default, Clone)]
pub struct Confinement {
    /// Whose it became, and the capabilities that are left.
    user: Option<String>,
    sandbox: Option<Sandboxed>,
}

/// The sandbox.
#[derive(Debug, Clone)]
struct Sandboxed {
    allowed: Reach,
    landed: Landed,
    /// Why system calls are not filtered, if they are not.
    filter: Result<(), String>,
}

impl Confinement {
    /// Does what the configuration says, to the calling thread and all that it starts. There
    /// must be no other thread.
    pub fn enter(config: &Config, source: Option<&dyn ConfigSource>) -> Result<Self, StartError> {
        let fault = |problem: String| StartError::Confine(problem);
        let mut confinement = Self::default();
        let keys = &config.global.confine;
        let auto = config.admin.listen == AdminListen::Auto;
        if auto && (keys.user.is_some() || keys.group.is_some() || keys.sandbox != Sandbox::Off) {
            admin::prepare_directory(user::ids(config));
        }
        if keys.user.is_some() || keys.group.is_some() {
            confinement.user = Some(user::become_user(config).map_err(fault)?);
        }
        if keys.sandbox == Sandbox::Off {
            return Ok(confinement);
        }
        let allowed = Reach::of(config, source).with_further(keys);
        nix::sys::prctl::set_no_new_privs()
            .map_err(|errno| fault(format!("no_new_privs: {}", errno.desc())))?;
        let landed = Landed::enter(&allowed).map_err(fault)?;
        if keys.sandbox == Sandbox::On && !landed.is_whole() {
            return Err(fault(format!(
                "sandbox = \"on\": {landed}; write \"auto\" for what there is"
            )));
        }
        let filter = filter::enter();
        if let (Sandbox::On, Err(problem)) = (keys.sandbox, &filter) {
            return Err(fault(format!("sandbox = \"on\": {problem}")));
        }
        confinement.sandbox = Some(Sandboxed {
            allowed,
            landed,
            filter,
        });
        Ok(confinement)
    }

    /// What of a configuration it denies: a line for each, with its key and what is missing.
    pub(super) fn denies(&self, config: &Config, source: Option<&dyn ConfigSource>) -> Vec<String> {
        match &self.sandbox {
            Some(sandbox) if sandbox.landed.has_files() => {
                let needs = Reach::of(config, source);
                needs.beyond(&sandbox.allowed, sandbox.landed.has_ports())
            }
            _ => Vec::new(),
        }
    }

    /// Whether there is anything to tell.
    pub(super) const fn is_any(&self) -> bool {
        self.user.is_some() || self.sandbox.is_some()
    }

    /// What a sandbox would let a start with this configuration do, which was read from these
    /// files: what is in force by which means, then a line for each permission and its key.
    pub fn foretold<'a>(config: &Config, files: impl IntoIterator<Item = &'a Path>) -> String {
        let keys = &config.global.confine;
        let reach = Reach::of(config, None).with_files(files).with_further(keys);
        let mut text = format!("{}\n", Self::expected(config));
        if keys.sandbox == Sandbox::Off {
            let there_is = landed::expected();
            let _ = writeln!(text, "with sandbox = \"auto\": {there_is}; it could");
        } else {
            text.push_str("it can\n");
        }
        for line in reach.lines() {
            let _ = writeln!(text, "  {line}");
        }
        text.push_str(
            "  read what every forwarder reads: libraries, names of users, /proc, /sys\n\
             not restricted by any kernel so far: UDP, Multipath TCP, TCP Fast Open, which unix \
             socket is connected to\n",
        );
        text
    }

    /// What a start with this configuration would have in force, as far as can be said
    /// without doing it.
    pub fn expected(config: &Config) -> String {
        let keys = &config.global.confine;
        let user = match (&keys.user, &keys.group) {
            (None, None) => "as started".to_owned(),
            _ => user::expected(config),
        };
        let sandbox = match keys.sandbox {
            Sandbox::Off => "no sandbox".to_owned(),
            Sandbox::Auto | Sandbox::On => format!("sandbox: {}", landed::expected()),
        };
        format!("{user}; {sandbox}")
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.user.as_deref().unwrap_or("as started"))?;
        let Some(sandbox) = &self.sandbox else {
            return f.write_str("; no sandbox");
        };
        write!(f, "; no_new_privs; {}; ", sandbox.landed)?;
        match &sandbox.filter {
            Ok(()) => f.write_str("system calls filtered by seccomp"),
            Err(problem) => write!(f, "system calls not filtered: {problem}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
