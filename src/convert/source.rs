//! Reading what is to be converted: bounded, each file with its name, and only what is included.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::finding::Origin;

/// Of all files together, in bytes; a configuration of 10 MB is read, a disk is not.
const BYTES_MAX: u64 = 64 << 20;
/// Files at the most, each reading of one counted.
const FILES_MAX: usize = 4096;
/// Files that include one another, one in the other.
pub(super) const DEPTH_MAX: usize = 32;

/// The input cannot be read: by us, or by anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Where, if it is in a file that could be read.
    pub place: Option<Origin>,
    /// What is wrong.
    pub what: String,
}

impl Failure {
    pub(super) fn at(place: &Origin, what: impl Into<String>) -> Self {
        Self {
            place: Some(place.clone()),
            what: what.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.what),
            None => f.write_str(&self.what),
        }
    }
}

/// The text of one file.
#[derive(Debug, Clone)]
pub(super) struct Text {
    pub(super) name: Arc<str>,
    /// Without a byte order mark; what is not UTF-8 is replaced.
    pub(super) text: String,
}

impl Text {
    /// A line of it, from 1.
    pub(super) fn place(&self, line: usize) -> Origin {
        Origin {
            file: self.name.clone(),
            line,
        }
    }
}

/// Files that were read and may be read.
#[derive(Debug)]
pub(super) struct Sources {
    /// What relative names of includes are relative to.
    directory: PathBuf,
    bytes: u64,
    files: usize,
}

impl Sources {
    /// Of a main file, beside which the others stand.
    pub(super) fn beside(main: &Path) -> Self {
        let directory = main.parent().map_or_else(PathBuf::new, Path::to_path_buf);
        Self {
            directory,
            bytes: 0,
            files: 0,
        }
    }

    /// Reads a file that was named at `place`, or on the command line.
    pub(super) fn read(&mut self, path: &Path, place: Option<&Origin>) -> Result<Text, Failure> {
        let name = path.display().to_string();
        let fail = |what: String| Failure {
            place: place.cloned(),
            what,
        };
        self.files += 1;
        if self.files > FILES_MAX {
            return Err(fail(format!("more than {FILES_MAX} files are included")));
        }
        let cannot = |error: std::io::Error| fail(format!("cannot read {name}: {error}"));
        let metadata = std::fs::metadata(path).map_err(cannot)?;
        // Opening a FIFO waits for whoever writes to it.
        if !metadata.is_file() {
            return Err(fail(format!("cannot read {name}: no regular file")));
        }
        let mut bytes = Vec::new();
        let left = BYTES_MAX - self.bytes;
        let mut file = File::open(path).map_err(cannot)?.take(left + 1);
        file.read_to_end(&mut bytes).map_err(cannot)?;
        if bytes.len() as u64 > left {
            return Err(fail(format!("more than {} MiB in all", BYTES_MAX >> 20)));
        }
        self.bytes += bytes.len() as u64;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
        Ok(Text {
            name: name.into(),
            text,
        })
    }

    /// The files that an include names, in order: those of a pattern that are there, or one
    /// that must be.
    pub(super) fn named(&self, pattern: &str) -> Result<Vec<PathBuf>, String> {
        let path = self.directory.join(pattern);
        if !pattern.contains(['*', '?', '[']) {
            return Ok(vec![path]);
        }
        let found = glob::glob(&path.to_string_lossy()).map_err(|error| error.to_string())?;
        let mut found: Vec<PathBuf> = found.filter_map(Result::ok).take(FILES_MAX + 1).collect();
        found.sort();
        Ok(found)
    }
}

/// The files that are being read, one in the other.
#[derive(Debug, Default)]
pub(super) struct Chain(HashSet<PathBuf>);

impl Chain {
    /// Enters a file; the error says that it includes itself.
    pub(super) fn enter(&mut self, path: &Path, place: &Origin) -> Result<PathBuf, Failure> {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        if self.0.len() >= DEPTH_MAX || !self.0.insert(path.clone()) {
            let what = format!("{} includes itself", path.display());
            return Err(Failure::at(place, what));
        }
        Ok(path)
    }

    /// Leaves it.
    pub(super) fn leave(&mut self, path: &Path) {
        self.0.remove(path);
    }
}
