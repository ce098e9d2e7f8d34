//! The hook that announces a node (163, 164), in front of programs that say what they are told to.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::kit::*;

/// How a node is, as `thalweg ctl ready` says it.
const READY: &str = "ready";
const NO_SERVER: &str = "pool web: none of 2 servers is up";
const ENDING: &str = "it is ending: draining";

/// Another node; no address of this machine.
const OTHER: &str = "192.0.2.12:9100";

struct Hook {
    process: Child,
    directory: Directory,
}

impl Drop for Hook {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

impl Hook {
    fn start(fleet: &str) -> Self {
        let directory = Directory::new();
        let at = |name: &str| directory.join(name);
        let states = directory.path().display();
        program(
            &at("thalweg"),
            &format!(
                "#!/bin/sh\nwho=own\nwhile [ $# -gt 0 ]; do\n\
                 case $1 in --address) who=$2 ;; esac\nshift\ndone\n\
                 said=$(cat '{states}/is-'$who)\necho \"$said\"\n[ \"$said\" = {READY} ]\n"
            ),
        );
        program(
            &at("birdc"),
            &format!("#!/bin/sh\necho \"$1\" >>'{states}/switched'\necho \"$2: ${{1}}d\"\n"),
        );
        fs::write(at("switched"), "").unwrap();
        fs::write(at("is-own"), READY).unwrap();
        fs::write(at(&format!("is-{OTHER}")), READY).unwrap();
        let said = fs::File::create(at("said")).unwrap();
        let hook = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/bird/thalweg-announce");
        let process = Command::new(hook)
            .env("THALWEG", at("thalweg"))
            .env("BIRDC", at("birdc"))
            .env("FLEET", fleet)
            .env("LOOK", "0.02")
            .stdin(Stdio::null())
            .stderr(said)
            .spawn()
            .unwrap();
        Self { process, directory }
    }

    /// Whole at any time.
    fn is(&self, who: &str, state: &str) {
        let (next, at) = (self.directory.join("next"), format!("is-{who}"));
        fs::write(&next, state).unwrap();
        fs::rename(next, self.directory.join(&at)).unwrap();
    }

    fn switched(&self) -> String {
        let all = fs::read_to_string(self.directory.join("switched")).unwrap();
        all.lines().last().unwrap_or_default().to_owned()
    }

    #[track_caller]
    fn becomes(&self, order: &str) {
        wait_until(order, PATIENCE, || self.switched() == order);
    }

    fn said(&self, text: &str) -> usize {
        let said = fs::read_to_string(self.directory.join("said")).unwrap();
        said.matches(text).count()
    }
}

#[test]
fn b164_a_node_without_servers_withdraws_unless_it_is_the_last() {
    let mut hook = Hook::start(&format!("{OTHER} 127.0.0.1:9100"));
    hook.becomes("enable");
    // Another is there for its clients.
    hook.is("own", NO_SERVER);
    hook.becomes("disable");
    hook.is("own", READY);
    hook.becomes("enable");
    // Nobody is; that this one names itself as well means nothing.
    hook.is(OTHER, NO_SERVER);
    hook.is("own", NO_SERVER);
    wait_until("it stays", PATIENCE, || hook.said("stays") == 1);
    assert_eq!(hook.switched(), "enable");
    hook.is(OTHER, READY);
    hook.becomes("disable");
    // Who ends goes, whoever else there is.
    hook.is("own", READY);
    hook.becomes("enable");
    hook.is(OTHER, NO_SERVER);
    hook.is("own", ENDING);
    hook.becomes("disable");
    assert_eq!(hook.said("stays"), 1);
    // It withdraws with its own end.
    hook.is("own", READY);
    hook.becomes("enable");
    kill(Pid::from_raw(hook.process.id() as i32), Signal::SIGTERM).unwrap();
    assert!(hook.process.wait().unwrap().success());
    assert_eq!(hook.switched(), "disable");
}

#[test]
fn b164_without_a_fleet_every_node_withdraws() {
    let hook = Hook::start("");
    hook.becomes("enable");
    hook.is(OTHER, NO_SERVER);
    hook.is("own", NO_SERVER);
    hook.becomes("disable");
    assert_eq!(hook.said("stays"), 0);
}
