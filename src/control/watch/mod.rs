//! `watch = true`: the files of the configuration are looked after, and control is told
//! when they are others than those that were read; the lists of networks and the files of
//! users that it names likewise.
//!
//! ```text
//!   inotify: names in folders ──► somebody writes ──► nobody has for QUIET ──► stamps ──► told
//!                                  until it is closed                          differ
//!   every LOOK without inotify's help: network file systems say nothing, nor does a
//!   folder far above that is renamed
//! ```
//! Folders are watched and not files: what editors, `mv` and ConfigMaps put in place of a
//! file is another file of the same name. A file that is being written is not read before
//! its writer has closed it.

mod places;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

use crate::observe::log::Log;
use crate::observe::notice::Notice;

use super::beside::BesideFiles;
use super::inbox::{Teller, Told};
use super::signals;
use super::source::{ConfigFiles, ConfigSource};
use places::{Names, WatchedPlaces};

/// Nobody may have touched a file for so long: editors rename, write and remove in a row.
const QUIET: Duration = Duration::from_millis(100);

/// Somebody who touches files all the time does not put it off for longer.
const QUIET_MAX: Duration = Duration::from_millis(600);

/// Between looks at what inotify cannot tell.
const LOOK: Duration = Duration::from_secs(10);

/// Likewise where there is no inotify.
const LOOK_ALONE: Duration = Duration::from_millis(400);

/// A writer that has done nothing for so long has died, or was none: a link whose other
/// name is gone looks like a file that was just made.
const WRITER: Duration = Duration::from_secs(10);

/// Between a panic and the next look.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// See the module's documentation. Dropped, nobody looks any more.
#[derive(Debug)]
pub(super) struct FileWatch {
    shared: Arc<Signalled>,
}

#[derive(Debug)]
struct Signalled {
    stop: AtomicBool,
    bell: EventFd,
}

impl FileWatch {
    /// Begins. It looks at once: files may have changed since they were read.
    pub(super) fn start(
        (source, beside): (Arc<dyn ConfigSource>, Arc<BesideFiles>),
        teller: Teller,
        log: &Log,
    ) -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let shared = Arc::new(Signalled {
            stop: AtomicBool::new(false),
            bell: EventFd::from_value_and_flags(0, flags)?,
        });
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK);
        if let Err(error) = &inotify {
            log.notice(Notice::WatchPolls {
                error: (*error).into(),
            });
        }
        let watcher = Watcher {
            shared: shared.clone(),
            source,
            beside,
            teller,
            inotify: inotify.ok(),
            watched: BTreeMap::new(),
            names: BTreeSet::new(),
            writing: BTreeMap::new(),
            due: Some(Due::at_once()),
            told: None,
            seen: None,
        };
        let log = log.clone();
        std::thread::Builder::new()
            .name("watch".into())
            .spawn(move || {
                signals::block_here();
                watcher.run(&log);
            })?;
        Ok(Self { shared })
    }

    /// It was read again: the files may be others.
    pub(super) fn again(&self) {
        let _ = self.shared.bell.write(1);
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Not waited for: it may wait for a file system that does not answer.
        self.again();
    }
}

/// A look that is to come because something happened.
#[derive(Debug, Clone, Copy)]
struct Due {
    first: Instant,
    last: Instant,
}

impl Due {
    fn at_once() -> Self {
        let now = Instant::now();
        let long_ago = now.checked_sub(QUIET_MAX).unwrap_or(now);
        Self {
            first: long_ago,
            last: long_ago,
        }
    }

    fn at(self) -> Instant {
        (self.last + QUIET).min(self.first + QUIET_MAX)
    }
}

/// What the thread has.
struct Watcher {
    shared: Arc<Signalled>,
    source: Arc<dyn ConfigSource>,
    beside: Arc<BesideFiles>,
    teller: Teller,
    inotify: Option<Inotify>,
    watched: BTreeMap<WatchDescriptor, (PathBuf, Names)>,
    /// Names of files that there are.
    names: BTreeSet<OsString>,
    /// ConfigFiles that somebody has not closed yet, and when he was last heard of.
    writing: BTreeMap<(WatchDescriptor, OsString), Instant>,
    due: Option<Due>,
    /// What control was told of last.
    told: Option<ConfigFiles>,
    /// What another look without inotify's help is to find again, for nobody says when a
    /// writer is done.
    seen: Option<ConfigFiles>,
}

impl Watcher {
    /// Until it is to stop. After a panic it begins anew.
    fn run(mut self, log: &Log) {
        while log.guard("watch", || self.keep_watch()).is_none() {
            std::thread::sleep(AFTER_PANIC);
            self.due = Some(Due::at_once());
        }
    }

    fn keep_watch(&mut self) {
        let mut places = self.place();
        let mut look = Instant::now() + self.patience();
        loop {
            self.wait(look);
            if self.shared.stop.load(Ordering::Relaxed) {
                return;
            }
            if self.shared.bell.read().is_ok() {
                self.due.get_or_insert_with(Due::at_once);
            }
            self.hear();
            let now = Instant::now();
            let is_due = self.due.is_some_and(|due| due.at() <= now);
            if !is_due && look > now {
                continue;
            }
            // Links may lead elsewhere by now.
            let before = std::mem::replace(&mut places, self.place());
            if before != places {
                self.hear();
            }
            self.writing.retain(|_, last| last.elapsed() < WRITER);
            if !self.is_being_written() {
                if is_due {
                    self.due = None;
                }
                self.look(is_due);
            } else if is_due {
                // Its end will be heard.
                self.due = None;
            }
            let again = if self.seen.is_some() {
                LOOK_ALONE
            } else {
                self.patience()
            };
            look = Instant::now() + again;
        }
    }

    /// Whether somebody has a file of the configuration in hand. What editors keep beside
    /// one is none.
    fn is_being_written(&self) -> bool {
        self.writing
            .keys()
            .any(|(_, name)| self.names.contains(name))
    }

    fn patience(&self) -> Duration {
        if self.inotify.is_some() {
            LOOK
        } else {
            LOOK_ALONE
        }
    }

    /// Until something happens, or something is due.
    fn wait(&self, look: Instant) {
        let until = self.due.map_or(look, |due| due.at().min(look));
        let left = until.saturating_duration_since(Instant::now());
        let left = left.max(Duration::from_millis(1));
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        let mut fds = vec![PollFd::new(self.shared.bell.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            self.inotify
                .iter()
                .map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN)),
        );
        // An interrupted or failed poll is looked at again.
        let _ = poll(&mut fds, timeout);
    }

    /// Tells control if files are others than those that were read.
    fn look(&mut self, heard: bool) {
        let files = self.files();
        let mut were_read = self.source.was_read();
        were_read.append(&mut self.beside.were_read());
        if files == were_read {
            self.seen = None;
            return;
        }
        if self.told.as_ref() == Some(&files) {
            return;
        }
        if !heard && self.seen.as_ref() != Some(&files) {
            self.seen = Some(files);
            return;
        }
        self.seen = None;
        self.told = Some(files);
        self.teller.tell(Told::Changed);
    }

    /// All files with their stamps of now.
    fn files(&self) -> ConfigFiles {
        let mut files = self.source.files();
        files.append(&mut self.beside.now());
        files
    }

    /// Watches where the files are now.
    fn place(&mut self) -> WatchedPlaces {
        let files: Vec<_> = self.files().into_keys().collect();
        self.names = files
            .iter()
            .filter_map(|it| it.file_name())
            .map(OsStr::to_owned)
            .collect();
        let places = WatchedPlaces::of(&files, &self.source.folders());
        let Some(inotify) = &self.inotify else {
            return places;
        };
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_ONLYDIR
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_DELETE_SELF;
        let mut watched = BTreeMap::new();
        for (folder, names) in &places.0 {
            // What cannot be watched is looked at now and then.
            if let Ok(descriptor) = inotify.add_watch(folder, flags) {
                watched.insert(descriptor, (folder.clone(), names.clone()));
            }
        }
        for (descriptor, _) in std::mem::take(&mut self.watched) {
            if !watched.contains_key(&descriptor) {
                let _ = inotify.rm_watch(descriptor);
                self.writing.retain(|(of, _), _| *of != descriptor);
            }
        }
        self.watched = watched;
        places
    }

    /// What inotify has to say.
    fn hear(&mut self) {
        loop {
            let events = self.inotify.as_ref().map(Inotify::read_events);
            let Some(Ok(events)) = events else {
                return;
            };
            for event in &events {
                self.heard(event);
            }
        }
    }

    fn heard(&mut self, event: &InotifyEvent) {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            self.writing.clear();
            self.touch();
            return;
        }
        let Some((folder, names)) = self.watched.get(&event.wd) else {
            return;
        };
        let Some(name) = &event.name else {
            // The folder itself went.
            self.touch();
            return;
        };
        if !names.has(name) {
            return;
        }
        let key = (event.wd, name.clone());
        let made = event.mask.contains(AddWatchFlags::IN_CREATE) && is_new(&folder.join(name));
        if made || event.mask.contains(AddWatchFlags::IN_MODIFY) {
            self.writing.insert(key, Instant::now());
            return;
        }
        self.writing.remove(&key);
        self.touch();
    }

    fn touch(&mut self) {
        let now = Instant::now();
        let due = self.due.get_or_insert(Due {
            first: now,
            last: now,
        });
        due.last = now;
    }
}

/// Whether it is a file that whoever made it has yet to write: no link to another one.
fn is_new(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|it| it.is_file() && it.nlink() == 1)
}
