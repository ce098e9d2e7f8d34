//! Pools that cannot be: told before anything listens, with the place and the remedy.
//! All the errors there are have tests beside the configuration, and a name that does
//! not resolve at start is in `names.rs`; here it is the binary that says so.

use std::process::Command;

use crate::kit::*;

/// What `thalweg run` says of such a pool; it must not start.
#[track_caller]
fn refused(keys: &[(&str, &str)]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thalweg"));
    command.args(["run", "-l", "127.0.0.1:0", "-r", "pool"]);
    for (key, value) in keys {
        command.args(["--set", &format!("upstream.pool.{key}={value}")]);
    }
    let child = command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let ended = poll(PATIENCE, || child.try_wait().unwrap());
    if ended.is_none() {
        let _ = child.kill();
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{keys:?}: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_pool_that_cannot_be_is_refused_with_its_place_and_what_to_do() {
    let server = "[\"127.0.0.1:1\"]";
    let cases: [(&[(&str, &str)], &[&str]); 8] = [
        (&[("servers", "[]")], &["servers"]),
        (&[("balance", "first")], &["servers"]),
        (
            &[("servers", "[{ address = \"127.0.0.1:1\", weight = 0 }]")],
            &["weight"],
        ),
        (
            &[("servers", "[{ address = \"127.0.0.1:1\", backup = true }]")],
            &["backup"],
        ),
        (
            &[("servers", server), ("balance", "leastconn")],
            &["leastconn", "least_conn"],
        ),
        (
            &[("servers", server), ("balance", "whatever")],
            &["whatever", "round_robin"],
        ),
        (
            &[
                ("servers", server),
                (
                    "check",
                    "{ type = \"tcp\", interval = \"1s\", timeout = \"2s\" }",
                ),
            ],
            &["timeout", "interval"],
        ),
        (
            &[("servers", server), ("transparent", "true"), ("warm", "1")],
            &["transparent", "warm"],
        ),
    ];
    for (keys, words) in cases {
        let said = refused(keys);
        assert!(said.contains("pool"), "the place: {said}");
        for word in words {
            assert!(said.contains(word), "{word} is not in: {said}");
        }
    }
}
