//! Files that say something of names: opened without waiting, and known again when they
//! have changed.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

/// What changes when a file does, be it written or replaced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stamp(Option<(i64, i64, u64, u64)>);

impl Stamp {
    pub(super) fn of(path: &Path) -> Self {
        Self(fs::metadata(path).ok().as_ref().map(Self::parts))
    }

    /// Of a file that is open, whatever stands at its path by now.
    pub(super) fn of_open(file: &File) -> Self {
        Self(file.metadata().ok().as_ref().map(Self::parts))
    }

    fn parts(it: &Metadata) -> (i64, i64, u64, u64) {
        (it.mtime(), it.mtime_nsec(), it.ino(), it.len())
    }
}

/// What is no file is not opened: a pipe would keep the thread for ever. `None` is a
/// device, which can only be `/dev/null`: it is how one says "none".
pub(super) fn open_regular(path: &Path) -> io::Result<Option<File>> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_char_device() {
        return Ok(None);
    }
    if !kind.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    File::open(path).map(Some)
}

/// Its first so many bytes.
pub(super) fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    if let Some(file) = open_regular(path)? {
        file.take(max).read_to_end(&mut text)?;
    }
    Ok(text)
}
