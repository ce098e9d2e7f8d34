//! Looking at sessions while they run: `thalweg ctl tap`.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{Steered, steered};
use crate::kit::peer::transfer;
use crate::kit::{
    Directory, KIB, Listener, MIB, PATIENCE, Peer, Setup, on_every_engine, wait_until,
};

/// `ctl tap` at work, and what it has said.
struct Tapped {
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
}

/// Starts it, and waits until the process says that somebody looks.
fn tapped(steered: &Steered, arguments: &[&str]) -> Tapped {
    let before = steered.forwarder.lines_with(LOOKED).len();
    let mut child = Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(["ctl", "tap"])
        .args(arguments)
        .env("RUNTIME_DIRECTORY", steered.directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut from = child.stdout.take().unwrap();
    let said = Arc::<Mutex<Vec<u8>>>::default();
    let kept = said.clone();
    thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            kept.lock().unwrap().extend_from_slice(&buffer[..n]);
        }
    });
    wait_until("somebody looks", PATIENCE, || {
        steered.forwarder.lines_with(LOOKED).len() > before
    });
    Tapped { child, said }
}

const LOOKED: &str = "are shown to a caller of the admin endpoint";

impl Tapped {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned()
    }

    #[track_caller]
    fn until(&self, text: &str) {
        let found = crate::kit::poll(PATIENCE, || self.text().contains(text).then_some(()));
        assert!(found.is_some(), "{text}: {}", self.text());
    }

    /// It ends by itself, well.
    #[track_caller]
    fn ends(mut self) -> String {
        assert!(self.child.wait().unwrap().success());
        // Its last words may be on their way.
        self.until("close code=");
        self.text()
    }

    /// The caller goes.
    fn goes(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Tapped {
    fn drop(&mut self) {
        self.goes();
    }
}

fn id_of(steered: &Steered, client: &Peer) -> String {
    let path = format!("/v1/sessions?client={}", client.local());
    let page = steered.admin.get(&path).json();
    page["sessions"][0]["id"].as_str().unwrap().to_owned()
}

fn nobody_looks(steered: &Steered) {
    wait_until("its thread has ended", PATIENCE, || {
        let threads = steered.forwarder.process().threads();
        !threads.iter().any(|it| it == "tap")
    });
}

fn says(from: &Peer, to: &Peer, text: &str) {
    from.stream().write_all(text.as_bytes()).unwrap();
    let mut heard = vec![0; text.len()];
    to.stream().read_exact(&mut heard).unwrap();
    assert_eq!(heard, text.as_bytes());
}

const REQUEST: &str =
    "GET /a?token=abc HTTP/1.1\r\nHost: h.example\r\nAuthorization: Bearer x\r\n\r\n";

#[test]
fn a_live_session_is_looked_at_and_the_look_ends_with_it() {
    on_every_engine(|case| {
        let server = Listener::new();
        let steered = steered(Setup::new(server.address()).case(case).reactors(2));
        let (mut client, mut upstream) = (steered.forwarder.connect(), server.accept());
        let (other, another) = (steered.forwarder.connect(), server.accept());
        transfer(&mut client, &mut upstream, 3 * KIB);
        let id = id_of(&steered, &client);
        let tapped = tapped(&steered, &["--session", &id, "--format", "http"]);
        says(&other, &another, "GET /nobody HTTP/1.1\r\n\r\n");
        says(&client, &upstream, REQUEST);
        tapped.until("Authorization: [8 bytes masked]");
        says(&upstream, &client, "HTTP/1.1 204 No Content\r\n\r\n");
        tapped.until("HTTP/1.1 204 No Content (answers GET /a?token=*** HTTP/1.1)");
        client.close();
        let _ = upstream.receive_until_end();
        upstream.close();
        let text = tapped.ends();
        let begins = format!("before_up={} before_down=0", 3 * KIB);
        assert!(text.contains(&begins), "{text}");
        assert!(text.contains(&format!("offset={}", 3 * KIB)), "{text}");
        assert!(!text.contains("nobody") && !text.contains("abc"), "{text}");
        nobody_looks(&steered);
    });
}

#[test]
fn a_forward_or_a_client_is_looked_at_until_the_caller_goes() {
    on_every_engine(|case| {
        let server = Listener::new();
        let setup = Setup::new(server.address()).and("127.0.0.1:0", server.address());
        let steered = steered(setup.case(case).reactors(2));
        let forwards = steered.admin.get("/v1/forwards").json();
        let listens = |it: &serde_json::Value| {
            let client = Peer::connect(steered.forwarder.address());
            let _upstream = server.accept();
            let path = format!("/v1/sessions?client={}", client.local());
            let page = steered.admin.get(&path).json();
            page["sessions"][0]["forward"] == it["name"]
        };
        let first = forwards.as_array().unwrap().iter().find(|it| listens(it));
        let name = first.unwrap()["name"].as_str().unwrap();
        let second = steered.forwarder.addresses()[1].parse().unwrap();

        let pipes = || steered.forwarder.process().descriptors().pipe_ends;
        let before_all = pipes();
        let before = (steered.forwarder.connect(), server.accept());
        let mut of_forward = tapped(&steered, &["--forward", name, "--format", "text"]);
        let mut of_client = tapped(&steered, &["--client", "127.0.0.1", "--format", "hex"]);
        let nobody = tapped(&steered, &["--client", "10.0.0.0/8"]);
        let after = (steered.forwarder.connect(), server.accept());
        let beside = (Peer::connect(second), server.accept());
        for ((client, upstream), text) in [
            (&before, "said by one that ran already\n"),
            (&after, "said by one that came later\n"),
            (&beside, "said at the other forward\n"),
        ] {
            says(client, upstream, text);
        }
        for (client, upstream) in [before, after, beside] {
            client.close();
            drop(upstream);
        }
        of_forward.until("said by one that ran already");
        of_forward.until("said by one that came later");
        wait_until("three have ended for it", PATIENCE, || {
            of_client.text().matches(" close code=").count() == 3
        });
        assert!(!of_forward.text().contains("at the other forward"));
        // Each is shown once, though it ran when the look began.
        assert_eq!(of_forward.text().matches(" open client=").count(), 2);
        assert_eq!(nobody.text(), "");
        let metrics = steered.admin.get("/metrics");
        assert_eq!(metrics.sum("thalweg_tap_sessions_total") as u64, 3);

        of_forward.goes();
        of_client.goes();
        drop(nobody);
        nobody_looks(&steered);
        let (client, upstream) = (steered.forwarder.connect(), server.accept());
        says(&client, &upstream, "to nobody");
        let metrics = steered.admin.get("/metrics");
        assert_eq!(metrics.sum("thalweg_tap_sessions_total") as u64, 3);
        drop((client, upstream));
        wait_until("the pipes are closed", PATIENCE, || pipes() == before_all);
    });
}

/// Who looks sees the sessions of a reactor that a reload starts meanwhile, from their first
/// byte, and those of the others once.
#[test]
fn a_reactor_that_a_reload_starts_is_looked_at_too() {
    on_every_engine(|case| {
        let (server, files) = (Listener::new(), Directory::new());
        let file = files.join("thalweg.toml");
        let write = |reactors: usize| {
            let text = format!(
                "[global]\nreactors = {reactors}\n[[forward]]\nname = \"web\"\n\
                 listen = \"127.0.0.1:0\"\nupstream = \"{}\"\n",
                server.address()
            );
            std::fs::write(&file, text).unwrap();
        };
        write(1);
        let setup = Setup::configured(&file, 1).reactors_by_file();
        let steered = steered(setup.case(case));
        let reload = |reactors: usize| {
            write(reactors);
            let head = "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\n\
                        Content-Type: application/json\r\nContent-Length: 2\r\n";
            let answer = steered.admin.send(head, "{}");
            assert_eq!(answer.status, 200, "{}", answer.body);
        };
        let live = (steered.forwarder.connect(), server.accept());
        let of_all = tapped(&steered, &["--all", "--format", "text"]);
        // The first one leaves in the end: whoever comes then is another's.
        reload(3);
        reload(2);
        let mut pairs = vec![live];
        for number in 0..16 {
            let pair = (steered.forwarder.connect(), server.accept());
            says(&pair.0, &pair.1, &format!("said by number {number};\n"));
            pairs.push(pair);
        }
        says(&pairs[0].0, &pairs[0].1, "said by the first;\n");
        let page = steered.admin.get("/v1/sessions").json();
        let ids = page["sessions"].as_array().unwrap().iter();
        let ids: Vec<&str> = ids.map(|it| it["id"].as_str().unwrap()).collect();
        assert!(ids.iter().any(|it| !it.starts_with('0')), "{ids:?}");
        for number in 0..16 {
            of_all.until(&format!("said by number {number};"));
        }
        of_all.until("said by the first;");
        for (client, upstream) in pairs {
            client.close();
            drop(upstream);
        }
        wait_until("all have ended for it", PATIENCE, || {
            of_all.text().matches(" close code=").count() == 17
        });
        let text = of_all.text();
        assert_eq!(text.matches(" open client=").count(), 17, "{text}");
        drop(of_all);
        nobody_looks(&steered);
    });
}

/// What was spliced is copied while somebody looks, and every byte is the right one.
#[test]
fn a_session_that_moves_bulk_is_looked_at_without_harm() {
    on_every_engine(|case| {
        let server = Listener::new();
        let steered = steered(Setup::new(server.address()).case(case));
        let (mut client, mut upstream) = (steered.forwarder.connect(), server.accept());
        transfer(&mut client, &mut upstream, 4 * MIB);
        let id = id_of(&steered, &client);
        let tapped = tapped(&steered, &["--session", &id, "--format", "hex"]);
        transfer(&mut client, &mut upstream, 4 * MIB);
        transfer(&mut upstream, &mut client, MIB);
        tapped.until("limit max_bytes_per_session=65536");
        client.close();
        let _ = upstream.receive_until_end();
        upstream.close();
        let text = tapped.ends();
        let first = format!("up length={} offset={}", 64 * KIB, 4 * MIB);
        let shown = text.lines().filter(|it| it.contains(" up length="));
        let shown: u64 = shown
            .map(|it| {
                it.split("length=")
                    .nth(1)
                    .unwrap()
                    .split(' ')
                    .next()
                    .unwrap()
            })
            .map(|it| it.parse::<u64>().unwrap())
            .sum();
        assert_eq!(shown, 64 * KIB, "{first}");
        assert!(text.contains(&format!("offset={}", 4 * MIB)));
        let total = format!("close code=-- cause=finished up={} down={MIB}", 8 * MIB);
        assert!(text.contains(&total), "{}", text.lines().last().unwrap());
    });
}

#[test]
fn who_looks_and_does_not_read_misses_bytes_and_nobody_waits_for_him() {
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()));
    let whole = ["--all", "--format", "pcapng", "--max-bytes", "1GiB"];
    let stopped = tapped(&steered, &whole);
    let pid = nix::unistd::Pid::from_raw(stopped.child.id() as i32);
    let signal = |it: nix::sys::signal::Signal| nix::sys::signal::kill(pid, it).unwrap();
    signal(nix::sys::signal::Signal::SIGSTOP);
    let (mut client, mut upstream) = (steered.forwarder.connect(), server.accept());
    // Half of it may be on its way.
    transfer(&mut client, &mut upstream, 9 * MIB);
    let metrics = steered.admin.get("/metrics");
    let dropped = metrics.sum("thalweg_tap_dropped_bytes_total");
    assert!(dropped > 0.0, "nothing is missing");
    // Once it goes on, it is told with what comes next.
    signal(nix::sys::signal::Signal::SIGCONT);
    wait_until("it is said to be missing", PATIENCE, || {
        transfer(&mut client, &mut upstream, 1);
        let said = stopped.text();
        said.contains("bytes are missing here: the tap could not keep up")
    });
    drop(stopped);
    nobody_looks(&steered);
    // What was lost before is not forgotten with it.
    let metrics = steered.admin.get("/metrics");
    assert!(metrics.sum("thalweg_tap_dropped_bytes_total") >= dropped);
}

#[test]
fn a_look_that_makes_no_sense_is_refused_with_its_place() {
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()));
    for (arguments, code, said) in [
        (&["--format", "hex"][..], 2, "say whom to look at"),
        (&["--session", "0-77"], 1, "no such session"),
        (&["--session", "x"], 1, "there is no session x"),
        (&["--forward", "none"], 1, "there is no forward named"),
        (&["--client", "nobody"], 2, "no address and no network"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_thalweg"))
            .args(["ctl", "tap"])
            .args(arguments)
            .env("RUNTIME_DIRECTORY", steered.directory.path())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert!(errors.contains(said), "{arguments:?}: {errors}");
    }
    nobody_looks(&steered);
}
