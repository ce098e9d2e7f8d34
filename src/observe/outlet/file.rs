//! Opening what an outlet writes to.
//!
//! What is written may be anybody's secret, and the directory may be one that others can
//! write to. So a file that is made is made by us alone (`O_EXCL`) with the mode that was asked
//! for; one that is there is written to only if it is ours, has no other name, and is no link.
//! Everything is looked at through the descriptor that is written to: there is no moment at
//! which it could be exchanged. Nothing here waits, whatever a path leads to.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::config::Rotate;

/// Where an outlet writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::observe) enum Place {
    Stdout,
    Stderr,
    File(PathBuf),
    /// One that somebody else has opened, and that cannot be opened again.
    Given,
}

/// How it is opened and kept.
#[derive(Debug, Clone)]
pub(in crate::observe) struct Target {
    pub(in crate::observe) place: Place,
    /// The mode of a file that is made, less the umask.
    pub(in crate::observe) mode: u32,
    /// A pipe without a reader is an error. Otherwise what is written waits in it for one.
    pub(in crate::observe) needs_reader: bool,
    /// When a file is begun anew; `None`: never.
    pub(in crate::observe) rotate: Option<Rotate>,
    /// What every file begins with. One that has some is never appended to: a section
    /// that was cut by a crash would make all that follows unreadable.
    pub(in crate::observe) prologue: Vec<u8>,
}

/// How often a file that comes and goes is tried.
const TRIES: u32 = 3;

impl Target {
    /// The file to begin with, and how many bytes it has.
    pub(super) fn open(&self) -> io::Result<(File, u64)> {
        // The descriptors themselves: the standard library's buffer would hide how much
        // of a batch was written.
        let path = match &self.place {
            Place::Stdout => return Ok((io::stdout().as_fd().try_clone_to_owned()?.into(), 0)),
            Place::Stderr => return Ok((io::stderr().as_fd().try_clone_to_owned()?.into(), 0)),
            Place::File(path) => path,
            Place::Given => return Err(io::ErrorKind::Unsupported.into()),
        };
        let (file, found) = self.open_or_create(path)?;
        if !found.is_file() {
            return Ok((file, 0));
        }
        if self.prologue.is_empty() || found.len() == 0 {
            return Ok((file, found.len()));
        }
        if let Some(rotate) = self.rotate {
            return Ok((self.begin_anew(path, rotate)?, 0));
        }
        file.set_len(0)?;
        Ok((file, 0))
    }

    /// Renames a file away and makes another in its place.
    pub(super) fn begin_anew(&self, path: &Path, rotate: Rotate) -> io::Result<File> {
        rename_away(path, rotate.keep)?;
        self.create(path)
    }

    /// What is there, if it may be written to, or else a new file.
    fn open_or_create(&self, path: &Path) -> io::Result<(File, Metadata)> {
        let mut tries = TRIES;
        let file = loop {
            tries -= 1;
            match self.open_existing(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => break done?,
            }
            match self.create(path) {
                // Somebody was faster.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries > 0 => {}
                done => break done?,
            }
        };
        let found = file.metadata()?;
        Ok((file, found))
    }

    fn create(&self, path: &Path) -> io::Result<File> {
        OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(self.mode)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
    }

    fn open_existing(&self, path: &Path) -> io::Result<File> {
        // Those of /dev are the system's own: /dev/stdout is one.
        let links = path.starts_with("/dev") || path.starts_with("/proc");
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY | if links { 0 } else { libc::O_NOFOLLOW };
        let mut options = OpenOptions::new();
        options.append(true).custom_flags(flags);
        let opened = match options.open(path) {
            // A pipe that nobody reads from: with a reading end of our own it can be written
            // to all the same.
            Err(error) if error.raw_os_error() == Some(libc::ENXIO) && !self.needs_reader => {
                options.read(true).open(path)
            }
            opened => opened,
        };
        let file = opened.map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP) => refused("it is a link; name the file itself"),
            _ => error,
        })?;
        judge(&file.metadata()?)?;
        // From here on writing waits, which is the outlet's own business.
        let flags = OFlag::from_bits_truncate(fcntl(&file, FcntlArg::F_GETFL)?);
        fcntl(&file, FcntlArg::F_SETFL(flags - OFlag::O_NONBLOCK))?;
        Ok(file)
    }
}

/// Whether what is there may be written to.
fn judge(found: &Metadata) -> io::Result<()> {
    let us = nix::unistd::geteuid().as_raw();
    let kind = found.file_type();
    // Devices are the system's.
    if !(kind.is_file() || kind.is_fifo()) {
        return Ok(());
    }
    if found.uid() != us && found.uid() != 0 {
        return Err(refused(&format!(
            "it belongs to user {} and not to this process's, {us}, who would let him read it; \
             chown it, or name another",
            found.uid()
        )));
    }
    if kind.is_file() && found.nlink() > 1 {
        return Err(refused(
            "it has another name (a hard link); remove that, or name another",
        ));
    }
    Ok(())
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned())
}

/// Whether `path` is what `file` is open on.
pub(super) fn is_same(file: &File, path: &Path) -> bool {
    let (Ok(open), Ok(there)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (open.dev(), open.ino()) == (there.dev(), there.ino())
}

/// `FILE.2` becomes `FILE.3` and so on, `FILE` becomes `FILE.1`; the last is gone.
fn rename_away(path: &Path, keep: u16) -> io::Result<()> {
    // One that is gone already needs no room.
    if fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn target(path: &Path, mode: u32) -> Target {
        Target {
            place: Place::File(path.to_owned()),
            mode,
            needs_reader: false,
            rotate: None,
            prologue: Vec::new(),
        }
    }

    fn directory(name: &str) -> PathBuf {
        let name = format!("thalweg-file-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn a_file_is_made_with_its_mode_and_one_that_is_there_keeps_its_own() {
        let directory = directory("mode");
        for (name, mode) in [("a", 0o600), ("b", 0o400 | 0o200 | 0o040)] {
            let path = directory.join(name);
            target(&path, mode).open().unwrap();
            let found = fs::metadata(&path).unwrap().mode() & 0o777;
            assert_eq!(found, mode, "{found:o}");
            fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
            target(&path, mode).open().unwrap();
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o644);
        }
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn links_and_files_of_others_are_refused_and_left_alone() {
        let directory = directory("link");
        let (victim, path) = (directory.join("victim"), directory.join("log"));
        fs::write(&victim, "mine\n").unwrap();
        let why = |target: Target| target.open().map(drop).unwrap_err().to_string();
        symlink(&victim, &path).unwrap();
        assert!(why(target(&path, 0o600)).contains("it is a link"));
        // One that leads nowhere is not followed to make a file either.
        fs::remove_file(&path).unwrap();
        symlink(directory.join("new"), &path).unwrap();
        assert!(why(target(&path, 0o600)).contains("it is a link"));
        assert!(!directory.join("new").exists());
        fs::remove_file(&path).unwrap();
        fs::hard_link(&victim, &path).unwrap();
        assert!(why(target(&path, 0o600)).contains("another name"));
        fs::remove_file(&path).unwrap();
        if nix::unistd::geteuid().is_root() {
            fs::write(&path, "").unwrap();
            std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
            assert!(why(target(&path, 0o600)).contains("user 65534"));
            let packets = Target {
                prologue: b"begin".to_vec(),
                ..target(&path, 0o600)
            };
            assert!(why(packets).contains("user 65534"));
        }
        assert_eq!(fs::read(&victim).unwrap(), b"mine\n");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_pipe_is_never_waited_for() {
        use std::io::{Read as _, Write as _};
        let directory = directory("pipe");
        let path = directory.join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let needs = Target {
            needs_reader: true,
            ..target(&path, 0o600)
        };
        let error = needs.open().map(drop).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENXIO));
        // Otherwise what is said waits for its reader.
        let (mut file, _) = target(&path, 0o600).open().unwrap();
        file.write_all(b"a line\n").unwrap();
        let mut reader = File::open(&path).unwrap();
        let mut read = [0; 7];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"a line\n");
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_the_system_offers_is_taken() {
        for path in ["/dev/null", "/dev/fd/2", "/proc/self/fd/2"] {
            target(Path::new(path), 0o600).open().unwrap();
        }
    }
}
