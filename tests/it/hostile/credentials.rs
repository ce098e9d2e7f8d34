//! Clients of a proxy that guess passwords.

use std::path::PathBuf;

use base64::Engine as _;

use super::proxies::{asks, tunneller};
use super::*;

/// A file of users with `ann` alone in it, with a hash that takes a while.
pub(super) fn a_user(directory: &Directory) -> PathBuf {
    let users = directory.join("users");
    let ann = bcrypt::hash_with_salt("secret", 8, [7; 16]).unwrap();
    let ann = ann.format_for_version(bcrypt::Version::TwoY);
    std::fs::write(&users, format!("ann:{ann}\n")).unwrap();
    users
}

/// A proxy whose only user is `ann`.
fn proxy(case: Case, directory: &Directory) -> Setup {
    let users = a_user(directory);
    let keys = format!("users = \"{}\", header_timeout = \"60s\"", users.display());
    super::proxies::proxy(case, directory, &keys)
}

pub(super) fn credentials(user: &str, password: &str) -> String {
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Proxy-Authorization: Basic {pair}\r\n")
}

/// One address guesses without an end, and resets most of its connections at once: who knows
/// his password is let in soon, and keeps what he has.
#[test]
fn wrong_credentials_lock_out_nobody_else() {
    on_every_engine(|case| {
        let (echo, directory) = (Echo::start(), Directory::new());
        let forwarder = proxy(case, &directory).start();
        let to = forwarder.address();
        let known = credentials("ann", "secret");
        let bystander = tunneller(to, echo.address.to_string(), &known);
        let mut waiting = Vec::new();
        for round in 0..6 {
            for n in 0..50 {
                let mut guesser = connect_from([0, 66], to).unwrap();
                let guess = credentials("ann", &format!("guess {round} {n}"));
                let target = echo.address;
                let asked = write!(guesser, "CONNECT {target} HTTP/1.1\r\n{guess}\r\n");
                // It may have been refused before all of it was said.
                if asked.is_ok() && n % 5 == 0 {
                    waiting.push(guesser);
                } else {
                    let _ = Socket::from(guesser).set_linger(Some(Duration::ZERO));
                }
            }
            bystander.goes_on();
            bystander.comes_in();
        }
        // A guess tells nothing but that it is none, or that there were too many.
        for guesser in &waiting {
            guesser.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut status = [0; 12];
            let mut reader = guesser;
            if reader.read_exact(&mut status).is_ok() {
                assert!(matches!(&status[9..], b"407" | b"503"), "{status:?}");
            }
        }
        // From the address of the guesser, too, the right one is no guess.
        let stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(asks(&stream, echo.address, &known).unwrap(), 200);
        drop((waiting, stream, bystander));
        forwarder.check_quiet();
    });
}
