//! What a configuration is made from: a file, pairs of the command line, single values.

/// What a configuration is made from. All parts are optional; together they must
/// name at least one forward.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inputs {
    /// The configuration file.
    pub file: Option<FileText>,
    /// `-l`/`-r` pairs, each one more forward.
    pub pairs: Vec<Pair>,
    /// `--set` and the flags that are short for it, applied in this order.
    pub overrides: Vec<Override>,
}

/// A file that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileText {
    /// What errors call it.
    pub name: String,
    /// Its bytes; what is not UTF-8 is an error with its place.
    pub bytes: Vec<u8>,
}

/// `-l LISTEN -r UPSTREAM`. Half a pair is an error, which names the other half.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// After `-l`.
    pub listen: Option<String>,
    /// After `-r`.
    pub upstream: Option<String>,
}

/// One value of the command line that goes before the file's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The flag as the user wrote it: `--set`, `--engine`.
    pub flag: String,
    /// The key that the flag stands for, dotted. `None` for `--set`, whose text is
    /// `KEY=VALUE`.
    pub key: Option<String>,
    /// The text after the flag.
    pub text: String,
}
