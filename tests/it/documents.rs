//! What the documents say of keys, counters and files is compared with what the
//! code has.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use thalweg::config::{Config, FileText, Inputs};
use thalweg::observe::counters::Snapshot;
use thalweg::observe::notice::Kind;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect(path)
}

/// The first column of the tables below a heading, down to the next heading:
/// what stands there in backquotes.
fn first_column(text: &str, heading: &str) -> BTreeSet<String> {
    let section = text
        .lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with('#'));
    section
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// The keys that a configuration has where `text` puts one that it has not.
fn keys(text: &str) -> BTreeSet<String> {
    let inputs = Inputs {
        file: Some(FileText {
            name: "test".into(),
            bytes: text.into(),
        }),
        ..Inputs::default()
    };
    let errors = Config::load(&inputs).expect_err("zzqq is no key");
    let remedies = errors.problems().iter().filter_map(|it| it.remedy.as_ref());
    let known = remedies.filter_map(|remedy| remedy.strip_prefix("keys here: "));
    known
        .flat_map(|keys| keys.split(", "))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_key_of_the_configuration_is_documented_and_no_other() {
    let text = read("docs/configuration.md");
    let shared = first_column(&text, "## `[defaults]`");
    for (heading, file) in [
        ("## `[global]`", "[global]\nzzqq=1"),
        ("## `[log]`", "[log]\nzzqq=1"),
        ("## `[defaults]`", "[defaults]\nzzqq=1"),
        ("## `[[forward]]`", "[[forward]]\nzzqq=1"),
        (
            "### `[forward.connect]`",
            "[[forward]]\nlisten=\":1\"\nmode=\"http-connect\"\nconnect={zzqq=1}",
        ),
        (
            "## `[upstream.NAME]`",
            "[upstream.x]\nservers=\":1\"\nzzqq=1",
        ),
        (
            "### Servers",
            "[upstream.x]\nservers={address=\"a:1\",zzqq=1}",
        ),
        (
            "### Checks",
            "[upstream.x]\nservers=\"a:1\"\ncheck={type=\"tcp\",zzqq=1}",
        ),
        ("## `[profile.NAME]`", "[profile.x]\nzzqq=1"),
        ("### `keepalive`", "[profile.x]\nkeepalive={zzqq=1}"),
        ("### `tap`", "[defaults]\ntap={zzqq=1}"),
        ("### `tap.filter`", "[defaults]\ntap={filter={zzqq=1}}"),
        (
            "### `tap.rotate`",
            "[defaults]\ntap={rotate={zzqq=1,size=\"1MiB\"}}",
        ),
    ] {
        let mut documented = first_column(&text, heading);
        if heading.contains("[[forward]]") {
            documented.extend(shared.iter().cloned());
        }
        assert_eq!(documented, keys(file), "{heading}");
    }
}

#[test]
fn every_counter_is_documented_and_no_other() {
    let documented = first_column(&read("docs/operations.md"), "## Counters");
    let counted = Snapshot::default();
    let counted = counted.entries().map(|(name, _)| name.to_owned());
    assert_eq!(documented, counted.collect());
}

#[test]
fn every_kind_of_line_is_documented_with_its_fields_and_no_other() {
    let text = read("docs/operations.md");
    let documented = first_column(&text, "### Kinds of lines");
    let kinds = Kind::ALL.iter().map(|kind| kind.name().to_owned());
    assert_eq!(documented, kinds.collect());
    // Fields that stand for several, of which the document names each.
    let tables = ["counters", "process", "figures", "shortfall", "advice"];
    for kind in Kind::ALL {
        let begin = format!("| `{}` |", kind.name());
        let row = text.lines().find(|line| line.starts_with(&begin));
        let row = row.expect("documented");
        for field in kind.fields().iter().filter(|it| !tables.contains(it)) {
            let named = [format!("`{field}`"), format!("`{field}_us`")];
            assert!(named.iter().any(|it| row.contains(it)), "{field}: {row}");
        }
    }
}

#[test]
fn the_configuration_of_the_readme_is_valid() {
    let text = read("README.md");
    let example = text.split("```toml\n").nth(1).expect("a TOML example");
    let example = example.split("```").next().unwrap_or_default();
    let inputs = Inputs {
        file: Some(FileText {
            name: "README.md".into(),
            bytes: example.into(),
        }),
        ..Inputs::default()
    };
    assert!(Config::load(&inputs).is_ok(), "{:?}", Config::load(&inputs));
}

/// Whatever SECURITY.md says is shown by a test is one.
#[test]
fn the_tests_that_security_names_exist() {
    fn gather(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                gather(&path, names);
            } else if path.extension().is_some_and(|it| it == "rs") {
                let text = fs::read_to_string(&path).expect("a source");
                let after = text.split("fn ").skip(1);
                let name = |rest: &str| {
                    let end = rest.find(|it: char| !it.is_ascii_alphanumeric() && it != '_');
                    rest[..end.unwrap_or(rest.len())].to_owned()
                };
                names.extend(after.map(name));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    gather(&root.join("src"), &mut names);
    gather(&root.join("tests"), &mut names);
    let text = read("SECURITY.md");
    let words = text.split('`').skip(1).step_by(2);
    // Those of tests are sentences; keys and counters have a word or three.
    let said = words.filter(|it| it.matches('_').count() > 3 || it.starts_with("b57_"));
    let missing: Vec<&str> = said.filter(|it| !names.contains(*it)).collect();
    assert!(missing.is_empty(), "there is no {missing:?}");
}

/// Links to files, and the scripts that are named in backquotes.
#[test]
fn what_documents_point_to_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec!["README.md".into(), "ARCHITECTURE.md".into()];
    for entry in fs::read_dir(root.join("docs")).expect("docs") {
        documents.push(Path::new("docs").join(entry.expect("an entry").file_name()));
    }
    for path in documents
        .iter()
        .filter(|path| path.extension().is_some_and(|it| it == "md"))
    {
        let document = path.display();
        let text = read(&document.to_string());
        let links = text.split("](").skip(1);
        let links = links.filter_map(|rest| rest.split([')', '#']).next());
        let folder = root.join(path.parent().expect("a folder"));
        for link in links.filter(|link| !link.is_empty() && !link.contains("://")) {
            assert!(folder.join(link).exists(), "{document} links to {link}");
        }
        for word in text.split('`').skip(1).step_by(2) {
            let named = ["scripts/", "tests/", "src/", "docs/"];
            if named.iter().any(|place| word.starts_with(place)) && !word.contains([' ', '*']) {
                assert!(root.join(word).exists(), "{document} names {word}");
            }
        }
    }
}

/// All source that has tests in it.
fn sources(folder: &Path, into: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|it| it == "rs") {
            into.push_str(&fs::read_to_string(&path).expect("a file"));
        }
    }
}

/// A promise is worth what its test is: whatever the threat model names is there.
#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let text = read("SECURITY.md");
    let mut source = String::new();
    for folder in ["src", "tests"] {
        sources(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
            &mut source,
        );
    }
    let words = text.split('`').skip(1).step_by(2);
    // Keys and counters are shorter than the sentence that a test is named by.
    let named: BTreeSet<&str> = words
        .filter(|it| it.matches('_').count() >= 4)
        .filter(|it| {
            it.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
        .collect();
    assert!(named.len() > 50, "{}", named.len());
    // What a package has nothing of (see Cargo.toml).
    let fuzzing = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz_corpus.rs");
    let unpackaged = |name: &&str| !fuzzing.exists() && *name == "every_fuzz_target_is_played_here";
    for name in named.iter().filter(|it| !unpackaged(it)) {
        let function = format!("fn {name}(");
        assert!(
            source.contains(&function),
            "SECURITY.md: there is no test {name}"
        );
    }
    // And each row of what somebody may do names one.
    let rows = text
        .lines()
        .skip_while(|line| !line.starts_with("| who | may do |"));
    for row in rows.skip(2).take_while(|line| line.starts_with('|')) {
        let last = row.rsplit('|').nth(1).unwrap_or_default();
        assert!(last.contains('`'), "{row}: shown by nothing");
    }
}
