//! Programs of others that tests use.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{skip, test_name};

/// Whether a program is here; says so where not.
pub(crate) fn is_here(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .any(|directory| directory.join(program).is_file());
    if !found {
        skip(&test_name(), &format!("{program} is not installed"));
    }
    found
}

/// A program that ends with the test.
#[derive(Debug)]
pub(crate) struct Program(Child);

impl Program {
    #[track_caller]
    pub(crate) fn start(command: &mut Command) -> Self {
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
