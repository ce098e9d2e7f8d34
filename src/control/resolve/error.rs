//! Why a lookup gave nothing.

use thiserror::Error;

/// Why a name has no addresses.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LookupError {
    /// NXDOMAIN.
    #[error("there is no such name (NXDOMAIN)")]
    NoSuchName,
    /// The name is there, without an address (or, for a service, an SRV record).
    #[error("the name has no {0} record")]
    NoRecord(&'static str),
    /// The chain ends without a record.
    #[error(
        "its chain of CNAMEs leads nowhere: a loop, more than 8 links, or a target without a record"
    )]
    Chain,
    /// An SRV record with the target `.`.
    #[error("the service is declared not to be offered (SRV with the target `.`)")]
    NotOffered,
    /// A name server answered that it cannot tell: SERVFAIL, REFUSED.
    #[error("the name server {1} answered {0}")]
    ServerFailure(String, String),
    /// No answer: of whom, and for how long it was waited.
    #[error("no name server answered in time: {0}")]
    TimedOut(String),
    /// No name server could be asked.
    #[error("no name server could be asked: {0}")]
    Unreachable(String),
    /// An answer that cannot be used.
    #[error("the name server's answer cannot be used: {0}")]
    Answer(String),
    /// Nothing that could be looked up; nobody was asked.
    #[error("this is not the name of a host: {0}")]
    NotAName(String),
    /// Too many lookups are under way.
    #[error("too many lookups are under way")]
    Busy,
    /// The process ends.
    #[error("the resolver has stopped")]
    Stopped,
}

impl LookupError {
    /// Whether this is a name server's word that there is nothing, rather than no
    /// word.
    pub(super) fn says_nothing_is_there(&self) -> bool {
        matches!(self, Self::NoSuchName | Self::NoRecord(_))
    }

    /// Whether it is a no, and not a fault of the way there.
    pub(super) fn is_negative(&self) -> bool {
        matches!(
            self,
            Self::NoSuchName | Self::NoRecord(_) | Self::Chain | Self::NotOffered
        )
    }
}
