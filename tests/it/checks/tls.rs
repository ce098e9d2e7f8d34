//! The ClientHello against a TLS server that others wrote: OpenSSL's.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use thalweg::config::CheckKind;

use super::watch::{is_ill, is_well, plan};
use crate::kit::directory::Directory;
use crate::kit::{skip, test_name};

struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    /// Runs `openssl s_server` with these arguments; `None` where there is none.
    fn start(directory: &Directory, arguments: &[&str]) -> Option<Self> {
        let (key, certificate) = (directory.join("key"), directory.join("certificate"));
        if !certificate.exists() {
            let made = Command::new("openssl")
                .args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=x"])
                .args(["-newkey", "rsa:2048", "-keyout"])
                .arg(&key)
                .arg("-out")
                .arg(&certificate)
                .stderr(Stdio::null())
                .status();
            if !made.is_ok_and(|status| status.success()) {
                skip(&test_name(), "no openssl that makes a certificate");
                return None;
            }
        }
        let mut process = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-key"])
            .arg(&key)
            .arg("-cert")
            .arg(&certificate)
            .args(arguments)
            .stdin(Stdio::piped()) // It leaves when this ends.
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let accepts = lines.find_map(|line| {
            let line = line.unwrap();
            line.strip_prefix("ACCEPT ").map(str::to_owned)
        });
        // Its pipe must be read on, or it stands still.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self {
            process,
            address: accepts.unwrap().parse().unwrap(),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn tls(server_name: Option<&str>) -> CheckKind {
    CheckKind::Tls {
        server_name: server_name.map(str::to_owned),
    }
}

#[test]
fn a_server_of_either_version_answers_the_hello() {
    let directory = Directory::new();
    for version in ["-tls1_2", "-tls1_3"] {
        let Some(server) = Server::start(&directory, &[version]) else {
            return;
        };
        is_well(plan(server.address, tls(None)));
        is_well(plan(server.address, tls(Some("www.example.com"))));
    }
}

/// It reads the name in the hello, or it would not refuse the other one.
#[test]
fn a_server_that_knows_another_name_refuses_ours() {
    let directory = Directory::new();
    let (key, certificate) = (directory.join("key"), directory.join("certificate"));
    let named = [
        "-servername",
        "www.example.com",
        "-servername_fatal",
        "-key2",
        key.to_str().unwrap(),
        "-cert2",
        certificate.to_str().unwrap(),
    ];
    let Some(server) = Server::start(&directory, &named) else {
        return;
    };
    is_well(plan(server.address, tls(Some("www.example.com"))));
    let refused = is_ill(plan(server.address, tls(Some("other.example.com"))));
    // unrecognized_name, RFC 6066.
    assert_eq!(refused, "TLS alert 112");
}
