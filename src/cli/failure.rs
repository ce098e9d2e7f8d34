//! Why a command has no result, and with which exit code.

use std::fmt;
use std::process::ExitCode;

use super::{USAGE, output};

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
