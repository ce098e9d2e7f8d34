//! `scripts/package` makes an archive and packages of a binary, and they are complete.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use toml_edit::{DocumentMut, Item};

use super::project;
use crate::kit::{Directory, skip, test_name};

/// What the metadata calls the directory that binaries are built in.
const BUILT: &str = "target/release/";

fn metadata(of: &str) -> Item {
    let manifest = fs::read_to_string(project("Cargo.toml")).unwrap();
    let manifest: DocumentMut = manifest.parse().unwrap();
    manifest["package"]["metadata"][of].clone()
}

/// Source and destination of each asset, for Debian and for Fedora.
fn assets(of: &str) -> Vec<(String, String)> {
    let about = metadata(of);
    let text = |item: Option<&toml_edit::Value>| item.unwrap().as_str().unwrap().to_owned();
    let each = about["assets"].as_array().unwrap().iter();
    each.map(|asset| {
        if let Some(row) = asset.as_array() {
            return (text(row.get(0)), text(row.get(1)));
        }
        let table = asset.as_inline_table().unwrap();
        (text(table.get("source")), text(table.get("dest")))
    })
    .collect()
}

#[test]
fn packages_name_only_files_that_exist() {
    for of in ["deb", "generate-rpm"] {
        for (source, _) in assets(of) {
            if source.starts_with(BUILT) {
                continue;
            }
            let pattern = project(&source).display().to_string();
            let found = glob::glob(&pattern).unwrap().count();
            assert!(found > 0, "{of}: {source} is not there");
        }
        let destinations: Vec<String> = assets(of).into_iter().map(|it| it.1).collect();
        for needed in [
            "usr/bin/",
            "etc/thalweg/thalweg.toml",
            "usr/share/man/man1/",
        ] {
            let named = |to: &String| to.trim_start_matches('/').starts_with(needed);
            assert!(
                destinations.iter().any(named),
                "{of}: nothing goes to {needed}"
            );
        }
    }
    // What is changed there is kept by either.
    let rpm = metadata("generate-rpm")["assets"].to_string();
    assert!(rpm.contains("/etc/thalweg/thalweg.toml\", mode = \"644\", config = \"noreplace\""));
    assert_eq!(metadata("deb")["profile"].as_str(), Some("dist"));
}

/// The binary under test without what debuggers need, most of it: it is packed thrice.
fn stripped(directory: &Directory) -> std::path::PathBuf {
    let to = directory.join("thalweg");
    fs::copy(env!("CARGO_BIN_EXE_thalweg"), &to).unwrap();
    // Without strip it only takes longer.
    let _ = Command::new("strip").arg("--strip-debug").arg(&to).status();
    to
}

#[track_caller]
fn succeeded(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    output
}

fn says(program: &Path, argument: &str) -> String {
    let output = succeeded(Command::new(program).arg(argument));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn archives_and_packages_are_made_and_complete() {
    let directory = Directory::new();
    let (binary, out) = (stripped(&directory), directory.join("out"));
    let output = succeeded(
        Command::new(project("scripts/package"))
            .arg("--binary")
            .arg(&binary)
            .arg("--out")
            .arg(&out)
            .env("SOURCE_DATE_EPOCH", "1")
            .current_dir("/"),
    );
    let said = String::from_utf8(output.stderr).unwrap();
    // Whatever was not made was said so, with what is missing for it.
    for line in said.lines().filter(|line| line.contains("NOT MADE")) {
        skip(&test_name(), line);
    }
    let names: BTreeSet<String> = fs::read_dir(&out)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let version = env!("CARGO_PKG_VERSION");
    let archive = names.iter().find(|it| it.ends_with(".tar.gz")).unwrap();
    assert!(
        archive.starts_with(&format!("thalweg-{version}-")),
        "{archive}"
    );
    succeeded(
        Command::new("sha256sum")
            .args(["--check", "--strict", "SHA256SUMS"])
            .current_dir(&out),
    );
    let sums = fs::read_to_string(out.join("SHA256SUMS")).unwrap();
    let made = names.iter().filter(|it| it.starts_with("thalweg"));
    assert!(
        made.clone().all(|it| sums.contains(it)),
        "{names:?}, {sums}"
    );

    unpacks_and_runs(&directory, &out.join(archive));
    match names.iter().find(|it| it.ends_with(".cdx.json")) {
        Some(bill) => lists_what_is_built_in(&fs::read_to_string(out.join(bill)).unwrap()),
        None => assert!(said.contains("NOT MADE: bill of materials"), "{said}"),
    }
    match names.iter().find(|it| it.contains(".deb")) {
        Some(deb) => installs(&directory, &out.join(deb)),
        None => assert!(said.contains("NOT MADE: deb"), "{said}"),
    }
}

/// The bill of materials has the direct dependencies, those in turn, and no word of this machine.
fn lists_what_is_built_in(bill: &str) {
    let read: serde_json::Value = serde_json::from_str(bill).unwrap();
    assert_eq!(read["bomFormat"], "CycloneDX");
    assert_eq!(
        read["metadata"]["component"]["version"],
        env!("CARGO_PKG_VERSION")
    );
    let components = read["components"].as_array().unwrap();
    let refs: BTreeSet<&str> = components
        .iter()
        .map(|it| it["bom-ref"].as_str().unwrap())
        .collect();
    assert_eq!(refs.len(), components.len(), "each once");
    for it in components {
        assert_eq!(it["purl"], it["bom-ref"]);
        assert_eq!(
            it["hashes"][0]["content"].as_str().unwrap().len(),
            64,
            "{it}"
        );
        assert!(it["licenses"][0]["expression"].is_string(), "{it}");
    }
    let manifest = fs::read_to_string(project("Cargo.toml")).unwrap();
    let manifest: DocumentMut = manifest.parse().unwrap();
    let has = |name: &str| {
        refs.iter()
            .any(|it| it.starts_with(&format!("pkg:cargo/{name}@")))
    };
    for (name, _) in manifest["dependencies"].as_table().unwrap() {
        assert!(has(name), "{name}");
    }
    assert!(
        has("hyper") && !has("proptest"),
        "what is built in, and no more"
    );
    for row in read["dependencies"].as_array().unwrap() {
        for on in row["dependsOn"].as_array().unwrap() {
            assert!(refs.contains(on.as_str().unwrap()), "{row}");
        }
    }
    let here = env!("CARGO_MANIFEST_DIR");
    assert!(!bill.contains(here) && !bill.contains("file:"), "{here}");
}

fn unpacks_and_runs(directory: &Directory, archive: &Path) {
    let to = directory.join("unpacked");
    fs::create_dir(&to).unwrap();
    succeeded(
        Command::new("tar")
            .arg("xzf")
            .arg(archive)
            .arg("-C")
            .arg(&to),
    );
    let inside = fs::read_dir(&to).unwrap().next().unwrap().unwrap().path();
    assert_eq!(
        format!("{}.tar.gz", inside.file_name().unwrap().display()),
        archive.file_name().unwrap().display().to_string()
    );
    let says_version = says(&inside.join("thalweg"), "--version");
    assert!(says_version.starts_with("thalweg "), "{says_version}");
    for name in [
        "man/thalweg.1",
        "completions/thalweg.bash",
        "examples/minimal.toml",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "README.md",
        "contrib/README.md",
    ] {
        assert!(inside.join(name).is_file(), "{name}");
    }
}

/// Unpacked into a root of its own, everything is where it belongs.
fn installs(directory: &Directory, deb: &Path) {
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        return skip(&test_name(), "dpkg-deb is not there");
    }
    let root = directory.join("root");
    succeeded(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&root));
    for (_, destination) in assets("deb") {
        let at = root.join(&destination);
        let there = if destination.ends_with('/') {
            fs::read_dir(&at).is_ok_and(|mut entries| entries.next().is_some())
        } else {
            at.is_file()
        };
        assert!(there, "{destination}");
    }
    let installed = root.join("usr/bin/thalweg");
    let mode = fs::metadata(&installed).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    // It runs, and takes the configuration that lies there.
    succeeded(
        Command::new(&installed)
            .args(["check", "-q", "-c"])
            .arg(root.join("etc/thalweg/thalweg.toml")),
    );
    let page = root.join("usr/share/man/man1/thalweg.1.gz");
    let page = succeeded(Command::new("gzip").arg("-dc").arg(page)).stdout;
    assert!(String::from_utf8(page).unwrap().contains(".TH thalweg 1"));
    assert!(root.join("usr/share/doc/thalweg/copyright").is_file());

    let control = directory.join("control");
    succeeded(Command::new("dpkg-deb").arg("-e").arg(deb).arg(&control));
    let conffiles = fs::read_to_string(control.join("conffiles")).unwrap();
    assert_eq!(conffiles.trim(), "/etc/thalweg/thalweg.toml");
    let about = fs::read_to_string(control.join("control")).unwrap();
    for field in ["Package: thalweg\n", "Maintainer: ", "Description: "] {
        assert!(about.contains(field), "{about}");
    }
    assert!(
        about.contains(concat!("Version: ", env!("CARGO_PKG_VERSION"))),
        "{about}"
    );
}
