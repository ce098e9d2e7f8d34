//! The units in `contrib/systemd`, judged by systemd's own tools (159).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::kit::directory::Directory;
use crate::kit::*;

/// What systemd says of a unit's exposure is from 0 to 10.
const EXPOSURE_MAX: f64 = 2.0;

/// The units, with the program that was built: that has to exist.
fn units(into: &Directory) -> Vec<PathBuf> {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd");
    let units = ["thalweg.service", "thalweg@.service", "thalweg.socket"];
    let copied = units.map(|unit| {
        let text = fs::read_to_string(from.join(unit)).unwrap();
        let path = into.join(unit);
        fs::write(
            &path,
            text.replace("/usr/bin/thalweg", env!("CARGO_BIN_EXE_thalweg")),
        )
        .unwrap();
        path
    });
    copied.into()
}

/// What it says, and whether it is content; `None`, said aloud: it is not here.
fn analyze(arguments: &[&str], unit: &Path) -> Option<(bool, String)> {
    let run = Command::new("systemd-analyze")
        .args(arguments)
        .arg(unit)
        .output();
    let Ok(done) = run else {
        skip(&test_name(), "systemd-analyze is not installed");
        return None;
    };
    let said = [done.stdout, done.stderr].concat();
    Some((
        done.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    ))
}

#[test]
fn b159_the_units_are_valid_and_expose_little() {
    let directory = Directory::new();
    for unit in units(&directory) {
        let name = unit.file_name().unwrap().to_string_lossy().into_owned();
        let Some((valid, said)) = analyze(&["verify", "--recursive-errors=no"], &unit) else {
            return;
        };
        assert!(valid && said.trim().is_empty(), "{name}: {said}");
        if name.ends_with(".socket") || name.contains('@') {
            continue;
        }
        let arguments = ["security", "--offline=true", "--no-pager"];
        let Some((_, said)) = analyze(&arguments, &unit) else {
            return;
        };
        let line = said
            .lines()
            .find(|line| line.contains("Overall exposure level"));
        let line = line.unwrap_or_else(|| panic!("{name}: {said}"));
        let mut words = line
            .split_whitespace()
            .filter_map(|word| word.parse::<f64>().ok());
        let exposure = words.next_back().unwrap();
        assert!(exposure <= EXPOSURE_MAX, "{line}");
    }
}

#[test]
fn the_template_is_the_service_with_another_name() {
    let directory = Directory::new();
    let units = units(&directory);
    let lines = |path: &Path| -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        let kept = text.lines().filter(|line| !line.starts_with('#'));
        let same = kept.map(|line| line.replace("%i.toml", "thalweg.toml"));
        let same = same.map(|line| line.replace("thalweg-%i", "thalweg"));
        let same = same.map(|line| line.replace("thalweg/%i", "thalweg"));
        same.map(|line| line.replace(" (%i)", "")).collect()
    };
    assert_eq!(lines(&units[0]), lines(&units[1]));
}
