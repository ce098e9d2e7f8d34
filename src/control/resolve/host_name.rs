//! What can be looked up: literal addresses, which are not, and the form that the
//! name of a host has.

use std::net::{IpAddr, Ipv6Addr};

use super::query::LookupError;
use crate::proto::host;

/// A literal address, in brackets or without.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().ok().map(IpAddr::from),
        None => host.parse().ok(),
    }
    .map(|ip: IpAddr| ip.to_canonical())
}

/// Whether a text can be the name of a host ([`host::fault`] says what is wrong):
/// anything else is never asked of DNS.
pub fn check_host(host: &str) -> Result<(), LookupError> {
    match host::fault(host) {
        None => Ok(()),
        Some(why) => Err(LookupError::NotAName(why)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn literal_addresses_are_known() {
        for (text, address) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("::1", Some("::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("[192.0.2.1]", None),
            ("[::1", None),
            ("127.1", None),
            ("1.2.3.256", None),
            ("host", None),
        ] {
            let address = address.map(|it| it.parse().expect("an address"));
            assert_eq!(literal(text), address, "{text}");
        }
    }

    #[test]
    fn a_host_has_parts_of_letters_digits_and_dashes() {
        let long = ["a"; 127].join(".");
        for host in [
            "a",
            "db_1.example.",
            "1.2.3.4.example",
            "0x.example",
            "0xg",
            "a-.example",
            "xn--bcher-kva.example",
            &"a".repeat(63),
            &long,
        ] {
            assert_eq!(check_host(host), Ok(()), "{host}");
        }
        for (host, why) in [
            ("", "empty"),
            (".", "empty"),
            ("a..b", "1 to 63"),
            (".a", "1 to 63"),
            ("a..", "1 to 63"),
            ("a.-b", "begin with `-`"),
            ("a b", "only letters"),
            ("b\u{fc}cher.example", "only letters"),
            ("a\0", "only letters"),
            ("127.1", "IPv4"),
            ("2130706433", "IPv4"),
            ("0x7F.1.", "IPv4"),
            ("127.0.0.0X1", "IPv4"),
            ("0x", "IPv4"),
            (&"a".repeat(64), "1 to 63"),
            (&format!("{long}.a"), "253"),
        ] {
            let error = check_host(host).expect_err(host).to_string();
            assert!(error.contains(why), "{host}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_a_host_is_a_name_to_the_library(host in r"[a-z0-9_.-]{1,80}") {
            if check_host(&host).is_ok() {
                let name = hickory_resolver::proto::rr::Name::from_ascii(&host);
                prop_assert!(name.is_ok(), "{:?}", name);
                prop_assert_eq!(literal(&host), None);
            }
        }
    }
}
