//! Pools that cannot be: told before anything listens, with the place and the remedy.
//! All the errors there are have tests beside the configuration, and a name that does
//! not resolve at start is in `names.rs`; here it is the binary that says so.

use std::process::Command;

use crate::kit::directory::Directory;
use crate::kit::*;

/// What `thalweg run` says of such a pool; it must not start.
#[track_caller]
fn refused(pool: &str) -> String {
    let directory = Directory::new();
    let file = directory.join("pool.toml");
    let forward = "[[forward]]\nlisten = \"127.0.0.1:0\"\nupstream = \"pool\"\n";
    std::fs::write(&file, format!("{forward}[upstream.pool]\n{pool}\n")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_thalweg"));
    command.args(["run", "-c"]).arg(&file);
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
    assert_eq!(output.status.code(), Some(2), "{pool}: {output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_pool_that_cannot_be_is_refused_with_its_place_and_what_to_do() {
    let cases = [
        ("servers = []", ["servers", "at least one"]),
        ("balance = \"first\"", ["servers", "upstream.pool"]),
        (
            "servers = [{ address = \"127.0.0.1:1\", weight = 0 }]",
            ["weight of zero", "drain"],
        ),
        (
            "servers = [{ address = \"127.0.0.1:1\", backup = true }]",
            ["every server", "backup"],
        ),
        (
            "servers = [\"127.0.0.1:1\"]\nbalance = \"leastconn\"",
            ["leastconn", "least_conn"],
        ),
        (
            "servers = [\"127.0.0.1:1\"]\nbalance = \"whatever\"",
            ["whatever", "round_robin"],
        ),
        (
            "servers = [\"127.0.0.1:1\"]\n\
             check = { type = \"tcp\", interval = \"1s\", timeout = \"2s\" }",
            ["timeout", "interval"],
        ),
        (
            "servers = [\"127.0.0.1:1\"]\ntransparent = true\nwarm = 1",
            ["transparent", "warm"],
        ),
    ];
    for (pool, words) in cases {
        let said = refused(pool);
        assert!(said.contains("pool.toml:"), "the place: {said}");
        for word in words {
            assert!(said.contains(word), "{word} is not in: {said}");
        }
    }
}
