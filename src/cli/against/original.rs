//! The program whose file it is.

use crate::convert::Kind;

/// The program whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum Original {
    /// nginx, with its stream module
    Nginx,
    /// haproxy
    Haproxy,
}

impl Original {
    /// What its files are.
    pub(in crate::cli) const fn kind(self) -> Kind {
        match self {
            Self::Nginx => Kind::Nginx,
            Self::Haproxy => Kind::Haproxy,
        }
    }

    /// What it is called where programs are.
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
        }
    }
}
