//! Addresses as text: what is read, what is refused with which words.

use super::*;
use proptest::prelude::*;

fn problem(text: &str) -> String {
    match text.parse::<AddressRange>() {
        Ok(address) => panic!("`{text}` was read as {address:?}"),
        Err(error) => error.to_string(),
    }
}

fn address(text: &str) -> Address {
    text.parse().expect(text)
}

#[test]
fn every_form_is_read_and_shown() {
    assert_eq!(address(":5000"), Address::Any { port: 5000 });
    assert_eq!(address("*:5000"), Address::Any { port: 5000 });
    assert_eq!(address(":0"), Address::Any { port: 0 });
    assert_eq!(
        address("1.2.3.4:80"),
        Address::Inet(SocketAddr::from(([1, 2, 3, 4], 80)))
    );
    assert_eq!(address("[::1]:443").to_string(), "[::1]:443");
    assert_eq!(address("[::]:443").to_string(), "[::]:443");
    assert_eq!(address("[fe80::1%3]:443").to_string(), "[fe80::1%3]:443");
    assert_eq!(address("[::ffff:1.2.3.4]:80"), address("1.2.3.4:80"));
    assert_eq!(address("A.Example.:443").to_string(), "a.example.:443");
    assert_eq!(address("db_1:5432").to_string(), "db_1:5432");
    assert_eq!(
        address("unix:/run/x y.sock"),
        Address::Unix(UnixName::Path("/run/x y.sock".into()))
    );
    assert_eq!(
        address("unix:@name\\x00\\\\"),
        Address::Unix(UnixName::Abstract(b"name\0\\".to_vec()))
    );
}

#[test]
fn srv_names_are_read_strictly() {
    let srv = |name: &str| Address::Srv(name.to_owned());
    let read = address("srv:_HTTP._TCP.Example.com.");
    assert_eq!(read, srv("_http._tcp.example.com."));
    assert_eq!(read.to_string(), "srv:_http._tcp.example.com.");
    assert!(problem("srv:_http._tcp.").contains("a domain"));
    assert_eq!(address("srv:_db._primary.service.consul").port(), None);
    assert_eq!(address("srv:_xmpp-server._tcp.a").check_server(), Ok(()));
    let listener = address("srv:_http._tcp.a").check_listener();
    assert!(listener.is_err_and(|error| error.to_string().contains("`:5000`")));
    assert_eq!(address(":5000").check_listener(), Ok(()));
    assert_eq!(address("srv:443").port(), Some(443));
    assert!(problem("srv:_._tcp.a").contains("1 to 15"));
    assert!(problem("srv:_letters-._tcp.a").contains("single hyphens"));
    assert!(problem("srv:_sixteen--letters._tcp.a").contains("1 to 15"));
    assert!(problem("srv:_ab--cd._tcp.a").contains("single hyphens"));
    assert!(problem("srv:_a_b._tcp.a").contains("single hyphens"));
    assert!(problem("srv:_http._tcp.a/b").contains("cannot stand"));
}

#[test]
fn ranges_expand_and_are_shown_short() {
    let range: AddressRange = "host:5000-5002".parse().expect("a range");
    assert_eq!(range.len(), 3);
    assert_eq!(range.to_string(), "host:5000-5002");
    let ports: Vec<_> = range.expand().filter_map(|a| a.port()).collect();
    assert_eq!(ports, [5000, 5001, 5002]);
    let whole: AddressRange = ":1-65535".parse().expect("a range");
    assert_eq!(whole.expand().last(), Some(Address::Any { port: 65535 }));
    assert_eq!(range.nth(3), None);
    assert!("host:1-2".parse::<Address>().is_err());
}

#[test]
fn errors_name_the_fault_and_the_remedy() {
    for (text, fault, remedy) in [
        ("", "empty", "HOST:PORT"),
        ("::1:443", "brackets", "did you mean `[::1]:443`?"),
        ("::1", "brackets", "`[::1]:PORT`"),
        ("::1:5000-5009", "brackets", "`[::1]:5000-5009`"),
        ("a:b:c", "more than one colon", "HOST:PORT"),
        ("1.2.3.4", "port is missing", "`1.2.3.4:PORT`"),
        ("[::1]", "port is missing", "`[::1]:443`"),
        ("[::1", "bracket is not closed", "[::1]:443"),
        ("[::1]443", "follows the bracket", "`[::1]:443`"),
        ("[1.2.3.4]:80", "only IPv6", "`1.2.3.4:80`"),
        ("[fe80::1%eth0]:80", "scope `eth0`", "index"),
        ("5000", "port without a colon", "`:5000`"),
        ("host:", "after the colon", "`host:443`"),
        ("host:https", "`https` is not a port", "number"),
        ("udp:53", "does not belong", "protocol = \"udp\""),
        ("udp:53", "does not belong", "`Udp:PORT`"),
        ("tcp:10.0.0.1:53", "does not belong", "write `10.0.0.1:53`;"),
        ("tcp:53", "does not belong", "write `:53`;"),
        ("udp://host:53", "scheme", "protocol = \"udp\""),
        (":53/udp", "`53/udp` is not a port", "protocol = \"udp\""),
        (":53/tcp", "`53/tcp` is not a port", "53 alone"),
        ("UNIX:/run/x", "`/run/x` is not a port", "in small letters"),
        ("host:65536", "65536 is too large", "65535"),
        ("host:99999999999999999999", "too large", "65535"),
        (":9-5", "backwards", "`:5-9`"),
        (":0-5", "start at 0", "`:1-5`"),
        (":5-", "is not a port number", "5000-5009"),
        ("256.1.1.1:80", "nor an IPv4", "0 to 255"),
        ("2130706433:80", "nor an IPv4", "0 to 255"),
        ("0x7f:80", "nor an IPv4", "0 to 255"),
        ("srv:_http._tcp.0x7f", "nor an IPv4", "0 to 255"),
        ("tcp://host:80/x", "scheme", "did you mean `host:80`?"),
        ("ho st:80", "space", "remove"),
        ("a..b:80", "empty part", "extra dot"),
        ("bücher.example:80", "`ü` cannot stand", "xn--"),
        ("a/b:80", "`/` cannot stand", "letters"),
        ("unix:", "is empty", "unix:/path"),
        ("unix:@", "is empty", "unix:@name"),
        ("unix:/a\\q", "backslash", "`\\\\`"),
        ("srv:", "name is missing", "_tcp"),
        ("srv:example.com", "a domain", "_SERVICE._tcp"),
        ("srv:_http._tcp", "a domain", "`srv:_http._tcp.example.com`"),
        ("srv:http._tcp.a", "no underscore", "`_http`"),
        ("srv:_http.tcp.a", "`tcp` is not a protocol", "_tcp"),
        ("srv:_http._.a", "`_` is not a protocol", "_tcp"),
        ("srv:_dns._sctp.a", "`_sctp` is neither", "_tcp"),
        ("srv:_http._tcp.a:80", "has no port", "`srv:_http._tcp.a`"),
        ("srv:_http._tcp..a", "empty part", "extra dot"),
    ] {
        let message = problem(text);
        assert!(message.contains(fault), "{text}: {message}");
        assert!(message.contains(remedy), "{text}: {message}");
    }
    assert!(problem("-a:1").contains("begins with `-`"));
    assert!(problem(&format!("{}:1", "a".repeat(64))).contains("64 characters"));
    assert!(problem(&format!("{}:1", "a.".repeat(130))).contains("253"));
}

#[test]
fn b61_a_unix_path_of_108_bytes_is_refused_and_107_taken() {
    let path = |len: usize| format!("unix:/{}", "p".repeat(len - 1));
    assert!(path(107).parse::<Address>().is_ok());
    let message = problem(&path(108));
    assert!(
        message.contains("108 bytes") && message.contains("107"),
        "{message}"
    );
    let name = |len: usize| format!("unix:@{}", "n".repeat(len));
    assert!(name(107).parse::<Address>().is_ok());
    assert!(problem(&name(108)).contains("108 bytes"));
}

#[test]
fn a_server_needs_a_host_and_a_port() {
    for (text, remedy) in [
        (":443", "`127.0.0.1:443`"),
        ("0.0.0.0:443", "`127.0.0.1:443`"),
        ("[::]:443", "`[::1]:443`"),
        ("host:0", "port of the server"),
    ] {
        let error = address(text).check_server().expect_err(text);
        assert!(error.to_string().contains(remedy), "{error}");
    }
    for text in ["host:443", "[::1]:443", "unix:@x"] {
        assert_eq!(address(text).check_server(), Ok(()));
    }
}

/// Any address that there can be, by its parts and not by its text.
fn any_address() -> impl Strategy<Value = Address> {
    let label = "[a-z0-9_]([a-z0-9_-]{0,5})";
    let plain = prop::collection::vec(label, 1..4).prop_map(|labels| labels.join("."));
    let word = prop::sample::select(vec!["unix", "udp", "tcp", "srv", "localhost", "unix.", "x"]);
    let host = prop_oneof![plain, word.prop_map(str::to_owned)];
    let host = host.prop_filter("a host", |host| host::check(host).is_ok());
    let host = (host, any::<bool>()).prop_map(|(host, whole)| {
        if whole && !host.ends_with('.') {
            format!("{host}.")
        } else {
            host
        }
    });
    let name = || prop::collection::vec(1u8.., 1..=107);
    let v6 = (
        any::<u128>(),
        any::<u16>(),
        prop_oneof![Just(0), any::<u32>()],
    );
    prop_oneof![
        any::<u16>().prop_map(|port| Address::Any { port }),
        (any::<[u8; 4]>(), any::<u16>()).prop_map(|it| Address::Inet(SocketAddr::from(it))),
        v6.prop_map(|(ip, port, scope)| SocketAddrV6::new(Ipv6Addr::from(ip), port, 0, scope))
            .prop_filter("mapped is IPv4", |it| it.ip().to_ipv4_mapped().is_none())
            .prop_map(|it| Address::Inet(SocketAddr::V6(it))),
        (host.clone(), any::<u16>()).prop_map(|(host, port)| Address::Name { host, port }),
        host.prop_map(|domain| Address::Srv(format!("_http._tcp.{domain}"))),
        name().prop_map(|name| Address::Unix(UnixName::Abstract(name))),
        name().prop_map(|name| Address::Unix(UnixName::Path(OsString::from_vec(name).into()))),
    ]
}

/// Found by the fuzzer: a host that is called like the prefix of a unix socket.
#[test]
fn a_host_called_like_a_prefix_stays_a_host() {
    for text in ["uNix:80", "UNIX:80", "Unix:80", "Udp:53", "TCP:1"] {
        let read = address(text);
        assert!(matches!(&read, Address::Name { .. }), "{text}: {read:?}");
        assert_eq!(address(&read.to_string()), read, "{text}");
    }
    assert_eq!(address("uNix:80").to_string(), "Unix:80");
    assert_eq!(
        "uNix:1-3".parse::<AddressRange>().unwrap().to_string(),
        "Unix:1-3"
    );
    assert!(matches!(address("unix:80"), Address::Unix(_)));
}

proptest! {
    /// Print and parse are inverse.
    #[test]
    fn every_address_reads_back_as_it_is_shown(address in any_address()) {
        let text = address.to_string();
        prop_assert_eq!(text.parse(), Ok(address), "{}", text);
    }

    #[test]
    fn any_text_is_an_address_that_reads_back_or_an_error(text in ".{0,60}") {
        if let Ok(range) = text.parse::<AddressRange>() {
            prop_assert_eq!(range.to_string().parse(), Ok(range));
        }
    }

    #[test]
    fn any_likely_text_reads_back(text in r"(\*|[a-c.]{0,4}|\[[0-9a-f:%.]{0,8}\]|[0-9.]{0,9}|unix:@?)?[:/]?[0-9-]{0,7}") {
        if let Ok(range) = text.parse::<AddressRange>() {
            prop_assert_eq!(range.to_string().parse(), Ok(range.clone()));
            prop_assert_eq!(range.expand().count(), range.len());
        }
    }

    #[test]
    fn any_likely_srv_name_reads_back(text in r"srv:_[a-c-]{1,4}\._?(tcp|udp|t)(\.[a-c_-]{0,3}){0,2}\.?(:1)?") {
        if let Ok(address) = text.parse::<Address>() {
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }

    #[test]
    fn any_unix_name_reads_back(name in prop::collection::vec(1u8.., 1..=107)) {
        let abstract_name = Address::Unix(UnixName::Abstract(name.clone()));
        let path = Address::Unix(UnixName::Path(OsString::from_vec(name.clone()).into()));
        for address in [abstract_name, path] {
            let text = address.to_string();
            // Neither a list of addresses nor what trims its parts changes it.
            prop_assert!(!text.contains(',') && text.trim() == text, "{}", text);
            prop_assert_eq!(text.parse(), Ok(address));
        }
    }
}
