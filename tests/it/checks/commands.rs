//! Checks by an external command: what it is given, and that nothing of it stays.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use thalweg::balance::health::Change;
use thalweg::config::CheckKind;
use thalweg::control::health::CheckPlan;

use super::origin::Closed;
use super::watch::{Watch, is_ill, is_well, plan, with};
use crate::kit::directory::Directory;
use crate::kit::{PATIENCE, poll, wait_until};

/// A check that runs a line of shell, in which `$1` is the directory.
fn shell(line: &str, directory: &Directory) -> CheckPlan {
    let argv = ["/bin/sh", "-c", line, "sh"].map(str::to_owned);
    let mut argv = argv.to_vec();
    argv.push(directory.path().to_str().unwrap().to_owned());
    plan(([192, 0, 2, 7], 443).into(), CheckKind::Command { argv })
}

/// What a file holds, once it has a whole line.
#[track_caller]
fn line(path: &Path) -> String {
    let whole = || {
        fs::read_to_string(path)
            .ok()
            .filter(|it| it.ends_with('\n'))
    };
    let text = poll(PATIENCE, whole).expect("a file with a line");
    text.trim().to_owned()
}

/// The state of a process in /proc, `Z` for a zombie; `None` when it is gone.
fn state(process: &str) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    Some(rest[..1].to_owned())
}

#[track_caller]
fn is_gone_and_reaped(process: &str) {
    wait_until("the process is reaped", PATIENCE, || {
        state(process).is_none()
    });
}

/// A process that lost its parent: who reaps it is up to the machine.
#[track_caller]
fn is_dead(process: &str) {
    wait_until("the process is dead", PATIENCE, || {
        state(process).is_none_or(|state| state == "Z" || state == "X")
    });
}

#[test]
fn a_command_that_exits_with_0_is_well_and_any_other_is_not() {
    let directory = Directory::new();
    is_well(shell("exit 0", &directory));
    assert_eq!(is_ill(shell("exit 3", &directory)), "command exited with 3");
    assert_eq!(
        is_ill(shell("kill -USR1 $$", &directory)),
        "command was killed by SIGUSR1"
    );
}

#[test]
fn a_command_that_is_not_there_is_a_failure_with_its_name() {
    let missing = CheckKind::Command {
        argv: vec!["/nonexistent/probe".into()],
    };
    assert_eq!(
        is_ill(plan(Closed::new().address, missing)),
        "/nonexistent/probe cannot be run: No such file or directory"
    );
}

#[test]
fn a_command_is_told_which_server_it_is_about() {
    let directory = Directory::new();
    let told = "echo $THALWEG_SERVER_ADDRESS $THALWEG_SERVER_PORT > $1/part; mv $1/part $1/told";
    // The server's own port, whatever the check's.
    let plan = with(shell(told, &directory), |it| it.port = Some(8080));
    let _watch = Watch::new(vec![plan]);
    assert_eq!(line(&directory.join("told")), "192.0.2.7 443");
}

#[test]
fn b31_a_command_that_runs_too_long_is_killed_with_its_group_and_reaped() {
    let directory = Directory::new();
    let stays = "sleep 1000 & echo $! $$ > $1/part; mv $1/part $1/both; wait";
    // Once only: later checks leave the file alone.
    let stays = format!("[ -e $1/both ] && exit 1; {stays}");
    let plan = with(shell(&stays, &directory), |it| {
        it.timeout = Duration::from_secs(2);
    });
    let watch = Watch::new(vec![plan]);
    let both = line(&directory.join("both"));
    let (child, leader) = both.split_once(' ').unwrap();
    let reason = watch.goes(Change::Down);
    assert_eq!(reason, "command ran too long, 1 of 1 checks failed");
    is_gone_and_reaped(leader);
    is_dead(child);
}

#[test]
fn what_a_command_leaves_running_ends_with_it() {
    let directory = Directory::new();
    let leaves = "[ -e $1/left ] || { sleep 1000 & echo $! > $1/part; mv $1/part $1/left; }";
    let _watch = Watch::new(vec![shell(leaves, &directory)]);
    is_dead(&line(&directory.join("left")));
}

#[test]
fn a_checker_that_stops_leaves_no_command() {
    let directory = Directory::new();
    let stays = "echo $$ > $1/part; mv $1/part $1/leader; sleep 1000";
    let watch = Watch::new(vec![shell(stays, &directory)]);
    let leader = line(&directory.join("leader"));
    drop(watch);
    // Reaped before the drop returned: nobody would do it later.
    assert_eq!(state(&leader), None);
}

#[test]
fn a_command_is_given_no_blocked_signals() {
    let directory = Directory::new();
    // As the process does that waits for its signals by a descriptor.
    let mut blocked = SigSet::empty();
    blocked.add(Signal::SIGTERM);
    blocked.add(Signal::SIGINT);
    blocked.thread_block().unwrap();
    let says = "grep -E 'Sig(Blk|Ign)' /proc/self/status | tr -d '\\n\\t' > $1/part; \
                echo >> $1/part; mv $1/part $1/mask";
    let watch = Watch::new(vec![shell(says, &directory)]);
    let mask = line(&directory.join("mask"));
    drop(watch);
    blocked.thread_unblock().unwrap();
    let blocked = mask.split_once("SigBlk:").unwrap().1;
    assert!(blocked.starts_with("0000000000000000"), "{mask}");
    let sigpipe = 1 << (Signal::SIGPIPE as u32 - 1);
    let ignored = mask.split_once("SigIgn:").unwrap().1;
    let ignored = u64::from_str_radix(&ignored[..16], 16).unwrap();
    assert_eq!(ignored & sigpipe, 0, "{mask}");
}
