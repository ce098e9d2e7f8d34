//! From [`SocketOptions`] to an [`OptionPlan`]: for each stage in the life of a
//! socket and each family, the list of `setsockopt` calls, compiled once. The
//! hot path replays a list: no allocation, no decision, no call that the kernel
//! would have made unnecessary by inheritance.
//!
//! Which stage an option belongs to was found by setting each on a listener and
//! reading it on a socket it accepted (Linux 6.18; IPv4, IPv6, dual stack):
//!
//! ```text
//!                                      inherited by accepted sockets
//! nodelay, send_buffer, receive_buffer,
//! mss, window_clamp, notsent_lowat,
//! congestion, user_timeout, keepalive, yes: stage Listener alone
//! tos, mark, max_pacing_rate,
//! busy_poll, linger, interface
//! priority                             no: Listener (SYN-ACKs) and Accepted
//! quickack                             no: Accepted
//! raw                                  unknown: Listener and Accepted
//! send_buffer of a unix listener       no: Accepted
//! ```
//!
//! `quickack = false` upstream, the default, makes the last ACK of the handshake
//! wait for data to ride on: one packet less, measured at 6 to 18 % more
//! connections a second. It has two prices, and [`send_delayed_ack`] is the remedy
//! for both. While no data is sent, that ACK waits for the delayed-ACK timer, and a
//! server that speaks first learns of the connection 200 ms late (measured): call it
//! when a connect completes and there is nothing to send. And the first write ends the
//! kernel's initial phase of quick ACKs, so that a server which answers in two writes
//! with Nagle on sends the second 40 ms late (measured): call it behind that write.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET, c_int};
use nix::errno::Errno;

use super::leg::{Family, Leg};
use super::table::{Call, OPTIONS, OptionKind, OptionName, OptionRow, Setting, SocketOptions};
use crate::net::sys;

/// A moment in the life of a socket at which options are applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// After `socket`, before `bind` and `listen`. Accepted sockets inherit it.
    Listener,
    /// After `accept4`: only what is not inherited. Empty unless asked for.
    Accepted,
    /// After `socket`, before `bind` and `connect`.
    BeforeConnect,
    /// Once the connect has succeeded. Empty unless asked for.
    AfterConnect,
}

/// What to set on the sockets of one leg.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OptionPlan {
    /// Indexed by [`slot`].
    steps: [Box<[Step]>; SLOTS],
    /// Whether sockets are made with `IPPROTO_MPTCP`.
    pub(in crate::net) mptcp: bool,
    /// Whether connects ask for TCP Fast Open.
    pub fast_open: bool,
    /// Whether quick ACKs are off until the first write: see the module's documentation.
    pub holds_acks: bool,
    /// What a connect is bound to.
    pub(in crate::net) source: Option<IpAddr>,
}

/// One `setsockopt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) option: OptionName,
    pub(super) level: c_int,
    pub(super) name: c_int,
    pub(super) value: Value,
}

/// The value of a [`Step`], as the kernel wants its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Int(c_int),
    /// `unsigned long`: only the pacing rate, which outgrows an int at 34 Gbit/s.
    Long(libc::c_ulong),
    Text(Box<[u8]>),
    /// `struct linger`: on or off, seconds.
    Linger(c_int, c_int),
}

/// The kernel refused an option of a socket that is otherwise good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The first option that was refused.
    pub option: OptionName,
    /// Why.
    pub errno: Errno,
    /// How many were refused in all, this one included.
    pub count: u32,
}

const STAGES: [Stage; 4] = [
    Stage::Listener,
    Stage::Accepted,
    Stage::BeforeConnect,
    Stage::AfterConnect,
];
const FAMILIES: [Family; 3] = [Family::V4, Family::V6, Family::Unix];
const SLOTS: usize = STAGES.len() * FAMILIES.len();

fn slot(stage: Stage, family: Family) -> usize {
    stage as usize * FAMILIES.len() + family as usize
}

impl SocketOptions {
    /// Compiles the options for the sockets of one leg.
    pub fn plan(&self, leg: Leg) -> OptionPlan {
        let mut steps: [Box<[Step]>; SLOTS] = Default::default();
        for stage in STAGES {
            for family in FAMILIES {
                steps[slot(stage, family)] = Compiler::compile(self, leg, stage, family);
            }
        }
        OptionPlan {
            steps,
            mptcp: self.mptcp == Some(true),
            fast_open: self.fastopen_connect == Some(true) && leg == Leg::Upstream,
            holds_acks: leg == Leg::Upstream && self.holds_acks(),
            source: self.source.filter(|_| leg == Leg::Upstream),
        }
    }
}

/// A send buffer of so many bytes and more, as asked for, holds two of the largest segments
/// (64 KiB on loopback): the kernel doubles it.
const SEND_BUFFER_AMPLE: u32 = 128 * 1024;

/// Writes are not cut smaller than this, whatever the send buffer.
const WRITE_MIN: u32 = 1024;

impl SocketOptions {
    /// How much may be written at once to a socket with these options; `None`: as much as
    /// there is. The kernel takes a whole segment into a send buffer that is smaller than
    /// that, and then nothing until it is acknowledged; but who has received one segment
    /// delays the ACK (40 ms) for a second one. With writes of half the buffer as asked
    /// for, a quarter of what it is, segments are smaller and several are under way.
    pub fn write_max(&self) -> Option<u32> {
        let small = self.send_buffer.filter(|bytes| *bytes < SEND_BUFFER_AMPLE);
        small.map(|bytes| (bytes / 2).max(WRITE_MIN))
    }

    /// Whether quick ACKs are turned off before a connect. `true` is the kernel's own
    /// start and has to wait for the connection. MPTCP sockets refuse the option, so there
    /// it is not a default.
    fn holds_acks(&self) -> bool {
        !self.quickack.unwrap_or(self.mptcp == Some(true))
    }
}

impl OptionPlan {
    /// Sets everything that belongs to `stage` on `fd`. A refused option does not
    /// keep the rest from being set: what the kernel will not grant is reported
    /// at start ([`SocketOptions::granted`]), and at run time a connection with
    /// one option less is better than none. The caller counts the refusals.
    pub fn apply(&self, fd: BorrowedFd<'_>, stage: Stage, family: Family) -> Result<(), Refusal> {
        apply_all(self.steps(stage, family).iter(), fd)
    }

    /// As [`OptionPlan::apply`], on a datagram socket: those that TCP alone has are skipped.
    pub fn apply_datagrams(
        &self,
        fd: BorrowedFd<'_>,
        stage: Stage,
        family: Family,
    ) -> Result<(), Refusal> {
        let steps = self.steps(stage, family).iter();
        apply_all(steps.filter(|step| step.level != IPPROTO_TCP), fd)
    }

    /// What a connect is bound to, if to anything.
    pub(in crate::net) const fn source(&self) -> Option<IpAddr> {
        self.source
    }

    /// Whether what connects is bound to an interface.
    pub fn has_interface(&self) -> bool {
        let mut steps = self.steps(Stage::BeforeConnect, Family::V4).iter();
        steps.any(|it| it.option == OptionName::Interface)
    }

    /// Whether `stage` would set nothing, so that the caller can skip it.
    pub fn is_empty(&self, stage: Stage, family: Family) -> bool {
        self.steps(stage, family).is_empty()
    }

    pub(super) fn steps(&self, stage: Stage, family: Family) -> &[Step] {
        &self.steps[slot(stage, family)]
    }
}

fn apply_all<'a>(steps: impl Iterator<Item = &'a Step>, fd: BorrowedFd<'_>) -> Result<(), Refusal> {
    let mut refusal: Option<Refusal> = None;
    for step in steps {
        if let Err(errno) = step.apply(fd) {
            let first = refusal.get_or_insert(Refusal {
                option: step.option,
                errno,
                count: 0,
            });
            first.count += 1;
        }
    }
    refusal.map_or(Ok(()), Err)
}

impl Step {
    pub(super) fn apply(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        match &self.value {
            Value::Int(value) => sys::set_int(fd, self.level, self.name, *value),
            Value::Long(value) => sys::set_option(fd, self.level, self.name, &value.to_ne_bytes()),
            Value::Text(value) => sys::set_option(fd, self.level, self.name, value),
            Value::Linger(on, seconds) => {
                sys::set_option(fd, self.level, self.name, &linger_bytes(*on, *seconds))
            }
        }
    }
}

/// `struct linger`.
fn linger_bytes(on: c_int, seconds: c_int) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&on.to_ne_bytes());
    bytes[4..].copy_from_slice(&seconds.to_ne_bytes());
    bytes
}

/// Sends the ACK that `quickack = false` holds back, and has the kernel acknowledge
/// quickly again: when a connect completed and there is nothing to send, and behind the
/// first write. One system call; harmless otherwise.
pub fn send_delayed_ack(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    sys::set_int(fd, IPPROTO_TCP, libc::TCP_QUICKACK, 1)
}

/// What connections accepted from here on send first is acknowledged late, with the answer,
/// or at once: they inherit it from the listener (measured on Linux 6.18; `tcp(7)` does not
/// say so). [`send_delayed_ack`] ends it for one of them.
pub fn hold_acks(listener: BorrowedFd<'_>, hold: bool) -> Result<(), Errno> {
    let quick = c_int::from(!hold);
    sys::set_int(listener, IPPROTO_TCP, libc::TCP_QUICKACK, quick)
}

/// Sends what `MSG_MORE` holds back, of a TCP socket. Taking the cork out does so, also
/// where it never was in (`__tcp_sock_set_cork`); what is set for Nagle's algorithm
/// stays. One system call.
pub fn send_held_back(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    sys::set_int(fd, IPPROTO_TCP, libc::TCP_CORK, 0)
}

/// Makes the coming `close` reset the connection instead of ending it
/// (behaviour 9). Unix sockets take it and ignore it: they know no reset.
pub fn set_abort_on_close(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    sys::set_option(fd, SOL_SOCKET, libc::SO_LINGER, &linger_bytes(1, 0))
}

/// Collects the steps of one (leg, stage, family).
struct Compiler<'a> {
    options: &'a SocketOptions,
    family: Family,
    stage: Stage,
    steps: Vec<Step>,
}

impl<'a> Compiler<'a> {
    fn compile(options: &'a SocketOptions, leg: Leg, stage: Stage, family: Family) -> Box<[Step]> {
        let mut compiler = Self {
            options,
            family,
            stage,
            steps: Vec::new(),
        };
        match (leg, stage, family) {
            (Leg::Client, Stage::Accepted | Stage::Listener, Family::Unix)
            | (Leg::Upstream, Stage::BeforeConnect, Family::Unix) => compiler.unix(),
            (Leg::Client, Stage::Listener, _) | (Leg::Upstream, Stage::BeforeConnect, _) => {
                compiler.before(leg);
                compiler.raw();
            }
            (Leg::Client, Stage::Accepted, _) => {
                compiler.again();
                compiler.quickack(options.quickack);
                compiler.raw();
            }
            (Leg::Upstream, Stage::AfterConnect, Family::V4 | Family::V6) => {
                compiler.quickack(options.quickack.filter(|quick| *quick));
            }
            (Leg::Client, Stage::BeforeConnect | Stage::AfterConnect, _)
            | (Leg::Upstream, Stage::Listener | Stage::Accepted, _)
            | (Leg::Upstream, Stage::AfterConnect, Family::Unix) => {}
        }
        compiler.steps.into_boxed_slice()
    }

    /// Before bind, listen and connect.
    fn before(&mut self, leg: Leg) {
        for row in OPTIONS.iter().filter(|row| row.legs.have(leg)) {
            match row.call {
                Call::Set(level, name) | Call::SetAgain(level, name) => self.set(row, level, name),
                Call::OfItsOwn => self.of_its_own(row.name, leg),
            }
        }
    }

    /// On an accepted socket: what it does not inherit.
    fn again(&mut self) {
        for row in OPTIONS {
            if let Call::SetAgain(level, name) = row.call {
                self.set(row, level, name);
            }
        }
    }

    fn set(&mut self, row: &OptionRow, level: c_int, name: c_int) {
        if let Some(setting) = row.get(self.options) {
            self.push(row.name, level, name, value(row.kind, setting));
        }
    }

    /// An option that is not one call with its value.
    fn of_its_own(&mut self, option: OptionName, leg: Leg) {
        let options = self.options;
        match option {
            OptionName::Interface => {
                if let Some(name) = &options.interface {
                    let value = Value::Text(name.as_bytes().into());
                    self.push(option, SOL_SOCKET, libc::SO_BINDTODEVICE, value);
                }
            }
            OptionName::FreeBind if options.free_bind == Some(true) => {
                self.int(option, IPPROTO_IP, libc::IP_FREEBIND, 1);
            }
            OptionName::Nodelay => {
                let on = c_int::from(options.nodelay.unwrap_or(true));
                self.int(option, IPPROTO_TCP, libc::TCP_NODELAY, on);
            }
            OptionName::Keepalive => self.keepalive(),
            OptionName::Tos => self.tos(),
            OptionName::Linger if options.linger.is_some_and(|linger| linger.is_zero()) => {
                let value = Value::Linger(1, 0);
                self.push(option, SOL_SOCKET, libc::SO_LINGER, value);
            }
            OptionName::Quickack if leg == Leg::Upstream => {
                self.quickack(options.holds_acks().then_some(false));
            }
            OptionName::Source if options.source.is_some() => {
                // Leaves the port to connect(), which can share it between
                // destinations (behaviour 30).
                self.int(option, IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1);
            }
            // Not set, or no option of a socket: what else makes and binds it.
            _ => {}
        }
    }

    fn keepalive(&mut self) {
        let Some(keepalive) = self.options.keepalive else {
            return;
        };
        self.int(OptionName::Keepalive, SOL_SOCKET, libc::SO_KEEPALIVE, 1);
        let seconds = |time: Duration| units(time, Duration::from_secs(1));
        let numbers = [
            (
                OptionName::KeepaliveIdle,
                libc::TCP_KEEPIDLE,
                keepalive.idle.map(seconds),
            ),
            (
                OptionName::KeepaliveInterval,
                libc::TCP_KEEPINTVL,
                keepalive.interval.map(seconds),
            ),
            (
                OptionName::KeepaliveProbes,
                libc::TCP_KEEPCNT,
                keepalive.probes.map(|probes| quantity(probes.into())),
            ),
        ];
        for (option, name, value) in numbers {
            if let Some(value) = value {
                self.int(option, IPPROTO_TCP, name, value);
            }
        }
    }

    fn tos(&mut self) {
        let Some(tos) = self.options.tos.map(c_int::from) else {
            return;
        };
        // A dual-stack listener sends IPv4 with IP_TOS and IPv6 with the traffic
        // class, neither from the other. A connect to an IPv6 address is never
        // IPv4 underneath, because mapped addresses are dialled as IPv4.
        if self.family == Family::V4 || self.stage == Stage::Listener {
            self.int(OptionName::Tos, IPPROTO_IP, libc::IP_TOS, tos);
        }
        if self.family == Family::V6 {
            self.int(OptionName::Tos, IPPROTO_IPV6, libc::IPV6_TCLASS, tos);
        }
    }

    fn quickack(&mut self, quick: Option<bool>) {
        if let Some(quick) = quick {
            let quick = c_int::from(quick);
            self.int(OptionName::Quickack, IPPROTO_TCP, libc::TCP_QUICKACK, quick);
        }
    }

    /// A unix stream has one buffer, the sender's (a receiver is full when its
    /// peer's send buffer is), and no timers, headers or routes. Accepted
    /// sockets start from the default, hence this runs for them too.
    fn unix(&mut self) {
        if let Some(bytes) = self.options.send_buffer {
            let bytes = quantity(bytes.into());
            self.int(OptionName::SendBuffer, SOL_SOCKET, libc::SO_SNDBUF, bytes);
        }
        self.raw();
    }

    fn raw(&mut self) {
        for raw in &self.options.raw {
            if self.family != Family::Unix || raw.level == SOL_SOCKET {
                self.int(OptionName::Raw(*raw), raw.level, raw.name, raw.value);
            }
        }
    }

    fn int(&mut self, option: OptionName, level: c_int, name: c_int, value: c_int) {
        self.push(option, level, name, Value::Int(value));
    }

    fn push(&mut self, option: OptionName, level: c_int, name: c_int, value: Value) {
        self.steps.push(Step {
            option,
            level,
            name,
            value,
        });
    }
}

/// Leaves the port of a bound socket to `connect`, which can share one between
/// destinations (behaviour 30). Best effort: without it there are fewer ports.
pub(in crate::net) fn choose_port_late(fd: BorrowedFd<'_>) {
    let _ = sys::set_int(fd, IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1);
}

/// Lets a socket be bound to an address that is not one of this host's. EPERM
/// without `CAP_NET_ADMIN`.
pub(in crate::net) fn allow_foreign_source(
    fd: BorrowedFd<'_>,
    family: Family,
) -> Result<(), Errno> {
    match family {
        Family::V6 => sys::set_int(fd, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, 1),
        Family::V4 => sys::set_int(fd, IPPROTO_IP, libc::IP_TRANSPARENT, 1),
        Family::Unix => Ok(()),
    }
}

/// The value of an option as the kernel takes it.
fn value(kind: OptionKind, setting: Setting) -> Value {
    match (kind, setting) {
        (OptionKind::Rate, Setting::Number(rate)) => {
            Value::Long(libc::c_ulong::try_from(rate).unwrap_or(libc::c_ulong::MAX))
        }
        // Unsigned in the kernel: the bits are kept.
        (kind, Setting::Number(number)) if kind.is_unsigned() => Value::Int(number as c_int),
        (_, Setting::Number(number)) => Value::Int(quantity(number)),
        (OptionKind::Time(_, _, unit), Setting::Time(time)) => Value::Int(units(time, unit)),
        (_, Setting::Switch(on)) => Value::Int(c_int::from(on)),
        (_, Setting::Text(text)) => Value::Text(text.into_bytes().into()),
        // No option of these kinds is one call.
        (_, Setting::Time(_) | Setting::Address(_) | Setting::Keepalive(_)) => Value::Int(0),
    }
}

/// A quantity as an `int`; what does not fit is as much as can be asked for.
fn quantity(number: u64) -> c_int {
    c_int::try_from(number).unwrap_or(c_int::MAX)
}

/// A duration in the kernel's unit, rounded up: less than one unit must not turn into 0,
/// which the kernel refuses or takes as "off".
fn units(time: Duration, unit: Duration) -> c_int {
    let units = time.as_nanos().div_ceil(unit.as_nanos().max(1));
    c_int::try_from(units).unwrap_or(c_int::MAX)
}
