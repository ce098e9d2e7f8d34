//! The file itself: who may have written it, and what is wrong with it.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Bytes of a file of users.
pub(super) const FILE_MAX: u64 = 4 << 20;

/// What is wrong with a file of users.
#[derive(Debug, Error)]
pub enum UsersError {
    /// It cannot be read.
    #[error("cannot read users from {path}: {error}; check the path and its mode")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// It is a device, a pipe, a directory.
    #[error("{path} is no file; users are read from one, so that a start never waits for them")]
    NoFile {
        /// Which it is.
        path: PathBuf,
    },
    /// Somebody else could add himself.
    #[error("{path} can be changed by {whom}: who can write it can let anybody in; {remedy}")]
    Writable {
        /// Which file.
        path: PathBuf,
        /// By whom.
        whom: String,
        /// What to do.
        remedy: &'static str,
    },
    /// It is larger than any file of users has to be.
    #[error("{path} has more than 4 MiB; split it, or name the right file")]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
    /// A line of it makes no sense.
    #[error("{path}, line {line}: {problem}; write USER:HASH, as `htpasswd -nB USER` does")]
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        problem: &'static str,
    },
    /// Nobody is in it.
    #[error(
        "{path} has no user: nobody could use this forward; add USER:HASH, as `htpasswd -nB USER` writes it"
    )]
    Nobody {
        /// Which file.
        path: PathBuf,
    },
}

/// The text of a file that nobody else can change. Never waits, and is bounded, whatever
/// the path leads to.
pub(super) fn read(path: &Path) -> Result<String, UsersError> {
    let path = || path.to_owned();
    let unread = |error| UsersError::Read {
        path: path(),
        error,
    };
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path())
        .map_err(unread)?;
    let found = file.metadata().map_err(unread)?;
    if !found.is_file() {
        return Err(UsersError::NoFile { path: path() });
    }
    let (owner, us) = (found.uid(), nix::unistd::geteuid().as_raw());
    if owner != 0 && owner != us {
        return Err(UsersError::Writable {
            path: path(),
            whom: format!("its owner, user {owner}"),
            remedy: "chown it to root, or to the user that thalweg runs as",
        });
    }
    if found.mode() & 0o022 != 0 {
        return Err(UsersError::Writable {
            path: path(),
            whom: "others than its owner".to_owned(),
            remedy: "chmod go-w it",
        });
    }
    if found.len() > FILE_MAX {
        return Err(UsersError::TooLarge { path: path() });
    }
    let mut text = String::new();
    // It may grow meanwhile.
    file.take(FILE_MAX)
        .read_to_string(&mut text)
        .map_err(unread)?;
    Ok(text)
}
