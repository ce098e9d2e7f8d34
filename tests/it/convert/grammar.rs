//! Read as the originals read: quotes, includes, units, order.

use proptest::prelude::*;

use super::{check, converted, thalweg};
use crate::kit::directory::Directory;

#[test]
fn b171_nginx_includes_are_sorted_relative_and_end() {
    let directory = Directory::new();
    std::fs::create_dir(directory.join("d")).unwrap();
    let file = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    file(
        "nginx.conf",
        "\u{feff}stream {\r\n include d/*.conf;\r\n include absent/*.conf;\r\n}\r\n",
    );
    file("d/b.conf", "server { listen 2; proxy_pass 10.0.0.2:1; }\n");
    file(
        "d/a.conf",
        "server { listen 1; proxy_pass 10.0.0.1:1; } # include loop.conf;\n",
    );
    let main = directory.join("nginx.conf");
    let output = thalweg(&["convert", main.to_str().unwrap()]);
    let written = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let at = |text: &str| {
        written
            .find(text)
            .unwrap_or_else(|| panic!("{text}: {written}"))
    };
    assert!(at("0.0.0.0:1\"") < at("0.0.0.0:2\""));
    assert!(written.contains("d/a.conf:1\n[[forward]]"), "{written}");

    file("d/a.conf", "include d/b.conf;");
    file("d/b.conf", "include d/a.conf;");
    let output = thalweg(&["convert", main.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("includes itself"));
}

#[test]
fn b171_no_file_is_read_that_is_not_included() {
    let directory = Directory::new();
    let file = |name: &str, text: &str| std::fs::write(directory.join(name), text).unwrap();
    file("secret", "server { listen 666; proxy_pass 10.6.6.6:1; }");
    file(
        "nginx.conf",
        "http { include secret; }\nstream { # include secret;\n \
         server { listen 1; proxy_pass \"10.0.0.1:1\"; } }\n",
    );
    let output = thalweg(&["convert", directory.join("nginx.conf").to_str().unwrap()]);
    let written = String::from_utf8(output.stdout).unwrap();
    assert!(!written.contains("666"), "{written}");
    // A FIFO would be waited for, a device has no end.
    let output = thalweg(&["convert", "--from", "nginx", "/dev/zero"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn b172_numbers_have_the_units_of_their_format() {
    let of = |kind: &str, text: &str| {
        let (_, told, written) = converted(kind, text);
        check(&written);
        (told, written)
    };
    let (told, written) = of(
        "nginx",
        "stream { server { listen 1 rcvbuf=64k; proxy_timeout 10; proxy_connect_timeout 1h30m; \
         proxy_pass 10.0.0.1:1; } }",
    );
    assert!(
        written.contains("idle_timeout = \"10s\""),
        "{written}{told}"
    );
    assert!(written.contains("connect_timeout = \"1h30m\""), "{written}");
    assert!(written.contains("receive_buffer = 65536"), "{written}");
    let (_, written) = of(
        "haproxy",
        "listen l\n bind :1\n timeout connect 10\n timeout client 90s\n timeout server 90000\n \
         server s 10.0.0.1:1\n",
    );
    assert!(written.contains("connect_timeout = \"10ms\""), "{written}");
    assert!(written.contains("idle_timeout = \"1m30s\""), "{written}");
    let (_, written) = of(
        "realm",
        "[network]\ntcp_timeout = 7\n[[endpoints]]\nlisten = \"0.0.0.0:1\"\nremote = \"10.0.0.1:1\"\n",
    );
    assert!(written.contains("connect_timeout = \"7s\""), "{written}");
}

#[test]
fn b172_defaults_that_differ_are_written_out_with_ours_beside() {
    for (kind, text, lines) in [
        (
            "nginx",
            "stream { server { listen 1; proxy_pass 10.0.0.1:1; } }",
            &[
                "connect_timeout = \"1m\"",
                "half_close_timeout = \"1ms\"",
                "retry_timeout = \"off\"",
            ][..],
        ),
        (
            "haproxy",
            "listen l\n bind :1\n server s 10.0.0.1:1\n",
            &[
                "connect_timeout = \"off\"",
                "idle_timeout = \"off\"",
                "max_fails = 0",
            ][..],
        ),
        (
            "realm",
            "{\"endpoints\":[{\"listen\":\"0.0.0.0:1\",\"remote\":\"10.0.0.1:1\"}]}",
            &[
                "idle_timeout = \"off\"",
                "retries = 0",
                "keepalive = { idle = \"15s\"",
            ][..],
        ),
        (
            "rinetd",
            "0.0.0.0 1 10.0.0.1 1\n",
            &["idle_timeout = \"off\""][..],
        ),
    ] {
        let (code, told, written) = converted(kind, text);
        assert_eq!(code, 0, "{told}");
        for line in lines {
            let found = written.lines().find(|written| written.contains(line));
            let found = found.unwrap_or_else(|| panic!("{kind}: {line}: {written}"));
            assert!(
                line.starts_with("keepalive") || found.contains("# "),
                "{found}"
            );
        }
    }
}

#[test]
fn b173_the_first_rule_decides_and_inner_lists_replace_outer_ones() {
    let (_, _, written) = converted(
        "nginx",
        "stream { allow 10.0.0.0/8; deny all; server { listen 1; proxy_pass 10.0.0.1:1; } \
         server { listen 2; deny 10.1.0.0/16; proxy_pass 10.0.0.1:1; } }",
    );
    let access: Vec<&str> = written
        .lines()
        .filter(|line| line.starts_with("access"))
        .collect();
    let expected = [
        "access = [\"allow 10.0.0.0/8\", \"deny all\"]",
        "access = [\"deny 10.1.0.0/16\"]",
    ];
    assert_eq!(access, expected, "{written}");
}

#[test]
fn b173_sections_begin_as_their_defaults() {
    let (_, told, written) = converted(
        "haproxy",
        "defaults fast\n timeout connect 1s\n timeout client 5s\n timeout server 5s\n\
         defaults slow\n timeout connect 9s\n timeout client 9h\n timeout server 9h\n balance leastconn\n\
         listen a from fast\n bind :1\n server s 10.0.0.1:1\n\
         listen b\n bind :2\n server s 10.0.0.1:1\n\
         listen c from slow\n bind :3\n timeout connect 2s\n server s 10.0.0.1:1\n",
    );
    let connects: Vec<&str> = written
        .lines()
        .filter(|line| line.starts_with("connect_timeout"))
        .collect();
    let expected = ["\"1s\"", "\"9s\"", "\"2s\""].map(|time| format!("connect_timeout = {time}"));
    assert_eq!(connects, expected, "{told}{written}");
    assert_eq!(
        written.matches("balance = \"least_conn\"").count(),
        2,
        "{written}"
    );
}

/// A megabyte of directives: what is quadratic would take for ever.
#[test]
fn b171_a_large_file_is_read() {
    const LARGE: usize = 1 << 20;
    // A configuration has no more listeners than this and a bit.
    const LINES_MAX: usize = 20_000;
    let filled = |head: &str, line: fn(usize) -> String, tail: &str| {
        let mut text = head.to_owned();
        let mut index = 0;
        while text.len() < LARGE && index < LINES_MAX {
            text.push_str(&line(index));
            index += 1;
        }
        text + tail
    };
    let nginx = filled(
        "stream {\n",
        |index| format!(" upstream u{index} {{ server 10.0.0.1:443 weight=2; }}\n"),
        " server { listen 1; proxy_pass u1; }\n}\n",
    );
    let haproxy = filled(
        "defaults\n timeout connect 1s\n",
        |index| format!("backend b{index}\n server s 10.0.0.1:443 check weight 10\n"),
        "listen l\n bind :1\n server s 10.0.0.1:1\n",
    );
    let rinetd = filled(
        "",
        |index| {
            format!(
                "127.0.{}.1 {} 10.0.0.1 1\n",
                index % 250,
                index % 60_000 + 1
            )
        },
        "",
    );
    for (kind, text) in [("nginx", nginx), ("haproxy", haproxy), ("rinetd", rinetd)] {
        let (code, told, _) = converted(kind, &text);
        assert_eq!(
            code,
            0,
            "{kind}: {}",
            told.lines().next().unwrap_or_default()
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever the bytes are: an answer, and no panic.
    #[test]
    fn b171_any_bytes_are_answered(
        kind in prop::sample::select(vec!["nginx", "haproxy", "realm", "rinetd"]),
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
        words in prop::collection::vec(prop::sample::select(vec![
            "stream {", "server {", "listen 1;", "}", "proxy_pass $x;", "\"", "'", "\\", "map $a $b {",
            "listen l\n", "bind :1\n", "server s 10.0.0.1:1\n", "acl a src\n", "use_backend x if a or\n",
            "defaults\n", "{", "[[endpoints]]\n", "listen = 1\n", "0.0.0.0 80 1.1.1.1 80\n", "allow 1.*\n",
            "tcp-request connection reject if { src\n", "timeout client 99999999999999999999d\n",
        ]), 0..40),
    ) {
        let mut text = bytes;
        for word in words {
            text.extend_from_slice(word.as_bytes());
            text.push(b' ');
        }
        let (code, told, _) = converted(kind, &text);
        prop_assert!((0..=2).contains(&code), "{told}");
        prop_assert!(!told.contains("panicked"), "{told}");
    }
}

#[test]
fn b170_who_an_accept_lets_in_is_limited_here_too_and_that_is_said() {
    let limited = |before: &str| {
        let (code, told, written) = converted(
            "haproxy",
            format!(
                "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n\
                 listen l\n  bind :1\n  stick-table type ip size 1k expire 30s store conn_rate(10s)\n\
                 \x20 tcp-request connection track-sc0 src\n{before}\
                 \x20 tcp-request connection reject if {{ src_conn_rate gt 20 }}\n  server s 10.0.0.1:1\n"
            ),
        );
        assert_eq!(code, 0, "{told}");
        assert!(written.contains("connect_rate"), "{written}");
        told
    };
    let said = "limited here too";
    assert!(!limited("").contains(said));
    let told = limited("  tcp-request connection accept if { src 10.0.0.0/8 }\n");
    assert!(told.contains(said), "{told}");
}
