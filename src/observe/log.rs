//! The log: notices and session records, written through an outlet.
//!
//! Invariant: nobody who logs ever waits. Entries go through a bounded queue; a
//! full queue, a stopped reader or a full disk costs entries, and those are
//! counted and reported as soon as a line gets through again (behaviour 71).
//! Formatting happens on the outlet's thread, never on a reactor.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use serde::ser::{SerializeMap, Serializer};
use tokio::sync::broadcast;

use crate::config::{LogFormat, LogLevel, LogTarget};
use crate::observe::notice::Notice;
use crate::observe::outlet::{Format, Lost, Order, Outlet, Place, Sink, Target};
use crate::observe::panics;
use crate::observe::record::SessionRecord;
use crate::observe::timestamp::timestamp;

/// Entries that may wait to be written: at 10,000 sessions a second a fifth of
/// a second.
const QUEUE: usize = 2048;

/// An entry of the log.
#[derive(Debug)]
enum Entry {
    Notice(Said),
    /// Notices that are said together, and take one place in the queue.
    Report(Vec<Said>),
    Session(Box<SessionRecord>),
    /// Wakes the thread up.
    Nothing,
}

/// A notice, and when it was said.
#[derive(Debug)]
struct Said {
    at: SystemTime,
    notice: Notice,
    /// How many like it were not said before it.
    suppressed: u64,
}

/// A handle for whoever logs; cheap to clone.
#[derive(Debug, Clone)]
pub struct Log {
    queue: SyncSender<Entry>,
    orders: Sender<Order>,
    dropped: Arc<AtomicU64>,
    settings: Arc<Settings>,
    /// For whoever listens to records.
    told: broadcast::Sender<Arc<str>>,
}

/// What may change while lines are written.
#[derive(Debug)]
struct Settings {
    /// As a place in [`LEVELS`].
    level: AtomicU8,
    is_json: AtomicBool,
}

impl Settings {
    fn set(&self, level: LogLevel, format: LogFormat) {
        self.level.store(place(level), Ordering::Relaxed);
        let is_json = format == LogFormat::Json;
        self.is_json.store(is_json, Ordering::Relaxed);
    }

    fn format(&self) -> LogFormat {
        if self.is_json.load(Ordering::Relaxed) {
            LogFormat::Json
        } else {
            LogFormat::Text
        }
    }
}

/// Records that a listener may be behind.
const RECORDS_BEHIND: usize = 1024;

const LEVELS: [LogLevel; 4] = [
    LogLevel::Error,
    LogLevel::Warn,
    LogLevel::Info,
    LogLevel::Debug,
];

/// A target that is open and not written to yet.
#[derive(Debug)]
pub struct LogSink(Box<Sink>);

impl LogSink {
    /// Opens it; a file that is made gets this mode, less the umask. A pipe without a
    /// reader is waited for.
    pub fn open(target: &LogTarget, mode: u32) -> io::Result<Self> {
        let sink = Sink::open(Target {
            place: match target {
                LogTarget::Stdout => Place::Stdout,
                LogTarget::Stderr => Place::Stderr,
                LogTarget::File(path) => Place::File(path.clone()),
            },
            mode,
            needs_reader: false,
            rotate: None,
            prologue: Vec::new(),
        })?;
        Ok(Self(Box::new(sink)))
    }
}

impl Log {
    /// Starts the writer. Fails if the target file cannot be opened. One that is made is
    /// readable by its owner alone.
    pub fn start(
        level: LogLevel,
        format: LogFormat,
        target: &LogTarget,
    ) -> io::Result<(Self, LogWriter)> {
        Self::start_with_mode(level, format, target, 0o600)
    }

    /// As [`Log::start`]; a file that is made gets this mode, less the umask.
    pub fn start_with_mode(
        level: LogLevel,
        format: LogFormat,
        target: &LogTarget,
        mode: u32,
    ) -> io::Result<(Self, LogWriter)> {
        let LogSink(sink) = LogSink::open(target, mode)?;
        let settings = Arc::new(Settings {
            level: AtomicU8::new(place(level)),
            is_json: AtomicBool::new(format == LogFormat::Json),
        });
        let (queue, entries) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let (told, _) = broadcast::channel(RECORDS_BEHIND);
        let writer = Writer {
            told: told.clone(),
            dropped: dropped.clone(),
            reported: 0,
            telling: 0,
            panics: 0,
            settings: settings.clone(),
            line: Vec::new(),
        };
        let outlet = Outlet::spawn("log", entries, writer, *sink)?;
        let log = Self {
            queue,
            orders: outlet.orders(),
            dropped,
            settings,
            told,
        };
        let writer = LogWriter {
            outlet,
            log: log.clone(),
        };
        Ok((log, writer))
    }

    /// Whether lines of this level are written.
    pub fn enabled(&self, level: LogLevel) -> bool {
        level <= self.level()
    }

    /// The least that is worth a line.
    pub fn level(&self) -> LogLevel {
        let place = self.settings.level.load(Ordering::Relaxed);
        LEVELS
            .get(usize::from(place))
            .copied()
            .unwrap_or(LogLevel::Debug)
    }

    /// Another level from now on, for all who log.
    pub fn set_level(&self, level: LogLevel) {
        self.settings.level.store(place(level), Ordering::Relaxed);
    }

    /// Says something, if its level is enabled.
    pub fn notice(&self, notice: Notice) {
        self.notice_after(0, notice);
    }

    /// Says something that a throttle kept back so many times.
    pub fn notice_after(&self, suppressed: u64, notice: Notice) {
        if self.enabled(notice.level()) {
            self.push(Entry::Notice(Said {
                at: SystemTime::now(),
                notice,
                suppressed,
            }));
        }
    }

    /// Does something for the thread of this name; `None`: it panicked, which is counted
    /// and told. See [`panics::caught`].
    pub fn guard<T>(&self, thread: &'static str, work: impl FnOnce() -> T) -> Option<T> {
        let done = panics::caught(thread, work);
        if done.is_none() {
            self.panicked(thread, panics::count());
        }
        done
    }

    /// A thread beside the reactors panicked and goes on. So many are told one by one; of
    /// more, every one that doubles their number.
    pub fn panicked(&self, thread: &'static str, panics: u64) {
        const TOLD: u64 = 16;
        if panics <= TOLD || panics.is_power_of_two() {
            self.notice(Notice::HelperPanicked { thread, panics });
        }
    }

    /// Says many things at once. However many there are, they take one place in the
    /// queue: a report of thousands of servers costs no session its record.
    pub fn report(&self, notices: impl IntoIterator<Item = Notice>) {
        let at = SystemTime::now();
        let notices = notices.into_iter();
        let enabled = notices.filter(|notice| self.enabled(notice.level()));
        let said = enabled.map(|notice| Said {
            at,
            notice,
            suppressed: 0,
        });
        let said: Vec<Said> = said.collect();
        if !said.is_empty() {
            self.push(Entry::Report(said));
        }
    }

    /// Logs the record of a session.
    pub fn session(&self, record: SessionRecord) {
        self.push(Entry::Session(Box::new(record)));
    }

    /// The records that are written from now on, each as JSON. A listener that falls behind
    /// misses some, and is told how many; nobody waits for it.
    pub fn records(&self) -> broadcast::Receiver<Arc<str>> {
        self.told.subscribe()
    }

    /// Entries lost so far, because the queue was full or the target failed.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Writes what was queued so far, then goes on in the file that has the target's name
    /// now: after it was renamed, in a new one. Any other target stays what it is. Waits
    /// for `patience` at the most, so it is nothing for a reactor.
    ///
    /// Fails where the file cannot be opened (the old one goes on), and where the target
    /// takes nothing for so long.
    pub fn reopen(&self, patience: Duration) -> io::Result<()> {
        let (order, answer) = Order::reopen();
        self.order(order);
        let late = |_| Err(io::ErrorKind::TimedOut.into());
        answer.recv_timeout(patience).unwrap_or_else(late)
    }

    /// Other lines from now on, and behind what was queued until now to another target.
    pub fn change(&self, level: LogLevel, format: LogFormat, to: Option<LogSink>) {
        self.settings.set(level, format);
        if let Some(LogSink(sink)) = to {
            self.order(Order::Replace(sink));
        }
    }

    fn order(&self, order: Order) {
        // A thread that has ended needs no orders. One that sleeps is woken; if the
        // queue is full it does not sleep.
        let _ = self.orders.send(order);
        let _ = self.queue.try_send(Entry::Nothing);
    }

    fn push(&self, entry: Entry) {
        let lines = match &entry {
            Entry::Report(notices) => notices.len() as u64,
            Entry::Notice(_) | Entry::Session(_) => 1,
            Entry::Nothing => 0,
        };
        if self.queue.try_send(entry).is_err() {
            self.dropped.fetch_add(lines, Ordering::Relaxed);
        }
    }
}

fn place(level: LogLevel) -> u8 {
    let place = LEVELS.iter().position(|it| *it == level);
    place.unwrap_or(LEVELS.len()) as u8
}

/// The writer's thread, for whoever ends it.
#[derive(Debug)]
pub struct LogWriter {
    outlet: Outlet,
    log: Log,
}

impl LogWriter {
    /// Waits until what was queued is written, but no longer than `patience`: a
    /// target that blocks must not keep the process from ending.
    pub fn finish(self, patience: Duration) {
        self.log.order(Order::Close);
        self.outlet.ends_by(Instant::now() + patience);
    }
}

/// What runs on the log's thread.
struct Writer {
    told: broadcast::Sender<Arc<str>>,
    dropped: Arc<AtomicU64>,
    /// Of these, as many as were told of.
    reported: u64,
    /// … and will be, if what is about to be written is.
    telling: u64,
    /// Panics of this thread that are not told of yet.
    panics: u64,
    settings: Arc<Settings>,
    line: Vec<u8>,
}

impl Format for Writer {
    type Item = Entry;

    fn item(&mut self, entry: Entry, sink: &mut Sink) {
        match entry {
            Entry::Notice(said) => self.said(&said, 1, sink),
            Entry::Report(notices) => notices.iter().for_each(|it| self.said(it, 1, sink)),
            Entry::Session(record) => {
                if self.told.receiver_count() > 0 && record.ending.is_some() {
                    // A listener may have gone meanwhile.
                    let _ = self.told.send(record.to_json().into());
                }
                self.line.clear();
                // Writing to a Vec cannot fail.
                let _ = match self.settings.format() {
                    LogFormat::Text => {
                        writeln!(self.line, "{} INFO {record}", timestamp(record.at))
                    }
                    LogFormat::Json => writeln!(self.line, "{}", record.to_json()),
                };
                sink.put(&self.line, 1);
            }
            Entry::Nothing => {}
        }
    }

    /// The entry is lost, and that is told as if there had been no room for it.
    fn panicked(&mut self) {
        self.panics += 1;
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    fn before_write(&mut self, sink: &mut Sink) {
        if std::mem::take(&mut self.panics) > 0 {
            let notice = Notice::HelperPanicked {
                thread: "log",
                panics: panics::count(),
            };
            let at = SystemTime::now();
            let said = Said {
                at,
                notice,
                suppressed: 0,
            };
            self.said(&said, 0, sink);
        }
        let dropped = self.dropped.load(Ordering::Relaxed);
        self.telling = dropped;
        if dropped > self.reported {
            let said = Said {
                at: SystemTime::now(),
                notice: Notice::LogLost {
                    lost: dropped - self.reported,
                    total: dropped,
                },
                suppressed: 0,
            };
            // It is said again where it is lost, and counts for nothing.
            self.said(&said, 0, sink);
        }
    }

    fn after_write(&mut self, whole: bool, lost: Lost, _: &mut Sink) {
        if whole {
            self.reported = self.telling;
        }
        self.dropped.fetch_add(lost.weight, Ordering::Relaxed);
    }
}

impl Writer {
    fn said(&mut self, said: &Said, weight: u64, sink: &mut Sink) {
        self.line.clear();
        match self.settings.format() {
            LogFormat::Text => said.text(&mut self.line),
            LogFormat::Json => said.json(&mut self.line),
        }
        sink.put(&self.line, weight);
    }
}

impl Said {
    fn text(&self, out: &mut Vec<u8>) {
        let mut text = self.notice.to_string();
        for (_, field) in self.notice.fields() {
            field.text(&mut text);
        }
        let level = match self.notice.level() {
            LogLevel::Error => "ERROR",
            LogLevel::Warn => "WARN",
            LogLevel::Info => "INFO",
            LogLevel::Debug => "DEBUG",
        };
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{} {level} {}", timestamp(self.at), one_line(&text));
        let _ = match self.suppressed {
            0 => writeln!(out),
            more => writeln!(out, " ({more} more since it was said last)"),
        };
    }

    /// Names that every line has, then those of the notice, then the sentence.
    fn json(&self, out: &mut Vec<u8>) {
        let mut json = serde_json::Serializer::new(&mut *out);
        // Strings, numbers and lists of them always serialise, and a Vec takes all.
        if let Ok(mut object) = json.serialize_map(None) {
            let _ = object.serialize_entry("time", &timestamp(self.at));
            let _ = object.serialize_entry("kind", self.notice.kind().name());
            let level = match self.notice.level() {
                LogLevel::Error => "error",
                LogLevel::Warn => "warn",
                LogLevel::Info => "info",
                LogLevel::Debug => "debug",
            };
            let _ = object.serialize_entry("level", level);
            for (name, field) in self.notice.fields() {
                field.json(name, &mut |name, value| {
                    let _ = object.serialize_entry(name, &value);
                });
            }
            if self.suppressed > 0 {
                let _ = object.serialize_entry("suppressed", &self.suppressed);
            }
            let _ = object.serialize_entry("message", &self.notice.to_string());
            let _ = object.end();
        }
        out.push(b'\n');
    }
}

/// Control bytes escaped: whatever a name or an error text holds, it stays on
/// one line and cannot move a terminal's cursor.
fn one_line(text: &str) -> String {
    text.chars()
        .fold(String::with_capacity(text.len()), |mut line, c| {
            if c.is_control() {
                line.extend(c.escape_default());
            } else {
                line.push(c);
            }
            line
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b72_control_bytes_cannot_forge_a_line() {
        assert_eq!(one_line("a\r\nb\x1b[2Jc"), "a\\r\\nb\\u{1b}[2Jc");
    }

    #[test]
    fn b71_a_target_that_fails_costs_entries_and_they_are_counted() {
        let target = LogTarget::File("/dev/full".into());
        let (log, writer) = Log::start(LogLevel::Debug, LogFormat::Text, &target).unwrap();
        for n in 0..10 {
            log.notice(Notice::NameUnchanged {
                name: n.to_string(),
            });
        }
        writer.finish(Duration::from_secs(5));
        assert_eq!(log.dropped(), 10);
    }

    fn directory(name: &str) -> std::path::PathBuf {
        let name = format!("thalweg-log-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn say(log: &Log, name: &str) {
        log.notice(Notice::NameUnchanged { name: name.into() });
    }

    #[test]
    fn lines_go_to_a_new_file_once_the_old_one_was_renamed_and_the_log_reopened() {
        let directory = directory("reopen");
        let path = directory.join("log");
        let target = LogTarget::File(path.clone());
        let (log, writer) = Log::start(LogLevel::Debug, LogFormat::Text, &target).unwrap();
        let patience = Duration::from_secs(30);
        // The second round finds the thread asleep, the others find it awake.
        for (round, pause) in [("0", 0), ("1", 700), ("2", 0)] {
            say(&log, round);
            std::thread::sleep(Duration::from_millis(pause));
            std::fs::rename(&path, directory.join(round)).unwrap();
            // To the old one, for it was queued before.
            say(&log, "late");
            log.reopen(patience).unwrap();
        }
        // Nothing was renamed.
        say(&log, "last");
        log.reopen(patience).unwrap();
        writer.finish(patience);
        let words = |name: &str| {
            let text = std::fs::read_to_string(directory.join(name)).unwrap();
            let word = |line: &str| line.split(' ').nth(3).unwrap().to_owned();
            text.lines().map(word).collect::<Vec<_>>()
        };
        assert_eq!(words("0"), ["0:", "late:"]);
        assert_eq!(words("1"), ["1:", "late:"]);
        assert_eq!(words("2"), ["2:", "late:"]);
        assert_eq!(words("log"), ["last:"]);
        assert_eq!(log.dropped(), 0);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_reopening_that_fails_says_so_and_the_old_file_goes_on() {
        let directory = directory("gone");
        let path = directory.join("log");
        let target = LogTarget::File(path.clone());
        let (log, writer) = Log::start(LogLevel::Debug, LogFormat::Text, &target).unwrap();
        let kept = directory.with_extension("kept");
        std::fs::rename(&path, &kept).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let error = log.reopen(Duration::from_secs(30)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        say(&log, "on");
        writer.finish(Duration::from_secs(30));
        assert_eq!(std::fs::read_to_string(&kept).unwrap().lines().count(), 1);
        std::fs::remove_file(kept).unwrap();
    }

    #[test]
    fn a_report_of_more_lines_than_the_queue_has_room_for_costs_nothing() {
        let directory = directory("report");
        let path = directory.join("log");
        let target = LogTarget::File(path.clone());
        let (log, writer) = Log::start(LogLevel::Debug, LogFormat::Json, &target).unwrap();
        let lines = QUEUE * 3;
        log.report((0..lines).map(|n| Notice::NameUnchanged {
            name: n.to_string(),
        }));
        writer.finish(Duration::from_secs(60));
        assert_eq!(log.dropped(), 0);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), lines);
        let last: serde_json::Value =
            serde_json::from_str(text.lines().next_back().unwrap()).unwrap();
        assert_eq!(last["kind"], "name_unchanged");
        assert_eq!(last["level"], "debug");
        assert_eq!(last["name"], (lines - 1).to_string());
        assert_eq!(last["message"], format!("name {}: the same", lines - 1));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_was_kept_back_is_told_in_text_and_in_json() {
        let said = Said {
            at: SystemTime::UNIX_EPOCH,
            notice: Notice::NoServer {
                forward: "a\r\nb".into(),
            },
            suppressed: 7,
        };
        let (mut text, mut json) = (Vec::new(), Vec::new());
        said.text(&mut text);
        said.json(&mut json);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "1970-01-01T00:00:00.000Z WARN forward a\\r\\nb: no server is up \
             (7 more since it was said last)\n"
        );
        assert_eq!(
            String::from_utf8(json).unwrap(),
            concat!(
                r#"{"time":"1970-01-01T00:00:00.000Z","kind":"no_server","level":"warn","#,
                r#""forward":"a\r\nb","suppressed":7,"message":"forward a\r\nb: no server is up"}"#,
                "\n"
            )
        );
    }
}
