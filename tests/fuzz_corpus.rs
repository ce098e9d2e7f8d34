//! The properties of the fuzz targets, on stable: every input of the committed
//! corpus, inputs near them, and any bytes.

#![allow(clippy::print_stdout, reason = "which input a test that fails had")]

#[path = "../fuzz/properties.rs"]
mod properties;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

/// The inputs of a target, by name of their file.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let entries = fs::read_dir(folder.join(target)).expect(target);
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            let bytes = fs::read(&path).expect("an input");
            (path.display().to_string(), bytes)
        })
        .collect();
    inputs.sort();
    inputs
}

fn plays_the_corpus(target: &str, property: fn(&[u8])) {
    let inputs = corpus(target);
    assert!(!inputs.is_empty(), "{target} has no corpus");
    for (name, input) in inputs {
        // Shown only when the property fails.
        println!("{name}");
        property(&input);
    }
}

/// An input of the corpus in which some bytes are others.
fn near(target: &str) -> impl Strategy<Value = Vec<u8>> {
    let inputs: Vec<Vec<u8>> = corpus(target).into_iter().map(|(_, bytes)| bytes).collect();
    let some = prop::collection::vec(any::<u8>(), 0..4);
    let edits = prop::collection::vec((any::<Index>(), 0..8_usize, some), 0..4);
    (prop::sample::select(inputs), edits).prop_map(|(mut bytes, edits)| {
        for (at, removed, inserted) in edits {
            let at = at.index(bytes.len() + 1);
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, inserted);
        }
        bytes
    })
}

/// Inputs near the corpus, other ones each time, for as many seconds as
/// `THALWEG_FUZZ_SECONDS` says; for none, unless it does. What fails is made small.
fn plays_near_the_corpus(target: &str, property: fn(&[u8])) {
    let seconds = std::env::var("THALWEG_FUZZ_SECONDS").unwrap_or_default();
    let seconds = seconds.parse().unwrap_or(0);
    let end = Instant::now() + Duration::from_secs(seconds);
    let inputs = near(target);
    let mut cases = 0;
    while Instant::now() < end {
        let mut runner = TestRunner::new(Config {
            failure_persistence: None,
            ..Config::default()
        });
        let told = runner.run(&inputs, |input| {
            property(&input);
            Ok(())
        });
        assert!(told.is_ok(), "{target}: {told:?}");
        cases += runner.config().cases;
    }
    println!("{target}: {cases} inputs in {seconds} s");
}

macro_rules! targets {
    ($($target:ident)+) => {
        /// Every target of the fuzz crate is here, and has its properties.
        const TARGETS: &[&str] = &[$(stringify!($target),)+];

        $(mod $target {
            use super::*;

            #[test]
            fn holds_for_the_corpus() {
                plays_the_corpus(stringify!($target), properties::$target);
            }

            #[test]
            fn holds_for_so_long() {
                plays_near_the_corpus(stringify!($target), properties::$target);
            }

            proptest! {
                #[test]
                fn holds_near_the_corpus(input in near(stringify!($target))) {
                    properties::$target(&input);
                }

                #[test]
                fn holds_for_any_bytes(input in prop::collection::vec(any::<u8>(), 0..100)) {
                    properties::$target(&input);
                }
            }
        })+
    };
}

targets! {
    access_list address asked_route client_rule config connect dns_answer first_bytes health_answer hosts_file http1 http2 origin path_spec
    proxy_header quic_initial resolv_conf rule session_key set_pairs tap_masks tap_output tls_hello units users_file
}

#[test]
fn every_fuzz_target_is_played_here() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let entries = fs::read_dir(folder.join("fuzz_targets")).expect("fuzz_targets");
    let mut found: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| path.file_stem().expect("a name").display().to_string())
        .collect();
    found.sort();
    assert_eq!(found, TARGETS);
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("the manifest");
    for target in TARGETS {
        let path = format!("path = \"fuzz_targets/{target}.rs\"");
        assert!(manifest.contains(&path), "{target} is not in the manifest");
    }
}
