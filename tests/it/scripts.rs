//! `scripts/test` must count what cargo says and fail when anything did: it is
//! run here with a cargo and a thalweg that say what the test wants to hear.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory with a `cargo` in it and a target directory with a `thalweg`;
/// removed when dropped.
struct Fake(PathBuf);

impl Fake {
    /// Builds answer nothing, `suites` is what cargo does for each suite of tests,
    /// and what the program does succeeds.
    fn new(name: &str, suites: &str) -> Self {
        let fake = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        fake.script(
            "cargo",
            &format!("case \"$*\" in *--no-run*) exit 0 ;; esac\n{suites}"),
        );
        fake.script("checked/thalweg", "exit 0");
        fake
    }

    fn script(&self, name: &str, body: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("it can be made");
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("the script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
    }

    /// Runs `scripts/test` from another directory, with this cargo first.
    fn run(&self) -> Run {
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/test"))
            .arg("--no-install")
            .current_dir("/")
            .env("PATH", format!("{}:{path}", self.0.display()))
            .env("CARGO_TARGET_DIR", &self.0)
            .env("SILENCE_SECONDS", "2")
            .output();
        Run::of(&output.expect("scripts/test runs"))
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a run ended with.
struct Run {
    succeeded: bool,
    /// What was skipped and what failed.
    named: Vec<String>,
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Run {
    fn of(output: &Output) -> Self {
        let text = String::from_utf8_lossy(&output.stdout);
        let lines: Vec<&str> = text.lines().collect();
        let blank = lines.iter().rposition(|line| line.is_empty()).unwrap_or(0);
        let (closing, named) = lines[blank + 1..].split_last().expect("a closing line");
        let numbers: Vec<u32> = closing
            .split(' ')
            .filter_map(|it| it.parse().ok())
            .collect();
        let &[passed, failed, skipped] = &numbers[..] else {
            panic!("the closing line is: {closing}")
        };
        let form = format!("{passed} passed, {failed} failed, {skipped} skipped");
        assert_eq!(*closing, form);
        Self {
            succeeded: output.status.success(),
            named: named.iter().map(|line| line.trim().to_owned()).collect(),
            passed,
            failed,
            skipped,
        }
    }

    fn names(&self, what: &str) -> bool {
        self.named.iter().any(|line| line.ends_with(what))
    }
}

/// A cargo that says `lines` for the first suite of tests and ends with `code`; nothing
/// for others.
fn one_suite(lines: &str, code: u8) -> String {
    format!(
        "case \"$*\" in *--all-features*) exit 0 ;; *--bins*) ;; *) exit 0 ;; esac\n\
         cat <<'EOF'\n{lines}\nEOF\nexit {code}"
    )
}

#[test]
fn results_of_every_binary_are_added_up() {
    let lines = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n\
                 test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured\n\
                 Testing lane/message\nSuccess";
    let run = Fake::new("adds", &one_suite(lines, 0)).run();
    // Two more are the demo and the benchmark.
    assert_eq!((run.passed, run.failed, run.skipped), (8 + 2, 0, 1));
    assert!(run.succeeded);
}

#[test]
fn a_failure_fails_the_run_and_is_named() {
    let lines = "test b01_fine ... ok\ntest b02_broken ... FAILED\n\
                 test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured";
    let run = Fake::new("fails", &one_suite(lines, 101)).run();
    assert_eq!((run.passed, run.failed), (1 + 2, 1));
    assert!(
        run.names("units, default features: b02_broken"),
        "{:?}",
        run.named
    );
    assert!(!run.succeeded);
}

/// Cargo's first suite fails in these tests, and each that is run by itself does as
/// `alone` says of it.
fn failing(tests: &[&str], alone: &str) -> String {
    let each = tests.iter().map(|test| format!("test {test} ... FAILED"));
    let lines = each.collect::<Vec<_>>().join("\n");
    let broken = tests.len();
    let lines = format!("{lines}\ntest result: FAILED. 9 passed; {broken} failed; 0 ignored;");
    format!(
        "case \"$*\" in *--exact*) for test; do :; done; {alone} ;; esac\n{}",
        one_suite(&lines, 101)
    )
}

#[test]
fn a_test_that_passes_by_itself_is_unsteady_and_named() {
    let alone = "case $test in\n\
                 a::b01_once) echo 'test result: ok. 1 passed; 0 failed;'; exit 0 ;;\n\
                 *) echo 'test result: FAILED. 0 passed; 1 failed;'; exit 101 ;; esac";
    let run = Fake::new("unsteady", &failing(&["a::b01_once"], alone)).run();
    assert_eq!((run.passed, run.failed), (9 + 1 + 2, 0));
    let said = "a::b01_once: failed beside the others, passed by itself";
    assert!(run.names(said), "{:?}", run.named);
    assert!(run.succeeded);

    let run = Fake::new("twice", &failing(&["a::b01_once", "a::b02_twice"], alone)).run();
    assert_eq!((run.passed, run.failed), (9 + 1 + 2, 1));
    assert!(run.names(said), "{:?}", run.named);
    assert!(
        run.names("units, default features: a::b02_twice"),
        "{:?}",
        run.named
    );
    assert!(!run.succeeded);
}

#[test]
fn many_that_fail_are_no_accident() {
    let alone = "echo 'test result: ok. 1 passed; 0 failed;'; exit 0";
    let run = Fake::new("many", &failing(&["a", "b", "c", "d"], alone)).run();
    assert_eq!((run.failed, run.succeeded), (4, false));
    // A name that selects nothing has not passed.
    let none = "echo 'test result: ok. 0 passed; 0 failed;'; exit 0";
    let run = Fake::new("none", &failing(&["a"], none)).run();
    assert_eq!((run.failed, run.succeeded), (1, false));
}

#[test]
fn what_ends_without_a_result_has_failed() {
    let crash = "test result: ok. 1 passed; 0 failed;\n  \
                 process didn't exit successfully: `x` (signal: 6, SIGABRT)";
    let hang = "case \"$*\" in *--all-features*) ;; *--bins*) exec sleep 60 ;; esac";
    for (name, suites, why) in [
        ("compile", &*one_suite("error: no", 101), "exit code 101"),
        ("crash", &*one_suite(crash, 101), "SIGABRT)"),
        ("hang", hang, "said nothing for 2 s"),
    ] {
        let run = Fake::new(name, suites).run();
        assert_eq!(run.failed, 1, "{name}");
        assert!(run.names(why), "{name}: {:?}", run.named);
        assert!(!run.succeeded, "{name}");
    }
}

#[test]
fn a_build_or_a_program_that_fails_is_a_failure() {
    let fake = Fake::new("program", &one_suite("test result: ok. 1 passed;", 0));
    fake.script("checked/thalweg", "[ \"$1\" = bench ]");
    let run = fake.run();
    assert_eq!((run.passed, run.failed, run.succeeded), (2, 1, false));
    assert!(
        run.names("thalweg demo: ended with exit code 1"),
        "{:?}",
        run.named
    );

    fake.script("cargo", "echo 'test result: ok. 1 passed;'; exit 101");
    fake.script("checked/thalweg", "exit 0");
    let run = fake.run();
    assert!(
        run.names("build, default features: ended with exit code 101"),
        "{:?}",
        run.named
    );
    assert!(!run.succeeded);
}

#[test]
fn the_standard_comparison_names_a_program_that_is_not_there() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/bench-nginx");
    for (arguments, told) in [
        (
            &["--nginx", "no/nginx"][..],
            "--nginx: there is no program no/nginx",
        ),
        (&["--haproxy", "/"], "--haproxy: there is no program /"),
        (&["--haproxy"], "--haproxy wants the path of a program"),
    ] {
        let output = Command::new(&script)
            .args(arguments)
            .current_dir("/")
            .output()
            .expect("scripts/bench-nginx runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(told), "{errors}");
    }
}

#[test]
fn a_test_that_skipped_itself_is_not_one_that_passed() {
    let lines = "test b19_syns_dropped ... ok\ntest b20_other ... ok\n\
                 test b99_slow ... ignored, takes an hour\n\
                 test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured";
    let told = "case \"$*\" in *--all-features*) ;; *--bins*)\n\
                echo 'skipped: b19_syns_dropped: not root' >>\"$THALWEG_SKIP_LOG\"\n\
                echo 'io_uring: not permitted' >>\"$THALWEG_SKIP_LOG\" ;; esac";
    let run = Fake::new("skips", &format!("{told}\n{}", one_suite(lines, 0))).run();
    assert_eq!((run.passed, run.failed, run.skipped), (1 + 2, 0, 3));
    for what in [
        "b19_syns_dropped: not root",
        "io_uring: not permitted",
        "b99_slow: ignored takes an hour",
    ] {
        assert!(run.names(what), "{what}: {:?}", run.named);
    }
    assert!(run.succeeded);
}
