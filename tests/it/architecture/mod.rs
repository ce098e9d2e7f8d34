//! The rules of the house, checked against the source text:
//!
//! - a room imports only from rooms lower in the table of `src/lib.rs`, which is
//!   the one place that states the order;
//! - the pure rooms touch no descriptor, clock, randomness or dependency;
//! - `unsafe` stands only in the files that talk to the kernel;
//! - `cfg(feature = "uring")` stands in one file, besides `mod` declarations;
//! - files of a room do not import each other in a circle ([`cycles`]);
//! - a type's name means one thing in the rooms that wire everything together;
//! - no file of `src` has more than 700 lines.
//!
//! Reads tokens, not lines ([`tokens`]): groups over several lines, paths in the
//! middle of code and `super::super` count like any `use`; comments and strings
//! do not. What is written by a macro of a dependency it cannot see.

mod bite;
mod cycles;
mod paths;
mod tokens;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use paths::{Reference, references};
use tokens::{Token, tokens};

/// Rooms that must be the same in every run: no descriptor, no clock, no chance.
const PURE: [&str; 4] = ["relay", "policy", "balance", "proto"];

/// Dependencies that a pure room may have: parsers, types of networks and a trie of
/// them, an atomic pointer, a way to write plain data, which are pure themselves.
const PURE_DEPENDENCIES: &[(&str, &str)] = &[
    ("balance", "arc_swap"),
    ("policy", "ipnet"),
    ("policy", "prefix_trie"),
    ("proto", "aes_gcm"),
    ("proto", "crc"),
    ("proto", "hkdf"),
    ("proto", "httparse"),
    ("proto", "loona_hpack"),
    ("proto", "sha2"),
    ("relay", "serde"),
    ("relay", "serde_json"),
];

/// What a pure room may not name, and why.
const IMPURE_WORDS: [(&str, &str); 5] = [
    ("Instant", "reads the clock; time is a parameter"),
    ("SystemTime", "reads the clock; time is a parameter"),
    ("RandomState", "differs from run to run"),
    (
        "HashMap",
        "iterates in an order that differs from run to run",
    ),
    (
        "HashSet",
        "iterates in an order that differs from run to run",
    ),
];

/// Parts of the standard library that reach outside the process.
const IMPURE_STD: [&str; 7] = ["env", "fs", "io", "net", "os", "process", "thread"];

/// The files that talk to the kernel where no safe wrapper exists.
const UNSAFE_FILES: &[&str] = &[
    // Multishot receives, which the engine does not have, measured beside what it has.
    "benches/receiving.rs",
    "src/bench/sys.rs",
    "src/control/signals.rs",
    "src/engine/uring/buffers.rs",
    "src/engine/uring/ring.rs",
    "src/engine/uring/wake.rs",
    "src/net/datagram/batch.rs",
    "src/net/inherited/passed.rs",
    "src/net/journal/map.rs",
    "src/net/sys.rs",
    "tests/it/uring.rs",
];

/// Directories whose files still import each other in a circle. Nothing is added here; a
/// directory without a circle must go.
const STILL_CIRCULAR: [&str; 0] = [];

/// Rooms in which the name of a type has one meaning.
const ONE_MEANING: [&str; 3] = ["config", "control", "reactor"];

/// Names that still have several. Nothing is added here; what has one meaning must go.
const STILL_AMBIGUOUS: [&str; 3] = ["Forward", "Server", "Verdict"];

// The rules on the tree as it is.

#[test]
fn rooms_import_only_downwards() {
    let order = order_of(&read("src/lib.rs")).expect("the table of rooms in src/lib.rs");
    report(&upward_imports(&sources("src"), &order));
}

#[test]
fn every_room_has_its_line_in_the_table() {
    let root = read("src/lib.rs");
    let mut listed = order_of(&root).expect("the table of rooms in src/lib.rs");
    let mut declared = modules_of(&root);
    let mut present: Vec<String> = fs::read_dir(root_path().join("src"))
        .expect("src can be listed")
        .map(|entry| entry.expect("an entry of src").path())
        .filter(|path| path.is_dir())
        .map(|path| {
            path.file_name()
                .expect("a named directory")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    for names in [&mut listed, &mut declared, &mut present] {
        names.sort();
    }
    assert_eq!(listed, declared, "the table and the modules of src/lib.rs");
    assert_eq!(listed, present, "the table and the directories of src");
}

#[test]
fn pure_rooms_are_pure() {
    let dependencies = dependencies_of(&read("Cargo.toml"));
    assert!(
        dependencies.contains(&"libc".to_owned()),
        "{dependencies:?}"
    );
    report(&impurities(&sources("src"), &dependencies));
}

#[test]
fn unsafe_stands_only_where_the_kernel_is_called() {
    let mut files = sources("src");
    files.extend(sources("tests"));
    files.extend(sources("benches"));
    report(&unsafety(&files, UNSAFE_FILES));
}

#[test]
fn the_uring_feature_is_chosen_in_one_file() {
    report(&scattered_feature(&sources("src")));
}

#[test]
fn files_do_not_import_each_other_in_a_circle() {
    report(&circles(&sources("src"), &STILL_CIRCULAR));
}

#[test]
fn a_type_has_one_meaning_in_the_rooms_that_wire() {
    report(&ambiguities(&sources("src"), &STILL_AMBIGUOUS));
}

/// A file holds one idea; one that is longer holds several.
const LINES_MAX: usize = 700;

#[test]
fn no_file_is_too_long() {
    report(&too_long(&sources("src")));
}

// The rules.

/// A source file: its path from the package's root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn room(&self) -> Option<&str> {
        let (room, _) = self.path.strip_prefix("src/")?.split_once('/')?;
        Some(room)
    }

    /// The module that the file is, as names from the crate's root down.
    fn module(&self) -> Vec<String> {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path);
        let stem = inside.strip_suffix(".rs").unwrap_or(inside);
        let stem = stem.strip_suffix("/mod").unwrap_or(stem);
        stem.split('/').map(str::to_owned).collect()
    }
}

fn upward_imports(files: &[Source], order: &[String]) -> Vec<String> {
    let height = |room: &str| order.iter().position(|it| it == room);
    let mut faults = Vec::new();
    for file in files {
        // The root declares rooms and the binary stands above all of them.
        let Some(room) = file.room() else { continue };
        let Some(own) = height(room) else {
            faults.push(format!(
                "{}: {room} is not in the table of rooms",
                file.path
            ));
            continue;
        };
        for Reference { line, name } in references(&tokens(&file.text), &file.module()) {
            let fault = match height(&name) {
                Some(other) if other <= own => continue,
                Some(_) => format!("{room} lies below {name} and must not import it"),
                None => format!("crate::{name} is not a room; name the room it comes from"),
            };
            faults.push(format!("{}:{line}: {fault}", file.path));
        }
    }
    faults
}

fn impurities(files: &[Source], dependencies: &[String]) -> Vec<String> {
    let pure = files
        .iter()
        .filter(|file| file.room().is_some_and(|room| PURE.contains(&room)));
    let mut faults = Vec::new();
    for file in pure {
        let tokens = tokens(&file.text);
        let mut fault = |line: usize, what: &str, why: &str| {
            faults.push(format!("{}:{line}: {what}: {why}", file.path));
        };
        for (at, (line, token)) in tokens.iter().enumerate() {
            let Token::Word(word) = token else { continue };
            if let Some((_, why)) = IMPURE_WORDS.iter().find(|(it, _)| it == word) {
                fault(*line, word, why);
            }
            let begins_path = !matches!(before(&tokens, at), Some(Token::Separator))
                && matches!(after(&tokens, at), Some(Token::Separator));
            let room = file.room().unwrap_or_default();
            let allowed = PURE_DEPENDENCIES.contains(&(room, word.as_str()));
            if begins_path && dependencies.contains(word) && !allowed {
                fault(*line, word, "a pure room has no dependency");
            }
            if begins_path && word == "std" {
                for (line, name) in paths::members(&tokens, at + 2) {
                    if IMPURE_STD.contains(&name) {
                        fault(line, &format!("std::{name}"), "reaches outside the process");
                    }
                }
            }
        }
    }
    faults
}

fn unsafety(files: &[Source], allowed: &[&str]) -> Vec<String> {
    let mut faults = Vec::new();
    for file in files {
        let tokens = tokens(&file.text);
        let found = tokens.iter().find(
            |(_, token)| matches!(token, Token::Word(word) if word == "unsafe" || word == "unsafe_code"),
        );
        match (found, allowed.contains(&file.path.as_str())) {
            (Some((line, _)), false) => faults.push(format!(
                "{}:{line}: unsafe outside the files that talk to the kernel",
                file.path
            )),
            (None, true) => faults.push(format!(
                "{}: is allowed unsafe code and has none; take it off the list",
                file.path
            )),
            _ => {}
        }
    }
    faults
}

/// One file puts the engines together; every other mention may only leave a
/// whole module out.
fn scattered_feature(files: &[Source]) -> Vec<String> {
    let mut places = Vec::new();
    for file in files {
        let tokens = tokens(&file.text);
        for (at, (line, token)) in tokens.iter().enumerate() {
            let names_feature = matches!(token, Token::Text(text) if text == "uring")
                && matches!(before(&tokens, at), Some(Token::Mark('=')));
            if names_feature && !paths::gates_a_module(&tokens, at) {
                places.push((file.path.as_str(), *line));
            }
        }
    }
    let first = places.first().map(|(path, _)| *path);
    places
        .iter()
        .filter(|(path, _)| Some(*path) != first)
        .map(|(path, line)| {
            format!(
                "{path}:{line}: feature \"uring\" is told apart in {} already",
                first.unwrap_or_default()
            )
        })
        .collect()
}

fn too_long(files: &[Source]) -> Vec<String> {
    let lines = |file: &Source| file.text.lines().count();
    let long = files.iter().filter(|file| lines(file) > LINES_MAX);
    let say = |file: &Source| format!("{}: {} lines, split it by idea", file.path, lines(file));
    long.map(say).collect()
}

fn circles(files: &[Source], allowed: &[&str]) -> Vec<String> {
    let found = cycles::cycles(files);
    let mut faults = Vec::new();
    for cycle in &found {
        if !allowed.contains(&&*cycle.directory) {
            faults.push(format!("{}: a circle:\n    {}", cycle.directory, cycle.way));
        }
    }
    for directory in allowed {
        if !found.iter().any(|cycle| cycle.directory == *directory) {
            faults.push(format!("{directory}: has no circle; take it off the list"));
        }
    }
    faults
}

fn ambiguities(files: &[Source], allowed: &[&str]) -> Vec<String> {
    let here = |file: &&Source| file.room().is_some_and(|room| ONE_MEANING.contains(&room));
    let files: Vec<&Source> = files.iter().filter(here).collect();
    let found = cycles::types_defined_twice(&files);
    let mut faults = Vec::new();
    for (name, files) in &found {
        if !allowed.contains(&&**name) {
            faults.push(format!("{name} is defined in {files:?}"));
        }
    }
    for name in allowed {
        if !found.contains_key(*name) {
            faults.push(format!("{name} has one meaning; take it off the list"));
        }
    }
    faults
}

fn before(tokens: &[(usize, Token)], at: usize) -> Option<&Token> {
    at.checked_sub(1).map(|at| &tokens[at].1)
}

fn after(tokens: &[(usize, Token)], at: usize) -> Option<&Token> {
    tokens.get(at + 1).map(|(_, token)| token)
}

// What the tree says of itself.

/// The rooms, lowest first: the first column of the table in the root's header,
/// each row ``//! | [`room`] | what lives there |``, with `mod@` before a name
/// that is a macro's too.
fn order_of(root: &str) -> Option<Vec<String>> {
    let rows = root.lines().filter_map(|line| {
        let name = line.strip_prefix("//! | [`")?;
        let (name, _) = name.split_once("`] |")?;
        Some(name.strip_prefix("mod@").unwrap_or(name).to_owned())
    });
    let rooms: Vec<String> = rows.collect();
    (!rooms.is_empty()).then_some(rooms)
}

fn modules_of(root: &str) -> Vec<String> {
    let words = tokens(root);
    let names = words.windows(2).filter_map(|pair| match pair {
        [(_, Token::Word(word)), (_, Token::Word(name))] if word == "mod" => Some(name.clone()),
        _ => None,
    });
    names.collect()
}

/// The names of `[dependencies]`, as they are written in a path.
fn dependencies_of(manifest: &str) -> Vec<String> {
    manifest
        .lines()
        .skip_while(|line| line.trim() != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim().replace('-', "_"))
        .collect()
}

fn root_path() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root_path().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Rust file below a directory of the package; none if it is not there.
fn sources(directory: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from(directory)];
    while let Some(next) = open.pop() {
        let Ok(entries) = fs::read_dir(root_path().join(&next)) else {
            continue;
        };
        for entry in entries {
            let path = next.join(entry.expect("an entry of a directory").file_name());
            if root_path().join(&path).is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let path = path.to_string_lossy().into_owned();
                found.push(Source {
                    text: read(&path),
                    path,
                });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

#[track_caller]
fn report(faults: &[String]) {
    let mut text = String::new();
    for fault in faults {
        let _ = writeln!(text, "  {fault}");
    }
    assert!(faults.is_empty(), "{} faults:\n{text}", faults.len());
}
