//! What a configuration was read from, kept with it, so that a text of which little differs
//! is read again in little time ([`Config::load_again`](super::Config::load_again)).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::inputs::Override;
use super::raw::Chunk;

/// See the module's documentation. `None`: nothing is known, all is read again. No part of
/// what a configuration means: any two are equal.
#[derive(Clone, Default)]
pub(super) struct Recollection(pub(super) Option<Arc<Text>>);

/// What it was read from.
pub(super) struct Text {
    pub(super) overrides: Vec<Override>,
    /// Those that were asked for.
    pub(super) variables: BTreeMap<String, Option<String>>,
    /// Which file included what, and the names of the files that this was.
    pub(super) includes: Vec<Include>,
    /// In the order in which they were read.
    pub(super) files: Vec<Arc<File>>,
    /// How many forwards came of each `[[forward]]`, in that order.
    pub(super) made: Vec<usize>,
}

/// One pattern.
pub(super) struct Include {
    pub(super) from: String,
    pub(super) pattern: String,
    pub(super) names: Vec<String>,
}

/// One file, in pieces.
pub(super) struct File {
    pub(super) name: String,
    pub(super) text: String,
    pub(super) chunks: Vec<Chunk>,
}

impl File {
    /// Its pieces with their texts.
    pub(super) fn pieces(&self) -> impl Iterator<Item = (&str, &Chunk)> {
        let chunks = self.chunks.iter();
        chunks.map(|it| (&self.text[it.range.clone()], it))
    }
}

impl PartialEq for Recollection {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Recollection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.0.as_ref().map_or(0, |it| it.files.len());
        write!(f, "{files} files")
    }
}
