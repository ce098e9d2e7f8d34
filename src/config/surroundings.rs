//! What a configuration is read in: the files beside it and the environment. Whoever
//! loads one says what they are; this room reads neither.

use super::inputs::FileText;

/// See the module's documentation.
pub trait Surroundings {
    /// The files that `pattern` means in `include` of the file called `from`, in the order
    /// of their names. The error is what is wrong with the pattern or with one of them.
    fn include(&self, from: &str, pattern: &str) -> Result<Vec<FileText>, String>;

    /// What a variable of the environment has: `None` if it is not set.
    fn variable(&self, name: &str) -> Option<String>;
}

/// A text by itself: no file is beside it, and no variable is set.
#[derive(Debug, Clone, Copy)]
pub struct Nowhere;

impl Surroundings for Nowhere {
    fn include(&self, _from: &str, _pattern: &str) -> Result<Vec<FileText>, String> {
        Err("this text is no file that others could be included in".to_owned())
    }

    fn variable(&self, _name: &str) -> Option<String> {
        None
    }
}
