//! What a configuration takes from its surroundings: other files and variables.

use std::collections::BTreeMap;

use crate::config::*;

/// Files by their names, `conf.d/*` as a pattern, and two variables.
struct Files(BTreeMap<&'static str, &'static str>);

impl Surroundings for Files {
    fn include(&self, from: &str, pattern: &str) -> Result<Vec<FileText>, String> {
        let beside = from.rsplit_once('/').map_or("", |(folder, _)| folder);
        let path = format!("{beside}/{pattern}");
        let path = path.trim_start_matches('/');
        let fits = |name: &str| match path.strip_suffix('*') {
            Some(begin) => name.starts_with(begin),
            None => name == path,
        };
        let found: Vec<FileText> = self
            .0
            .iter()
            .filter(|(name, _)| fits(name))
            .map(|(name, text)| FileText {
                name: (*name).to_owned(),
                bytes: text.as_bytes().to_vec(),
            })
            .collect();
        if found.is_empty() && !path.ends_with('*') {
            return Err(format!("cannot read {path}: not found"));
        }
        Ok(found)
    }

    fn variable(&self, name: &str) -> Option<String> {
        let value = match name {
            "HOST" => "10.0.0.1",
            "FEW" => "3",
            "ON" => "true",
            _ => return None,
        };
        Some(value.to_owned())
    }
}

fn load(files: &[(&'static str, &'static str)], main: &str) -> Result<Config, String> {
    let inputs = Inputs {
        file: Some(FileText {
            name: "etc/main.toml".to_owned(),
            bytes: main.as_bytes().to_vec(),
        }),
        ..Inputs::default()
    };
    let files = Files(files.iter().copied().collect());
    Config::load_in(&inputs, &files).map_err(|errors| errors.to_string())
}

const A: &str = "[[forward]]\nname = \"a\"\nlisten = \":1\"\nupstream = \"web\"\n";
const B: &str = "[[forward]]\nname = \"b\"\nlisten = \":2\"\nupstream = \"10.0.0.1:2\"\n\
                 [upstream.web]\nservers = [\"10.0.0.1:1\"]\n[global]\nreactors = 2\n";

#[test]
fn included_files_join_in_the_order_of_their_names_and_share_tables() {
    let main = "include = [\"conf.d/*\"]\n[global]\nengine = \"epoll\"\n[[forward]]\n\
                name = \"m\"\nlisten = \":3\"\nupstream = \"web\"\n";
    let config = load(&[("etc/conf.d/a", A), ("etc/conf.d/b", B)], main).expect("a configuration");
    let names: Vec<&str> = config.forwards.iter().map(|it| &*it.name).collect();
    assert_eq!(names, ["m", "a", "b"]);
    assert_eq!(config.global.reactors, Reactors::Count(2));
    assert_eq!(config.global.engine, EngineChoice::Epoll);
    // A pattern may mean nothing yet, a path may not.
    assert!(
        load(
            &[],
            &format!("include = \"conf.d/*\"\n{}", A.replace("web", "a:1"))
        )
        .is_ok()
    );
    let errors = load(&[], "include = \"conf.d/a\"\n").expect_err("no file");
    assert!(
        errors.contains("`include`: cannot read etc/conf.d/a"),
        "{errors}"
    );
    assert!(errors.contains("etc/main.toml:1:11"), "{errors}");
    // Nothing else is said of what may stand in it.
    assert!(!errors.contains("nothing to forward"), "{errors}");
}

#[test]
fn a_file_may_include_others_beside_it_and_none_is_read_twice() {
    let files = [
        ("etc/conf.d/a", "include = [\"more/*\"]\n"),
        ("etc/conf.d/more/x", A),
        ("etc/conf.d/more/y", B),
    ];
    let config = load(&files, "include = [\"conf.d/a\"]\n").expect("a configuration");
    assert_eq!(config.forwards.len(), 2);
    let circle = [
        ("etc/conf.d/a", "include = [\"../main.toml\", \"a\"]\n"),
        ("etc/conf.d/../main.toml", "include = \"conf.d/a\"\n"),
    ];
    let errors = load(&circle, "include = [\"conf.d/a\"]\n").expect_err("a circle");
    assert!(
        errors.contains("etc/conf.d/a is read already (etc/main.toml:1)"),
        "{errors}"
    );
}

#[test]
fn what_stands_in_two_files_is_told_with_both_places() {
    let b = "[[forward]]\nlisten = \":1\"\nname = \"a\"\nupstream = \"web\"\n";
    let c = "\n[upstream.web]\nservers = [\"10.0.0.1:1\"]\n[global]\nreactors = 2\nreactor = 2\n";
    let main =
        "include = [\"conf.d/*\"]\n[global]\nreactors = 1\n[upstream.web]\nservers = \"a:1\"\n";
    let files = [
        ("etc/conf.d/a", A),
        ("etc/conf.d/b", b),
        ("etc/conf.d/c", c),
    ];
    let errors = load(&files, main).expect_err("doubles");
    for (says, place) in [
        (
            "a forward named `a` exists already (etc/conf.d/a:2)",
            "etc/conf.d/b:3:8",
        ),
        (
            "`:1` is listened on twice (etc/conf.d/a:3)",
            "etc/conf.d/b:2:11",
        ),
        (
            "`web` is given twice (etc/main.toml:4)",
            "etc/conf.d/c:2:11",
        ),
        (
            "`reactors` is given twice (etc/main.toml:3)",
            "etc/conf.d/c:5:1",
        ),
        ("unknown key `reactor` in [global]", "etc/conf.d/c:6:1"),
    ] {
        let told = format!("error: {says}\n");
        let at = errors
            .find(&told)
            .unwrap_or_else(|| panic!("no `{says}` in\n{errors}"));
        let place = format!("--> {place}\n");
        assert!(
            errors[at..]
                .lines()
                .nth(1)
                .is_some_and(|it| format!("{it}\n").contains(&place)),
            "{place} of\n{errors}"
        );
    }
}

#[test]
fn variables_stand_for_texts_numbers_and_truths_and_an_unset_one_is_an_error() {
    let main = "[global]\nreactors = \"${FEW}\"\nwatch = \"${ON}\"\nmax_connections = \"${FEW}000\"\n\
                [[forward]]\nname = \"$${HOST}\"\nlisten = \":1\"\nupstream = \"${HOST}:80\"\n";
    let config = load(&[], main).expect("a configuration");
    assert_eq!(config.global.reactors, Reactors::Count(3));
    assert!(config.global.watch);
    assert_eq!(config.global.max_connections, Some(3000));
    assert_eq!(
        config.forwards[0].pool.servers[0].address.to_string(),
        "10.0.0.1:80"
    );
    assert_eq!(&*config.forwards[0].name, "${HOST}");
    // What is printed means the same when it is read again.
    let printed = config.to_toml();
    assert!(printed.contains("\"$${HOST}\""), "{printed}");
    assert_eq!(load(&[], &printed).expect(&printed), config);
    let errors = load(&[], &main.replace("{HOST}:", "{NO_HOST}:")).expect_err("unset");
    assert!(
        errors.contains("error: the variable `NO_HOST` is not set\n --> etc/main.toml:8:12"),
        "{errors}"
    );
    assert_eq!(errors.matches("error:").count(), 1, "{errors}");
    // A number in quotes stays a mistake where nobody had to write it so.
    let errors = load(&[], &main.replace("\"${FEW}000\"", "\"3000\"")).expect_err("quotes");
    assert!(errors.contains("write 3000, without quotes"), "{errors}");
}

#[test]
fn a_text_by_itself_includes_nothing_and_knows_no_variable() {
    let errors = Config::parse("include = [\"conf.d/*\"]\n").expect_err("no files");
    assert!(
        errors
            .to_string()
            .contains("no file that others could be included in"),
        "{errors}"
    );
    let errors = Config::parse(&A.replace("web", "${HOST}:1")).expect_err("no variables");
    assert!(errors.to_string().contains("`HOST` is not set"), "{errors}");
    let set = Inputs {
        file: Some(FileText {
            name: "m".to_owned(),
            bytes: A.replace("web", "a:1").into(),
        }),
        overrides: vec![Override {
            flag: "--set".to_owned(),
            key: None,
            text: "include=x".to_owned(),
        }],
        ..Inputs::default()
    };
    let errors = Config::load(&set).expect_err("an argument");
    assert!(
        errors
            .to_string()
            .contains("files are included by a file only"),
        "{errors}"
    );
}
