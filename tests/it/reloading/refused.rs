//! All or nothing: behaviours 68 and 116.

use std::net::TcpListener;

use super::kit::*;
use crate::kit::*;

fn base(port: u16, server: std::net::SocketAddr) -> String {
    format!("[[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{port}\"\nupstream = \"{server}\"\n")
}

/// Behaviour 68: the report names the line, and what ran before runs on.
#[test]
fn b68_a_bad_configuration_changes_nothing() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let port = free_port();
        let good = base(port, server.address);
        let it = Reloadable::quiet(case, &good, 1, Some(2));
        let sockets = it.listening();
        let load = Load::begin(&[([127, 0, 0, 1], port).into()], 4);
        let lasting = Peer::connect(([127, 0, 0, 1], port).into());
        for bad in [
            format!("{good}idle_timeout = \"often\"\n"),
            format!("{good}[[forward"),
            String::new(),
        ] {
            let said = it.reload(&bad);
            assert_eq!(said.text("kind"), "reload_refused");
            let error = said.text("error");
            assert!(error.contains("thalweg.toml:"), "no place: {error}");
        }
        assert!(
            it.reload(&format!("{good}idle_timeout = \"often\"\n"))
                .text("error")
                .contains("thalweg.toml:5:")
        );
        std::fs::remove_file(&it.file).unwrap();
        it.forwarder
            .process()
            .signal(nix::sys::signal::Signal::SIGHUP);
        it.forwarder.wait_for_line("cannot read");
        // The next good one works.
        it.reloads(&format!("{good}idle_timeout = \"99s\"\n"));
        load.end();
        assert_eq!(it.listening(), sockets);
        drop(lasting);
    });
}

/// Behaviour 116: one of ten listeners, a file of users, a folder of a tap, a log.
#[test]
fn b116_what_cannot_be_had_changes_nothing() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let port = free_port();
        let good = base(port, server.address);
        let it = Reloadable::quiet(case, &good, 1, Some(2));
        let before = it.listening();
        let descriptors = it.forwarder.process().descriptors();
        let threads = it.forwarder.process().threads().len();
        let hold = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = hold.local_addr().unwrap().port();
        let mut ten = good.clone();
        for index in 0..10 {
            let its = if index == 6 { taken } else { free_port() };
            ten += &base(its, server.address).replace("web", &format!("more-{index}"));
        }
        let missing = it.directory.join("missing/file");
        let missing = missing.display();
        let users = format!(
            "{good}[[forward]]\nname = \"proxy\"\nlisten = \"127.0.0.1:{}\"\nmode = \"http-connect\"\n\
             [forward.connect]\nusers = \"{missing}\"\nallow = [\":443\"]\n",
            free_port()
        );
        for (bad, says) in [
            (ten, format!("{taken}")),
            (users, "missing/file".to_owned()),
            (
                format!("{good}tap = {{ format = \"hex\", to = \"{missing}\" }}\n"),
                "missing/file".to_owned(),
            ),
            (
                format!("[global]\nreactors = 4\n[log]\nto = \"{missing}\"\n{good}"),
                "missing/file".to_owned(),
            ),
            (
                format!(
                    "[global]\nreactors = 4\n{good}[[forward]]\nname = \"x\"\nlisten = \"127.0.0.1:{taken}\"\nupstream = \"{}\"\n",
                    server.address
                ),
                format!("{taken}"),
            ),
        ] {
            let said = it.reload(&bad);
            assert_eq!(said.text("kind"), "reload_refused", "{said:?} of {bad}");
            assert!(said.text("error").contains(&says), "{said:?}");
            assert_eq!(it.listening(), before);
            until("what was opened is closed again", || {
                let process = it.forwarder.process();
                process.descriptors() == descriptors && process.threads().len() == threads
            });
        }
        drop(hold);
        it.reloads(&format!("{good}idle_timeout = \"99s\"\n"));
        let load = Load::begin(&[([127, 0, 0, 1], port).into()], 1);
        until("somebody is served", || {
            load.seen.whole.load(std::sync::atomic::Ordering::Relaxed) > 5
        });
        load.end();
    });
}

/// Behaviour 116: what only a new process can do is said before anything is touched.
#[test]
fn b116_what_needs_a_restart_is_refused_with_its_key() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let port = free_port();
        let good = base(port, server.address);
        let it = Reloadable::quiet(case, &good, 1, Some(1));
        let said = it.reload(&format!(
            "[global]\ndns_servers = [\"127.0.0.1:53\"]\n{good}[[forward]]\nname = \"b\"\n\
             listen = \"127.0.0.1:{}\"\nupstream = \"{}\"\n",
            free_port(),
            server.address
        ));
        assert_eq!(said.text("kind"), "reload_refused");
        assert!(said.text("error").contains("dns_servers"), "{said:?}");
        assert_eq!(it.listening().len(), 1);
        let said = it.reload(&format!(
            "{good}client_profile = \"m\"\n[profile.m]\nmptcp = true\n"
        ));
        assert!(said.text("error").contains("mptcp"), "{said:?}");
        // The mode of a path is given when it is made.
        let path = it.directory.join("web.sock");
        let unix = good.replace(
            &format!("127.0.0.1:{port}"),
            &format!("unix:{}", path.display()),
        );
        it.reloads(&unix);
        let said = it.reload(&format!("{unix}unix_mode = \"0666\"\n"));
        assert!(said.text("error").contains("unix_mode"), "{said:?}");
    });
}
