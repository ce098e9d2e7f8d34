//! How long single bytes wait for bulk that is ready at the same moment.
//!
//! ```text
//!  connect, as much bulk already ─► subject stopped ─► bulk written ─► bytes written ─► subject goes on
//!                                                                                        │
//!  share of the bulk at the origin when each byte comes there ◄── MARK answers ──────────┘
//! ```
//! The subject stands still (`SIGSTOP`) while its sockets become ready, the bulk before the
//! bytes, so that its first turn after the pause sees all of them. Who serves what is
//! ready in order, and each to its end, lets a byte wait for all of the bulk; who bounds a
//! flow's share of a turn lets it wait for one share of each.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::Pid;

use super::result::{BurstSample, Sample};
use crate::bench::interrupt::Interrupt;
use crate::bench::load::histogram;
use crate::bench::load::shape::Burst;
use crate::bench::origin::Origin;
use crate::bench::subjects::running::Running;
use crate::bench::{pattern, process};

/// Bursts in each round.
const BURSTS: u32 = 5;

/// Every wait ends.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What was written has come as far as it gets without the subject.
const SETTLE: Duration = Duration::from_millis(20);

/// Some bursts through one subject. `direct` has nobody who could stand still: nothing
/// is measured there, and every figure is `NaN`.
pub(super) fn measure(
    subject: &Running,
    burst: Burst,
    round: usize,
    origin: &Origin,
    interrupt: &Interrupt,
) -> Result<Sample, String> {
    let mut sum: Option<BurstSample> = None;
    if let Some(root) = subject.process() {
        for _ in 0..BURSTS {
            if interrupt.is_raised() {
                return Err("interrupted".to_owned());
            }
            let one = once(subject, root, burst, origin).map_err(|error| error.to_string())?;
            sum = Some(sum.map_or(one, |sum| BurstSample {
                median: sum.median + one.median,
                last: sum.last + one.last,
                seconds: sum.seconds + one.seconds,
            }));
        }
    }
    let each = |value: f64| value / f64::from(BURSTS);
    let mean = sum.map(|sum| BurstSample {
        median: each(sum.median),
        last: each(sum.last),
        seconds: each(sum.seconds),
    });
    let moved = mean.map_or(0.0, |it| (burst.bulk * burst.size) as f64 / it.seconds);
    Ok(Sample {
        round,
        seconds: mean.map_or(0.0, |it| it.seconds),
        up: moved,
        down: 0.0,
        exchanges: 0.0,
        unanswered: 0,
        forwarder_cpu: 0.0,
        generator_cpu: 0.0,
        origin_cpu: 0.0,
        foreign_cpu: 0.0,
        switches: 0.0,
        checked: 0,
        latency: histogram(),
        quiet: None,
        burst: mean,
        datagrams: None,
    })
}

fn once(subject: &Running, root: i32, burst: Burst, origin: &Origin) -> io::Result<BurstSample> {
    let mut bulk = (0..burst.bulk)
        .map(|_| bulk_flow(subject, burst.size))
        .collect::<io::Result<Vec<_>>>()?;
    let mut marks = (0..burst.marks)
        .map(|_| mark_flow(subject))
        .collect::<io::Result<Vec<_>>>()?;
    let total = (burst.bulk * burst.size) as u64;
    // Windows have opened by then, and whoever treats bulk in a way of its own does.
    let before = origin.counters().received.load(Relaxed);
    write_all_of(&bulk, burst.size)?;
    wait_until_received(origin, before + total)?;

    let before = before + total;
    let stopped = Stopped::stop(root)?;
    for flow in &mut bulk {
        write_at_once(flow, burst.size)?;
    }
    for mark in &mut marks {
        mark.get_mut().write_all(b".")?;
    }
    std::thread::sleep(SETTLE);
    let begin = Instant::now();
    drop(stopped);

    let mut shares = Vec::with_capacity(marks.len());
    for mark in &mut marks {
        // The bytes that came before this one are not bulk; there are a handful.
        let moved = number(mark)?.saturating_sub(before).min(total);
        shares.push(moved as f64 / total as f64);
    }
    wait_until_received(origin, before + total + burst.marks as u64)?;
    let seconds = begin.elapsed().as_secs_f64();
    shares.sort_unstable_by(f64::total_cmp);
    Ok(BurstSample {
        median: shares[shares.len() / 2],
        last: shares[shares.len() - 1],
        seconds,
    })
}

/// A subject that stands still until this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn stop(root: i32) -> io::Result<Self> {
        let group = Pid::from_raw(root);
        killpg(group, Signal::SIGSTOP)?;
        let stopped = Self(group);
        let deadline = Instant::now() + TIMEOUT;
        while !process::is_stopped(root) {
            if Instant::now() >= deadline {
                return Err(io::Error::other("the subject does not stop"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(stopped)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // It fails only when the group has ended, which shows in what follows.
        let _ = killpg(self.0, Signal::SIGCONT);
    }
}

/// A flow whose bytes will be swallowed, with room for all of them in its own buffer.
fn bulk_flow(subject: &Running, size: usize) -> io::Result<TcpStream> {
    let flow = connect(subject)?;
    // The kernel counts what it needs around the bytes, too.
    let room = size * 2;
    setsockopt(&flow, sockopt::SndBufForce, &room)
        .or_else(|_| setsockopt(&flow, sockopt::SndBuf, &room))?;
    let mut answers = BufReader::new(&flow);
    (&flow).write_all(b"INFO\n")?;
    let mut line = String::new();
    answers.read_line(&mut line)?;
    if !line.starts_with("INFO") {
        return Err(io::Error::other(format!(
            "the origin says `{}`",
            line.trim()
        )));
    }
    // Where the marks are answered, so that none is answered before bulk is counted that
    // came before it.
    (&flow).write_all(b"SINK prompt\n")?;
    Ok(flow)
}

/// A flow each byte of which will be answered by what the origin had received by then.
fn mark_flow(subject: &Running) -> io::Result<BufReader<TcpStream>> {
    let mut flow = BufReader::new(connect(subject)?);
    flow.get_mut().write_all(b"MARK\n.")?;
    number(&mut flow)?;
    Ok(flow)
}

fn connect(subject: &Running) -> io::Result<TcpStream> {
    let flow = TcpStream::connect_timeout(&subject.address, TIMEOUT)?;
    subject.preface.say(&flow)?;
    flow.set_nodelay(true)?;
    flow.set_read_timeout(Some(TIMEOUT))?;
    flow.set_write_timeout(Some(TIMEOUT))?;
    Ok(flow)
}

fn number(mark: &mut BufReader<TcpStream>) -> io::Result<u64> {
    let mut line = String::new();
    mark.read_line(&mut line)?;
    let line = line.trim();
    line.parse()
        .map_err(|_| io::Error::other(format!("the origin says `{line}` to a byte")))
}

fn wait_until_received(origin: &Origin, bytes: u64) -> io::Result<()> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let received = origin.counters().received.load(Relaxed);
        if received >= bytes {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(io::Error::other(format!(
                "the last {} bytes did not come to the origin",
                bytes - received
            )));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A piece of each in turn, as fast as the subject takes them.
fn write_all_of(flows: &[TcpStream], size: usize) -> io::Result<()> {
    let mut sent = 0;
    while sent < size {
        let piece = pattern::slice(sent as u64, (size - sent).min(pattern::CHUNK_MAX));
        for mut flow in flows {
            flow.write_all(piece)?;
        }
        sent += piece.len();
    }
    Ok(())
}

/// All of it goes into the socket's buffer: nobody reads at the other end.
fn write_at_once(flow: &mut TcpStream, size: usize) -> io::Result<()> {
    flow.set_nonblocking(true)?;
    let mut sent = 0;
    while sent < size {
        let len = (size - sent).min(pattern::CHUNK_MAX);
        sent += flow
            .write(pattern::slice(sent as u64, len))
            .map_err(|error| {
                io::Error::new(
                    error.kind(),
                    format!("only {sent} of {size} bytes fit into a socket's buffer: {error}"),
                )
            })?;
    }
    Ok(())
}
