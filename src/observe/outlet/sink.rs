//! The end of an outlet: units in, batches out, and what the target did not take.

use std::fs::File;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use super::file::{Place, Target, is_same};
use crate::config::Rotate;

/// Bytes gathered before they are written.
const BATCH: usize = 256 * 1024;

/// How long after a rotation that failed the next is tried.
const RETRY: Duration = Duration::from_secs(1);

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::observe) struct Sink {
    target: Target,
    file: File,
    /// Bytes in the file.
    len: u64,
    /// Devices and pipes have no size to speak of.
    rotate: Option<Rotate>,
    batch: Vec<u8>,
    /// The units of the batch.
    units: Vec<Unit>,
    /// The rest of a unit that was cut.
    torn: Vec<u8>,
    lost: Lost,
    /// When another file is tried again, after one could not be begun.
    retry_at: Option<Instant>,
}

/// Where a unit ends in the batch, and what it counts.
#[derive(Debug, Clone, Copy)]
struct Unit {
    end: usize,
    weight: u64,
}

/// What the target did not take, until it is told.
#[derive(Debug, Default)]
pub(in crate::observe) struct Lost {
    /// Units.
    pub(in crate::observe) units: u64,
    /// What they count, in all.
    pub(in crate::observe) weight: u64,
    /// Why, at last.
    pub(in crate::observe) error: Option<io::Error>,
}

impl Sink {
    /// Opens the target.
    pub(in crate::observe) fn open(target: Target) -> io::Result<Self> {
        let (file, len) = target.open()?;
        Ok(Self::begun(target, file, len))
    }

    /// Writes to a file that somebody else has opened.
    pub(in crate::observe) fn given(file: File, prologue: Vec<u8>) -> Self {
        let target = Target {
            place: Place::Given,
            mode: 0,
            needs_reader: true,
            rotate: None,
            prologue,
        };
        Self::begun(target, file, 0)
    }

    fn begun(target: Target, file: File, len: u64) -> Self {
        let mut sink = Self {
            rotate: rotation(&target, &file),
            target,
            file,
            len,
            batch: Vec::new(),
            units: Vec::new(),
            torn: Vec::new(),
            lost: Lost::default(),
            retry_at: None,
        };
        sink.begin();
        sink
    }

    fn begin(&mut self) {
        let prologue = std::mem::take(&mut self.target.prologue);
        self.put(&prologue, 0);
        self.target.prologue = prologue;
    }

    /// One unit that counts so much where it is lost; written by and by, at the latest
    /// by [`Sink::flush`].
    pub(in crate::observe) fn put(&mut self, unit: &[u8], weight: u64) {
        if unit.is_empty() {
            return;
        }
        if let Some(rotate) = self.rotate {
            let after = self.len + (self.batch.len() + unit.len()) as u64;
            let begun = self.len + self.batch.len() as u64 > self.target.prologue.len() as u64;
            if after > rotate.size && begun && !self.make_room(unit.len() as u64, rotate) {
                self.lost.units += 1;
                self.lost.weight += weight;
                return;
            }
        }
        self.batch.extend_from_slice(unit);
        let end = self.batch.len();
        self.units.push(Unit { end, weight });
        if self.batch.len() >= BATCH {
            self.flush();
        }
    }

    /// Writes what was gathered, or loses it: `false`.
    pub(in crate::observe) fn flush(&mut self) -> bool {
        if !self.torn.is_empty() {
            let torn = std::mem::take(&mut self.torn);
            if !self.write(&torn, true) {
                self.lose(0);
                return false;
            }
        }
        let batch = std::mem::take(&mut self.batch);
        let before = self.len;
        let whole = self.write(&batch, false);
        if !whole {
            let written = (self.len - before) as usize;
            let mut kept = self.units.partition_point(|unit| unit.end <= written);
            let boundary = kept.checked_sub(1).map_or(0, |last| self.units[last].end);
            if boundary < written {
                self.torn = batch[written..self.units[kept].end].to_vec();
                kept += 1;
            }
            self.lose(kept);
        }
        self.batch = batch;
        self.batch.clear();
        // What one large unit took is given back.
        self.batch.shrink_to(2 * BATCH);
        self.units.clear();
        whole
    }

    /// What is not written is lost, but for the first so many units.
    fn lose(&mut self, kept: usize) {
        let lost = &self.units[kept..];
        self.lost.units += lost.len() as u64;
        self.lost.weight += lost.iter().map(|unit| unit.weight).sum::<u64>();
        self.batch.clear();
        self.units.clear();
    }

    /// What was lost since this was asked last.
    pub(in crate::observe) fn take_lost(&mut self) -> Lost {
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

    /// Whether there is room for so many bytes more: in another file, or, where none can be
    /// begun, in this one up to twice its size. More is lost until one can be.
    fn make_room(&mut self, len: u64, rotate: Rotate) -> bool {
        let now = Instant::now();
        if self.retry_at.is_none_or(|at| at <= now) {
            self.flush();
            self.retry_at = Some(now + RETRY);
            self.start_anew(rotate);
        }
        self.len + self.batch.len() as u64 + len <= rotate.size.saturating_mul(2)
    }

    /// Renames the file away and begins another. Where that fails the old one goes
    /// on: too large a file is better than none, within bounds.
    fn start_anew(&mut self, rotate: Rotate) {
        let Place::File(path) = &self.target.place else {
            return;
        };
        if !self.torn.is_empty() {
            return;
        }
        match self.target.begin_anew(path, rotate) {
            Ok(file) => {
                self.file = file;
                self.len = 0;
                self.retry_at = None;
                self.begin();
            }
            Err(error) => {
                let error = io::Error::new(error.kind(), format!("it cannot be rotated: {error}"));
                self.lost.error = Some(error);
            }
        }
    }

    /// Writes what was gathered, then goes on in the file that has the target's name
    /// now: for whoever renames files and wants a new one. Where that fails the old one
    /// goes on. The rest of a unit that the old one could not be given is lost.
    pub(in crate::observe) fn reopen(&mut self) -> io::Result<()> {
        self.flush();
        let Place::File(path) = &self.target.place else {
            return Ok(());
        };
        if is_same(&self.file, path) {
            return Ok(());
        }
        let (file, len) = self.target.open()?;
        self.rotate = rotation(&self.target, &file);
        self.file = file;
        self.len = len;
        self.torn.clear();
        self.begin();
        Ok(())
    }
}

fn rotation(target: &Target, file: &File) -> Option<Rotate> {
    let regular = file.metadata().is_ok_and(|it| it.is_file());
    target.rotate.filter(|_| regular)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn target(path: &Path, rotate: Option<Rotate>) -> Target {
        Target {
            place: Place::File(path.to_owned()),
            mode: 0o600,
            needs_reader: true,
            rotate,
            prologue: Vec::new(),
        }
    }

    fn directory(name: &str) -> PathBuf {
        let name = format!("thalweg-sink-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir_all(&directory).unwrap();
        directory
    }

    #[test]
    fn a_full_device_costs_units_and_says_so() {
        let mut sink = Sink::open(target(Path::new("/dev/full"), None)).unwrap();
        for _ in 0..3 {
            sink.put(b"a line\n", 4);
        }
        assert!(!sink.flush());
        let lost = sink.take_lost();
        assert_eq!((lost.units, lost.weight), (3, 12));
        assert!(lost.error.is_some());
        assert_eq!(sink.take_lost().units, 0);
    }

    #[test]
    fn files_are_rotated_at_units_and_so_many_are_kept() {
        let directory = directory("rotate");
        let rotate = Some(Rotate { size: 10, keep: 2 });
        let mut sink = Sink::open(target(&directory.join("tap"), rotate)).unwrap();
        for n in 0..9 {
            sink.put(format!("unit{n}\n").as_bytes(), 0);
            assert!(sink.flush());
        }
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        assert_eq!(read("tap"), "unit8\n");
        assert_eq!(read("tap.1"), "unit7\n");
        assert_eq!(read("tap.2"), "unit6\n");
        assert!(!directory.join("tap.3").exists());
        fs::remove_dir_all(directory).unwrap();
    }

    /// The name that the old file should get is a directory that is not empty.
    #[test]
    fn a_rotation_that_fails_is_bounded_by_dropping() {
        let directory = directory("stuck");
        let path = directory.join("tap");
        fs::create_dir_all(directory.join("tap.1/x")).unwrap();
        let rotate = Some(Rotate { size: 100, keep: 1 });
        let mut sink = Sink::open(target(&path, rotate)).unwrap();
        for _ in 0..100 {
            sink.put(b"0123456789", 10);
            assert!(sink.flush());
        }
        assert_eq!(fs::metadata(&path).unwrap().len(), 200);
        let lost = sink.take_lost();
        assert_eq!((lost.units, lost.weight), (80, 800));
        let why = lost.error.unwrap().to_string();
        assert!(why.contains("cannot be rotated"), "{why}");
        // Once it can be, it goes on.
        fs::remove_dir_all(directory.join("tap.1")).unwrap();
        sink.retry_at = None;
        sink.put(b"0123456789", 10);
        assert!(sink.flush());
        assert_eq!(fs::metadata(&path).unwrap().len(), 10);
        assert_eq!(sink.take_lost().units, 0);
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_renamed_file_is_left_and_its_name_begun_anew() {
        let directory = directory("reopen");
        let path = directory.join("tap");
        let mut sink = Sink::open(Target {
            prologue: b"begin\n".to_vec(),
            ..target(&path, None)
        })
        .unwrap();
        sink.put(b"one\n", 1);
        // Nothing was renamed: the file goes on, and nothing in it is lost.
        sink.reopen().unwrap();
        sink.put(b"two\n", 1);
        fs::rename(&path, directory.join("old")).unwrap();
        sink.reopen().unwrap();
        sink.put(b"three\n", 1);
        assert!(sink.flush());
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        assert_eq!(read("old"), "begin\none\ntwo\n");
        assert_eq!(read("tap"), "begin\nthree\n");
        // Where the name cannot be had, the old file goes on.
        fs::remove_dir_all(&directory).unwrap();
        assert!(sink.reopen().is_err());
        sink.put(b"four\n", 1);
        assert!(sink.flush());
    }

    #[test]
    fn what_was_cut_is_completed_before_anything_else() {
        // A pipe takes 4096 bytes at a time while nobody reads.
        let (reader, writer) = io::pipe().unwrap();
        let mut sink = Sink::open(target(Path::new("/dev/null"), None)).unwrap();
        let writer = std::os::fd::OwnedFd::from(writer);
        nix::fcntl::fcntl(
            &writer,
            nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
        )
        .unwrap();
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        sink.file = File::from(writer);
        for letter in [b'a', b'b', b'c', b'd'] {
            let mut unit = vec![letter; 1500];
            unit.push(b'\n');
            sink.put(&unit, 1500);
        }
        assert!(!sink.flush());
        // One was cut, one is lost whole.
        assert_eq!(sink.take_lost().weight, 1500);
        let mut reader = File::from(std::os::fd::OwnedFd::from(reader));
        let mut bytes = vec![0; 4096];
        io::Read::read_exact(&mut reader, &mut bytes).unwrap();
        sink.put(b"after\n", 5);
        assert!(sink.flush());
        drop(sink);
        io::Read::read_to_end(&mut reader, &mut bytes).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let lines: Vec<(usize, &str)> = text.lines().map(|l| (l.len(), &l[..1])).collect();
        assert_eq!(lines, [(1500, "a"), (1500, "b"), (1500, "c"), (5, "a")]);
    }
}
