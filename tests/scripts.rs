//! `scripts/test` must count what cargo says and fail when anything did: it is
//! run here with a cargo that says what the test wants to hear.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory with a `cargo` in it that runs `body`; removed when dropped.
struct FakeCargo(PathBuf);

impl FakeCargo {
    fn new(name: &str, body: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&directory).expect("a directory for the fake cargo");
        let cargo = directory.join("cargo");
        fs::write(&cargo, format!("#!/bin/sh\n{body}\n")).expect("the fake cargo");
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).expect("executable");
        Self(directory)
    }

    /// Runs `scripts/test` from another directory, with this cargo first.
    fn test(&self) -> Output {
        let path = std::env::var("PATH").unwrap_or_default();
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/test"))
            .arg("--no-install")
            .current_dir("/")
            .env("PATH", format!("{}:{path}", self.0.display()))
            // No program there: only what the fake cargo says counts.
            .env("CARGO_TARGET_DIR", &self.0)
            .env("SUITE_SECONDS", "2")
            .output()
            .expect("scripts/test runs")
    }
}

impl Drop for FakeCargo {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a run ends with: its lines from `Skipped:` or `Failed:` on.
fn ending(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let blank = lines.iter().rposition(String::is_empty).unwrap_or(0);
    lines[blank + 1..].to_vec()
}

/// Says `lines` for the suite of tests alone, then ends with `code`.
fn one_suite(lines: &str, code: u8) -> String {
    format!(
        "case \"$*\" in *--tests*) ;; *) exit 0 ;; esac\ncat <<'EOF'\n{lines}\nEOF\nexit {code}"
    )
}

#[test]
fn results_of_every_binary_and_suite_are_added_up() {
    let body = "echo 'test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured'\n\
                echo 'test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured'\n\
                echo Success";
    let output = FakeCargo::new("adds", body).test();
    let last = ending(&output).pop().unwrap_or_default();
    let (passed, rest) = last.split_once(" passed, ").expect("a closing line");
    let passed: u32 = passed.parse().expect("a count");
    assert!(passed >= 24 && passed.is_multiple_of(8), "{last}");
    assert_eq!(rest, format!("0 failed, {} skipped", passed / 8));
    assert!(output.status.success());
}

#[test]
fn a_failure_fails_the_run_and_is_named() {
    let lines = "test b01_fine ... ok\ntest b02_broken ... FAILED\n\
                 test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured";
    let output = FakeCargo::new("fails", &one_suite(lines, 101)).test();
    let ending = ending(&output);
    assert!(!output.status.success());
    assert!(
        ending.iter().any(|line| line.ends_with("b02_broken")),
        "{ending:?}"
    );
    assert!(ending.contains(&"Failed:".to_owned()), "{ending:?}");
}

#[test]
fn what_ends_without_a_result_has_failed() {
    for (name, body) in [
        ("compile", one_suite("error: could not compile", 101)),
        (
            "crash",
            one_suite(
                "test result: ok. 1 passed; 0 failed;\n  process didn't exit successfully: `x` (signal: 6, SIGABRT)",
                101,
            ),
        ),
        (
            "hang",
            "case \"$*\" in *--tests*) exec sleep 60 ;; esac".to_owned(),
        ),
    ] {
        let output = FakeCargo::new(name, &body).test();
        let last = ending(&output).pop().unwrap_or_default();
        assert!(!last.contains(" 0 failed"), "{name}: {last}");
        assert!(!output.status.success(), "{name}");
    }
}

#[test]
fn a_run_that_tested_nothing_fails() {
    let output = FakeCargo::new("nothing", "exit 0").test();
    assert_eq!(ending(&output), ["0 passed, 0 failed, 0 skipped"]);
    assert!(!output.status.success());
}

#[test]
fn a_test_that_skipped_itself_is_not_one_that_passed() {
    let lines = "test b19_syns_dropped ... ok\ntest b20_other ... ok\n\
                 test b99_slow ... ignored, takes an hour\n\
                 test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured";
    let told = "case \"$*\" in *--tests*) echo 'skipped: b19_syns_dropped: not root' >>\"$THALWEG_SKIP_LOG\";\
                echo 'io_uring: not permitted' >>\"$THALWEG_SKIP_LOG\" ;; esac";
    let body = format!("{told}\n{}", one_suite(lines, 0));
    let output = FakeCargo::new("skips", &body).test();
    let ending = ending(&output);
    for what in [
        "b19_syns_dropped: not root",
        "io_uring: not permitted",
        "b99_slow: ignored takes an hour",
    ] {
        assert!(
            ending.iter().any(|line| line.ends_with(what)),
            "{what}: {ending:?}"
        );
    }
    assert!(
        ending.last().is_some_and(|last| last.contains(" 0 failed")),
        "{ending:?}"
    );
    assert!(output.status.success());
}
