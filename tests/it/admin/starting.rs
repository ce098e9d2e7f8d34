//! Where the endpoint is, and what keeps it from being there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use super::steered;
use crate::kit::{Admin, Directory, Listener, Setup};

#[test]
fn b146_the_socket_is_its_users_alone_and_named_in_the_first_line() {
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()));
    let mode = fs::metadata(steered.admin.socket()).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let said = steered.forwarder.wait_for_line("reactors, engine");
    let at = format!("unix:{}", steered.admin.socket().display());
    assert_eq!(said.text("admin"), at);
    let path = steered.admin.socket().to_owned();
    assert!(steered.forwarder.terminate().success());
    assert!(!path.exists(), "the path stays");
}

#[test]
fn b146_another_instance_has_a_socket_of_its_own() {
    let server = Listener::new();
    let first = steered(Setup::new(server.address()));
    let second = Setup::new(server.address()).admin(&first.directory).start();
    let name = format!("admin-{}.sock", second.process().0);
    let own = Admin::at(&first.directory.join(&name));
    assert_eq!(own.get("/healthz").status, 200);
    assert_eq!(first.admin.get("/healthz").status, 200);
    assert!(second.terminate().success());
    assert!(!own.socket().exists());
    assert_eq!(first.admin.get("/healthz").status, 200);
}

#[test]
fn b146_what_was_asked_for_and_cannot_be_had_is_an_error() {
    let (server, taken, directory) = (Listener::new(), Listener::new(), Directory::new());
    let secret = directory.join("token");
    fs::write(&secret, "0123456789abcdef0123\n").unwrap();
    let mode = |mode| fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o600);
    let refused = |pairs: &[(&str, String)]| {
        let setup = Setup::new(server.address());
        let setup = pairs
            .iter()
            .fold(setup, |setup, (key, value)| setup.set(key, value));
        setup.try_start().unwrap_err()
    };
    let with_token = ("admin.token_file", secret.display().to_string());
    let listen = |at: String| ("admin.listen", at);
    let in_use = taken.address().to_string();
    let error = refused(&[listen(in_use.clone()), with_token.clone()]);
    assert!(error.contains("[admin] cannot listen on"), "{error}");
    let error = refused(&[("metrics.listen", in_use)]);
    assert!(error.contains("[metrics] cannot listen on"), "{error}");
    let error = refused(&[listen("127.0.0.1:0".to_owned())]);
    assert!(error.contains("add `token_file`"), "{error}");
    let long = format!("unix:/tmp/{}", "a".repeat(120));
    let error = refused(&[listen(long)]);
    assert!(error.contains("the kernel takes 107"), "{error}");
    mode(0o644);
    let error = refused(&[listen("127.0.0.1:0".to_owned()), with_token]);
    assert!(error.contains("chmod 0600"), "{error}");
}

/// As for listeners: what is wrong with the configuration is 2, what cannot be had is 1.
#[test]
fn b146_exit_codes_are_those_of_listeners() {
    let (taken, directory) = (Listener::new(), Directory::new());
    let secret = directory.join("token");
    fs::write(&secret, "0123456789abcdef0123\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let code = |settings: &[String]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_thalweg"));
        command.args(["-l", "127.0.0.1:0", "-r", "127.0.0.1:1"]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        let output = command.env("RUNTIME_DIRECTORY", directory.path()).output();
        output.unwrap().status.code()
    };
    let in_use = format!("metrics.listen={}", taken.address());
    assert_eq!(code(&[in_use]), Some(1));
    let long = format!("admin.listen=unix:/tmp/{}", "a".repeat(120));
    assert_eq!(code(&[long]), Some(2));
    let listen = "admin.listen=127.0.0.1:0".to_owned();
    let readable = format!("admin.token_file={}", secret.display());
    assert_eq!(code(&[listen, readable]), Some(1));
}

#[test]
fn b146_without_a_runtime_directory_it_forwards_all_the_same() {
    let server = Listener::new();
    let forwarder = Setup::new(server.address()).start();
    let said = forwarder.wait_for_line("no admin endpoint");
    assert!(said.text("reason").contains("nonexistent"), "{said:?}");
    let _client = forwarder.connect();
    let _ = server.accept();
}
