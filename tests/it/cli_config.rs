//! The command line and the configuration, end to end on the binary: what `check`
//! says of good and bad files, exit codes, completions, the manual.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::kit::Namespace;

/// A directory that is removed when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("thalweg-{test}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a temporary directory");
        Self(dir)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.join(name);
        fs::write(&path, bytes).expect("a temporary file");
        path.display().to_string()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_thalweg"));
    command
        .args(args)
        .stdin(Stdio::null())
        .env_remove("NO_COLOR");
    command
}

fn thalweg(args: &[&str]) -> Output {
    command(args).output().expect("the binary runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8 on stdout")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8 on stderr")
}

/// What `check` prints of a valid configuration.
#[track_caller]
fn valid(args: &[&str]) -> String {
    let output = thalweg(args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stderr(&output), "");
    stdout(&output)
}

/// What is said on stderr of a wrong command line or configuration.
#[track_caller]
fn refused(args: &[&str]) -> String {
    let output = thalweg(args);
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    assert_eq!(stdout(&output), "", "errors belong on stderr");
    stderr(&output)
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(name);
    path.display().to_string()
}

#[test]
fn the_examples_are_valid_and_their_resolved_form_is_too() {
    let scratch = Scratch::new("examples");
    for name in [
        "thalweg.toml",
        "minimal.toml",
        "pools.toml",
        "http_connect.toml",
    ] {
        let resolved = valid(&["check", "-c", &example(name)]);
        let again = scratch.file(name, resolved.as_bytes());
        assert_eq!(valid(&["check", "-c", &again]), resolved);
    }
    let minimal = valid(&["check", "-c", &example("minimal.toml")]);
    let pair = ["check", "-l", "127.0.0.1:5000", "-r", "127.0.0.1:6000"];
    assert_eq!(minimal, valid(&pair), "as the comment in it says");
    for default in [
        "connect_timeout = \"5s\"",
        "reactors = \"auto\"",
        "nodelay = true",
        "balance = \"round_robin\"",
        "check = \"off\"",
    ] {
        assert!(minimal.contains(default), "{default}");
    }
}

/// What `init` prints is accepted by `check`, through a file and through a pipe of text.
#[test]
fn what_init_prints_is_valid() {
    let scratch = Scratch::new("init");
    let help = valid(&["init", "--help"]);
    for case in [
        "edge",
        "tls-passthrough",
        "database",
        "dns",
        "forward-proxy",
    ] {
        assert!(help.contains(case), "{case}");
        let text = valid(&["init", case]);
        let file = scratch.file(case, text.as_bytes());
        assert!(
            valid(&["check", "-c", &file]).contains("[[forward]]"),
            "{case}"
        );
    }
    assert!(refused(&["init", "egde"]).contains("'edge'"));
}

/// In a network of its own, where nobody has their ports.
#[test]
fn the_examples_start_as_they_stand() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    for name in ["minimal.toml", "pools.toml", "http_connect.toml"] {
        let mut child = namespace.run(|| {
            let file = example(name);
            let mut command = command(&["run", "-c", &file, "--log-to", "stderr"]);
            command
                .stderr(Stdio::piped())
                .spawn()
                .expect("the binary runs")
        });
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let listening = lines.any(|line| line.is_ok_and(|it| it.contains("listening on ")));
        let ended = child.try_wait().expect("a child");
        child.kill().expect("it can be ended");
        child.wait().expect("a child");
        assert!(listening && ended.is_none(), "{name}: {ended:?}");
    }
    // The reference is to copy from, and says so.
    let every_key = fs::read_to_string(example("thalweg.toml")).expect("the example");
    assert!(every_key.contains("as it stands it needs a file of users"));
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).expect("README.md");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for entry in fs::read_dir(folder).expect("examples") {
        let name = entry.expect("an entry").file_name();
        let link = format!("(examples/{})", name.display());
        assert!(readme.contains(&link), "README.md does not name {link}");
    }
}

#[test]
fn check_reads_standard_input_and_is_quiet_when_asked() {
    let mut child = command(&["check", "-q", "-c", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let text = b"[[forward]]\nlisten = \":1\"\nupstream = \"pool\"\n";
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(text).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("standard input:3:12"),
        "{}",
        stderr(&output)
    );
    assert_eq!(valid(&["check", "-q", "-c", &example("minimal.toml")]), "");
}

#[test]
fn b70_all_errors_are_reported_at_once_with_line_and_column() {
    let scratch = Scratch::new("errors");
    let text = "[global]\nreactorz = 4\n\n[defaults]\nidle_timeout = 10\n\n\
                [[forward]]\nlisten = \"::1:443\"\nupstream = \"a:1\"\nclient_profile = \"wam\"\n\n\
                [profile.wan]\nmss = 70000\n";
    let file = scratch.file("bad.toml", text.as_bytes());
    let message = refused(&["check", "-c", &file]);
    for expected in [
        format!("{file}:2:1\n"),
        "2 | reactorz = 4\n  | ^^^^^^^^\n".to_owned(),
        "did you mean `reactors`?".to_owned(),
        format!("{file}:5:16\n"),
        "write \"10s\" for seconds".to_owned(),
        format!("{file}:8:11\n"),
        "did you mean `[::1]:443`?".to_owned(),
        format!("{file}:10:18\n"),
        "did you mean `wan`?".to_owned(),
        format!("{file}:13:7\n"),
        "88 to 32767".to_owned(),
        "5 errors in the configuration".to_owned(),
    ] {
        assert!(message.contains(&expected), "no {expected:?} in\n{message}");
    }
    assert!(
        !message.contains('\x1b'),
        "no colours where there is no terminal"
    );
    // What cannot be checked is not run either, with the same report.
    assert_eq!(refused(&["run", "-c", &file]), message);
}

#[test]
fn b70_no_text_whatever_panics() {
    let scratch = Scratch::new("any");
    let mut texts: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"\0".to_vec(),
        b"\xff\xfe[\0g\0".to_vec(),
        b"\xef\xbb\xbf".to_vec(),
        b"[".to_vec(),
        b"[[forward]]".to_vec(),
        b"[forward]\n[[forward]]".to_vec(),
        b"forward = [1, [2], {}]".to_vec(),
        b"a = \"\"\"".to_vec(),
        b"a = '''\n\n".to_vec(),
        b"profile = [[[[".to_vec(),
        "ü = \"\u{202e}\"".as_bytes().to_vec(),
        b"\x1b[31m = 5\n".to_vec(),
        b"[[forward]]\nlisten = \":1-65535\"\nupstream = \"a:1-65535\"\n".repeat(3),
        b"= = =\n".repeat(1_000),
        b"[a]\n".repeat(10_000),
        b"x=1\n".repeat(10_000),
        b"[".repeat(100_000),
        b"a.".repeat(100_000),
        b"a={".repeat(100_000),
        b"ELF\x7f\x00\x01\x02\r\r\r".repeat(5_000),
    ];
    let every_key = fs::read(example("thalweg.toml")).expect("the example");
    // Cut short anywhere.
    texts.extend(
        (0..every_key.len())
            .step_by(97)
            .map(|len| every_key[..len].to_vec()),
    );
    for (index, text) in texts.iter().enumerate() {
        let file = scratch.file("any.toml", text);
        let output = thalweg(&["check", "-q", "-c", &file]);
        let message = stderr(&output);
        match output.status.code() {
            Some(0) => assert_eq!(message, "", "text {index}"),
            Some(2) => {
                let place = message.lines().find(|line| line.contains("--> "));
                assert!(
                    place.is_some_and(|p| p.contains(&file)),
                    "text {index}: {message}"
                );
                let steering = |c: char| c.is_control() && c != '\n';
                assert!(!message.contains(steering), "text {index}: {message:?}");
            }
            other => panic!("text {index}: exit {other:?}\n{message}"),
        }
    }
}

#[test]
fn the_keys_are_printed_as_a_schema_an_example_and_tables() {
    let schema = valid(&["schema"]);
    assert!(
        schema.starts_with('{') && schema.contains("\"idle_timeout\""),
        "{schema}"
    );
    let every_key = fs::read_to_string(example("thalweg.toml")).expect("the example");
    assert_eq!(valid(&["schema", "--format", "toml"]), every_key);
    assert!(valid(&["schema", "--format", "markdown"]).contains("| `idle_timeout` |"));
    assert!(refused(&["schema", "--format", "yaml"]).contains("json, toml, markdown"));
}

#[test]
fn a_host_that_is_a_number_is_refused_before_anything_is_looked_up() {
    for host in ["0x7f", "127.1", "2130706433", "0x7f.1"] {
        let remote = format!("{host}:80");
        let message = refused(&["check", "-l", ":1", "-r", &remote]);
        assert!(
            message.contains("neither a name nor an IPv4 address"),
            "{message}"
        );
    }
    valid(&["check", "-l", ":1", "-r", "a-.example:80"]);
}

#[test]
fn set_goes_before_the_file_and_is_named_when_wrong() {
    let file = example("thalweg.toml");
    let set = |text: &str| valid(&["check", "-c", &file, "--set", text]);
    assert!(set("global.reactors=2").contains("\nreactors = 2\n"));
    assert!(set("profile.wan.mss=1200").contains("\nmss = 1200\n"));
    assert!(set("forward.web.data_path=splice").contains("data_path = \"splice\""));
    assert!(set("defaults.idle_timeout=5s").contains("idle_timeout = \"5s\""));
    assert!(set("upstream.web.servers=[\"x:1\"]").contains("{ address = \"x:1\","));
    assert!(set("upstream.web.balance=first").contains("balance = \"first\""));
    assert!(set("upstream.web.check.interval=9s").contains("interval = \"9s\""));
    let refused = |text: &str| refused(&["check", "-c", &file, "--set", text]);
    let message = refused("defaults.idel_timeout=5s");
    assert!(
        message.contains("--> --set defaults.idel_timeout=5s\n"),
        "{message}"
    );
    assert!(
        message.contains("did you mean `idle_timeout`?"),
        "{message}"
    );
    assert!(refused("defaults.idle_timeout=5").contains("a duration needs a unit"));
    assert!(refused("forward.wbe.data_path=copy").contains("did you mean forward.web.data_path?"));
}

#[test]
fn flags_are_checked_like_keys() {
    let message = refused(&["-l", "::1:443", "-r", "a:1", "--reactors", "0"]);
    assert!(message.contains("--> -l ::1:443\n"), "{message}");
    assert!(message.contains("--> --reactors 0\n"), "{message}");
    assert!(message.contains("2 errors"), "{message}");
    let message = refused(&["-l", ":1"]);
    assert!(
        message.contains("--> -l :1\n") && message.contains("`-r` is missing"),
        "{message}"
    );
    let message = refused(&["-r", "a:1"]);
    assert!(
        message.contains("--> -r a:1\n") && message.contains("`-l` is missing"),
        "{message}"
    );
    let message = refused(&["check", "-l", ":1-3", "-r", "a:1-4"]);
    assert!(
        message.contains("3 ports cannot pair up with the 4"),
        "{message}"
    );
    assert!(refused(&["run"]).contains("nothing to forward"));
    assert!(
        refused(&["run", "-c", "/nonexistent/x.toml"]).contains("cannot read /nonexistent/x.toml")
    );
}

#[test]
fn check_takes_the_flags_of_run_and_shows_what_they_mean() {
    let pair = ["check", "-l", "127.0.0.1:5000", "-r", "127.0.0.1:6000"];
    let with = |flags: &[&str]| valid(&[&pair[..], flags].concat());
    let text = with(&["--reactors=3", "--engine=epoll", "--data-path=copy"]);
    for line in ["reactors = 3", "engine = \"epoll\"", "data_path = \"copy\""] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    let text = with(&["--log-level=warn", "--log-format=json", "--log-to=./x.log"]);
    for line in ["level = \"warn\"", "format = \"json\"", "to = \"./x.log\""] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    let text = with(&[
        "--log-sessions=all",
        "--tap=pcapng",
        "--tap-to=./x.pcapng",
        "-v",
    ]);
    for line in [
        "sessions = \"all\"",
        "level = \"debug\"",
        "\"pcapng\"",
        "./x.pcapng",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    assert_eq!(
        with(&["-q", "--reactors=3"]),
        "",
        "its own -q prints nothing"
    );
    assert!(refused(&[&pair[..], &["--reactors=0"]].concat()).contains("--> --reactors 0\n"));
}

#[test]
fn check_refuses_listeners_that_run_could_not_have_beside_each_other() {
    let line = |first: &'static str, second: &'static str| {
        [
            "-l",
            first,
            "-r",
            "10.0.0.1:1",
            "-l",
            second,
            "-r",
            "10.0.0.1:1",
        ]
    };
    let overlap = line(":5000", "127.0.0.1:5000");
    for command in ["check", "run", "doctor"] {
        let message = refused(&[&[command], &overlap[..]].concat());
        assert!(message.contains("the same port"), "{message}");
        assert!(message.contains("--> -l 127.0.0.1:5000\n"), "{message}");
    }
    valid(&[&["check"], &line("127.0.0.1:5000", "127.0.0.2:5000")[..]].concat());
}

#[test]
fn wrong_usage_ends_with_two_and_help_with_zero() {
    for args in [
        &["--no-such-flag"][..],
        &["chekc"],
        &["run", "--engine", "kqueue"],
        &["completions", "tcsh"],
        &["-q", "-v", "-l", ":1", "-r", "a:1"],
    ] {
        let message = refused(args);
        assert!(message.starts_with("error: "), "{message}");
    }
    assert!(refused(&["chekc"]).contains("'check'"));
    assert!(refused(&[]).contains("Usage: thalweg -l ADDRESS"));
    for args in [
        &["--help"][..],
        &["-h"],
        &["help", "run"],
        &["check", "--help"],
        &["-V"],
    ] {
        assert!(!valid(args).is_empty());
    }
    let help = valid(&["-h"]);
    for word in [
        "run",
        "check",
        "completions",
        "man",
        "--listen",
        "--remote",
        "--set",
        "Examples:",
    ] {
        assert!(help.contains(word), "{word}");
    }
    assert!(
        help.lines().all(|line| line.chars().count() <= 100),
        "{help}"
    );
}

/// What people write who know another forwarder is answered with what it is called here.
#[test]
fn flags_of_other_forwarders_are_shown_the_way() {
    for (line, hint) in [
        (&["-f", "x.toml"][..], "-c FILE"),
        (&["run", "-f", "x.toml"], "-c FILE"),
        (&["-t"], "`thalweg check -c FILE`"),
        (&["run", "-t", "-c", "x.toml"], "`thalweg check -c FILE`"),
        (&["run", "x.toml"], "-c x.toml"),
        (&["check", "/etc/x.toml"], "-c /etc/x.toml"),
        (&["doctor", "x.toml"], "-c x.toml"),
        (&["x.toml"], "-c x.toml"),
        (&[":5000", "10.0.0.1:80"], "-l ADDRESS -r SERVER"),
        (&["-d", "-l", ":1", "-r", "a:1"], "foreground"),
        (&["--upstream", "a:1"], "-r 10.0.0.1:443"),
        (&["-l", "udp:53", "-r", "a:1"], "protocol = \"udp\""),
        (&["-l", ":53/udp", "-r", "a:1"], "protocol = \"udp\""),
        (&["-l", ":1", "-r", "10.0.0.1"], "`10.0.0.1:PORT`"),
    ] {
        let message = refused(line);
        assert!(message.contains(hint), "{line:?}: {message}");
        assert!(!message.contains("pool"), "{line:?}: {message}");
    }
    let message = refused(&["run", "-l", ":1"]);
    assert!(message.contains("1 error in"), "{message}");
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = valid(&["completions", shell]);
        assert!(script.contains("THALWEG_COMPLETE"), "{shell}: {script}");
    }
    // What the scripts ask for.
    let offered = |line: &[&str]| {
        let output = command(&["--"])
            .args(line)
            .env("THALWEG_COMPLETE", "fish")
            .output()
            .expect("the binary runs");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let words = offered(&["thalweg", ""]);
    for word in ["run", "check", "completions"] {
        assert!(words.contains(word), "{word}: {words}");
    }
    assert!(offered(&["thalweg", "run", "--data"]).contains("--data-path"));
}

#[test]
fn the_manual_has_a_page_for_each_command() {
    let scratch = Scratch::new("man");
    let all = valid(&["man"]);
    assert!(
        all.contains(".TH thalweg 1") && all.contains(".TH thalweg-run 1"),
        "{all}"
    );
    assert!(all.contains(".SH EXAMPLES"));
    assert!(all.is_ascii(), "troff reads bytes, not UTF-8");
    let dir = scratch.0.join("man1");
    let dir = dir.to_str().expect("a UTF-8 path");
    assert_eq!(valid(&["man", "--out", dir]), "");
    for page in ["thalweg.1", "thalweg-run.1", "thalweg-check.1"] {
        let text = fs::read_to_string(Path::new(dir).join(page)).expect(page);
        assert!(
            text.contains(".SH NAME") && text.contains(".SH OPTIONS"),
            "{page}"
        );
    }
    let file = scratch.file("plain", b"");
    assert_eq!(thalweg(&["man", "--out", &file]).status.code(), Some(1));
}

#[test]
fn a_closed_or_full_stdout_is_no_panic() {
    for args in [
        &["check", "-c", &example("thalweg.toml")][..],
        &["completions", "bash"],
        &["man"],
        &["--help"],
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = command(args)
            .stdout(writer)
            .output()
            .expect("the binary runs");
        assert_eq!(
            output.status.code(),
            Some(0),
            "{args:?} {}",
            stderr(&output)
        );
    }
    let full = fs::File::options()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    let output = command(&["man"])
        .stdout(full)
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("cannot write to standard output"));
}
