//! What is handed out: archives and packages ([`made`]), the container ([`container`]), Kubernetes ([`kubernetes`]).

mod container;
mod kubernetes;
mod made;

use std::path::{Path, PathBuf};

/// A file of the project.
fn project(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
