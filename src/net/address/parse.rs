//! Text to [`Address`] and [`AddressRange`]: every error says what is wrong and
//! what to write instead. Pure: no name and no interface is looked up.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::str::FromStr;

use super::{Address, AddressError, AddressRange, UnixName};
use crate::proto::host;

mod srv;
#[cfg(test)]
mod tests;

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let range: AddressRange = text.parse()?;
        if range.len() > 1 {
            return Err(
                AddressError::new(text, "a range of ports cannot stand here")
                    .remedy(format!("write one port, such as `{}`", range.first)),
            );
        }
        Ok(range.first)
    }
}

impl FromStr for AddressRange {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() {
            return Err(AddressError::new(text, "it is empty")
                .remedy("write HOST:PORT, :PORT or unix:/path"));
        }
        if let Some(name) = text.strip_prefix("unix:") {
            let first = Address::Unix(unix_name(text, name)?);
            return Ok(Self { first, len: 1 });
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(
                AddressError::new(text, "it contains a space or a control character")
                    .remedy("remove it"),
            );
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            let rest = rest.split('/').next().unwrap_or(rest);
            return Err(AddressError::new(
                text,
                format!("a scheme such as `{scheme}://` does not belong to a TCP address"),
            )
            .remedy(match scheme {
                "udp" => FOR_UDP.to_owned(),
                _ => format!("did you mean `{rest}`?"),
            }));
        }
        if let Some(name) = text.strip_prefix("systemd:") {
            let first = Address::Passed(passed_name(text, name)?);
            return Ok(Self { first, len: 1 });
        }
        if let Some((word, rest)) = text.split_once(':')
            && super::WORDS.contains(&word)
        {
            return Err(protocol(text, word, rest));
        }
        // A digit follows where `srv` is the name of a host.
        if let Some(name) = text.strip_prefix("srv:")
            && !name.starts_with(|c: char| c.is_ascii_digit())
        {
            let first = Address::Srv(srv::name(text, name)?);
            return Ok(Self { first, len: 1 });
        }
        let (host, ports) = split_host(text)?;
        let (low, high) = port_range(text, host, ports)?;
        Ok(Self {
            first: host_address(text, host, low)?,
            len: high - low + 1,
        })
    }
}

const FOR_UDP: &str = "for datagrams add protocol = \"udp\" to the forward; on the command \
                        line `udp:` stands before the whole addresses of `-l` and `-r`, as in \
                        `-l udp::53 -r udp:10.0.0.1:53`";

/// `udp:53`, `tcp:80`: not a host, and not what it says either.
fn protocol(text: &str, word: &str, rest: &str) -> AddressError {
    let remedy = match (word, rest.contains(':')) {
        ("udp", _) => FOR_UDP.to_owned(),
        (_, true) => format!("write `{rest}`"),
        (_, false) => format!("write `:{rest}`"),
    };
    let host = super::Host(word);
    AddressError::new(
        text,
        format!("`{word}:` does not belong to the address of a TCP socket"),
    )
    .remedy(format!(
        "{remedy}; a host of that name is written `{host}:PORT`"
    ))
}

/// The longest name that systemd gives a descriptor (`FileDescriptorName=`).
const PASSED_NAME_MAX: usize = 255;

/// A name as `FileDescriptorName=` takes it.
fn passed_name(text: &str, name: &str) -> Result<String, AddressError> {
    let problem = if name.is_empty() {
        "the name of the passed socket is missing"
    } else if name.len() > PASSED_NAME_MAX {
        "the name of a passed socket has at most 255 characters"
    } else if !name.bytes().all(|b| b.is_ascii_graphic() && b != b':') {
        "the name of a passed socket is of ASCII characters without a colon"
    } else {
        return Ok(name.to_owned());
    };
    Err(AddressError::new(text, problem).remedy(
        "write `systemd:NAME` with the FileDescriptorName= of the socket unit, by default the \
         unit's own name: `systemd:thalweg.socket`",
    ))
}

/// Cuts `HOST:PORTS`; the host keeps its brackets.
fn split_host(text: &str) -> Result<(&str, &str), AddressError> {
    let missing = |host: &str| {
        Err(AddressError::new(text, "the port is missing")
            .remedy(format!("write `{host}:PORT`, such as `{host}:443`")))
    };
    if text.starts_with('[') {
        let Some(end) = text.find(']') else {
            return Err(AddressError::new(text, "the bracket is not closed")
                .remedy("write an IPv6 address as `[::1]:443`"));
        };
        let (host, rest) = text.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(ports) => Ok((host, ports)),
            None if rest.is_empty() => missing(host),
            None => Err(AddressError::new(
                text,
                format!("`{rest}` follows the bracket where `:PORT` belongs"),
            )
            .remedy(format!("write `{host}:443`"))),
        };
    }
    match text.matches(':').count() {
        0 if text.parse::<u16>().is_ok() => {
            Err(
                AddressError::new(text, "this is a port without a colon").remedy(format!(
                    "did you mean `:{text}` (to listen) or `HOST:{text}` (a server)?"
                )),
            )
        }
        0 => missing(text),
        1 => Ok(text.split_once(':').unwrap_or((text, ""))),
        _ => Err(unbracketed_ipv6(text)),
    }
}

/// More than one colon and no bracket: an IPv6 address, or a muddle.
fn unbracketed_ipv6(text: &str) -> AddressError {
    let error = AddressError::new(text, "an IPv6 address stands in brackets");
    if let Some((head, port)) = text.rsplit_once(':')
        && head.parse::<Ipv6Addr>().is_ok()
        && port.starts_with(|c: char| c.is_ascii_digit())
    {
        return error.remedy(format!("did you mean `[{head}]:{port}`?"));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return error.remedy(format!("write `[{text}]:PORT`, such as `[{text}]:443`"));
    }
    AddressError::new(text, "there is more than one colon")
        .remedy("write HOST:PORT, or an IPv6 address as `[::1]:443`")
}

/// `443` or `5000-5009`, as its lowest and highest port.
fn port_range(text: &str, host: &str, ports: &str) -> Result<(u16, u16), AddressError> {
    if ports.is_empty() {
        return Err(
            AddressError::new(text, "the port after the colon is missing")
                .remedy(format!("write `{host}:443`")),
        );
    }
    let Some((low, high)) = ports.split_once('-') else {
        let port = port_number(text, ports)?;
        return Ok((port, port));
    };
    let (low, high) = (port_number(text, low)?, port_number(text, high)?);
    if low > high {
        return Err(AddressError::new(text, "the range of ports runs backwards")
            .remedy(format!("did you mean `{host}:{high}-{low}`?")));
    }
    if low == 0 && high > 0 {
        return Err(AddressError::new(
            text,
            "a range of ports cannot start at 0, which means \"any\"",
        )
        .remedy(format!("write `{host}:1-{high}`")));
    }
    Ok((low, high))
}

fn port_number(text: &str, port: &str) -> Result<u16, AddressError> {
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        let error = AddressError::new(text, format!("`{port}` is not a port number"));
        let unix = text
            .get(..5)
            .is_some_and(|it| it.eq_ignore_ascii_case("unix:"));
        return Err(match port.split_once('/') {
            _ if unix => error.remedy("a unix socket is written `unix:/path`, in small letters"),
            Some((_, "udp")) => error.remedy(FOR_UDP),
            Some((number, "tcp")) => error.remedy(format!("write {number} alone")),
            _ => error.remedy("write a number from 1 to 65535, or a range such as 5000-5009"),
        });
    }
    port.parse().map_err(|_| {
        AddressError::new(text, format!("port {port} is too large"))
            .remedy("the highest port is 65535")
    })
}

fn host_address(text: &str, host: &str, port: u16) -> Result<Address, AddressError> {
    if host.is_empty() || host == "*" {
        return Ok(Address::Any { port });
    }
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.strip_suffix(']').unwrap_or(inner);
        return ipv6_address(text, inner, port);
    }
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return Ok(Address::Inet(SocketAddr::new(IpAddr::V4(ip), port)));
    }
    Ok(Address::Name {
        host: host_name(text, host)?,
        port,
    })
}

/// The inside of the brackets. An IPv4-mapped address becomes IPv4, because that
/// is what the kernel connects to and what a peer address is shown as.
fn ipv6_address(text: &str, inner: &str, port: u16) -> Result<Address, AddressError> {
    if inner.parse::<Ipv4Addr>().is_ok() {
        return Err(
            AddressError::new(text, "only IPv6 addresses stand in brackets")
                .remedy(format!("write `{inner}:{port}`")),
        );
    }
    if let Some((_, scope)) = inner.split_once('%')
        && scope.parse::<u32>().is_err()
    {
        return Err(
            AddressError::new(text, format!("the scope `{scope}` is not a number"))
                .remedy("write the index of the interface (`ip link` shows it): `[fe80::1%2]:443`"),
        );
    }
    // The standard library reads a scope only as part of a socket address.
    let Ok(address) = format!("[{inner}]:{port}").parse::<SocketAddrV6>() else {
        return Err(
            AddressError::new(text, format!("`{inner}` is not an IPv6 address"))
                .remedy("write it as `[::1]:443`"),
        );
    };
    Ok(Address::Inet(match address.ip().to_ipv4_mapped() {
        Some(ip) => SocketAddr::new(IpAddr::V4(ip), port),
        None => SocketAddr::V6(address),
    }))
}

/// The name of a host: see [`host`] for what one is. A dot at its end means something.
fn host_name(text: &str, name: &str) -> Result<String, AddressError> {
    host::parse_for_lookup(name)
        .map_err(|error| AddressError::new(text, error.to_string()).remedy(error.remedy()))
}

/// Bytes of `sun_path` (108 on Linux) that a name can fill: a path needs its
/// terminator, an abstract name its leading NUL.
const UNIX_NAME_MAX: usize = 107;

fn unix_name(text: &str, name: &str) -> Result<UnixName, AddressError> {
    let (kind, name) = match name.strip_prefix('@') {
        Some(name) => ("name", name),
        None => ("path", name),
    };
    let bytes = unescape(text, name)?;
    if bytes.is_empty() {
        return Err(
            AddressError::new(text, format!("the {kind} of the unix socket is empty"))
                .remedy("write unix:/path/to/socket or unix:@name"),
        );
    }
    if bytes.len() > UNIX_NAME_MAX {
        return Err(AddressError::new(
            text,
            format!(
                "the {kind} of the unix socket has {} bytes; the kernel takes {UNIX_NAME_MAX}",
                bytes.len()
            ),
        )
        .remedy("use a shorter directory, or an abstract name: unix:@name"));
    }
    if kind == "name" {
        return Ok(UnixName::Abstract(bytes));
    }
    if bytes.contains(&0) {
        return Err(AddressError::new(text, "a path cannot contain a NUL byte").remedy("remove it"));
    }
    Ok(UnixName::Path(PathBuf::from(OsString::from_vec(bytes))))
}

/// Undoes [`slice::escape_ascii`], so that any name a socket can have can be written.
fn unescape(text: &str, name: &str) -> Result<Vec<u8>, AddressError> {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let (value, used) = match rest {
            [b't', ..] => (b'\t', 1),
            [b'r', ..] => (b'\r', 1),
            [b'n', ..] => (b'\n', 1),
            [c @ (b'\\' | b'\'' | b'"'), ..] => (*c, 1),
            [b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex(*high) * 16 + hex(*low), 3)
            }
            _ => {
                return Err(AddressError::new(
                    text,
                    "a backslash starts an escape here (`\\n`, `\\x1b`, `\\\\`)",
                )
                .remedy("write a backslash as `\\\\`"));
            }
        };
        bytes.push(value);
        rest = &rest[used..];
    }
    Ok(bytes)
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

impl AddressError {
    pub(super) fn new(text: &str, problem: impl Into<String>) -> Self {
        let mut shown: String = text.chars().take(120).flat_map(printable).collect();
        if text.chars().nth(120).is_some() {
            shown.push('…');
        }
        Self {
            text: shown,
            problem: problem.into(),
            remedy: None,
        }
    }

    pub(super) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// `c` itself, or its escape where it is a control character.
fn printable(c: char) -> impl Iterator<Item = char> {
    let escape = c.is_control().then(|| c.escape_default());
    let plain = escape.is_none().then_some(c);
    escape.into_iter().flatten().chain(plain)
}
