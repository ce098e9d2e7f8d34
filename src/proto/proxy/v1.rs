//! Version 1: one line of text.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Announced, Fault, Header, Parsed, V1_MAX, Version, WORD};

pub(super) fn parse(bytes: &[u8]) -> Parsed {
    let seen = &bytes[..bytes.len().min(V1_MAX)];
    // The first of either must be the CRLF.
    let Some(at) = seen.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else {
        return if bytes.len() >= V1_MAX {
            Err(Fault::Malformed("no line end within 107 bytes"))
        } else {
            Ok(None)
        };
    };
    if seen[at] == b'\n' {
        return Err(Fault::Malformed("the line ends with LF alone"));
    }
    match seen.get(at + 1) {
        Some(b'\n') => {}
        Some(_) => return Err(Fault::Malformed("a CR stands without its LF")),
        None if bytes.len() >= V1_MAX => {
            return Err(Fault::Malformed("no line end within 107 bytes"));
        }
        None => return Ok(None),
    }
    let Some(words) = seen[..at].strip_prefix(WORD) else {
        return Err(Fault::Malformed("the line ends before its family"));
    };
    let header = Header {
        version: Version::V1,
        announced: announced(words)?,
        tlvs: Vec::new(),
    };
    Ok(Some((header, at + 2)))
}

/// What stands behind `PROXY `, up to the line end.
fn announced(words: &[u8]) -> Result<Announced, Fault> {
    // Whatever follows UNKNOWN is to be ignored.
    if words == b"UNKNOWN" || words.starts_with(b"UNKNOWN ") {
        return Ok(Announced::Unknown);
    }
    let text =
        core::str::from_utf8(words).map_err(|_| Fault::Malformed("the line is not ASCII"))?;
    let words: Vec<&str> = text.split(' ').collect();
    let [family, source, destination, from, to] = words[..] else {
        return Err(Fault::Malformed(
            "the line is not a family, two addresses and two ports with single spaces",
        ));
    };
    let addresses = match family {
        "TCP4" => four(source).zip(four(destination)),
        "TCP6" => six(source).zip(six(destination)),
        _ => return Err(Fault::Malformed("the family is not TCP4, TCP6 or UNKNOWN")),
    };
    let (source, destination) =
        addresses.ok_or(Fault::Malformed("an address is not one of its family"))?;
    let (from, to) = port(from).zip(port(to)).ok_or(Fault::Malformed(
        "a port is not a number from 0 to 65535 without zeros in front",
    ))?;
    Ok(Announced::Inet {
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
    })
}

/// Four decimal numbers; the standard library takes no zeros in front either.
fn four(text: &str) -> Option<IpAddr> {
    text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)
}

fn six(text: &str) -> Option<IpAddr> {
    text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let zeros = text.len() > 1 && text.starts_with('0');
    (plain && !zeros).then(|| text.parse().ok())?
}
