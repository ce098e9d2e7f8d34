//! `tap`: what is understood, and what is refused.

use super::{BASE, errors};
use crate::config::*;

fn forwards(text: &str) -> Vec<Option<Tap>> {
    let config = Config::parse(text).unwrap_or_else(|errors| panic!("{errors}"));
    config.forwards.iter().map(|it| it.tap.clone()).collect()
}

#[test]
fn a_forward_takes_what_it_does_not_write_from_the_defaults() {
    let text = r#"
[defaults]
tap = { format = "hex", max_bytes_per_session = "1KiB", filter = { direction = "up" } }
[[forward]]
listen = ":1"
upstream = "a:1"
[[forward]]
listen = ":2"
upstream = "a:1"
tap = { format = "pcapng", to = "./x", rotate = { size = "1MiB" } }
[[forward]]
listen = ":3"
upstream = "a:1"
tap = "off"
[[forward]]
listen = ":4"
upstream = "a:1"
tap = false
"#;
    let taps = forwards(text);
    let first = taps[0].as_ref().unwrap();
    assert_eq!(
        (first.format, &first.to),
        (TapFormat::Hex, &TapTarget::Stderr)
    );
    let second = taps[1].as_ref().unwrap();
    assert_eq!(second.format, TapFormat::Pcapng);
    assert_eq!(second.max_bytes_per_session, 1024);
    assert_eq!(second.filter.direction, TapDirection::Up);
    let rotate = Rotate {
        size: 1 << 20,
        keep: 5,
    };
    assert_eq!(second.rotate, Some(rotate));
    assert_eq!(taps[2..], [None, None]);
}

#[test]
fn without_a_tap_there_is_none() {
    assert_eq!(forwards(BASE), [None]);
}

#[test]
fn a_network_contains_its_addresses() {
    let text = format!(
        "{BASE}tap = {{ format = \"hex\", filter = {{ client = [\"10.0.0.0/8\", \"2001:db8::/32\", \"192.0.2.7\", \"::/0\"] }} }}\n"
    );
    let tap = forwards(&text).remove(0).unwrap();
    let [ten, documentation, one, six] = tap.filter.client[..] else {
        panic!("{tap:?}");
    };
    let address = |text: &str| text.parse::<std::net::IpAddr>().unwrap();
    assert!(ten.contains(&address("10.255.0.1")) && !ten.contains(&address("11.0.0.1")));
    assert!(documentation.contains(&address("2001:db8:1::1")));
    assert!(!documentation.contains(&address("2001:db9::1")));
    assert!(one.contains(&address("192.0.2.7")) && !one.contains(&address("192.0.2.8")));
    assert!(six.contains(&address("::1")) && !six.contains(&address("10.0.0.1")));
}

#[test]
fn a_sample_is_even_and_begins_with_the_first() {
    for (part, of) in [(1, 1), (1, 100), (3, 7), (99, 100)] {
        let sample = Sample { part, of };
        assert!(sample.takes(1));
        let taken = |n: u64| (1..=n * u64::from(of)).filter(|n| sample.takes(*n)).count();
        assert_eq!(taken(10), 10 * part as usize);
    }
}

#[test]
fn what_makes_no_tap_is_refused_with_a_remedy() {
    for (tap, words) in [
        ("{}", "no `format`"),
        ("\"hex\"", "tap = { format = \"hex\" }"),
        ("{ format = \"hexx\" }", "did you mean `hex`"),
        ("{ format = \"pcapng\" }", "to = \"./tap.pcapng\""),
        ("{ format = \"hex\", to = \"stdout\" }", "the log's"),
        (
            "{ format = \"hex\", to = \"sterr\" }",
            "did you mean \"stderr\"",
        ),
        ("{ format = \"hex\", to = \"tap\" }", "\"./tap\""),
        ("{ format = \"hex\", to = \"./\" }", "a directory"),
        (
            "{ format = \"hex\", max_bytes_per_session = 0 }",
            "out of range",
        ),
        (
            "{ format = \"hex\", rotate = { size = \"1MiB\" } }",
            "cannot be rotated",
        ),
        (
            "{ format = \"hex\", to = \"./a\", rotate = { keep = 1 } }",
            "no `size`",
        ),
        (
            "{ format = \"hex\", to = \"./a\", rotate = { size = \"1MiB\", keep = 0 } }",
            "from 1",
        ),
        (
            "{ format = \"hex\", filter = { clients = \"::1\" } }",
            "did you mean `client`",
        ),
        ("{ format = \"hex\", filter = { client = [] } }", "nobody"),
        (
            "{ format = \"hex\", filter = { client = \"10.0.0.1/8\" } }",
            "write 10.0.0.0/8",
        ),
        (
            "{ format = \"hex\", filter = { client = \"10.0.0.0/33\" } }",
            "from 0 to 32",
        ),
        (
            "{ format = \"hex\", filter = { client = \"localhost\" } }",
            "not a network",
        ),
        (
            "{ format = \"hex\", filter = { direction = \"out\" } }",
            "not one of",
        ),
        (
            "{ format = \"hex\", filter = { sample = \"1%\" } }",
            "1/100",
        ),
        (
            "{ format = \"hex\", filter = { sample = \"0/5\" } }",
            "out of range",
        ),
        (
            "{ format = \"hex\", filter = { sample = \"6/5\" } }",
            "out of range",
        ),
        ("{ format = \"hex\", unmask = \"yes\" }", "without quotes"),
        ("{ format = \"hex\", mode = 600 }", "put it in quotes"),
        ("{ format = \"hex\", mode = \"0999\" }", "octal digits"),
        ("{ format = \"hex\", mode = \"0444\" }", "by its owner"),
        (
            "{ format = \"http\", mask = [\"X-A\", \"X-B: c\"] }",
            "not the name of a header",
        ),
        (
            "{ fromat = \"hex\", format = \"hex\" }",
            "did you mean `format`",
        ),
    ] {
        let errors = errors(&format!("{BASE}tap = {tap}\n"), &[], &[]);
        assert_eq!(errors.len(), 1, "{tap}: {errors:#?}");
        assert!(errors[0].contains(words), "{tap}: {errors:#?}");
    }
}

#[test]
fn an_error_in_the_defaults_is_told_once() {
    let text = "[defaults]\ntap = { to = \"./x\" }\n[[forward]]\nlisten = \":1\"\nupstream = \"a:1\"\n[[forward]]\nlisten = \":2\"\nupstream = \"a:1\"\n";
    assert_eq!(errors(text, &[], &[]).len(), 1);
}

#[test]
fn taps_that_share_a_file_agree_on_it() {
    let forward = |port: u16, format: &str| {
        format!(
            "[[forward]]\nlisten = \":{port}\"\nupstream = \"a:1\"\ntap = {{ format = \"{format}\", to = \"./x\" }}\n"
        )
    };
    let same = format!("{}{}", forward(1, "hex"), forward(2, "hex"));
    assert_eq!(forwards(&same).len(), 2);
    let errors = errors(
        &format!("{}{}", forward(1, "hex"), forward(2, "text")),
        &[],
        &[],
    );
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("another file"), "{errors:#?}");
}
