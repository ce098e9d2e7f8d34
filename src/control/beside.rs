//! Files that a configuration names beside those that it is itself read from: lists of
//! networks and of users. They are read again by every reload, so one that is another file
//! by now is reason for a reload as the configuration itself is.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::config::clients::AccessScope;
use crate::config::{Config, Forward};

use super::source::{ConfigFiles, FileStamp};

/// The files that a forward names, each with its key.
pub(super) fn of_forward(forward: &Forward) -> impl Iterator<Item = (&'static str, &Path)> {
    let lists = forward.clients.access.iter();
    let lists = lists.filter_map(|rule| match &rule.whom {
        AccessScope::File(path) => Some(("access", path.as_path())),
        AccessScope::Network(_) | AccessScope::All => None,
    });
    let of_connects = forward.requests().flat_map(|(_, connect)| {
        let users = connect.users.as_deref().map(|path| ("users", path));
        users
            .into_iter()
            .chain(connect.access.files().map(|path| ("access", path)))
    });
    lists.chain(of_connects)
}

/// Which files those are, and by what it is told that they are others now.
#[derive(Debug, Default)]
pub(super) struct BesideFiles(Mutex<ConfigFiles>);

impl BesideFiles {
    /// They are about to be read for this configuration, which may yet be refused: those
    /// known before stay known.
    pub(super) fn are_read(&self, config: &Config) {
        let mut now = stamped(paths(config).into_iter());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        now.append(&mut stamped(known.keys().cloned()));
        *known = now;
    }

    /// This configuration is in force: only its own count.
    pub(super) fn keep(&self, config: &Config) {
        let paths = paths(config);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|path, _| paths.contains(path));
    }

    /// As they were when they were read.
    pub(super) fn were_read(&self) -> ConfigFiles {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// As they are now.
    pub(super) fn now(&self) -> ConfigFiles {
        // Not under the lock: a file system may not answer.
        stamped(self.were_read().into_keys())
    }
}

fn paths(config: &Config) -> BTreeSet<PathBuf> {
    let forwards = config.forwards.iter().flat_map(|it| of_forward(it));
    forwards.map(|(_, path)| path.to_owned()).collect()
}

fn stamped(paths: impl Iterator<Item = PathBuf>) -> ConfigFiles {
    let stamped = paths.map(|path| {
        let stamp = FileStamp::of(&path);
        (path, stamp)
    });
    stamped.collect()
}
