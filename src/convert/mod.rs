//! The configuration of another forwarder, as one of ours.
//!
//! Each format has a reader, which knows its grammar (quotes, includes, sections) and gives
//! directives with the places they stand at, and a translator, which knows what they mean and
//! fills a `model::Model`. The model is written as TOML by `emit`, each forward behind the
//! place it came from.
//!
//! Invariants: **nothing vanishes** (each directive is converted, or ends as an [`Outcome`] with
//! its place); the same input gives the same output byte for byte; no file is read that the input
//! does not include, and none without a bound; defaults that differ from ours are written out,
//! so that what is converted behaves as before. Secrets and certificates are never copied.

mod emit;
mod finding;
mod guess;
mod haproxy;
mod model;
mod nginx;
mod realm;
mod rinetd;
mod source;
mod time;

pub use finding::{Finding, Origin, Outcome};
pub use guess::Kind;
pub use source::Failure;

use std::path::Path;

use crate::config::Config;
use finding::Findings;
use model::Model;
use source::Sources;

/// What became of a configuration.
#[derive(Debug)]
pub struct Converted {
    /// The configuration of thalweg, in TOML.
    pub toml: String,
    /// Everything that is not simply the same, in the order of the places.
    pub findings: Vec<Finding>,
    /// Directives that mean the same now, with or without a remark.
    pub converted: usize,
}

impl Converted {
    /// Whether nothing that matters was left behind.
    pub fn is_complete(&self) -> bool {
        !self
            .findings
            .iter()
            .any(|finding| matches!(finding.outcome, Outcome::Left(_)))
    }
}

/// Converts the file at `path`, and what it includes.
///
/// # Errors
/// A file that cannot be read or is beyond the bounds of `source`, or text that the original
/// would not read either, with its place.
pub fn convert(kind: Kind, path: &Path) -> Result<Converted, Failure> {
    let mut sources = Sources::beside(path);
    let text = sources.read(path, None)?;
    let mut findings = Findings::default();
    let mut model = Model::default();
    match kind {
        Kind::Nginx => nginx::translate(&text, &mut sources, &mut model, &mut findings)?,
        Kind::Haproxy => haproxy::translate(&text, &mut model, &mut findings)?,
        Kind::Realm => realm::translate(&text, &mut model, &mut findings)?,
        Kind::Rinetd => rinetd::translate(&text, &mut model, &mut findings),
    }
    let toml = emit::toml(kind, &model);
    if model.forwards.is_empty() {
        findings.left(
            &text.place(1),
            "the whole file",
            "nothing in it forwards at layer 4",
        );
    } else if let Err(errors) = Config::parse(&toml) {
        // What the original accepts and we do not, such as a host name with an underscore in
        // front: it is said, and what was converted is still there to be mended.
        for problem in errors.problems() {
            let line = problem.place.position.map_or(0, |(line, _)| line);
            findings.left(
                &text.place(1),
                &format!("line {line} of the result"),
                &problem.message,
            );
        }
    }
    let (findings, converted) = findings.told();
    Ok(Converted {
        toml,
        findings,
        converted,
    })
}
