//! What can be looked up: literal addresses, which are not, and the form that the
//! name of a host has.

use std::net::{IpAddr, Ipv6Addr};

use super::error::LookupError;
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

/// Whether a text can be the name of a host: anything else is never asked of DNS.
pub fn check_host(host: &str) -> Result<(), LookupError> {
    host::check(host).map_err(|error| LookupError::NotAName(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Config;
    use crate::net::address::Address;
    use crate::policy::access::Rule;
    use crate::proto::target::Target;

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

    fn any_host() -> impl Strategy<Value = String> {
        prop_oneof![
            r"[a-z0-9xX_.-]{1,80}",
            r"(0x)?[0-9a-f]{0,3}(\.(0x)?[0-9a-f]{0,3}){0,4}\.?",
            r"-?[a-z]{0,3}-?\.-?[a-z]{0,2}-?\.?",
        ]
    }

    proptest! {
        #[test]
        fn whoever_takes_the_name_of_a_host_takes_the_same(host in any_host()) {
            // Nothing is every address of this host; behind that word stands a path.
            prop_assume!(!host.is_empty() && host != "unix");
            let name = host::check(&host).is_ok();
            let either = name || host.parse::<std::net::Ipv4Addr>().is_ok();
            prop_assert_eq!(check_host(&host).is_ok(), name);
            prop_assert_eq!(format!("{host}:80").parse::<Address>().is_ok(), either);
            prop_assert_eq!(Target::parse(&format!("{host}:80")).is_ok(), either);
            prop_assert_eq!(host.parse::<Rule>().is_ok(), either);
            let service = format!("_http._tcp.{host}");
            let records = format!("srv:{service}").parse::<Address>();
            prop_assert_eq!(records.is_ok(), host::check(&service).is_ok());
            let asked = Config::parse(&format!(
                "[[forward]]\nlisten = \":1\"\nupstream = {{ servers = [\"a:1\"], \
                 check = {{ type = \"tls\", server_name = \"{host}\" }} }}\n"
            ));
            prop_assert_eq!(asked.is_ok(), name, "{:?}", asked);
        }

        #[test]
        fn what_is_a_host_is_a_name_to_the_library(host in r"[a-z0-9_.-]{1,80}") {
            if check_host(&host).is_ok() {
                let name = hickory_proto::rr::Name::from_ascii(&host);
                prop_assert!(name.is_ok(), "{:?}", name);
                prop_assert_eq!(literal(&host), None);
            }
        }
    }
}
