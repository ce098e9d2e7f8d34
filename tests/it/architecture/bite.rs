//! The rules must bite: each is shown a tree that breaks it.

use super::*;

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

fn tree(files: &[(&str, &str)]) -> Vec<Source> {
    files
        .iter()
        .map(|(path, text)| source(path, text))
        .collect()
}

#[test]
fn a_circle_is_found_however_it_is_closed() {
    for (a, b) in [
        ("use super::b::B;", "use crate::net::a::A;"),
        ("use crate::net::{b::B};", "fn f(a: &super::a::A) {}"),
        // By way of the facade, and of what the facade imports for itself.
        ("use super::B;", "use super::a::A;"),
        ("use super::Again;", "use crate::{net::{a::{self}}};"),
        ("pub use super::b::B;", "use super::a as other;"),
        ("mod inner { use super::super::b::B; }", "use super::a::*;"),
        (
            "macro_rules! m { () => { $crate::net::b::B } }",
            "use super::a;",
        ),
    ] {
        let facade = "mod a; mod b; pub use b::B; use b::B as Again;";
        let files = tree(&[
            ("src/net/mod.rs", facade),
            ("src/net/a.rs", a),
            ("src/net/b.rs", b),
        ]);
        let found = cycles::cycles(&files);
        assert_eq!(found.len(), 1, "{a} {b}: {found:?}");
        assert_eq!(found[0].directory, "src/net");
        assert_eq!(found[0].way.lines().count(), 2, "{found:?}");
        assert_eq!(circles(&files, &["src/net"]), [""; 0]);
    }
}

#[test]
fn a_circle_of_three_and_through_a_directory_is_found() {
    let files = tree(&[
        ("src/net/a.rs", "use super::b::inner::B;"),
        ("src/net/b/mod.rs", "mod inner;"),
        ("src/net/b/inner.rs", "use crate::net::c::C;"),
        ("src/net/c.rs", "use crate::net::a::A;"),
    ]);
    let found = cycles::cycles(&files);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].way.lines().count(), 3, "{found:?}");
}

#[test]
fn what_is_no_circle_passes() {
    for (a, b) in [
        ("use super::b::B;", "use super::Shared;"),
        (
            "use super::b::B;",
            "#[cfg(test)] mod tests { use super::super::a::A; }",
        ),
        (
            "use super::b::B;",
            "#[cfg(test)]\n#[allow(unused)]\nmod tests;",
        ),
        (
            "use super::b::B;",
            "// super::a\nconst A: &str = \"super::a\";",
        ),
        (
            "use super::b::B; use crate::relay::Side;",
            "use std::a::A; fn f() { other::a::A }",
        ),
    ] {
        let files = tree(&[
            (
                "src/net/mod.rs",
                "mod a; mod b; pub struct Shared; use a::A; pub use b::B;",
            ),
            ("src/net/a.rs", a),
            ("src/net/b.rs", b),
            (
                "src/net/b/tests.rs",
                "use super::super::a::A; use super::*;",
            ),
        ]);
        assert_eq!(cycles::cycles(&files), [], "{a} {b}");
        assert_eq!(circles(&files, &["src/net"]).len(), 1, "no longer needed");
    }
}

#[test]
fn a_name_with_two_meanings_is_found() {
    let second = |text| {
        tree(&[
            ("src/config/a.rs", "pub struct Place;"),
            ("src/control/b.rs", text),
        ])
    };
    for text in [
        "enum Place {}",
        "pub(crate) trait Place {}",
        "type Place = u8;",
    ] {
        assert_eq!(ambiguities(&second(text), &[]).len(), 1, "{text}");
        assert_eq!(ambiguities(&second(text), &["Place"]), [""; 0], "{text}");
    }
    for text in [
        "struct Other;",
        "impl It for A { type Place = u8; }",
        "#[cfg(test)] mod tests { struct Place; }",
    ] {
        assert_eq!(ambiguities(&second(text), &[]), [""; 0], "{text}");
        assert_eq!(ambiguities(&second(text), &["Place"]).len(), 1, "{text}");
    }
    let elsewhere = tree(&[
        ("src/config/a.rs", "struct A;"),
        ("src/net/a.rs", "struct A;"),
    ]);
    assert_eq!(ambiguities(&elsewhere, &[]), [""; 0]);
}

#[test]
fn a_long_file_is_found() {
    let of = |lines: usize| [source("src/net/a.rs", &"\n".repeat(lines))];
    assert_eq!(too_long(&of(LINES_MAX)), [""; 0]);
    assert_eq!(too_long(&of(LINES_MAX + 1)).len(), 1);
}
