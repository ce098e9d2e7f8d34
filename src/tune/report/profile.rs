//! The recommendation as a profile to paste, with the evidence in comments.

use std::fmt::Write as _;

use super::Report;
use crate::tune::measure::Through;
use crate::tune::race::Decision;
use crate::tune::space::{Candidate, Place};

/// Columns of a comment.
const COMMENT_WIDTH: usize = 96;

/// `[profile.NAME]` and, where the forwarder's own settings help, the tables they
/// stand in. Empty but for comments where it is left to the kernel.
pub fn render(report: &Report, name: &str) -> String {
    let mut out = String::new();
    comment(
        &mut out,
        &format!("thalweg tune {}, {}", report.head.version, report.head.when),
    );
    comment(&mut out, &report.head.machine.summary());
    comment(&mut out, &report.place);
    comment(&mut out, &report.conditions());
    comment(&mut out, &report.path());
    comment(&mut out, &report.method());
    for doubt in &report.doubts {
        comment(&mut out, &format!("DOUBTFUL: {doubt}"));
    }
    for sentence in &report.verdict {
        comment(&mut out, sentence);
    }
    for finding in &report.findings {
        comment(&mut out, finding);
    }
    let leg = of(report, Through::Nothing);
    table(
        &mut out,
        &format!("profile.{}", key(name)),
        leg,
        Place::Profile,
    );
    let forwarder = of(report, Through::Forwarder);
    for (title, place) in [("defaults", Place::Defaults), ("global", Place::Global)] {
        if forwarder.is_some_and(|it| it.lines(place).next().is_some()) {
            comment(&mut out, "");
            comment(
                &mut out,
                "Into the table of that name, where the file has one already:",
            );
            table(&mut out, title, forwarder, place);
        }
    }
    out
}

fn table(out: &mut String, title: &str, candidate: Option<&Candidate>, place: Place) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "[{title}]");
    for line in candidate.into_iter().flat_map(|it| it.lines(place)) {
        let _ = writeln!(out, "{line}");
    }
}

fn of(report: &Report, through: Through) -> Option<&Candidate> {
    let stage = report.stages.iter().find(|it| it.through == through)?;
    match &stage.decision {
        Decision::Recommend { arm, .. } => Some(&stage.rows[*arm].candidate),
        Decision::Leave { .. } => None,
    }
}

/// One comment, whatever lines and control characters the text has; what does not
/// fit on a line goes on, indented, on the next.
fn comment(out: &mut String, text: &str) {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    for line in text.lines() {
        let line: String = line.chars().map(plain).collect();
        let indent = if line.starts_with(' ') {
            "#     "
        } else {
            "# "
        };
        let mut row = indent.to_owned();
        let mut is_first = true;
        for word in line.split_whitespace() {
            if !is_first && row.chars().count() + 1 + word.chars().count() > COMMENT_WIDTH {
                let _ = writeln!(out, "{row}");
                "#     ".clone_into(&mut row);
                is_first = true;
            }
            let blank = if is_first { "" } else { " " };
            let _ = write!(row, "{blank}{word}");
            is_first = false;
        }
        let _ = writeln!(out, "{}", row.trim_end());
    }
}

/// A name as a TOML key: in quotes where it needs them.
fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) {
        name.to_owned()
    } else {
        toml_edit::Value::from(name).to_string()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::tune::race::Leave;

    fn accepted(profile: &str, name: &str) -> Config {
        let forward = "[[forward]]\nlisten = \":1\"\nupstream = \"127.0.0.1:2\"\n";
        let text = format!("{profile}\n{forward}upstream_profile = \"{name}\"\n");
        Config::parse(&text).unwrap_or_else(|e| panic!("{}\n{text}", e.render(false)))
    }

    #[test]
    fn a_recommendation_is_a_profile_that_a_configuration_takes() {
        let report = super::super::sample::sample();
        let config = accepted(&report.profile, "tuned");
        let widest = report
            .profile
            .lines()
            .map(|line| line.chars().count())
            .max();
        assert!(widest <= Some(COMMENT_WIDTH), "{}", report.profile);
        let profile = &config.profiles["tuned"];
        assert_eq!(profile.congestion.as_deref(), Some("cubic"));
        assert!(
            report
                .profile
                .contains("# congestion=cubic: 1.45 [1.41, 1.49] times as good")
        );
        for name in ["wan 1", "a.b", "über"] {
            assert!(
                accepted(&render(&report, name), name)
                    .profiles
                    .contains_key(name)
            );
        }
    }

    #[test]
    fn left_to_the_kernel_the_profile_is_empty_but_for_the_evidence() {
        let mut report = super::super::sample::sample();
        report.stages[0].decision = Decision::Leave {
            why: Leave::NothingBetter,
        };
        report.verdict = vec!["leave it to the kernel: nothing\nlooked\u{7} better".to_owned()];
        let profile = render(&report, "tuned");
        let lines: Vec<&str> = profile.lines().filter(|it| !it.starts_with('#')).collect();
        assert_eq!(lines, ["[profile.tuned]"]);
        let config = accepted(&profile, "tuned");
        assert_eq!(config.profiles["tuned"], config.profiles["default"]);
    }
}
