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
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::config::{LogFormat, LogLevel, LogTarget};
use crate::observe::record::SessionRecord;

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
    Line {
        at: SystemTime,
        level: LogLevel,
        text: String,
    },
    Session(Box<SessionRecord>),
    /// The last entry: write what came before and end.
    Close,
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

    /// Logs a line, if its level is enabled.
    pub fn line(&self, level: LogLevel, text: impl Into<String>) {
        if self.enabled(level) {
            self.push(Entry::Line {
                at: SystemTime::now(),
                level,
                text: text.into(),
            });
        }
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
        if self.queue.try_send(entry).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
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
                let text = format!(
                    "the log lost {} entries ({dropped} in all)",
                    dropped - reported
                );
                self.render(
                    Entry::Line {
                        at: SystemTime::now(),
                        level: LogLevel::Warn,
                        text,
                    },
                    &mut batch.text,
                );
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
            (Entry::Line { at, level, text }, LogFormat::Text) => {
                writeln!(out, "{} {} {}", timestamp(at), name(level), one_line(&text))
            }
            (Entry::Line { at, level, text }, LogFormat::Json) => {
                let line = serde_json::json!({
                    "time": timestamp(at), "kind": "line", "level": name(level).to_lowercase(), "message": text,
                });
                writeln!(out, "{line}")
            }
            (Entry::Session(record), LogFormat::Text) => {
                writeln!(out, "{} INFO {record}", timestamp(record.at))
            }
            (Entry::Session(record), LogFormat::Json) => writeln!(out, "{}", record.to_json()),
            (Entry::Close, _) => Ok(()),
        };
    }
}

const fn name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "ERROR",
        LogLevel::Warn => "WARN",
        LogLevel::Info => "INFO",
        LogLevel::Debug => "DEBUG",
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

/// RFC 3339 in UTC with milliseconds. Days to a date by the civil calendar
/// (Hinnant, "chrono-compatible low-level date algorithms").
pub fn timestamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since.as_secs(), since.subsec_millis());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 {
        month_shifted + 3
    } else {
        month_shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_rfc_3339() {
        let at =
            |seconds: u64, millis: u64| UNIX_EPOCH + Duration::from_millis(seconds * 1000 + millis);
        assert_eq!(timestamp(at(0, 0)), "1970-01-01T00:00:00.000Z");
        assert_eq!(timestamp(at(951_782_399, 999)), "2000-02-28T23:59:59.999Z");
        assert_eq!(timestamp(at(951_782_400, 0)), "2000-02-29T00:00:00.000Z");
        assert_eq!(timestamp(at(1_795_159_454, 1)), "2026-11-20T07:24:14.001Z");
    }

    #[test]
    fn b72_control_bytes_cannot_forge_a_line() {
        assert_eq!(one_line("a\r\nb\x1b[2Jc"), "a\\r\\nb\\u{1b}[2Jc");
    }

    #[test]
    fn b71_a_target_that_fails_costs_entries_and_they_are_counted() {
        let target = LogTarget::File("/dev/full".into());
        let (log, writer) = Log::start(LogLevel::Info, LogFormat::Text, &target).unwrap();
        for n in 0..10 {
            log.line(LogLevel::Info, format!("line {n}"));
        }
        writer.finish(Duration::from_secs(5));
        assert_eq!(log.dropped(), 10);
    }
}
