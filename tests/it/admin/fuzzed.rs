//! A thousand requests made up from the document (147).

use std::process::Command;

use crate::kit::{Directory, Listener, Setup, skip, test_name};

/// Of the package index, with what it needs.
const SCHEMATHESIS: &str = "schemathesis==4.*";

#[test]
fn b147_a_thousand_made_up_requests_find_nothing_that_is_not_described() {
    let directory = Directory::new();
    let Some(program) = install(&directory) else {
        return skip(&test_name(), "schemathesis cannot be installed");
    };
    let server = Listener::new();
    let secret = directory.join("token");
    std::fs::write(&secret, "0123456789abcdef0123\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&secret, mode).unwrap();
    let forwarder = Setup::new(format!("{},127.0.0.1:1", server.address()))
        .set("admin.listen", "127.0.0.1:0")
        .set("admin.token_file", secret.display())
        .start();
    let at = forwarder.wait_for_line("reactors, engine");
    let output = Command::new(program)
        .args(["run", "--max-examples=70", "--seed=1", "--no-color"])
        .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"])
        // Another process would answer from then on, and nobody end it.
        .args(["--exclude-path", "/v1/upgrade"])
        // Answers that go on: the program would read them to their end.
        .args(["--exclude-path", "/v1/live"])
        .args(["--exclude-path", "/v1/events"])
        .args(["--exclude-path", "/v1/tap"])
        .args(["-H", "Authorization: Bearer 0123456789abcdef0123"])
        .arg(format!("http://{}/openapi.json", at.text("admin")))
        .current_dir(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}

fn install(directory: &Directory) -> Option<std::path::PathBuf> {
    let place = directory.join("venv");
    let made = Command::new("python3")
        .args(["-m", "venv"])
        .arg(&place)
        .output()
        .ok()?;
    if !made.status.success() {
        return None;
    }
    let pip = Command::new(place.join("bin/pip"))
        .args([
            "install",
            "--quiet",
            "--disable-pip-version-check",
            SCHEMATHESIS,
        ])
        .output()
        .ok()?;
    pip.status.success().then(|| place.join("bin/schemathesis"))
}
