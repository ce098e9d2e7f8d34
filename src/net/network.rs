//! Networks as a user writes them: `10.0.0.0/8`, `2001:db8::/32`, or an address alone.
//!
//! The type is [`IpNet`]; what is here is a reader that is strict and says what to write
//! instead. Pure.
//!
//! Invariants of what is read: no bit behind the prefix is set, and no address is an
//! IPv4-mapped one, which counts as IPv4 wherever addresses are compared.

use std::net::IpAddr;

use ipnet::IpNet;

/// Why a text is not a network, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {remedy}")]
pub struct NetworkError {
    /// What is wrong.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

const FORM: &str = "such as \"10.0.0.0/8\", \"192.0.2.7\" or \"2001:db8::/32\"";

/// Reads a network; an address alone is a network of its own.
pub fn parse(text: &str) -> Result<IpNet, NetworkError> {
    let shown = shown(text);
    let error = |problem: String, remedy: &str| {
        let remedy = remedy.to_owned();
        Err(NetworkError { problem, remedy })
    };
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    if address.contains('%') {
        let problem = format!("`{shown}` has a zone, which a network cannot have");
        return error(problem, "remove what follows the `%`");
    }
    let Ok(address) = address.parse::<IpAddr>() else {
        return error(format!("`{shown}` is not a network"), FORM);
    };
    if address.to_canonical() != address {
        let problem = format!("`{shown}`: an IPv4-mapped address counts as IPv4");
        return error(problem, &format!("write it as {}", address.to_canonical()));
    }
    let longest: u8 = if address.is_ipv4() { 32 } else { 128 };
    let digits = |bits: &&str| !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
    let bits = match bits {
        None => Some(longest),
        Some(bits) => Some(bits)
            .filter(digits)
            .and_then(|bits| bits.parse().ok())
            .filter(|bits| *bits <= longest),
    };
    let Some(network) = bits.and_then(|bits| IpNet::new(address, bits).ok()) else {
        let problem = format!("`{shown}`: behind the slash stands a number from 0 to {longest}");
        return error(problem, FORM);
    };
    if network.trunc() != network {
        let problem = format!("`{shown}` has bits set behind its prefix");
        let remedy = format!("write {}, or the address alone", network.trunc());
        return error(problem, &remedy);
    }
    Ok(network)
}

/// A text fit for a message: short, and without control characters.
fn shown(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn networks_are_read() {
        for (text, network) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("::1", "::1/128"),
            ("2001:DB8::/32", "2001:db8::/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
        ] {
            let read = parse(text).map(|it| it.to_string());
            assert_eq!(read.as_deref(), Ok(network), "{text}");
        }
    }

    #[test]
    fn what_is_no_network_is_answered_with_one() {
        for (text, problem, remedy) in [
            ("", "not a network", "10.0.0.0/8"),
            ("host", "not a network", "10.0.0.0/8"),
            ("10/8", "not a network", "10.0.0.0/8"),
            ("/8", "not a network", "10.0.0.0/8"),
            ("10.0.0.0/33", "0 to 32", "such as"),
            ("10.0.0.0/", "0 to 32", "such as"),
            ("10.0.0.0/+8", "0 to 32", "such as"),
            ("10.0.0.0/8/8", "0 to 32", "such as"),
            ("::/129", "0 to 128", "such as"),
            ("10.0.0.1/8", "bits set behind", "10.0.0.0/8"),
            ("2001:db8::1/32", "bits set behind", "2001:db8::/32"),
            ("fe80::1%2/64", "zone", "remove"),
            ("::ffff:10.0.0.1", "IPv4-mapped", "10.0.0.1"),
            ("\u{7}", "\\u{7}", "such as"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.problem.contains(problem), "{text}: {error}");
            assert!(error.remedy.contains(remedy), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(address in any::<u128>(), four: bool, bits in 0u8..=128) {
            let address: IpAddr = if four {
                std::net::Ipv4Addr::from_bits(address as u32).into()
            } else {
                // Outside of ::/96 and its neighbours, which may be IPv4-mapped.
                std::net::Ipv6Addr::from_bits(address | 1 << 127).into()
            };
            let network = IpNet::new(address, bits.min(if four { 32 } else { 128 }))
                .expect("a prefix within the family")
                .trunc();
            prop_assert_eq!(parse(&network.to_string()), Ok(network));
        }

        #[test]
        fn no_text_panics(text in r".{0,20}|[0-9a-f.:/%]{0,30}") {
            let _ = parse(&text);
        }
    }
}
