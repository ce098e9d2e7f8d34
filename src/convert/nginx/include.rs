//! Files in files: relative to the main file, those of a pattern in order.

use std::path::Path;

use super::lexer::{self, Directive};
use crate::convert::finding::Findings;
use crate::convert::source::{Chain, Failure, Sources};

/// Blocks whose content is not looked at: nor are the files that they include.
const CLOSED: [&str; 3] = ["http", "mail", "events"];

/// The directives with all that they include in its place.
pub(super) fn expanded(
    directives: Vec<Directive>,
    sources: &mut Sources,
    findings: &mut Findings,
) -> Result<Vec<Directive>, Failure> {
    Expansion {
        sources,
        findings,
        chain: Chain::default(),
    }
    .all(directives)
}

struct Expansion<'a> {
    sources: &'a mut Sources,
    findings: &'a mut Findings,
    chain: Chain,
}

impl Expansion<'_> {
    fn all(&mut self, directives: Vec<Directive>) -> Result<Vec<Directive>, Failure> {
        let mut all = Vec::with_capacity(directives.len());
        for mut directive in directives {
            if directive.name == "include" && directive.block.is_none() {
                self.include(&directive, &mut all)?;
                continue;
            }
            if let Some(block) = directive.block.take() {
                let closed = CLOSED.contains(&directive.name.as_str());
                directive.block = Some(if closed { block } else { self.all(block)? });
            }
            all.push(directive);
        }
        Ok(all)
    }

    fn include(&mut self, include: &Directive, all: &mut Vec<Directive>) -> Result<(), Failure> {
        let Some(pattern) = include.only() else {
            return Err(Failure::at(&include.place, "include takes one name"));
        };
        let paths = match self.sources.named(pattern) {
            Ok(paths) => paths,
            Err(why) => return Err(Failure::at(&include.place, why)),
        };
        if paths.is_empty() {
            self.findings
                .needless(&include.place, &include.shown(), "no file has such a name");
        }
        for path in paths {
            self.file(include, &path, all)?;
        }
        Ok(())
    }

    fn file(
        &mut self,
        include: &Directive,
        path: &Path,
        all: &mut Vec<Directive>,
    ) -> Result<(), Failure> {
        let entered = self.chain.enter(path, &include.place)?;
        match self.sources.read(path, Some(&include.place)) {
            Ok(text) => {
                self.findings.same(&include.place, &include.shown());
                let inner = self.all(lexer::read(&text)?)?;
                all.extend(inner);
            }
            Err(failure) => self
                .findings
                .left(&include.place, &include.shown(), failure.what),
        }
        self.chain.leave(&entered);
        Ok(())
    }
}
