//! The table of socket options: one row for each, from which come the field of
//! [`SocketOptions`], the name in messages, the calls of a plan, what is compared when it
//! is read back, the key of `[profile.NAME]` with its range, and its line in the
//! documentation.
//!
//! Ranges are the kernel's (Linux 6.18, `net/ipv4/tcp.c` and `net/core/sock.c`), so that
//! what it would refuse is refused in the configuration, with a place.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::leg::Leg;
use libc::{IPPROTO_TCP, SOL_SOCKET, c_int};

/// `SO_MAX_PACING_RATE` of asm-generic/socket.h, which libc lacks.
pub(super) const SO_MAX_PACING_RATE: c_int = 47;

/// The largest value of a C `int`, which most options are.
const INT_MAX: u64 = i32::MAX as u64;

const MICROSECOND: Duration = Duration::from_micros(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// `MAX_TCP_KEEPIDLE` and `MAX_TCP_KEEPINTVL`, seconds.
pub const KEEPALIVE_MAX: Duration = Duration::from_secs(32_767);

/// Keepalive probes. `None` leaves that number to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Keepalive {
    /// Silence before the first probe, second granularity.
    pub idle: Option<Duration>,
    /// Between probes, second granularity.
    pub interval: Option<Duration>,
    /// Unanswered probes before the connection is given up.
    pub probes: Option<u32>,
}

/// A socket option by its numbers, with an `int` value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RawOption {
    /// `level` of setsockopt(2).
    pub level: i32,
    /// `optname` of setsockopt(2).
    pub name: i32,
    /// The value, passed as a C `int`.
    pub value: i32,
}

/// What values an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionKind {
    /// On or off.
    Switch,
    /// A number from the first to the second.
    Number(u64, u64),
    /// Likewise, shown in hexadecimal: bits rather than a quantity.
    Bits(u64, u64),
    /// Bytes, from the first to the second.
    Size(u64, u64),
    /// Bytes a second.
    Rate,
    /// A duration from the first to the second, in steps of the third, which is the unit
    /// that the kernel counts in.
    Time(Duration, Duration, Duration),
    /// The name of a congestion control.
    Congestion,
    /// The name of an interface.
    Interface,
    /// A local address.
    Address,
    /// Keepalive probes, with three numbers of their own.
    Keepalive,
}

/// On which sockets an option means something; elsewhere it is skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Legs {
    /// Listeners, and what they accept.
    Listeners,
    /// Connects to servers.
    Connects,
    /// Both.
    Both,
}

/// How an option reaches the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::net) enum Call {
    /// One setsockopt with this level and name, before bind, listen and connect; what a
    /// listener has is inherited by what it accepts.
    Set(c_int, c_int),
    /// Likewise, and again on each accepted socket, which does not inherit it.
    SetAgain(c_int, c_int),
    /// Several calls, another moment, or none: the plan knows.
    OfItsOwn,
}

/// The row of an option.
#[derive(Debug)]
pub struct OptionRow {
    /// Its name.
    pub name: OptionName,
    /// Its key in a profile.
    pub key: &'static str,
    /// What it is called in the manual pages.
    pub called: &'static str,
    /// Which values it takes.
    pub kind: OptionKind,
    /// Where it means something.
    pub legs: Legs,
    /// What a person should know of it.
    pub doc: &'static str,
    /// The limit that cuts it, in `/proc/sys`.
    pub sysctl: Option<&'static str>,
    /// What a process needs that is not permitted to set it.
    pub needs: Option<&'static str>,
    /// Whether it is worth a search by `thalweg tune`.
    pub searched: bool,
    /// A value as TOML.
    pub example: &'static str,
    pub(in crate::net) call: Call,
    get: fn(&SocketOptions) -> Option<Setting>,
    set: fn(&mut SocketOptions, Setting),
}

impl OptionKind {
    /// Whether the kernel takes all 32 bits of the number: its type is unsigned there.
    pub(super) fn is_unsigned(self) -> bool {
        const ALL: u64 = u32::MAX as u64;
        matches!(
            self,
            Self::Number(_, ALL) | Self::Bits(_, ALL) | Self::Size(_, ALL)
        )
    }
}

impl Legs {
    /// Whether an option means something on the sockets of `leg`.
    pub fn have(self, leg: Leg) -> bool {
        match self {
            Self::Both => true,
            Self::Listeners => leg == Leg::Client,
            Self::Connects => leg == Leg::Upstream,
        }
    }
}

impl OptionRow {
    /// The value in a set of options; `None`: it is left to the kernel.
    pub fn get(&self, options: &SocketOptions) -> Option<Setting> {
        (self.get)(options)
    }

    /// Sets it; a value of another kind changes nothing.
    pub fn set(&self, options: &mut SocketOptions, value: Setting) {
        (self.set)(options, value);
    }
}

/// The value of an option, whatever its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// Of a switch.
    Switch(bool),
    /// A number, a size, or a rate.
    Number(u64),
    /// A duration.
    Time(Duration),
    /// A name.
    Text(String),
    /// An address.
    Address(IpAddr),
    /// Keepalive probes.
    Keepalive(Keepalive),
}

/// A type that a field of [`SocketOptions`] has.
trait Field: Sized {
    fn setting(self) -> Setting;
    fn of(setting: Setting) -> Option<Self>;
}

macro_rules! field {
    ($ty:ty, $variant:ident) => {
        impl Field for $ty {
            fn setting(self) -> Setting {
                Setting::$variant(self.into())
            }

            fn of(setting: Setting) -> Option<Self> {
                match setting {
                    Setting::$variant(value) => value.try_into().ok(),
                    _ => None,
                }
            }
        }
    };
}

field!(bool, Switch);
field!(u8, Number);
field!(u16, Number);
field!(u32, Number);
field!(u64, Number);
field!(Duration, Time);
field!(String, Text);
field!(IpAddr, Address);
field!(Keepalive, Keepalive);

/// What is written behind the default, or the default.
const fn last(either: &[Option<&'static str>]) -> Option<&'static str> {
    either[either.len() - 1]
}

macro_rules! socket_options {
    ($(
        $(#[doc = $doc:literal])+
        $field:ident: $ty:ty = $variant:ident, $called:literal, $kind:expr, $legs:ident, $call:expr,
            example $example:literal $(, sysctl $sysctl:literal)? $(, needs $needs:literal)? $(, searched $searched:literal)?;
    )+) => {
        /// The options of one leg. `None` leaves the choice to the kernel.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
        pub struct SocketOptions {
            $(
                #[doc = concat!("`", $called, "`.")]
                #[doc = ""]
                $(#[doc = $doc])+
                pub $field: Option<$ty>,
            )+
            /// Anything else, as numbers. On listeners and again on each socket accepted,
            /// since nobody knows which of them are inherited; before an upstream connect.
            pub raw: Vec<RawOption>,
        }

        /// Names one option; displayed as the key that configures it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(
            missing_docs,
            reason = "each is the field of SocketOptions of that name"
        )]
        pub enum OptionName {
            $( $variant, )+
            KeepaliveIdle,
            KeepaliveInterval,
            KeepaliveProbes,
            Raw(RawOption),
        }

        impl fmt::Display for OptionName {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $( Self::$variant => stringify!($field), )+
                    Self::KeepaliveIdle => "keepalive.idle",
                    Self::KeepaliveInterval => "keepalive.interval",
                    Self::KeepaliveProbes => "keepalive.probes",
                    Self::Raw(raw) => {
                        return write!(f, "raw {{ level = {}, name = {} }}", raw.level, raw.name);
                    }
                })
            }
        }

        /// Every option but `raw`, in the order in which they are set.
        pub static OPTIONS: &[OptionRow] = &[$(
            OptionRow {
                name: OptionName::$variant,
                key: stringify!($field),
                called: $called,
                kind: $kind,
                legs: Legs::$legs,
                doc: concat!($($doc),+).trim_ascii(),
                sysctl: last(&[None $(, Some($sysctl))?]),
                needs: last(&[None $(, Some($needs))?]),
                searched: false $( || $searched )?,
                example: $example,
                call: $call,
                get: |options| options.$field.clone().map(Field::setting),
                set: |options, value| {
                    if let Some(value) = Field::of(value) {
                        options.$field = Some(value);
                    }
                },
            },
        )+];
    };
}

socket_options! {
    // What routes the socket comes first, so that a later `bind` obeys it.

    /// The interface that packets leave and arrive by.
    interface: String = Interface, "SO_BINDTODEVICE", OptionKind::Interface, Both, Call::OfItsOwn,
        example "\"lo\"",
        needs "it needs CAP_NET_RAW";
    /// Needs `CAP_NET_ADMIN` or `CAP_NET_RAW`.
    mark: u32 = Mark, "SO_MARK", OptionKind::Bits(0, u32::MAX as u64), Both,
        Call::Set(SOL_SOCKET, libc::SO_MARK), example "16",
        needs "it needs CAP_NET_ADMIN or CAP_NET_RAW";
    /// An address that this host does not have yet.
    free_bind: bool = FreeBind, "IP_FREEBIND", OptionKind::Switch, Both, Call::OfItsOwn,
        example "false";

    // The window scale is settled in the SYN, so buffers come before it (tcp(7)).

    /// On unless written.
    nodelay: bool = Nodelay, "TCP_NODELAY", OptionKind::Switch, Both, Call::OfItsOwn,
        example "true";
    /// In bytes as asked for (the kernel doubles it for its bookkeeping); turns autotuning off;
    /// at most `net.core.wmem_max`. With less than 128 KiB what is written at once is half of it.
    send_buffer: u32 = SendBuffer, "SO_SNDBUF", OptionKind::Size(1, INT_MAX), Both,
        Call::Set(SOL_SOCKET, libc::SO_SNDBUF), example "\"4MiB\"",
        sysctl "net.core.wmem_max", searched true;
    /// Turns autotuning off; at most `net.core.rmem_max`; 256 KiB at 80 ms is 26 Mbit/s at the
    /// most.
    receive_buffer: u32 = ReceiveBuffer, "SO_RCVBUF", OptionKind::Size(1, INT_MAX), Both,
        Call::Set(SOL_SOCKET, libc::SO_RCVBUF), example "\"1MiB\"",
        sysctl "net.core.rmem_max", searched true;
    /// Bytes; before connect and listen.
    mss: u16 = Mss, "TCP_MAXSEG", OptionKind::Number(88, 32_767), Both,
        Call::Set(IPPROTO_TCP, libc::TCP_MAXSEG), example "1400", searched true;
    /// Bounds what a peer may send.
    window_clamp: u32 = WindowClamp, "TCP_WINDOW_CLAMP", OptionKind::Size(1, INT_MAX), Both,
        Call::Set(IPPROTO_TCP, libc::TCP_WINDOW_CLAMP), example "\"1MiB\"";
    /// Unsent bytes that the kernel takes ahead.
    notsent_lowat: u32 = NotsentLowat, "TCP_NOTSENT_LOWAT",
        OptionKind::Size(0, u32::MAX as u64), Both,
        Call::Set(IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT), example "\"128KiB\"", searched true;
    /// Such as `"cubic"`, `"bbr"`; others than `net.ipv4.tcp_allowed_congestion_control` need
    /// `CAP_NET_ADMIN`.
    congestion: String = Congestion, "TCP_CONGESTION", OptionKind::Congestion, Both,
        Call::Set(IPPROTO_TCP, libc::TCP_CONGESTION), example "\"cubic\"", searched true;
    /// Unacknowledged bytes for so long end the connection.
    user_timeout: Duration = UserTimeout, "TCP_USER_TIMEOUT",
        OptionKind::Time(MILLISECOND, Duration::from_millis(INT_MAX), MILLISECOND), Both,
        Call::Set(IPPROTO_TCP, libc::TCP_USER_TIMEOUT), example "\"30s\"";
    /// A duration is the silence before the first probe; the table is below.
    keepalive: Keepalive = Keepalive, "SO_KEEPALIVE", OptionKind::Keepalive, Both, Call::OfItsOwn,
        example "{ idle = \"60s\", interval = \"10s\", probes = 3 }";
    /// The whole byte.
    tos: u8 = Tos, "IP_TOS`, `IPV6_TCLASS", OptionKind::Bits(0, 255), Both, Call::OfItsOwn,
        example "# 136";
    // After tos: IP_TOS sets the priority as well, and an explicit one wins.
    /// Above 6 needs `CAP_NET_ADMIN`.
    priority: u32 = Priority, "SO_PRIORITY", OptionKind::Number(0, INT_MAX), Both,
        Call::SetAgain(SOL_SOCKET, libc::SO_PRIORITY), example "4",
        needs "more than 6 needs CAP_NET_ADMIN or CAP_NET_RAW";
    /// Of each connection.
    max_pacing_rate: u64 = MaxPacingRate, "SO_MAX_PACING_RATE", OptionKind::Rate, Both,
        Call::Set(SOL_SOCKET, SO_MAX_PACING_RATE), example "\"2Gbit\"", searched true;
    /// The kernel polls the device for so long.
    busy_poll: Duration = BusyPoll, "SO_BUSY_POLL",
        OptionKind::Time(Duration::ZERO, SECOND, MICROSECOND), Both,
        Call::Set(SOL_SOCKET, libc::SO_BUSY_POLL), example "\"50us\"",
        needs "more than net.core.busy_read needs CAP_NET_ADMIN", searched true;
    /// Zero resets at close; more is not set, because close would block the reactor (measured:
    /// 2 s for `l_linger = 2`, even if the socket is non-blocking).
    linger: Duration = Linger, "SO_LINGER",
        OptionKind::Time(Duration::ZERO, KEEPALIVE_MAX, SECOND), Both, Call::OfItsOwn,
        example "\"0s\"";

    // What one leg alone has.

    /// Listeners: pending fast opens.
    fastopen_queue: u32 = FastopenQueue, "TCP_FASTOPEN", OptionKind::Number(0, INT_MAX),
        Listeners, Call::Set(IPPROTO_TCP, libc::TCP_FASTOPEN), example "256",
        sysctl "net.core.somaxconn";
    /// Listeners; rounded up to whole SYN-ACK retransmissions (5 s becomes 7 s).
    defer_accept: Duration = DeferAccept, "TCP_DEFER_ACCEPT",
        OptionKind::Time(SECOND, KEEPALIVE_MAX, SECOND), Listeners,
        Call::Set(IPPROTO_TCP, libc::TCP_DEFER_ACCEPT), example "\"3s\"";
    /// Listeners: prefer the reactor whose CPU received the connection.
    incoming_cpu: bool = IncomingCpu, "SO_INCOMING_CPU", OptionKind::Switch, Listeners,
        Call::OfItsOwn, example "false";
    /// Listeners; at most `net.core.somaxconn`.
    backlog: u32 = Backlog, "listen(2)", OptionKind::Number(1, INT_MAX), Listeners,
        Call::OfItsOwn, example "4096", sysctl "net.core.somaxconn";
    /// Upstream, off is set before the connect, so that the handshake's last ACK rides on the
    /// first data, and lasts until that is written; on is set once it is connected. The kernel
    /// resets it as it sees fit (tcp(7)).
    quickack: bool = Quickack, "TCP_QUICKACK", OptionKind::Switch, Both, Call::OfItsOwn,
        example "true", searched true;
    /// Upstream: SYN retransmissions of a connect.
    syn_retries: u8 = SynRetries, "TCP_SYNCNT", OptionKind::Number(1, 127), Connects,
        Call::Set(IPPROTO_TCP, libc::TCP_SYNCNT), example "3";
    /// Upstream: the SYN waits for data, so a refusal shows up as an error of the first write.
    fastopen_connect: bool = FastopenConnect, "TCP_FASTOPEN_CONNECT", OptionKind::Switch, Connects,
        Call::Set(IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT), example "true";
    /// Upstream: the local address; ports are chosen per destination
    /// (`IP_BIND_ADDRESS_NO_PORT`).
    source: IpAddr = Source, "bind(2)", OptionKind::Address, Connects, Call::OfItsOwn,
        example "\"127.0.0.1\"";
    /// Multipath TCP instead of TCP when the socket is made.
    mptcp: bool = Mptcp, "IPPROTO_MPTCP", OptionKind::Switch, Both, Call::OfItsOwn,
        example "false";
}

/// The row of an option; none for the numbers of keepalive and for `raw`.
pub(super) fn row(name: OptionName) -> Option<&'static OptionRow> {
    OPTIONS.iter().find(|row| row.name == name)
}
