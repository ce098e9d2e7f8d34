//! Sockets that a service manager passed at the start: sd_listen_fds(3).
//!
//! `LISTEN_PID` says for whom they are, `LISTEN_FDS` how many from descriptor 3 on,
//! `LISTEN_FDNAMES` what each is called. The variables stay as they are: whatever this
//! process starts has another number, and the descriptors are closed when it does.

#![allow(unsafe_code)]

use std::env;
use std::fmt::Write as _;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::{Inherited, InheritedError, Label, Origin};

/// The first one: 0 to 2 are the standard streams.
const FIRST: RawFd = 3;

/// What one of ours is called while the service manager keeps it begins so.
const KEPT: &str = "thalweg.";

/// The longest name that systemd gives a descriptor.
const NAME_MAX: usize = 255;

/// What the environment says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    pid: String,
    count: String,
    names: Option<String>,
}

impl Inherited {
    /// Takes those that were passed to this process: none the second time. Its start calls
    /// this, before any other descriptor is opened.
    pub fn passed() -> Result<Self, InheritedError> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        let of = |name| env::var(name).ok();
        let (Some(pid), Some(count)) = (of("LISTEN_PID"), of("LISTEN_FDS")) else {
            return Ok(Self::default());
        };
        if TAKEN.swap(true, Ordering::SeqCst) {
            return Ok(Self::default());
        }
        let said = Said {
            pid,
            count,
            names: of("LISTEN_FDNAMES"),
        };
        let mut inherited = Self::default();
        let mut errors = Vec::new();
        for (fd, name) in said.descriptors(std::process::id())? {
            let which = format!("descriptor {fd} ({})", name.escape_debug());
            if !is_open(fd) {
                let problem = "it is not open".to_owned();
                errors.push(InheritedError { which, problem });
                continue;
            }
            // SAFETY: it is open, nobody else in this process knows of it (the environment is
            // read once, before anything else is opened), and it is owned from here on.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            set_close_on_exec(&fd);
            let Some(fd) = inherited.add_survivor(fd, &name) else {
                continue;
            };
            let added = inherited.add(fd, origin(&name), which);
            errors.extend(added.err());
        }
        match errors.into_iter().next() {
            Some(error) => Err(error),
            None => Ok(inherited),
        }
    }
}

impl Said {
    /// Numbers and names; none if they are for another process.
    fn descriptors(&self, own: u32) -> Result<Vec<(RawFd, String)>, InheritedError> {
        let wrong = |which: &str, value: &str, problem: &str| InheritedError {
            which: format!("{which}={}", value.escape_debug()),
            problem: problem.to_owned(),
        };
        let Ok(pid) = self.pid.parse::<u32>() else {
            return Err(wrong(
                "LISTEN_PID",
                &self.pid,
                "it is not the number of a process",
            ));
        };
        if pid != own {
            return Ok(Vec::new());
        }
        let most = RawFd::MAX - FIRST;
        let count = self
            .count
            .parse::<RawFd>()
            .ok()
            .filter(|it| (0..=most).contains(it));
        let Some(count) = count else {
            return Err(wrong(
                "LISTEN_FDS",
                &self.count,
                "it is not a number of descriptors",
            ));
        };
        let names: Vec<&str> = match &self.names {
            Some(names) => names.split(':').collect(),
            None => Vec::new(),
        };
        if self.names.is_some() && names.len() != count as usize {
            let problem = "it does not have as many names as LISTEN_FDS says";
            return Err(wrong("LISTEN_FDNAMES", &names.join(":"), problem));
        }
        let name = |nth: RawFd| {
            names
                .get(nth as usize)
                .copied()
                .unwrap_or("unknown")
                .to_owned()
        };
        Ok((0..count).map(|nth| (FIRST + nth, name(nth))).collect())
    }
}

/// It is nobody's whom this process starts. Of one that is open this cannot fail.
fn set_close_on_exec(fd: &OwnedFd) {
    let flags = FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC);
    let _ = fcntl(fd, flags);
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD reads a flag of whatever descriptor has this number, or says EBADF.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

/// By its name: one of ours that was kept, or one of a socket unit.
fn origin(name: &str) -> Origin {
    match Label::of_kept(name) {
        Some(label) => Origin::Kept(label),
        None => Origin::Passed {
            name: name.to_owned(),
        },
    }
}

impl Label {
    /// What a service manager is told that it is called (`FDNAME=`): ASCII, at most 255
    /// characters, without a colon. `None`: there is no room for it.
    pub fn kept_as(&self) -> Option<String> {
        let mut name = KEPT.to_owned();
        escape(&self.address, &mut name);
        name.push(',');
        escape(&self.forward, &mut name);
        (name.len() <= NAME_MAX).then_some(name)
    }

    fn of_kept(name: &str) -> Option<Self> {
        let (address, forward) = name.strip_prefix(KEPT)?.split_once(',')?;
        Some(Self {
            address: unescape(address)?,
            forward: unescape(forward)?,
        })
    }
}

fn escape(text: &str, to: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-/[]@".contains(&byte) {
            to.push(char::from(byte));
        } else {
            let _ = write!(to, "%{byte:02x}");
        }
    }
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let (code, after) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn said(pid: &str, count: &str, names: Option<&str>) -> Said {
        Said {
            pid: pid.to_owned(),
            count: count.to_owned(),
            names: names.map(str::to_owned),
        }
    }

    #[test]
    fn names_belong_to_descriptors_and_another_process_s_are_ignored() {
        let found = said("7", "2", Some("web:web")).descriptors(7).unwrap();
        assert_eq!(found, [(3, "web".to_owned()), (4, "web".to_owned())]);
        let found = said("7", "1", None).descriptors(7).unwrap();
        assert_eq!(found, [(3, "unknown".to_owned())]);
        assert_eq!(said("8", "x", None).descriptors(7).unwrap(), []);
        assert_eq!(said("7", "0", None).descriptors(7).unwrap(), []);
    }

    #[test]
    fn nonsense_is_told_by_its_variable() {
        for (said, variable) in [
            (said("me", "1", None), "LISTEN_PID=me"),
            (said("7", "-1", None), "LISTEN_FDS=-1"),
            (said("7", "2147483647", None), "LISTEN_FDS=2147483647"),
            (said("7", "2", Some("a")), "LISTEN_FDNAMES=a"),
        ] {
            let error = said.descriptors(7).unwrap_err().to_string();
            assert!(error.starts_with(variable), "{error}");
        }
    }

    #[test]
    fn a_kept_socket_is_found_by_its_name() {
        for (address, forward) in [
            ("127.0.0.1:0", "a b,%c"),
            ("unix:/run/\\xff.sock", ""),
            ("[::1]:80", "ü"),
        ] {
            let label = Label {
                address: address.to_owned(),
                forward: forward.to_owned(),
            };
            let name = label.kept_as().unwrap();
            assert!(
                name.bytes().all(|b| b.is_ascii_graphic() && b != b':'),
                "{name}"
            );
            assert_eq!(origin(&name), Origin::Kept(label));
        }
        let long = Label {
            address: "unix:/".to_owned() + &"a".repeat(300),
            forward: String::new(),
        };
        assert_eq!(long.kept_as(), None);
        assert!(matches!(origin("web"), Origin::Passed { .. }));
        assert!(matches!(origin("thalweg.socket"), Origin::Passed { .. }));
    }
}
