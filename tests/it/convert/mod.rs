//! `thalweg convert`: a corpus of files as people write them, each with what comes of it.
//!
//! Beside each file of `tests/convert` lies `NAME.expected`: the exit code, what is told, and
//! what is written. `THALWEG_RENEW=1` writes them anew, to be read before they are kept.

mod beside;
mod grammar;

pub(crate) use beside::hello;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::kit::directory::Directory;

/// Every file of the corpus, by its name from the root of the project.
fn corpus() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for kind in ["nginx", "haproxy", "realm", "rinetd"] {
        let directory = Path::new("tests/convert").join(kind);
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for entry in std::fs::read_dir(root.join(&directory)).unwrap() {
            let name = entry.unwrap().file_name();
            if Path::new(&name)
                .extension()
                .is_none_or(|extension| extension != "expected")
            {
                files.push(directory.join(name));
            }
        }
    }
    files.sort();
    files
}

fn thalweg(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("THALWEG_SURELY_NOT_SET")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Writes a file and converts it: exit code, what is told, what is written.
fn converted(kind: &str, text: impl AsRef<[u8]>) -> (i32, String, String) {
    let directory = Directory::new();
    let path = directory.join("input");
    std::fs::write(&path, text).unwrap();
    let output = thalweg(&["convert", "--from", kind, path.to_str().unwrap()]);
    let told = String::from_utf8(output.stderr).unwrap();
    let told = told.replace(&path.display().to_string(), "input");
    let written = String::from_utf8(output.stdout).unwrap();
    let written = written.replace(&path.display().to_string(), "input");
    (output.status.code().unwrap(), told, written)
}

/// Whether `check` takes what was written.
fn check(toml: &str) {
    let directory = Directory::new();
    let path = directory.join("thalweg.toml");
    std::fs::write(&path, toml).unwrap();
    let output = thalweg(&["check", "--quiet", "-c", path.to_str().unwrap()]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{toml}");
}

#[test]
fn b169_the_corpus_becomes_what_is_expected_and_is_valid() {
    let files = corpus();
    assert!(files.len() >= 10, "{files:?}");
    for file in files {
        let name = file.to_str().unwrap();
        let output = thalweg(&["convert", name]);
        let written = String::from_utf8(output.stdout).unwrap();
        check(&written);
        let got = format!(
            "exit {}\n{}\n{written}",
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("{name}.expected"));
        if std::env::var_os("THALWEG_RENEW").is_some() {
            std::fs::write(&path, &got).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(expected == got, "{name} comes out otherwise:\n{got}");
    }
}

/// Each directive is told of or stands in the result: none is swallowed.
#[test]
fn b170_nothing_vanishes() {
    let line_of = |line: &str| -> usize {
        let rest = line
            .split(".conf:")
            .nth(1)
            .or_else(|| line.split(".cfg:").nth(1));
        rest.and_then(|rest| rest.split(':').next()?.parse().ok())
            .unwrap_or(0)
    };
    for name in [
        "tests/convert/nginx/left.conf",
        "tests/convert/haproxy/left.cfg",
    ] {
        let output = thalweg(&["convert", name]);
        assert_eq!(
            output.status.code(),
            Some(1),
            "something that matters is left in {name}"
        );
        let told = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<usize> = told
            .lines()
            .filter(|line| line.contains(": not converted: "))
            .map(line_of)
            .collect();
        let text =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap();
        for (index, line) in text.lines().enumerate() {
            let lost = [
                "js_import",
                "proxy_ssl on",
                "by_lua",
                "ssl_certificate",
                "http {",
                " ssl ",
            ]
            .iter()
            .chain(&["mode http", "nbsrv", "peers mates"])
            .any(|word| line.contains(word));
            let skipped = line.trim_start().starts_with(['#']) || line.contains("mode http");
            if lost && !skipped {
                assert!(
                    lines.contains(&(index + 1)),
                    "{name}:{}: {line}\n{told}",
                    index + 1
                );
            }
        }
    }
    // A directive that nobody has heard of, at every level.
    let nobody = "one_a 1;\nstream {\n two_b 2;\n upstream u { three_c; server 10.0.0.1:1; }\n \
                  server { listen 1; proxy_pass u; four_d; }\n}\n";
    let (code, told, _) = converted("nginx", nobody);
    assert_eq!(code, 1);
    for word in ["one_a", "two_b", "three_c", "four_d"] {
        assert!(
            told.contains(&format!("not converted: {word}")),
            "{word}: {told}"
        );
    }
    let nobody = "global\n one-a 1\ndefaults\n two-b 2\n mode tcp\nlisten l\n bind :1\n three-c\n \
                  server s 10.0.0.1:1 four-d\n";
    let (code, told, _) = converted("haproxy", nobody);
    assert_eq!(code, 1);
    for word in ["one-a", "two-b", "three-c", "four-d"] {
        assert!(
            told.contains(word) && told.contains("not known"),
            "{word}: {told}"
        );
    }
}

/// A rule that keeps somebody out and could not be converted: no forward that lets him in.
#[test]
fn b170_a_forward_that_would_let_in_more_is_not_written() {
    let nginx = "stream { server { listen 1; deny nonsense; proxy_pass 10.0.0.1:1; } \
                 server { listen 2; proxy_pass 10.0.0.1:1; } }";
    let haproxy = "listen a\n bind :1\n tcp-request connection reject if { src_get_gpc0 gt 1 }\n \
                   server s 10.0.0.1:1\nlisten b\n bind :2\n server s 10.0.0.1:1\n";
    // Who is in 10.0.0.0/8 passes on to the next rule, and not in.
    let order = "listen a\n bind :1\n tcp-request connection reject if !{ src 10.0.0.0/8 }\n \
                 tcp-request connection reject if { src 10.9.0.0/16 }\n server s 10.0.0.1:1\n\
                 listen b\n bind :2\n server s 10.0.0.1:1\n";
    let rinetd = "0.0.0.0 1 10.0.0.1 1\ndeny 1?.2.3.4\n0.0.0.0 2 10.0.0.1 1\n";
    for (kind, text) in [
        ("nginx", nginx),
        ("haproxy", haproxy),
        ("haproxy", order),
        ("rinetd", rinetd),
    ] {
        let (code, told, written) = converted(kind, text);
        assert_eq!(code, 1, "{told}");
        assert!(told.contains("not written: it would let in whom"), "{told}");
        assert!(written.contains("0.0.0.0:2\""), "{written}");
        assert!(!written.contains("0.0.0.0:1\""), "{written}");
    }
}

#[test]
fn b174_the_same_input_gives_the_same_bytes_and_each_forward_its_origin() {
    for file in corpus() {
        let name = file.to_str().unwrap();
        let first = thalweg(&["convert", name]);
        for _ in 0..3 {
            let again = thalweg(&["convert", name]);
            assert!(
                first.stdout == again.stdout && first.stderr == again.stderr,
                "{name}"
            );
        }
        let written = String::from_utf8(first.stdout).unwrap();
        let lines: Vec<&str> = written.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            if *line == "[[forward]]" || *line == "[[forward.route]]" {
                let origin = format!("# {name}:");
                assert!(
                    lines[index - 1].starts_with(&origin),
                    "{name}: {}",
                    lines[index - 1]
                );
            }
        }
    }
}

#[test]
fn b174_secrets_and_certificates_are_not_copied_out() {
    let nginx = "stream { server { listen 1 ssl; ssl_certificate_key /etc/k.pem; \
                 ssl_password_file SECRET1; proxy_pass 10.0.0.1:1; } }";
    let haproxy = "userlist u\n user a insecure-password SECRET2\nglobal\n stats auth a:SECRET3\n\
                   listen l\n bind :1\n stats auth a:SECRET4\n server s 10.0.0.1:1\n";
    for (kind, text) in [("nginx", nginx), ("haproxy", haproxy)] {
        let (_, told, written) = converted(kind, text);
        assert!(
            !told.contains("SECRET") && !written.contains("SECRET"),
            "{told}\n{written}"
        );
    }
}

#[test]
fn the_command_says_what_it_cannot_do() {
    let directory = Directory::new();
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let said = |arguments: &[&str]| {
        let output = thalweg(arguments);
        (
            output.status.code().unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (code, told) = said(&["convert", &path("absent.conf")]);
    assert_eq!(code, 2, "{told}");
    std::fs::write(directory.join("unknown"), "hello\n").unwrap();
    let (code, told) = said(&["convert", &path("unknown")]);
    assert!(
        code == 2 && told.contains("--from nginx, haproxy, realm or rinetd"),
        "{told}"
    );
    // What is written is never written over.
    let source = "tests/convert/rinetd/rinetd.conf";
    std::fs::write(directory.join("there"), "mine").unwrap();
    let (code, told) = said(&["convert", source, "--output", &path("there")]);
    assert!(code == 1 && told.contains("cannot write"), "{told}");
    assert_eq!(
        std::fs::read_to_string(directory.join("there")).unwrap(),
        "mine"
    );
}
