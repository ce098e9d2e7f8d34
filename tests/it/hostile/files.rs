//! What a log and a tap write to, where a local user does what he likes with it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use super::*;
use crate::kit::peer::Refusing;

/// A forwarder to this server with its log and its tap at these paths.
fn writing(case: Case, server: SocketAddr, log: &Path, tap: &Path) -> Forwarder {
    let port = Refusing::new();
    let tap = format!(
        "{{ format = \"hex\", to = \"{}\", max_bytes_per_session = \"1GiB\" }}",
        tap.display()
    );
    Setup::between(port.address(), server)
        .case(case)
        .stdout(OpenOptions::new().write(true).open("/dev/null").unwrap())
        .set("log.to", format!("\"{}\"", log.display()))
        .set("defaults.tap", tap)
        .start()
}

/// A pipe and whoever has it open, and does not read.
fn pipe(directory: &Directory, name: &str) -> (PathBuf, File) {
    let path = directory.join(name);
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    let mut options = OpenOptions::new();
    let reader = options.read(true).custom_flags(libc::O_NONBLOCK);
    (path.clone(), reader.open(&path).unwrap())
}

/// Somebody says much, in many connections.
fn crowd(to: SocketAddr) {
    for _ in 0..40 {
        let mut stream = connect_from([0, 66], to).unwrap();
        stream.write_all(&[b'x'; 8192]).unwrap();
        stream.read_exact(&mut [0; 8192]).unwrap();
    }
}

/// Log and tap are pipes that have a reader who takes nothing: neither is waited for, what
/// they do not take is lost and told, and who is forwarded does not notice.
#[test]
fn pipes_that_nobody_empties_hold_up_nobody() {
    on_every_engine(|case| {
        let (echo, directory) = (Echo::start(), Directory::new());
        let (log, said) = pipe(&directory, "log");
        let (tap, shown) = pipe(&directory, "tap");
        let forwarder = writing(case, echo.address, &log, &tap);
        let bystander = Bystander::of(forwarder.address());
        for _ in 0..4 {
            crowd(forwarder.address());
            bystander.goes_on();
            bystander.comes_in();
        }
        // Its reader goes, too.
        drop(shown);
        crowd(forwarder.address());
        bystander.goes_on();
        bystander.comes_in();
        drop((bystander, said));
        assert!(forwarder.terminate().success());
    });
}

/// The log's and the tap's path become links to what is somebody else's while the process
/// runs, and it is told to open them again: they are not followed, what they lead to stays
/// as it was, and lines go on where they went.
#[test]
fn links_in_the_place_of_a_log_are_not_followed_and_hold_up_nobody() {
    on_every_engine(|case| {
        let (echo, directory) = (Echo::start(), Directory::new());
        let [log, tap, victim] = ["log", "tap", "victim"].map(|name| directory.join(name));
        std::fs::write(&victim, "mine").unwrap();
        let forwarder = writing(case, echo.address, &log, &tap);
        let bystander = Bystander::of(forwarder.address());
        for file in [&log, &tap] {
            let mode = std::fs::metadata(file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", file.display());
        }
        let moved = [&log, &tap].map(|file| {
            let aside = file.with_extension("aside");
            std::fs::rename(file, &aside).unwrap();
            symlink(&victim, file).unwrap();
            aside
        });
        let text = |file: &Path| std::fs::read_to_string(file).unwrap();
        forwarder.process().signal(Signal::SIGHUP);
        wait_until("it tells that it did not open them", PATIENCE, || {
            let said = text(&moved[0]);
            said.contains("log_not_reopened") && said.contains("tap_not_reopened")
        });
        let before = moved.each_ref().map(|file| text(file).len());
        crowd(forwarder.address());
        bystander.goes_on();
        bystander.comes_in();
        wait_until("they go on", PATIENCE, || {
            moved
                .iter()
                .zip(before)
                .all(|(file, before)| text(file).len() > before)
        });
        assert_eq!(text(&victim), "mine");
        drop(bystander);
        assert!(forwarder.terminate().success());
    });
}
