//! Where a configuration comes from, so that it can be read again.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::Config;

/// ConfigFiles, and by what it is told that they are others now.
pub type ConfigFiles = BTreeMap<PathBuf, FileStamp>;

/// See the module's documentation.
pub trait ConfigSource: fmt::Debug + Send + Sync {
    /// Reads all of it again. The error is for people: every mistake with its place.
    fn read(&self) -> Result<Config, String>;

    /// Likewise, with what was read before: what has not changed since needs no second look.
    fn read_again(&self, before: &Config) -> Result<Config, String> {
        let _ = before;
        self.read()
    }

    /// The files that it was read from the last time, with their stamps before that.
    fn was_read(&self) -> ConfigFiles;

    /// The files that it would be read from now, as far as that is known without reading
    /// them. Where they are others, or have other stamps, there is reason to read again.
    fn files(&self) -> ConfigFiles;

    /// Folders, in which another file is reason enough.
    fn folders(&self) -> Vec<PathBuf>;
}

/// What changes with the content of a file: which one it is, how long, when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp(Option<(u64, u64, u64, i64, i64)>);

impl FileStamp {
    /// Of the file that has this name now, behind all symbolic links; one that is not there
    /// has a stamp, too.
    pub fn of(path: &Path) -> Self {
        let stamp =
            |it: std::fs::Metadata| (it.dev(), it.ino(), it.len(), it.mtime(), it.mtime_nsec());
        Self(std::fs::metadata(path).ok().map(stamp))
    }
}
