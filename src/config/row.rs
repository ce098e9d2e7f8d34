//! What is known of a key: its row in the table of its section.

use std::fmt;

use serde_json::Value as Json;

/// How a changed value takes effect in a process that runs; the greater, the dearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Applies {
    /// At once, or for each session that begins from then on.
    Live,
    /// With new listeners in place of the old ones: what an accepted connection
    /// inherits, and where it is awaited.
    Rebind,
    /// In a new process: what the resolver is built from.
    Restart,
}

impl fmt::Display for Applies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Rebind => "rebind",
            Self::Restart => "restart",
        })
    }
}

/// One key of a section, for whoever describes it: documentation, example, schema.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) key: &'static str,
    /// Which values it takes, in words: `size, 4KiB to 16MiB`.
    pub(super) words: String,
    /// What stands for a key that is not written: a value as TOML, or words.
    pub(super) default: String,
    /// Whether `default` is a value.
    pub(super) has_default: bool,
    /// What it is for, one or more sentences.
    pub(super) doc: &'static str,
    pub(super) effect: Applies,
    /// A value that shows how it is used, as TOML; the default where there is none.
    /// One behind a `#` cannot stand beside the other examples of its section.
    pub(super) example: Option<&'static str>,
    pub(super) schema: Json,
    /// The name of the table of keys that its value is, where it is one.
    pub(super) table: Option<&'static str>,
    /// What the kernel calls it, of a socket option.
    pub(super) called: Option<&'static str>,
}

impl Row {
    /// A key that is read by hand, because what it means is not up to its value alone.
    pub(super) fn by_hand(
        key: &'static str,
        words: &str,
        default: &str,
        effect: Applies,
        doc: &'static str,
        schema: Json,
    ) -> Self {
        Self {
            key,
            words: words.to_owned(),
            default: default.to_owned(),
            has_default: false,
            doc,
            effect,
            example: None,
            schema,
            table: None,
            called: None,
        }
    }

    /// With a default that is a value, as TOML.
    pub(super) fn value(mut self, default: &str) -> Self {
        default.clone_into(&mut self.default);
        self.has_default = true;
        self
    }

    pub(super) fn example(mut self, example: &'static str) -> Self {
        self.example = Some(example);
        self
    }

    /// Words instead of a value for what stands in.
    pub(super) fn shown(mut self, default: &'static str) -> Self {
        default.clone_into(&mut self.default);
        self.has_default = false;
        self
    }
}

/// `key = value`, the value as TOML.
pub(super) type Pairs = Vec<(&'static str, String)>;

/// A key whose value is another one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct KeyChange {
    /// The key, dotted below its section: `check.interval`.
    pub(super) key: String,
    /// The value before, as TOML; `None`: it was not set.
    pub(super) old: Option<String>,
    /// The value after.
    pub(super) new: Option<String>,
    /// What the change takes.
    pub(super) effect: Applies,
}
