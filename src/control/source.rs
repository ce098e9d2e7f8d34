//! Where a configuration comes from, so that it can be read again.

use std::fmt;
use std::path::PathBuf;

use crate::config::Config;

/// See the module's documentation.
pub trait ConfigSource: fmt::Debug + Send + Sync {
    /// Reads all of it again. The error is for people: every mistake with its place.
    fn read(&self) -> Result<Config, String>;

    /// The files that it was read from the last time, whose change is a reason to read
    /// them again; and folders, where another file is one.
    fn files(&self) -> Vec<PathBuf>;
}
