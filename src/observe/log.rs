//! The log: lines and session records, written by a thread of its own.
//!
//! Invariant: nobody who logs ever waits. Entries go through a bounded queue; a
//! full queue, a stopped reader or a full disk costs entries, and those are
//! counted and reported as soon as a line gets through again (behaviour 71).
//! Formatting happens on the writer's side, never on a reactor.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use serde::ser::{SerializeMap, Serializer};

use crate::config::{LogFormat, LogLevel, LogTarget};
use crate::observe::notice::Notice;
use crate::observe::record::SessionRecord;
use crate::observe::timestamp::timestamp;

/// Entries that may wait to be written: at 10,000 sessions a second a fifth of
/// a second.
const QUEUE: usize = 2048;

/// While entries keep coming the writer sleeps this long between batches
/// instead of being woken for each: a wake-up would cost the reactor more than
/// the entry.
const BATCH: Duration = Duration::from_millis(10);

/// Without an entry for so many batches the writer waits to be woken again.
const BATCHES_IDLE: u32 = 50;

/// An entry of the log.
#[derive(Debug)]
enum Entry {
    Notice(Said),
    /// Notices that are said together, and take one place in the queue.
    Report(Vec<Said>),
    Session(Box<SessionRecord>),
    /// The last entry: write what came before and end.
    Close,
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
    dropped: Arc<AtomicU64>,
    level: LogLevel,
}

impl Log {
    /// Starts the writer. Fails if the target file cannot be opened.
    pub fn start(
        level: LogLevel,
        format: LogFormat,
        target: &LogTarget,
    ) -> io::Result<(Self, LogWriter)> {
        // The descriptors themselves: the standard library's buffer would hide how
        // much of a batch was written.
        let output = match target {
            LogTarget::Stdout => File::from(io::stdout().as_fd().try_clone_to_owned()?),
            LogTarget::Stderr => File::from(io::stderr().as_fd().try_clone_to_owned()?),
            LogTarget::File(path) => OpenOptions::new().create(true).append(true).open(path)?,
        };
        let (queue, entries) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = Writer {
            entries,
            dropped: dropped.clone(),
            output,
            format,
            torn: false,
        };
        let thread = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || writer.run())?;
        Ok((
            Self {
                queue: queue.clone(),
                dropped,
                level,
            },
            LogWriter { thread, queue },
        ))
    }

    /// Whether lines of this level are written.
    pub fn enabled(&self, level: LogLevel) -> bool {
        level <= self.level
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
        self.push(Entry::Report(said.collect()));
    }

    /// Logs the record of a session.
    pub fn session(&self, record: SessionRecord) {
        self.push(Entry::Session(Box::new(record)));
    }

    /// Entries lost so far, because the queue was full or the target failed.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    fn push(&self, entry: Entry) {
        let lines = match &entry {
            Entry::Report(notices) => notices.len() as u64,
            Entry::Notice(_) | Entry::Session(_) => 1,
            Entry::Close => 0,
        };
        if self.queue.try_send(entry).is_err() {
            self.dropped.fetch_add(lines, Ordering::Relaxed);
        }
    }
}

/// The writer's thread, for whoever ends it.
#[derive(Debug)]
pub struct LogWriter {
    thread: JoinHandle<()>,
    queue: SyncSender<Entry>,
}

impl LogWriter {
    /// Waits until what was queued is written, but no longer than `patience`: a
    /// target that blocks must not keep the process from ending.
    pub fn finish(self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut asked = false;
        while !self.thread.is_finished() && Instant::now() < deadline {
            asked = asked || self.queue.try_send(Entry::Close).is_ok();
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

struct Writer {
    entries: Receiver<Entry>,
    dropped: Arc<AtomicU64>,
    output: File,
    format: LogFormat,
    /// The last thing written was a part of a line.
    torn: bool,
}

/// What one round of taking entries found.
#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    entries: u64,
    closed: bool,
}

impl Writer {
    fn run(mut self) {
        let mut reported = 0;
        let mut batch = Batch::default();
        let mut idle = 0;
        while !batch.closed {
            batch.text.clear();
            batch.entries = 0;
            self.take(&mut batch, idle >= BATCHES_IDLE);
            idle = if batch.entries == 0 { idle + 1 } else { 0 };
            let dropped = self.dropped.load(Ordering::Relaxed);
            if dropped > reported {
                let said = Said {
                    at: SystemTime::now(),
                    notice: Notice::LogLost {
                        lost: dropped - reported,
                        total: dropped,
                    },
                    suppressed: 0,
                };
                said.render(self.format, &mut batch.text);
            }
            let lost = self.write(&batch.text);
            if lost == 0 {
                reported = dropped;
            } else {
                // The report of a loss comes last, so it is among what was lost.
                let lost = lost - u64::from(dropped > reported);
                self.dropped.fetch_add(lost, Ordering::Relaxed);
            }
            if !batch.closed && idle < BATCHES_IDLE {
                std::thread::sleep(BATCH);
            }
        }
    }

    /// Writes lines, as many as the target takes, and returns how many are lost. A
    /// line that was cut short is lost too; it is ended before the next one begins.
    fn write(&mut self, lines: &[u8]) -> u64 {
        if self.torn && !lines.is_empty() {
            self.torn = self.write_some(b"\n") == 0;
        }
        let written = if self.torn { 0 } else { self.write_some(lines) };
        if written > 0 {
            self.torn = lines[written - 1] != b'\n';
        }
        lines[written..].split_inclusive(|b| *b == b'\n').count() as u64
    }

    /// Writes until all is written or the target fails; returns how much was.
    fn write_some(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.output.write(&bytes[written..]) {
                Ok(n) if n > 0 => written += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => break,
            }
        }
        written
    }

    /// Takes what waits; only once things are quiet does it block for an entry.
    fn take(&self, batch: &mut Batch, quiet: bool) {
        let mut next = if quiet {
            self.entries.recv().map_err(|_| TryRecvError::Disconnected)
        } else {
            self.entries.try_recv()
        };
        while batch.entries < QUEUE as u64 {
            match next {
                Ok(Entry::Close) | Err(TryRecvError::Disconnected) => {
                    batch.closed = true;
                    return;
                }
                Ok(entry) => {
                    self.render(entry, &mut batch.text);
                    batch.entries += 1;
                }
                Err(TryRecvError::Empty) => return,
            }
            next = self.entries.try_recv();
        }
    }

    fn render(&self, entry: Entry, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        let _ = match (entry, self.format) {
            (Entry::Notice(said), format) => {
                said.render(format, out);
                Ok(())
            }
            (Entry::Report(notices), format) => {
                notices.iter().for_each(|said| said.render(format, out));
                Ok(())
            }
            (Entry::Session(record), LogFormat::Text) => {
                writeln!(out, "{} INFO {record}", timestamp(record.at))
            }
            (Entry::Session(record), LogFormat::Json) => writeln!(out, "{}", record.to_json()),
            (Entry::Close, _) => Ok(()),
        };
    }
}

impl Said {
    fn render(&self, format: LogFormat, out: &mut Vec<u8>) {
        match format {
            LogFormat::Text => self.text(out),
            LogFormat::Json => self.json(out),
        }
    }

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
}
