//! Where a tap writes to: standard error or a file, rotated.
//!
//! What is written is made of units: a line with its dump, a packet. A target that
//! fails costs whole units; one that was cut where the target failed is completed
//! before anything else, so that neither a line nor a packet is ever torn.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::TapError;
use crate::config::{Rotate, Tap, TapFormat, TapTarget};

/// Bytes gathered before they are written.
const BATCH: usize = 256 * 1024;

/// The target of a tap.
#[derive(Debug)]
pub(super) struct Output {
    target: TapTarget,
    file: File,
    /// Bytes in the file.
    len: u64,
    rotate: Option<Rotate>,
    /// What every file begins with.
    prologue: Vec<u8>,
    batch: Vec<u8>,
    /// The units of the batch.
    units: Vec<Unit>,
    /// The rest of a unit that was cut.
    torn: Vec<u8>,
    lost: Lost,
}

/// Where a unit ends in the batch, and how many bytes of peers it shows.
#[derive(Debug, Clone, Copy)]
struct Unit {
    end: usize,
    shows: u64,
}

/// What the target did not take, until it is told.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// Units.
    pub(super) units: u64,
    /// Bytes of peers in them.
    pub(super) bytes: u64,
    /// Why, at last.
    pub(super) error: Option<io::Error>,
}

impl Output {
    pub(super) fn open(tap: &Tap) -> Result<Self, TapError> {
        let prologue = match tap.format {
            TapFormat::Pcapng => super::pcapng::prologue(),
            TapFormat::Hex | TapFormat::Text | TapFormat::Http => Vec::new(),
        };
        let refused = |error, remedy| TapError::Open {
            target: tap.to.clone(),
            error,
            remedy,
        };
        let (file, len) = match &tap.to {
            TapTarget::Stderr => io::stderr()
                .as_fd()
                .try_clone_to_owned()
                .map(|fd| (File::from(fd), 0))
                .map_err(|error| refused(error, ""))?,
            TapTarget::File(path) => {
                first(path, tap.rotate, !prologue.is_empty()).map_err(|error| {
                    let nobody = error.raw_os_error() == Some(libc::ENXIO);
                    let remedy = if nobody {
                        "; nobody reads from this pipe: start its reader first"
                    } else {
                        ""
                    };
                    refused(error, remedy)
                })?
            }
        };
        let regular = file.metadata().is_ok_and(|it| it.is_file());
        let mut output = Self {
            target: tap.to.clone(),
            file,
            len,
            // Devices and pipes have no size to speak of.
            rotate: tap.rotate.filter(|_| regular),
            prologue,
            batch: Vec::new(),
            units: Vec::new(),
            torn: Vec::new(),
            lost: Lost::default(),
        };
        output.begin();
        Ok(output)
    }

    pub(super) const fn target(&self) -> &TapTarget {
        &self.target
    }

    /// Whether it is written in packets and not in lines.
    pub(super) const fn holds_packets(&self) -> bool {
        !self.prologue.is_empty()
    }

    fn begin(&mut self) {
        let prologue = std::mem::take(&mut self.prologue);
        if !prologue.is_empty() {
            self.put(&prologue, 0);
        }
        self.prologue = prologue;
    }

    /// One unit that shows so many bytes of peers; written by and by, at the latest by
    /// [`Output::flush`].
    pub(super) fn put(&mut self, unit: &[u8], shows: u64) {
        if unit.is_empty() {
            return;
        }
        if let Some(rotate) = self.rotate {
            let after = self.len + (self.batch.len() + unit.len()) as u64;
            let begun = self.len + self.batch.len() as u64 > self.prologue.len() as u64;
            if after > rotate.size && begun {
                self.flush();
                self.start_anew(rotate);
            }
        }
        self.batch.extend_from_slice(unit);
        let end = self.batch.len();
        self.units.push(Unit { end, shows });
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    /// Writes what was gathered, or loses it.
    pub(super) fn flush(&mut self) {
        if !self.torn.is_empty() {
            let torn = std::mem::take(&mut self.torn);
            if !self.write(&torn, true) {
                return self.lose(0);
            }
        }
        let batch = std::mem::take(&mut self.batch);
        let before = self.len;
        if !self.write(&batch, false) {
            let written = (self.len - before) as usize;
            let mut kept = self.units.partition_point(|unit| unit.end <= written);
            let boundary = kept.checked_sub(1).map_or(0, |last| self.units[last].end);
            if boundary < written {
                self.torn = batch[written..self.units[kept].end].to_vec();
                kept += 1;
            }
            self.batch = batch;
            return self.lose(kept);
        }
        self.batch = batch;
        self.batch.clear();
        self.units.clear();
    }

    /// What is not written is lost, but for the first so many units.
    fn lose(&mut self, kept: usize) {
        let lost = &self.units[kept..];
        self.lost.units += lost.len() as u64;
        self.lost.bytes += lost.iter().map(|unit| unit.shows).sum::<u64>();
        self.batch.clear();
        self.units.clear();
    }

    /// What was lost since this was asked last.
    pub(super) fn take_lost(&mut self) -> Lost {
        std::mem::take(&mut self.lost)
    }

    /// `false`: the target failed, and `len` tells how much it took. What is left of
    /// the rest of a torn unit is kept.
    fn write(&mut self, bytes: &[u8], torn: bool) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(n) if n > 0 => {
                    rest = &rest[n..];
                    self.len += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                failed => {
                    self.lost.error = failed.err().or(self.lost.error.take());
                    if torn {
                        self.torn = rest.to_vec();
                    }
                    return false;
                }
            }
        }
        true
    }

    /// Renames the file away and begins another. Where that fails the old one goes
    /// on: too large a file is better than none.
    fn start_anew(&mut self, rotate: Rotate) {
        let TapTarget::File(path) = self.target.clone() else {
            return;
        };
        if !self.torn.is_empty() {
            return;
        }
        match rename_away(&path, rotate.keep).and_then(|()| create(&path, false)) {
            Ok(file) => {
                self.file = file;
                self.len = 0;
                self.begin();
            }
            Err(error) => self.lost.error = Some(error),
        }
    }
}

/// The first file. One that holds packets is begun anew: a section that was cut by
/// a crash would make all that follows unreadable.
fn first(path: &Path, rotate: Option<Rotate>, anew: bool) -> io::Result<(File, u64)> {
    let found = fs::metadata(path).ok();
    let regular = found.as_ref().is_none_or(fs::Metadata::is_file);
    if !regular {
        let pipe = found.is_some_and(|it| it.file_type().is_fifo());
        return Ok((
            if pipe {
                open_pipe(path)?
            } else {
                open_device(path)?
            },
            0,
        ));
    }
    let begun = found.map_or(0, |it| it.len());
    if anew
        && begun > 0
        && let Some(rotate) = rotate
    {
        rename_away(path, rotate.keep)?;
        return Ok((create(path, false)?, 0));
    }
    let file = create(path, !anew)?;
    Ok((file, if anew { 0 } else { begun }))
}

/// Readable by its owner alone: it shows what others say.
fn create(path: &Path, append: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    if append {
        options.append(true);
    } else {
        options.write(true).truncate(true);
    }
    options.open(path)
}

fn open_device(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

/// Without a reader this fails instead of waiting for one; from then on writing
/// waits, which is this thread's business.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TapFilter;

    fn tap(path: &Path, format: TapFormat, rotate: Option<Rotate>) -> Tap {
        Tap {
            format,
            to: TapTarget::File(path.to_owned()),
            max_bytes_per_session: 1,
            filter: TapFilter::default(),
            rotate,
            unmask: false,
        }
    }

    #[test]
    fn a_full_device_costs_units_and_says_so() {
        let mut output = Output::open(&tap(Path::new("/dev/full"), TapFormat::Hex, None)).unwrap();
        for _ in 0..3 {
            output.put(b"a line\n", 4);
        }
        output.flush();
        let lost = output.take_lost();
        assert_eq!((lost.units, lost.bytes), (3, 12));
        assert!(lost.error.is_some());
        assert_eq!(output.take_lost().units, 0);
    }

    #[test]
    fn files_are_rotated_at_units_and_so_many_are_kept() {
        let directory = std::env::temp_dir().join(format!("thalweg-tap-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("tap");
        let rotate = Some(Rotate { size: 10, keep: 2 });
        let mut output = Output::open(&tap(&path, TapFormat::Hex, rotate)).unwrap();
        for n in 0..9 {
            output.put(format!("unit{n}\n").as_bytes(), 0);
            output.flush();
        }
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        assert_eq!(read("tap"), "unit8\n");
        assert_eq!(read("tap.1"), "unit7\n");
        assert_eq!(read("tap.2"), "unit6\n");
        assert!(!directory.join("tap.3").exists());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_was_cut_is_completed_before_anything_else() {
        // A pipe takes 4096 bytes at a time while nobody reads.
        let (reader, writer) = io::pipe().unwrap();
        let mut output = Output::open(&tap(Path::new("/dev/null"), TapFormat::Hex, None)).unwrap();
        let writer = std::os::fd::OwnedFd::from(writer);
        nix::fcntl::fcntl(
            &writer,
            nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
        )
        .unwrap();
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        output.file = File::from(writer);
        for letter in [b'a', b'b', b'c', b'd'] {
            let mut unit = vec![letter; 1500];
            unit.push(b'\n');
            output.put(&unit, 1500);
        }
        output.flush();
        // One was cut, one is lost whole.
        assert_eq!(output.take_lost().bytes, 1500);
        let mut reader = File::from(std::os::fd::OwnedFd::from(reader));
        let mut bytes = vec![0; 4096];
        io::Read::read_exact(&mut reader, &mut bytes).unwrap();
        output.put(b"after\n", 5);
        output.flush();
        drop(output);
        io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<(usize, &str)> = text.lines().map(|l| (l.len(), &l[..1])).collect();
        assert_eq!(lines, [(1500, "a"), (1500, "b"), (1500, "c"), (5, "a")]);
    }
}
