//! Why a command has no result, and with which exit code.

use std::fmt;
use std::process::ExitCode;

use super::{USAGE, output};
use crate::bench::socket::ResolveError;

/// Why there is no result.
#[derive(Debug)]
pub(super) enum Failure {
    /// What was asked for cannot be meant: exit code 2.
    Usage(String),
    /// It did not work: exit code 1.
    Running(String),
}

impl<E: fmt::Display> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Running(error.to_string())
    }
}

impl Failure {
    /// Of an address on the command line: a text that is none is wrong usage, a host that
    /// has none is not.
    pub(super) fn of_address(error: ResolveError) -> Self {
        match error {
            ResolveError::Malformed(error) => Self::Usage(error),
            ResolveError::NoAddress(error) => Self::Running(error),
        }
    }

    /// Says it, and answers with the exit code.
    pub(super) fn report(self) -> ExitCode {
        match self {
            Self::Usage(error) => {
                output::complain(&error);
                ExitCode::from(USAGE)
            }
            Self::Running(error) => {
                output::complain(&error);
                ExitCode::FAILURE
            }
        }
    }
}
