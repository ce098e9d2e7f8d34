//! `thalweg convert --check-against`: the original and thalweg, one after the other, on the user's own file.
//!
//! ```text
//!  thalweg convert … ─► unshare (network, mounts, processes) ─► thalweg convert … --inside
//!                         near: the forwarder, clients      far: a stand-in for each server
//! ```
//! Both run in namespaces that nobody else sees and that end with the check: listeners have the ports of the file, the servers' addresses are
//! those of stand-ins, so that no real server is asked. Compared is what a client meets: whether it is let in, which servers it is sent to,
//! what header it is announced with, what becomes of its answer once it has said its last; and of a datagram whether it is answered, by which servers, behind which header.
//! What is not compared the report says.

mod field;
mod original;
mod survey;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use super::output;
use crate::convert::Converted;
use field::Field;
pub(super) use original::Original;
use survey::{Met, Plan};

/// What no difference says nothing of.
const NOT_COMPARED: &str = "--check-against: not compared: timeouts, rates over time, options of sockets, checks of \
                            servers, unix sockets, names by SRV";

/// Exit code where it could not be compared.
const IMPOSSIBLE: u8 = 2;

/// Runs this very command once more, in namespaces of its own.
pub(super) fn enter() -> ExitCode {
    let mut command = Command::new("unshare");
    command.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ]);
    if !nix::unistd::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let this = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("thalweg"));
    let mut words: Vec<OsString> = std::env::args_os().skip(1).collect();
    // Before the file, which may stand behind `--`.
    words.insert(1, "--inside".into());
    let status = command.arg(this).args(words).status();
    match status.map(|it| it.code()) {
        Ok(Some(code)) => ExitCode::from(u8::try_from(code).unwrap_or(IMPOSSIBLE)),
        Ok(None) => ExitCode::from(IMPOSSIBLE),
        Err(error) => failed(&format!(
            "cannot start unshare, of util-linux, by which the comparison has a network of its own: {error}"
        )),
    }
}

/// Compares, in here, and says what differs: 0 if nothing does, 1 if something does, 2 if it could not be compared.
pub(super) fn compare(original: Original, file: &Path, converted: &Converted) -> ExitCode {
    match compared(original, file, converted) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(why) => failed(&why),
    }
}

fn failed(why: &str) -> ExitCode {
    output::complain(&format!("--check-against: {why}"));
    ExitCode::from(IMPOSSIBLE)
}

fn compared(original: Original, file: &Path, converted: &Converted) -> Result<usize, String> {
    let plan = Plan::of(&converted.toml)?;
    let field = Field::new(&plan)?;
    let theirs = {
        let _running = field.start_original(original, file)?;
        plan.survey()
    };
    let ours = {
        let _running = field.start_ours(&converted.toml)?;
        plan.survey()
    };
    Ok(report(original, &theirs, &ours))
}

/// Says each thing that differs, and how many were the same.
fn report(
    original: Original,
    theirs: &BTreeMap<String, Met>,
    ours: &BTreeMap<String, Met>,
) -> usize {
    let mut differences = 0;
    for (what, met) in theirs {
        let here = ours.get(what);
        if here != Some(met) {
            differences += 1;
            let here = here.map_or_else(|| "nothing".to_owned(), ToString::to_string);
            output::complain(&format!(
                "differs: {what}: {} {met}; thalweg {here}",
                original.program()
            ));
        }
    }
    output::complain(&format!(
        "--check-against {}: {} things asked, {differences} differ",
        original.program(),
        theirs.len()
    ));
    output::complain(NOT_COMPARED);
    differences
}
