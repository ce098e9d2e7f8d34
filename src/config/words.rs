//! Words that a configuration chooses from: an enum and its words in one table, read
//! and printed from the same lines.

/// A value that is written as one of several words.
pub(super) trait Words: Copy + PartialEq + 'static {
    /// Every word, and what it means. One for each value.
    const WORDS: &'static [(&'static str, Self)];

    /// The word for a value.
    fn word(&self) -> &'static str {
        let mut words = Self::WORDS.iter();
        let found = words.find(|(_, value)| value == self);
        found.map_or("", |(word, _)| word)
    }
}

/// Declares an enum together with its words.
macro_rules! words {
    (
        $(#[$attr:meta])*
        $vis:vis enum $name:ident { $( $(#[$doc:meta])* $variant:ident = $word:literal, )+ }
    ) => {
        $(#[$attr])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        $vis enum $name { $( $(#[$doc])* $variant, )+ }

        impl $name {
            /// The word for it.
            #[allow(dead_code, reason = "not every one is told outside of a configuration")]
            $vis fn as_word(self) -> &'static str {
                crate::config::words::Words::word(&self)
            }

            /// What a word stands for.
            #[allow(dead_code, reason = "not every one is told outside of a configuration")]
            $vis fn of_word(word: &str) -> Option<Self> {
                let mut words = <Self as crate::config::words::Words>::WORDS.iter();
                words.find(|(known, _)| *known == word).map(|(_, value)| *value)
            }
        }

        impl crate::config::words::Words for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$( ($word, Self::$variant), )+];
        }
    };
}

pub(super) use words;
