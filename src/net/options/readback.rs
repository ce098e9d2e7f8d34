//! What the kernel made of the options: at start they are applied to a scratch
//! socket, each is read back, and whatever is not as asked for becomes a
//! [`Shortfall`] that says asked, granted, and what to change.
//!
//! Deliberately not here: refusing to start. A forwarder with one option less is
//! better than none, as long as it says so.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use libc::c_int;
use nix::errno::Errno;
use socket2::{SockAddr, Socket};

use super::leg::{Family, Leg};
use super::plan::{Stage, Step, Value};
use super::table::{OptionKind, OptionName, SocketOptions, row};
use crate::net::dial::make_socket;
use crate::net::limits::sysctl;
use crate::net::sys;

/// An option that is not in force as configured. Displays as one sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortfall {
    /// Which.
    pub option: OptionName,
    /// The value in the configuration.
    pub asked: String,
    /// The value in force.
    pub granted: String,
    /// What to change, or why it cannot be had.
    pub remedy: String,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: asked for {}, granted {}; {}",
            self.option, self.asked, self.granted, self.remedy
        )
    }
}

impl SocketOptions {
    /// What the kernel does not grant on TCP sockets of `leg`. They are IPv4, or
    /// IPv6 where only that can be: no option but `source` tells them apart.
    pub fn granted(&self, leg: Leg) -> Vec<Shortfall> {
        let source = self.source.filter(|_| leg == Leg::Upstream);
        let v6_only = match source {
            Some(source) => source.is_ipv6(),
            None => make_socket(Family::V4, false).is_err(),
        };
        let family = if v6_only { Family::V6 } else { Family::V4 };
        self.granted_on(leg, family)
    }

    /// As [`SocketOptions::granted`], on sockets of one family. Makes one socket,
    /// connects it to nothing, and closes it.
    ///
    /// Empty if the family itself is missing here: listening or connecting will
    /// say that, and better.
    pub fn granted_on(&self, leg: Leg, family: Family) -> Vec<Shortfall> {
        let plan = self.plan(leg);
        let Ok((socket, refusal)) = make_socket(family, plan.mptcp) else {
            return Vec::new();
        };
        let mut shortfalls: Vec<Shortfall> = refusal
            .map(|refusal| mptcp_shortfall(refusal.errno))
            .into_iter()
            .collect();
        let stages = match leg {
            Leg::Client => [Stage::Listener, Stage::Accepted],
            Leg::Upstream => [Stage::BeforeConnect, Stage::AfterConnect],
        };
        // Some options are set in both stages; once is enough to know.
        let mut seen: Vec<(c_int, c_int)> = Vec::new();
        for step in stages.iter().flat_map(|it| plan.steps(*it, family)) {
            if !seen.contains(&(step.level, step.name)) {
                seen.push((step.level, step.name));
                shortfalls.extend(step.shortfall(socket.as_fd(), plan.mptcp));
            }
        }
        if family != Family::Unix {
            shortfalls.extend(self.linger_shortfall());
        }
        match leg {
            Leg::Client => shortfalls.extend(self.listener_shortfalls(family)),
            Leg::Upstream => {
                let source = self.source.filter(|_| family != Family::Unix);
                shortfalls.extend(source.and_then(|it| source_shortfall(&socket, it, family)));
            }
        }
        shortfalls
    }

    /// What `setsockopt` and `listen` take without complaint and the kernel cuts.
    fn listener_shortfalls(&self, family: Family) -> Vec<Shortfall> {
        let mut shortfalls = Vec::new();
        let limit = sysctl("net.core.somaxconn").and_then(|text| text.parse::<u32>().ok());
        if let (Some(asked), Some(limit)) = (self.backlog, limit)
            && asked > limit
        {
            shortfalls.push(Shortfall {
                option: OptionName::Backlog,
                asked: asked.to_string(),
                granted: limit.to_string(),
                remedy: format!("`sysctl -w net.core.somaxconn={asked}`"),
            });
        }
        // Bit 2 of the sysctl lets listeners take part.
        let fastopen = fastopen_bits();
        if let (Some(asked @ 1..), true) = (
            self.fastopen_queue,
            family != Family::Unix && fastopen & 2 == 0,
        ) {
            shortfalls.push(Shortfall {
                option: OptionName::FastopenQueue,
                asked: asked.to_string(),
                granted: "none".to_owned(),
                remedy: format!("`sysctl -w net.ipv4.tcp_fastopen={}`", fastopen | 2),
            });
        }
        shortfalls
    }

    fn linger_shortfall(&self) -> Option<Shortfall> {
        let linger = self.linger.filter(|linger| !linger.is_zero())?;
        Some(Shortfall {
            option: OptionName::Linger,
            asked: format!("{linger:?}"),
            granted: "closing in the background".to_owned(),
            remedy: "a lingering close would block the reactor, only 0 (reset at close) is set"
                .to_owned(),
        })
    }
}

/// The value of an option, in the unit of its configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reading {
    Number(i128),
    Text(String),
}

impl Step {
    /// Applies the step and compares what is in force with what was asked for.
    fn shortfall(&self, fd: BorrowedFd<'_>, mptcp: bool) -> Option<Shortfall> {
        let outcome = self.apply(fd);
        let in_force = self.read(fd);
        let asked = self.asked();
        let remedy = match outcome {
            Err(errno) if mptcp && matches!(errno, Errno::ENOPROTOOPT | Errno::EOPNOTSUPP) => {
                "MPTCP sockets do not have it".to_owned()
            }
            Err(errno) => self.remedy_for_refusal(errno, &asked),
            // Not every option that can be set can be read.
            Ok(()) => self.remedy_for_difference(&asked, in_force.as_ref().ok()?)?,
        };
        Some(Shortfall {
            option: self.option,
            asked: self.show(&asked),
            granted: in_force.map_or("nothing".to_owned(), |it| self.show(&it)),
            remedy,
        })
    }

    /// What `fd` has instead of what was asked for, in words; `None` if it has that.
    #[cfg(test)]
    pub(super) fn difference(&self, fd: BorrowedFd<'_>) -> Option<String> {
        let asked = self.asked();
        match self.read(fd) {
            Ok(in_force) if in_force == asked => None,
            Ok(in_force) => Some(self.show(&in_force)),
            Err(errno) => Some(errno.to_string()),
        }
    }

    fn asked(&self) -> Reading {
        match &self.value {
            Value::Int(value) if self.is_unsigned() => Reading::Number(i128::from(*value as u32)),
            Value::Int(value) | Value::Linger(_, value) => Reading::Number(i128::from(*value)),
            Value::Long(value) => Reading::Number(i128::from(*value)),
            Value::Text(value) => Reading::Text(String::from_utf8_lossy(value).into_owned()),
        }
    }

    fn read(&self, fd: BorrowedFd<'_>) -> Result<Reading, Errno> {
        // The longest is an interface or a congestion control, 16 bytes each.
        let mut bytes = [0; 16];
        let len = sys::option_bytes(fd, self.level, self.name, &mut bytes)?;
        let int = |at: usize| {
            let mut int = [0; 4];
            int.copy_from_slice(&bytes[at..at + 4]);
            c_int::from_ne_bytes(int)
        };
        Ok(match &self.value {
            Value::Int(_) => Reading::Number(match self.option {
                // socket(7): the kernel doubles the value to allow for bookkeeping.
                OptionName::SendBuffer | OptionName::ReceiveBuffer => i128::from(int(0) / 2),
                _ if self.is_unsigned() => i128::from(int(0) as u32),
                _ => i128::from(int(0)),
            }),
            Value::Linger(..) => Reading::Number(i128::from(int(4))),
            Value::Long(_) => {
                let mut long = [0; size_of::<libc::c_ulong>()];
                long.copy_from_slice(&bytes[..size_of::<libc::c_ulong>()]);
                Reading::Number(i128::from(libc::c_ulong::from_ne_bytes(long)))
            }
            Value::Text(_) => {
                let text = bytes[..len].split(|byte| *byte == 0).next();
                Reading::Text(String::from_utf8_lossy(text.unwrap_or_default()).into_owned())
            }
        })
    }

    /// `None` if what is in force is what was asked for, or the same after a
    /// rounding that is documented with the option.
    fn remedy_for_difference(&self, asked: &Reading, in_force: &Reading) -> Option<String> {
        if asked == in_force {
            return None;
        }
        let (Reading::Number(asked), Reading::Number(in_force)) = (asked, in_force) else {
            return Some("the kernel changed it".to_owned());
        };
        let raised = in_force > asked;
        Some(match self.option {
            OptionName::DeferAccept if raised => return None,
            _ if raised => "the kernel allows no less".to_owned(),
            OptionName::Tos => "the two lowest bits are for ECN, which TCP itself sets".to_owned(),
            _ => match row(self.option).and_then(|row| row.sysctl) {
                Some(limit) => format!("`sysctl -w {limit}={asked}`"),
                None => "the kernel allows no more".to_owned(),
            },
        })
    }

    fn remedy_for_refusal(&self, errno: Errno, asked: &Reading) -> String {
        match (self.option, errno) {
            (OptionName::Congestion, Errno::ENOENT) => {
                let available = sysctl("net.ipv4.tcp_available_congestion_control");
                format!(
                    "this kernel has loaded {}; `modprobe tcp_{}` may load it",
                    available.as_deref().unwrap_or("others"),
                    self.show(asked)
                )
            }
            (OptionName::Congestion, Errno::EPERM) => {
                let allowed = sysctl("net.ipv4.tcp_allowed_congestion_control");
                format!(
                    "`sysctl -w net.ipv4.tcp_allowed_congestion_control=\"{} {}\"`, or CAP_NET_ADMIN",
                    allowed.as_deref().unwrap_or_default(),
                    self.show(asked)
                )
            }
            (OptionName::Interface, Errno::ENODEV) => {
                "there is no such interface, `ip link` lists them".to_owned()
            }
            (OptionName::FastopenConnect, Errno::EOPNOTSUPP) => {
                format!("`sysctl -w net.ipv4.tcp_fastopen={}`", fastopen_bits() | 1)
            }
            (OptionName::KeepaliveIdle | OptionName::KeepaliveInterval, Errno::EINVAL) => {
                "the kernel takes 1 s to 32767 s".to_owned()
            }
            (OptionName::KeepaliveProbes, Errno::EINVAL) => "the kernel takes 1 to 127".to_owned(),
            (_, Errno::ENOPROTOOPT) => "this kernel does not have it".to_owned(),
            (option, errno) => {
                let row = row(option);
                match (
                    errno,
                    row.and_then(|row| row.needs),
                    row.map(|row| row.kind),
                ) {
                    (Errno::EPERM, Some(needs), _) => needs.to_owned(),
                    (Errno::EINVAL, _, Some(OptionKind::Number(low, high))) => {
                        format!("the kernel takes {low} to {high}")
                    }
                    _ => format!("the kernel says: {}", errno.desc()),
                }
            }
        }
    }

    /// A value as a person would write it.
    fn show(&self, reading: &Reading) -> String {
        let number = match reading {
            Reading::Text(text) if text.is_empty() => return "none".to_owned(),
            Reading::Text(text) => return text.escape_debug().to_string(),
            Reading::Number(number) => *number,
        };
        let seconds = Duration::from_secs(1);
        let kind = match self.option {
            OptionName::KeepaliveIdle | OptionName::KeepaliveInterval => {
                OptionKind::Time(seconds, seconds, seconds)
            }
            option => row(option).map_or(OptionKind::Number(0, 0), |row| row.kind),
        };
        match kind {
            OptionKind::Size(..) => bytes(number),
            OptionKind::Rate if number == i128::from(libc::c_ulong::MAX) => "no limit".to_owned(),
            OptionKind::Rate => format!("{}/s", bytes(number)),
            OptionKind::Time(_, _, unit) => match unit.as_nanos() {
                1_000 => format!("{number} us"),
                1_000_000 => format!("{number} ms"),
                _ => format!("{number} s"),
            },
            OptionKind::Bits(..) => format!("{number:#x}"),
            // What is set of an address is that its port is chosen late.
            OptionKind::Switch | OptionKind::Keepalive | OptionKind::Address => {
                if number == 0 { "off" } else { "on" }.to_owned()
            }
            OptionKind::Number(..) | OptionKind::Congestion | OptionKind::Interface => {
                number.to_string()
            }
        }
    }

    fn is_unsigned(&self) -> bool {
        row(self.option).is_some_and(|row| row.kind.is_unsigned())
    }
}

/// `4 MiB` and `256 KiB` where that is exact, bytes otherwise.
pub(super) fn bytes(number: i128) -> String {
    for (unit, size) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
        if number >= size && number % size == 0 {
            return format!("{} {unit}", number / size);
        }
    }
    format!("{number} bytes")
}

fn fastopen_bits() -> u32 {
    let text = sysctl("net.ipv4.tcp_fastopen");
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn mptcp_shortfall(errno: Errno) -> Shortfall {
    Shortfall {
        option: OptionName::Mptcp,
        asked: "on".to_owned(),
        granted: "plain TCP".to_owned(),
        remedy: match errno {
            Errno::ENOPROTOOPT => "`sysctl -w net.mptcp.enabled=1`",
            _ => "this kernel is built without CONFIG_MPTCP",
        }
        .to_owned(),
    }
}

/// Binds the scratch socket as a connect would.
fn source_shortfall(socket: &Socket, source: IpAddr, family: Family) -> Option<Shortfall> {
    let mismatch = source.is_ipv4() != (family == Family::V4);
    let remedy = if mismatch {
        "servers of the other family cannot be reached from it".to_owned()
    } else {
        let local = SockAddr::from(SocketAddr::new(source, 0));
        let error = socket.bind(&local).err()?;
        match error.raw_os_error() {
            Some(libc::EADDRNOTAVAIL) => {
                "this host does not have it (yet): add it, or set free_bind".to_owned()
            }
            _ => format!("the kernel says: {error}"),
        }
    };
    Some(Shortfall {
        option: OptionName::Source,
        asked: source.to_string(),
        granted: "no connection".to_owned(),
        remedy,
    })
}
