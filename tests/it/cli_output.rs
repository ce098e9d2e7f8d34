//! Where the output of a command cannot go: a reader that has left, a device that is
//! full. Nothing panics; the first ends quietly, the second with 1 and a line.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::kit::poll;

/// Long enough for a measurement on a machine ten times slower.
const PATIENCE: Duration = Duration::from_secs(120);

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thalweg"));
    command.args(args).stdin(Stdio::null());
    command
}

/// A pipe whose reader has left.
fn broken() -> Stdio {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// A device that takes nothing.
fn full() -> Stdio {
    File::options()
        .write(true)
        .open("/dev/full")
        .unwrap()
        .into()
}

/// Ends the process with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An origin and its command port.
fn origin() -> (Running, String) {
    let mut child = Running(
        command(&["origin", "-l", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut line = String::new();
    let mut reader = BufReader::new(child.0.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("commands on ").unwrap().to_owned();
    (child, address)
}

/// Its exit code and what it says on stderr, with this standard output.
fn run(args: &[&str], stdout: Stdio) -> (ExitStatus, String) {
    let mut child = Running(
        command(args)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let mut stderr = String::new();
    let mut pipe = child.0.stderr.take().unwrap();
    // What it says fits into the pipe.
    let status = poll(PATIENCE, || child.0.try_wait().unwrap());
    let status = status.unwrap_or_else(|| panic!("{args:?} does not end"));
    pipe.read_to_string(&mut stderr).unwrap();
    (status, stderr)
}

/// Every command that there is, by its own help.
fn commands() -> Vec<String> {
    let output = command(&["--help"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().skip_while(|line| *line != "Commands:").skip(1);
    let lines = lines.take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

const PAIR: [&str; 4] = ["-l", "127.0.0.1:0", "-r", "127.0.0.1:1"];

/// Command lines that print and end.
fn lines(origin: &str) -> Vec<Vec<String>> {
    let mut lines: Vec<Vec<String>> = Vec::new();
    let mut add = |words: &[&str]| lines.push(words.iter().map(|it| (*it).to_owned()).collect());
    let names = commands();
    assert!(names.len() > 10, "{names:?}");
    for name in &names {
        if name != "help" {
            add(&[name, "--help"]);
            add(&[name, "-h"]);
        }
        add(&["help", name]);
    }
    add(&["--help"]);
    add(&["--version"]);
    add(&["-V"]);
    add(&[&["check"], &PAIR[..]].concat());
    add(&["doctor"]);
    add(&["doctor", "--json"]);
    for format in ["json", "toml", "markdown"] {
        add(&["schema", "--format", format]);
    }
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        add(&["completions", shell]);
    }
    add(&["man"]);
    add(&["probe", origin]);
    add(&["probe", origin, "--json"]);
    add(&["origin", "-l", "127.0.0.1:0"]);
    lines
}

#[test]
fn a_reader_that_has_left_ends_every_command_quietly() {
    let (_running, origin) = origin();
    for line in lines(&origin) {
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let (status, stderr) = run(&line, broken());
        assert_eq!(status.code(), Some(0), "{line:?}: {stderr}");
        assert_eq!(stderr, "", "{line:?}");
    }
}

#[test]
fn a_full_device_ends_every_command_with_1_and_a_line() {
    let (_running, origin) = origin();
    for line in lines(&origin) {
        let line: Vec<&str> = line.iter().map(String::as_str).collect();
        let (status, stderr) = run(&line, full());
        assert_eq!(status.code(), Some(1), "{line:?}: {stderr}");
        let said = "thalweg: cannot write to standard output: No space left on device";
        assert!(stderr.starts_with(said), "{line:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{line:?}: {stderr}");
    }
}

/// What is wrong is on stderr alone, and nobody may be there either.
#[test]
fn where_nobody_hears_what_is_wrong_the_exit_code_still_says_it() {
    let cases: [(&[&str], i32); 9] = [
        (&["--no-such-flag"], 2),
        (&["check"], 2),
        (&["check", "-c", "/no/such/file"], 2),
        (&["run", "-l", ":1"], 2),
        (&["doctor", "-c", "/no/such/file"], 2),
        (&["probe", "127.0.0.1:1"], 1),
        (&["origin", "-l", "192.0.2.1:7"], 1),
        (&["man", "--out", "/dev/null/x"], 1),
        (&["run", "-l", "192.0.2.1:7", "-r", "127.0.0.1:1"], 1),
    ];
    for (line, code) in cases {
        for stderr in [broken as fn() -> Stdio, full] {
            let mut child = Running(
                command(line)
                    .stdout(Stdio::null())
                    .stderr(stderr())
                    .spawn()
                    .unwrap(),
            );
            let status = poll(PATIENCE, || child.0.try_wait().unwrap());
            let found = status.and_then(|it| it.code());
            assert_eq!(found, Some(code), "{line:?}");
        }
    }
}

/// The commands that talk while they work, with nobody to hear it.
#[test]
fn a_measurement_needs_no_listener() {
    let lines: [&[&str]; 2] = [
        &["demo", "--time", "1s"],
        &[
            "bench",
            "--subjects=direct",
            "--shapes=rr",
            "--rounds=3",
            "--duration=20ms",
            "--warm-up=10ms",
            "--idle-sessions=0",
            "--layout=one-core",
            "--netns=no",
        ],
    ];
    for line in lines {
        for (output, code) in [(broken as fn() -> Stdio, 0), (full, 1)] {
            let mut child = Running(
                command(line)
                    .stdout(output())
                    .stderr(output())
                    .spawn()
                    .unwrap(),
            );
            let status = poll(PATIENCE, || child.0.try_wait().unwrap());
            let found = status.and_then(|it| it.code());
            assert_eq!(found, Some(code), "{line:?}");
        }
    }
}

/// A pipe that somebody else made non-blocking takes everything all the same.
#[test]
fn a_slow_reader_of_a_pipe_that_does_not_block_gets_all() {
    let (mut reader, writer) = io::pipe().unwrap();
    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    // More than a pipe holds.
    let mut child = Running(
        command(&["check", "-l", ":1-2000", "-r", "10.0.0.1:1-2000"])
            .stdout(writer)
            .spawn()
            .unwrap(),
    );
    std::thread::sleep(Duration::from_millis(100));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(child.0.wait().unwrap().success());
    assert!(text.len() > 200_000, "{}", text.len());
    assert_eq!(text.matches("[[forward]]").count(), 2000);
}
