//! What became of a line.

/// What became of a line.
pub(super) enum Told {
    Same,
    Differs(&'static str),
    Needless(&'static str),
    Left(&'static str),
    /// It was said already.
    Said,
}
