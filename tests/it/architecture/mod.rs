//! The rules of the house, checked against the source text:
//!
//! - a room imports only from rooms lower in the table of `src/lib.rs`, which is
//!   the one place that states the order;
//! - the pure rooms touch no descriptor, clock, randomness or dependency;
//! - `unsafe` stands only in the files that talk to the kernel;
//! - `cfg(feature = "uring")` stands in one file, besides `mod` declarations.
//!
//! Reads tokens, not lines ([`tokens`]): groups over several lines, paths in the
//! middle of code and `super::super` count like any `use`; comments and strings
//! do not. What is written by a macro of a dependency it cannot see.

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
/// them, which are pure themselves.
const PURE_DEPENDENCIES: [(&str, &str); 4] = [
    ("policy", "ipnet"),
    ("policy", "prefix_trie"),
    ("proto", "httparse"),
    ("proto", "loona_hpack"),
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
const UNSAFE_FILES: [&str; 7] = [
    "src/bench/sys.rs",
    "src/control/signals.rs",
    "src/engine/uring/buffers.rs",
    "src/engine/uring/ring.rs",
    "src/engine/uring/wake.rs",
    "src/net/sys.rs",
    "tests/it/uring.rs",
];

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
    report(&unsafety(&files, &UNSAFE_FILES));
}

#[test]
fn the_uring_feature_is_chosen_in_one_file() {
    report(&scattered_feature(&sources("src")));
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

// The rules must bite: each is shown a tree that breaks it.

fn source(path: &str, text: &str) -> Source {
    Source {
        path: path.into(),
        text: text.into(),
    }
}

fn imports(path: &str, text: &str) -> Vec<String> {
    let order = ["relay", "net", "engine", "reactor"].map(str::to_owned);
    upward_imports(&[source(path, text)], &order)
}

#[test]
fn the_order_turned_round_breaks_the_tree() {
    let mut order = order_of(&read("src/lib.rs")).expect("the table of rooms in src/lib.rs");
    order.reverse();
    assert!(upward_imports(&sources("src"), &order).len() > 50);
}

#[test]
fn an_upward_import_is_found_however_it_is_written() {
    for text in [
        "use crate::reactor::Reactor;",
        "use crate::{relay::lane::Lane, reactor};",
        "use crate::{\n    relay::{\n        lane::Lane,\n    },\n    reactor::{self, Gate},\n};",
        "fn f(gate: &crate::reactor::Gate) {}",
        "use super::super::reactor::Gate;",
        "use super::{Lane, super::reactor};",
        "use self::super::super::reactor::Gate;",
        "mod tests { use super::super::super::reactor::Gate; }",
        "macro_rules! gate { () => { $crate::reactor::Gate } }",
        "/* a /* nested */ comment */ use crate::reactor::Gate;",
        "const A: char = '\"'; use crate::reactor::Gate;",
        "const A: &str = r#\"\"#; use crate::reactor::Gate;",
        "fn f<'a>(gate: &'a crate::reactor::Gate) {}",
    ] {
        let faults = imports("src/net/pipe.rs", text);
        assert_eq!(faults.len(), 1, "{text}: {faults:?}");
        assert!(faults[0].contains("net lies below reactor"), "{faults:?}");
    }
}

#[test]
fn a_way_round_the_rooms_is_found() {
    for text in [
        "use crate::*;",
        "use crate as root;",
        "use crate::{self as root};",
        "use super::super as root;",
        "use super::super::*;",
        "use crate::Session;",
        "extern crate self as thalweg;",
    ] {
        assert_eq!(imports("src/net/pipe.rs", text).len(), 1, "{text}");
    }
    assert_eq!(imports("src/novel/mod.rs", "").len(), 1);
}

#[test]
fn what_points_downwards_or_is_no_code_passes() {
    for text in [
        "use crate::relay::{Side, lane::{self, Lane}};",
        "use crate::net::errno::Failure;",
        "use super::errno::Failure;",
        "pub(in crate::net) fn f() {}",
        "pub(super) fn f() {} pub(crate) fn g() {}",
        "//! [`crate::reactor`]\n// use crate::reactor;\n/* crate::reactor */",
        "const A: &str = \"crate::reactor\"; const B: &[u8] = br#\"crate::reactor \" \"#;",
        "mod tests { use super::*; use super::super::dial; }",
    ] {
        let faults = imports("src/net/pipe.rs", text);
        assert!(faults.is_empty(), "{text}: {faults:?}");
    }
    assert!(imports("src/main.rs", "use crate::reactor;").is_empty());
    // A directory's mod.rs is the module itself, one level up from its files.
    assert!(imports("src/net/options/mod.rs", "use super::super::relay::Side;").is_empty());
    assert_eq!(
        imports("src/net/mod.rs", "use super::reactor::Gate;").len(),
        1
    );
}

#[test]
fn a_pure_room_that_reaches_out_is_found() {
    let dependencies =
        dependencies_of("[package]\n[dependencies]\n# x\nrand = \"1\"\n[features]\n");
    assert_eq!(dependencies, ["rand"]);
    for text in [
        "use std::time::{Duration, Instant};",
        "use std::{fmt, net::IpAddr};",
        "fn f(fd: std::os::fd::OwnedFd) {}",
        "fn f() -> u64 { rand::random() }",
        "use std::collections::HashMap;",
        "use std::time; fn f() -> time::SystemTime { todo!() }",
    ] {
        let file = source("src/relay/lane.rs", text);
        assert_eq!(impurities(&[file], &dependencies).len(), 1, "{text}");
    }
    let parser = "use httparse::Header;";
    let with = ["httparse".to_owned()];
    assert!(impurities(&[source("src/proto/a.rs", parser)], &with).is_empty());
    assert_eq!(
        impurities(&[source("src/relay/a.rs", parser)], &with).len(),
        1
    );
    let clean = "use std::{fmt, time::Duration}; use super::rand::Seed; // Instant";
    for file in [
        source("src/relay/lane.rs", clean),
        source("src/net/dial.rs", "use std::time::Instant;"),
    ] {
        assert_eq!(impurities(&[file], &dependencies), [""; 0]);
    }
}

#[test]
fn unsafe_out_of_place_is_found() {
    let kernel = || source("src/net/sys.rs", "fn f() { unsafe { g() } }");
    let allowed = ["src/net/sys.rs"];
    for text in [
        "fn f() { unsafe { g() } }",
        "#![allow(unsafe_code)]",
        "unsafe impl Send for A {}",
    ] {
        let files = [kernel(), source("src/net/pipe.rs", text)];
        assert_eq!(unsafety(&files, &allowed).len(), 1, "{text}");
    }
    let clean = source("src/net/pipe.rs", "// unsafe\nconst A: &str = \"unsafe\";");
    assert!(unsafety(&[kernel(), clean], &allowed).is_empty());
    assert_eq!(unsafety(&[source("src/net/sys.rs", "")], &allowed).len(), 1);
}

#[test]
fn a_feature_told_apart_in_two_files_is_found() {
    let seam = || source("src/a/mod.rs", "#[cfg(feature = \"uring\")] fn f() {}");
    let gate = "#[cfg(feature = \"uring\")]\n#[doc(hidden)]\npub(crate) mod uring;";
    assert!(scattered_feature(&[seam(), source("src/b/mod.rs", gate)]).is_empty());
    for text in [
        "fn f() { if cfg!(feature = \"uring\") {} }",
        "#[cfg(not(feature = \"uring\"))] use a::b;",
        "#[cfg_attr(feature = \"uring\", allow(unused))] mod c;\nstatic A: u8 = 0; #[cfg(feature = \"uring\")] static B: u8 = 0;",
    ] {
        let faults = scattered_feature(&[seam(), source("src/b/mod.rs", text)]);
        assert_eq!(faults.len(), 1, "{text}: {faults:?}");
    }
}
