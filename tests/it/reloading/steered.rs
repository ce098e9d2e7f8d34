//! `thalweg ctl reload`: what would happen, what happens, and back again.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use super::kit::{Echo, Reloadable};
use crate::kit::admin::Admin;
use crate::kit::directory::Directory;
use crate::kit::*;

/// `thalweg ctl` of the forwarder whose endpoint is in this directory.
pub(super) fn ctl(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(["ctl", "--socket"])
        .arg(directory.join("admin.sock"))
        .args(arguments)
        .output()
        .unwrap()
}

#[track_caller]
pub(super) fn said(directory: &Path, arguments: &[&str]) -> String {
    let output = ctl(directory, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Whether the process itself has a listener there: a port that is free by now may be
/// somebody else's.
fn is_listening(it: &Reloadable, port: u16) -> bool {
    it.listening().iter().any(|(of, _)| *of == port)
}

/// A forward that stays, and one more at each of these ports.
fn forwards(echo: &Echo, ports: &[u16]) -> String {
    let forward = |port: &u16| {
        format!(
            "[[forward]]\nname = \"f{port}\"\nlisten = \"127.0.0.1:{port}\"\nupstream = \"{}\"\n",
            echo.address
        )
    };
    ports.iter().map(forward).collect()
}

/// Behaviour 121, and how a mistake is told.
#[test]
fn b121_a_dry_run_says_what_would_happen_and_changes_nothing() {
    on_every_engine(|case| {
        let (echo, admin) = (Echo::new(b'a'), Directory::new());
        let (kept, gone, new) = (free_port(), free_port(), free_port());
        let before = forwards(&echo, &[kept, gone]);
        let it = Reloadable::with(case, &before, 2, Some(1), |setup| setup.admin(&admin));
        let sockets = it.listening();
        it.write(&forwards(&echo, &[kept, new]));
        let would = said(admin.path(), &["reload", "--dry-run"]);
        for expected in [
            "1 forward added, 1 removed".to_owned(),
            format!("opens 127.0.0.1:{new}"),
            format!("closes 127.0.0.1:{gone}"),
        ] {
            assert!(would.contains(&expected), "{expected}: {would}");
        }
        assert_eq!(it.listening(), sockets, "a dry run changed something");
        let did = said(admin.path(), &["reload", "--verbose"]);
        // And how long it took.
        let (did, took) = did.trim_end().rsplit_once('\n').unwrap();
        assert!(took.contains(" ms to apply"), "{took}");
        assert_eq!(would.trim_end().strip_prefix("would be: "), Some(did));
        assert!(is_listening(&it, new) && !is_listening(&it, gone));
        // Another file, compared with what runs.
        let other = it.directory.join("other.toml");
        std::fs::write(&other, forwards(&echo, &[kept, new, gone])).unwrap();
        let other = other.to_str().unwrap();
        let differs = said(admin.path(), &["diff", other]);
        assert!(
            differs.contains(&format!("forward f{gone}: added")),
            "{differs}"
        );
        assert!(!differs.contains(&format!("f{kept}")), "{differs}");
        let same = it.file.to_str().unwrap();
        assert!(
            !said(admin.path(), &["diff", same]).contains("forward"),
            "only flags differ"
        );
        std::fs::write(other, "[[forward]]\nlisten = 1\n").unwrap();
        let wrong = ctl(admin.path(), &["diff", other]);
        assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
        assert!(!is_listening(&it, gone));
        // A mistake: with its place, and nothing is touched.
        it.write("[[forward]]\nlisten = 1\n");
        let refused = ctl(admin.path(), &["reload"]);
        assert_eq!(refused.status.code(), Some(1));
        let why = String::from_utf8_lossy(&refused.stderr);
        assert!(why.contains("thalweg.toml:2:"), "{why}");
        assert!(is_listening(&it, new));
    });
}

/// Behaviour 122: whoever asked is gone, and so is the way to confirm.
#[test]
fn b122_it_goes_back_when_the_one_that_asked_is_gone() {
    on_every_engine(|case| {
        let (echo, admin) = (Echo::new(b'a'), Directory::new());
        let (kept, new) = (free_port(), free_port());
        let before = forwards(&echo, &[kept]);
        let it = Reloadable::with(case, &before, 1, Some(1), |setup| setup.admin(&admin));
        let sockets = it.listening();
        let mut lasting = Peer::connect(([127, 0, 0, 1], kept).into());
        it.write(&forwards(&echo, &[kept, new]));
        let body = "{\"confirm_seconds\": 1.5}";
        let mut asking = Admin::at(&admin.join("admin.sock")).connect();
        let request = format!(
            "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        asking.write_all(request.as_bytes()).unwrap();
        it.forwarder.wait_for_line("1 forward added");
        assert!(is_listening(&it, new));
        // The answer is never read.
        drop(asking);
        it.forwarder
            .wait_for_line("back to what was confirmed last");
        wait_until("it is back", PATIENCE, || !is_listening(&it, new));
        assert_eq!(it.listening(), sockets);
        lasting.send(100);
    });
}

/// Behaviour 122.
#[test]
fn b122_what_is_not_confirmed_is_gone_again() {
    on_every_engine(|case| {
        let (echo, admin) = (Echo::new(b'a'), Directory::new());
        let (kept, new) = (free_port(), free_port());
        let before = forwards(&echo, &[kept]);
        let it = Reloadable::with(case, &before, 1, Some(1), |setup| setup.admin(&admin));
        it.write(&forwards(&echo, &[kept, new]));
        // Nobody confirms.
        let text = said(admin.path(), &["reload", "--confirm", "1s"]);
        assert!(text.contains("goes back in 1 s"), "{text}");
        wait_until("it goes back", PATIENCE, || !is_listening(&it, new));
        let nothing_waits = ctl(admin.path(), &["confirm"]);
        assert_eq!(nothing_waits.status.code(), Some(1));
        // Somebody does not like it.
        said(admin.path(), &["reload", "--confirm", "1h"]);
        assert!(is_listening(&it, new));
        said(admin.path(), &["go-back"]);
        wait_until("it is back", PATIENCE, || !is_listening(&it, new));
        // Somebody confirms.
        said(admin.path(), &["reload", "--confirm", "1h"]);
        said(admin.path(), &["confirm"]);
        assert!(is_listening(&it, new));
        assert_eq!(ctl(admin.path(), &["go-back"]).status.code(), Some(1));
        assert!(is_listening(&it, new) && is_listening(&it, kept));
    });
}
