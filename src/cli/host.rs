//! What a configuration is read in: the files of this host and the environment of this
//! process. It remembers what it was asked for, so that it can be watched.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};

use crate::config::{FileText, Surroundings};
use crate::control::{ConfigFiles, FileStamp};

/// A configuration larger than this is a mistake, such as a device or a log. What
/// `check` prints of the longest ranges of ports, 32,768 forwards with a pool each,
/// has 28 MB.
const FILE_MAX: u64 = 64 << 20;

/// Signs of a pattern.
const WILD: [char; 3] = ['*', '?', '['];

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Host {
    asked: RefCell<Asked>,
}

/// What a configuration was made from.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    files: ConfigFiles,
    /// ConfigFiles of a folder, by a pattern for their names.
    matching: Vec<(PathBuf, Pattern)>,
}

impl Host {
    pub(super) fn asked(self) -> Asked {
        self.asked.into_inner()
    }

    /// Reads a file, which is remembered whatever comes of it.
    pub(super) fn read(&self, path: &Path) -> Result<FileText, String> {
        if is_standard_input(path) {
            return text("standard input".to_owned(), read_all(io::stdin().lock()));
        }
        let stamp = FileStamp::of(path);
        self.asked.borrow_mut().files.insert(path.to_owned(), stamp);
        let bytes = File::open(path).and_then(read_all);
        text(path.display().to_string(), bytes)
    }
}

impl Surroundings for Host {
    fn include(&self, from: &str, pattern: &str) -> Result<Vec<FileText>, String> {
        if from == "standard input" && Path::new(pattern).is_relative() {
            return Err(format!(
                "what is read from standard input has no folder that `{pattern}` could be in"
            ));
        }
        let beside = Path::new(from).parent().unwrap_or_else(|| Path::new(""));
        let path = beside.join(pattern);
        if !pattern.contains(WILD) {
            return Ok(vec![self.read(&path)?]);
        }
        let (folder, name) = (path.parent(), path.file_name().and_then(OsStr::to_str));
        let (Some(folder), Some(name)) = (folder, name) else {
            return Err(format!("`{pattern}` names no file"));
        };
        if Path::new(pattern)
            .parent()
            .is_some_and(|it| it.to_string_lossy().contains(WILD))
        {
            return Err(format!(
                "`{pattern}`: only the name of a file may be a pattern, not that of a folder"
            ));
        }
        let name = Pattern::new(name).map_err(|error| format!("`{pattern}`: {}", error.msg))?;
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        let found = matching(folder, &name)
            .map_err(|error| format!("cannot read the folder {}: {error}", folder.display()));
        self.asked
            .borrow_mut()
            .matching
            .push((folder.to_owned(), name));
        found?.iter().map(|path| self.read(path)).collect()
    }

    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

impl Asked {
    /// What is to be watched after a configuration that could not be read: what stands
    /// below a mistake may not have been asked for.
    pub(super) fn and(mut self, before: Self) -> Self {
        for (file, stamp) in before.files {
            self.files.entry(file).or_insert(stamp);
        }
        for folder in before.matching {
            if !self.matching.contains(&folder) {
                self.matching.push(folder);
            }
        }
        self
    }

    /// The files that were read.
    pub(super) fn was_read(&self) -> ConfigFiles {
        self.files.clone()
    }

    /// The files as they are now: those that patterns mean may be others meanwhile.
    pub(super) fn files(&self) -> ConfigFiles {
        let known = self.files.keys().cloned();
        let found = |it: &(PathBuf, Pattern)| matching(&it.0, &it.1).unwrap_or_default();
        let found = self.matching.iter().flat_map(found);
        let files: BTreeSet<PathBuf> = known.chain(found).collect();
        let stamped = |path: PathBuf| {
            let stamp = FileStamp::of(&path);
            (path, stamp)
        };
        files.into_iter().map(stamped).collect()
    }

    /// Where other files may come to be.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        self.matching.iter().map(|it| it.0.clone()).collect()
    }
}

/// The files of a folder whose name fits, sorted by it. Those that begin with a dot are
/// meant only if the pattern does: editors and ConfigMaps have some of their own.
fn matching(folder: &Path, pattern: &Pattern) -> io::Result<Vec<PathBuf>> {
    let options = MatchOptions {
        require_literal_leading_dot: true,
        ..MatchOptions::new()
    };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let fits = name
            .to_str()
            .is_some_and(|name| pattern.matches_with(name, options));
        if fits {
            found.push(folder.join(name));
        }
    }
    found.sort_unstable();
    Ok(found)
}

pub(super) fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == OsStr::new("-")
}

fn text(name: String, bytes: io::Result<Vec<u8>>) -> Result<FileText, String> {
    match bytes {
        Ok(bytes) if bytes.len() as u64 > FILE_MAX => Err(format!(
            "{name} is larger than {} MiB: is it a configuration?",
            FILE_MAX >> 20
        )),
        Ok(bytes) => Ok(FileText { name, bytes }),
        Err(error) => Err(format!("cannot read {name}: {error}")),
    }
}

fn read_all(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
