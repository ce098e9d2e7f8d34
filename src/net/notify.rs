//! Telling a service manager how things are: sd_notify(3), one datagram for each message.
//!
//! A manager that does not read, or is not there, holds up nobody: a message that does not
//! get through within `PATIENCE` is lost, and from then on none is waited for.

use std::env;
use std::ffi::OsString;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, socket,
};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::pipe2;

/// How long a message may take, once.
const PATIENCE: Duration = Duration::from_millis(100);

/// Descriptors that one message carries (`SCM_MAX_FD`).
const DESCRIPTORS_MAX: usize = 253;

/// The way to a service manager.
#[derive(Debug)]
pub struct Notify {
    address: UnixAddr,
    /// It has kept somebody waiting.
    is_slow: AtomicBool,
}

/// What the environment says of a service manager.
#[derive(Debug, Default)]
pub struct ServiceEnvironment {
    /// Where it listens (`NOTIFY_SOCKET`).
    pub notify: Option<Notify>,
    /// How often it wants a sign of life (`WATCHDOG_USEC`), if from this process.
    pub watchdog: Option<Duration>,
    /// Descriptors that it keeps for this service (`FDSTORE`).
    pub keeps: usize,
    /// What of it makes no sense, for the log.
    pub complaint: Option<String>,
}

impl ServiceEnvironment {
    /// Of this process.
    pub fn read() -> Self {
        Self::of(|name| env::var_os(name), std::process::id())
    }

    fn of(variable: impl Fn(&str) -> Option<OsString>, own: u32) -> Self {
        let number = |name| -> Option<u64> { variable(name)?.to_str()?.parse().ok() };
        let mut found = Self::default();
        let Some(address) = variable("NOTIFY_SOCKET") else {
            return found;
        };
        match address_of(&address) {
            Ok(address) => {
                found.notify = Some(Notify {
                    address,
                    is_slow: AtomicBool::new(false),
                });
            }
            Err(why) => {
                let address = address.to_string_lossy();
                found.complaint = Some(format!("NOTIFY_SOCKET={}: {why}", address.escape_debug()));
                return found;
            }
        }
        // Without a process it is for whoever has the variable.
        if number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(own)) {
            let every = number("WATCHDOG_USEC").filter(|every| *every > 0);
            found.watchdog = every.map(Duration::from_micros);
        }
        found.keeps = number("FDSTORE").unwrap_or(0) as usize;
        found
    }
}

fn address_of(text: &OsString) -> Result<UnixAddr, String> {
    let failed = |errno: Errno| errno.desc().to_owned();
    match text.as_bytes() {
        [b'/', ..] => UnixAddr::new(text.as_os_str()).map_err(failed),
        [b'@', name @ ..] => UnixAddr::new_abstract(name).map_err(failed),
        _ => Err(
            "only a path and an abstract name (`@name`) are understood; the service \
                  manager is told nothing"
                .to_owned(),
        ),
    }
}

impl Notify {
    /// Sends lines; whether they got through.
    pub fn tell(&self, message: &str) -> bool {
        self.send(message, &[]).is_ok()
    }

    /// Has descriptors kept under a name (`FDSTORE=1`), until they are removed by that name.
    pub fn keep(&self, name: &str, descriptors: &[BorrowedFd<'_>]) -> bool {
        // A listener reports nothing that would mean its end.
        let message = format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0");
        let mut batches = descriptors.chunks(DESCRIPTORS_MAX);
        batches.all(|batch| self.send(&message, batch).is_ok())
    }

    /// Has what is kept under a name forgotten.
    pub fn forget(&self, name: &str) -> bool {
        self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"))
    }

    /// Waits until everything that was told before has been heeded; whether it was, within
    /// that time.
    pub fn barrier(&self, patience: Duration) -> bool {
        let Ok((read, write)) = pipe2(nix::fcntl::OFlag::O_CLOEXEC) else {
            return false;
        };
        if self.send("BARRIER=1", &[write.as_fd()]).is_err() {
            return false;
        }
        drop(write);
        // The manager closes the other end.
        wait(read.as_fd(), PollFlags::empty(), patience)
    }

    fn send(&self, message: &str, descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        // Anew each time: a manager that was itself started anew has another socket there.
        let socket = self.connect()?;
        let raw: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        let text = [IoSlice::new(message.as_bytes())];
        let flags = MsgFlags::MSG_NOSIGNAL;
        let until = Instant::now() + PATIENCE;
        loop {
            let sent = sendmsg::<UnixAddr>(socket.as_raw_fd(), &text, rights, flags, None);
            let left = until.saturating_duration_since(Instant::now());
            match sent {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if !self.is_slow.load(Ordering::Relaxed) => {
                    if left.is_zero() || !wait(socket.as_fd(), PollFlags::POLLOUT, left) {
                        self.is_slow.store(true, Ordering::Relaxed);
                    }
                }
                Err(errno) => return Err(errno),
            }
        }
    }

    fn connect(&self) -> Result<OwnedFd, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        connect(socket.as_raw_fd(), &self.address)?;
        Ok(socket)
    }
}

/// Whether a descriptor is ready, or its other end is closed, within that time.
fn wait(fd: BorrowedFd<'_>, what: PollFlags, patience: Duration) -> bool {
    let until = Instant::now() + patience;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd, what)], timeout) {
            Err(Errno::EINTR) => {}
            other => return other.is_ok_and(|ready| ready > 0),
        }
    }
}

/// What `MONOTONIC_USEC=` counts in.
pub fn monotonic_micros() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    now.map_or(0, |now| now.as_micros() as u64)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    use super::*;

    fn environment(of: &[(&str, &str)]) -> ServiceEnvironment {
        let variable = |name: &str| {
            let mut all = of.iter();
            all.find(|(it, _)| *it == name)
                .map(|(_, value)| value.into())
        };
        ServiceEnvironment::of(variable, 7)
    }

    /// A name that nobody else has.
    fn name(what: &str) -> String {
        format!("thalweg-notify-{what}-{}", std::process::id())
    }

    fn bound(name: &str) -> UnixDatagram {
        let address = SocketAddr::from_abstract_name(name).unwrap();
        UnixDatagram::bind_addr(&address).unwrap()
    }

    #[test]
    fn nothing_is_told_without_an_address_and_a_strange_one_is_complained_of() {
        assert!(environment(&[("WATCHDOG_USEC", "5")]).notify.is_none());
        let strange = environment(&[("NOTIFY_SOCKET", "vsock:2:1")]);
        assert!(strange.notify.is_none());
        assert!(strange.complaint.unwrap().contains("vsock:2:1"));
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let of = |pid: Option<&str>| {
            let mut all = vec![("NOTIFY_SOCKET", "@x"), ("WATCHDOG_USEC", "2000000")];
            all.extend(pid.map(|pid| ("WATCHDOG_PID", pid)));
            environment(&all).watchdog
        };
        assert_eq!(of(None), Some(Duration::from_secs(2)));
        assert_eq!(of(Some("7")), Some(Duration::from_secs(2)));
        assert_eq!(of(Some("8")), None);
    }

    #[test]
    fn messages_arrive_whole_and_a_barrier_waits_for_its_reader() {
        let name = name("whole");
        let manager = bound(&name);
        let notify = environment(&[("NOTIFY_SOCKET", &format!("@{name}"))]).notify;
        let notify = notify.unwrap();
        assert!(notify.tell("READY=1\nSTATUS=fine"));
        let mut bytes = [0; 64];
        let len = manager.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..len], b"READY=1\nSTATUS=fine");
        // Nobody reads this one: its descriptor is in the queue.
        assert!(!notify.barrier(Duration::from_millis(20)));
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 64];
            // Of both: without room for descriptors they are closed.
            for _ in 0..2 {
                manager.recv(&mut bytes).unwrap();
            }
        });
        assert!(notify.barrier(Duration::from_secs(10)));
        reader.join().unwrap();
        // Nobody is there any more.
        assert!(!notify.tell("WATCHDOG=1"));
    }

    #[test]
    fn one_that_does_not_read_is_waited_for_once() {
        let name = name("full");
        let _manager = bound(&name);
        let notify = environment(&[("NOTIFY_SOCKET", &format!("@{name}"))]).notify;
        let notify = notify.unwrap();
        let fill = (0..100_000).find(|_| !notify.tell("WATCHDOG=1"));
        assert!(fill.is_some(), "the queue has no end");
        assert!(notify.is_slow.load(Ordering::Relaxed));
        let begun = Instant::now();
        for _ in 0..1_000 {
            assert!(!notify.tell("WATCHDOG=1"));
        }
        assert!(begun.elapsed() < PATIENCE * 100, "each of them waits");
    }
}
