//! Opening what an outlet writes to.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::config::Rotate;

/// Where an outlet writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::observe) enum Place {
    Stdout,
    Stderr,
    File(PathBuf),
}

/// How it is opened and kept.
#[derive(Debug, Clone)]
pub(in crate::observe) struct Target {
    pub(in crate::observe) place: Place,
    /// It shows what others say: files are made for their owner alone, and a pipe
    /// without a reader is an error instead of being waited for.
    pub(in crate::observe) private: bool,
    /// When a file is begun anew; `None`: never.
    pub(in crate::observe) rotate: Option<Rotate>,
    /// What every file begins with. One that has some is never appended to: a section
    /// that was cut by a crash would make all that follows unreadable.
    pub(in crate::observe) prologue: Vec<u8>,
}

impl Target {
    /// The file to begin with, and how many bytes it has.
    pub(super) fn open(&self) -> io::Result<(File, u64)> {
        // The descriptors themselves: the standard library's buffer would hide how much
        // of a batch was written.
        let path = match &self.place {
            Place::Stdout => return Ok((io::stdout().as_fd().try_clone_to_owned()?.into(), 0)),
            Place::Stderr => return Ok((io::stderr().as_fd().try_clone_to_owned()?.into(), 0)),
            Place::File(path) => path,
        };
        let found = fs::metadata(path).ok();
        if let Some(found) = found.as_ref().filter(|it| !it.is_file()) {
            let pipe = found.file_type().is_fifo();
            let file = match (self.private, pipe) {
                (true, true) => open_pipe(path)?,
                (true, false) => OpenOptions::new().write(true).open(path)?,
                (false, _) => OpenOptions::new().append(true).open(path)?,
            };
            return Ok((file, 0));
        }
        let begun = found.map_or(0, |it| it.len());
        if self.prologue.is_empty() {
            return Ok((self.create(path, true)?, begun));
        }
        match self.rotate {
            Some(rotate) if begun > 0 => rename_away(path, rotate.keep)?,
            _ => {}
        }
        Ok((self.create(path, false)?, 0))
    }

    /// Renames a file away and makes another in its place.
    pub(super) fn begin_anew(&self, path: &Path, rotate: Rotate) -> io::Result<File> {
        rename_away(path, rotate.keep)?;
        self.create(path, false)
    }

    fn create(&self, path: &Path, append: bool) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.create(true);
        if self.private {
            options.mode(0o600);
        }
        if append {
            options.append(true);
        } else {
            options.write(true).truncate(true);
        }
        options.open(path)
    }
}

/// Whether `path` is what `file` is open on.
pub(super) fn is_same(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(there)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

/// Without a reader this fails instead of waiting for one; from then on writing
/// waits, which is the outlet's own business.
fn open_pipe(path: &Path) -> io::Result<File> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(file)
}

/// `FILE.2` becomes `FILE.3` and so on, `FILE` becomes `FILE.1`; the last is gone.
fn rename_away(path: &Path, keep: u16) -> io::Result<()> {
    let numbered = |n: u16| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{n}"));
        PathBuf::from(name)
    };
    for n in (1..keep).rev() {
        match fs::rename(numbered(n), numbered(n + 1)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::rename(path, numbered(1))
}
