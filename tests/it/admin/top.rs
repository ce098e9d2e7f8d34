//! `thalweg top` in a terminal: what its keys do, and that it gives the terminal back (149).

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use super::{Steered, steered};
use crate::kit::peer::transfer;
use crate::kit::{End, KIB, Listener, PATIENCE, Setup, skip, test_name, wait_until};

/// Rows and columns of a terminal.
type Size = (usize, usize);

const LARGE: Size = (40, 170);

/// As a terminal is where nobody has said otherwise, and as a telephone's.
const USUAL: Size = (24, 80);
const SMALL: Size = (12, 40);

/// `top` in a terminal of its own, which `script` makes; what is on the screen, and every byte
/// that came.
struct Seen {
    child: Child,
    said: Arc<Mutex<Vec<u8>>>,
    size: Size,
}

/// The terminal's settings are told before and behind what runs in it.
fn seen(steered: &Steered, size: Size, before: &str) -> Seen {
    let (rows, columns) = size;
    let command = format!(
        "stty rows {rows} cols {columns}; stty -g; {before}{} top --interval 200ms; stty -g",
        env!("CARGO_BIN_EXE_thalweg")
    );
    let mut child = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env("RUNTIME_DIRECTORY", steered.directory.path())
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut from = child.stdout.take().unwrap();
    let said = Arc::<Mutex<Vec<u8>>>::default();
    let kept = said.clone();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            kept.lock().unwrap().extend_from_slice(&buffer[..n]);
        }
    });
    Seen { child, said, size }
}

impl Seen {
    fn press(&mut self, keys: &str) {
        let to = self.child.stdin.as_mut().unwrap();
        to.write_all(keys.as_bytes()).unwrap();
        to.flush().unwrap();
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned()
    }

    #[track_caller]
    fn until(&self, what: &str, shown: impl Fn(&str) -> bool) {
        let found = crate::kit::poll(PATIENCE, || shown(&self.screen()).then_some(()));
        assert!(found.is_some(), "{what}:\n{}", self.screen());
    }

    fn screen(&self) -> String {
        screen(&self.text(), self.size)
    }

    /// It has ended, and the terminal is as it was.
    #[track_caller]
    fn has_given_back(mut self, what: &str) {
        assert!(self.child.wait().is_ok());
        let is_setting = |c: char| c.is_ascii_hexdigit() || c == ':';
        let settings = |text: &str| -> Vec<String> {
            let lines = text.lines().map(str::trim_end);
            lines
                .map(|line| line[line.trim_end_matches(is_setting).len()..].to_owned())
                .filter(|it| it.matches(':').count() > 20)
                .collect()
        };
        wait_until("the terminal's settings are told", PATIENCE, || {
            settings(&self.text()).len() == 2
        });
        let text = self.text();
        let settings = settings(&text);
        assert_eq!(settings[0], settings[1], "{what}");
        let gives_back = "\u{1b}[?1049l";
        assert!(
            text.contains(gives_back),
            "{what}: the screen is not given back"
        );
    }
}

/// What a terminal would show of this: places of the cursor, and characters.
fn screen(text: &str, (rows, columns): Size) -> String {
    let empty = vec![vec![' '; columns]; rows];
    let mut cells = empty.clone();
    let (mut row, mut column) = (0, 0);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => {
                if rest.clone().next() != Some('[') {
                    continue;
                }
                rest.next();
                let mut arguments = String::new();
                let last = loop {
                    match rest.next() {
                        Some(c @ '@'..='~') => break c,
                        Some(c) => arguments.push(c),
                        None => break ' ',
                    }
                };
                let number = |at: usize| -> usize {
                    let argument = arguments.split(';').nth(at);
                    argument.and_then(|it| it.parse().ok()).unwrap_or(1)
                };
                match last {
                    'H' => (row, column) = (number(0) - 1, number(1) - 1),
                    'J' => cells.clone_from(&empty),
                    _ => {}
                }
            }
            '\r' => column = 0,
            '\n' => row += 1,
            c => {
                if let Some(cell) = cells.get_mut(row).and_then(|it| it.get_mut(column)) {
                    *cell = c;
                }
                column += 1;
            }
        }
    }
    let lines = cells.iter().map(|line| line.iter().collect::<String>());
    lines.collect::<Vec<_>>().join("\n")
}

fn is_there() -> bool {
    Command::new("script").arg("--version").output().is_ok()
}

#[test]
fn b149_keys_of_top_sort_filter_end_and_drain_after_a_question() {
    if !is_there() {
        return skip(&test_name(), "script is not there");
    }
    let (server, spare) = (Listener::new(), Listener::new());
    let steered = steered(Setup::to_all(&[server.address(), spare.address()]));
    let servers = steered.admin.get("/v1/servers").json();
    let address = spare.address().to_string();
    let found = servers.as_array().unwrap().iter();
    let id = found.clone().find(|it| it["address"] == address.as_str());
    let id = &id.unwrap()["id"];
    let set = |state: &str| {
        let order = serde_json::json!({ "state": state });
        let answer = super::api::post(&steered.admin, &format!("/v1/servers/{id}"), &order, "");
        assert_eq!(answer.status, 200);
    };
    // All sessions are on the one; the other is there so that it can be drained.
    set("drain");
    let mut held: Vec<_> = (0..3)
        .map(|_| (steered.forwarder.connect(), server.accept()))
        .collect();
    set("active");
    let mut top = seen(&steered, LARGE, "");
    top.until("it begins", |it| it.contains("sessions by rate"));
    for order in ["bytes", "age"] {
        top.press("s");
        let title = format!("sessions by {order}");
        top.until(order, |it| it.contains(&title));
    }

    let clients: Vec<String> = held.iter().map(|it| it.0.local().to_string()).collect();
    let counts = |it: &str| clients.iter().filter(|client| it.contains(*client)).count();
    top.until("all are shown", |it| counts(it) == 3);
    let meant = clients[1].clone();
    top.press(&format!("/{meant}\r"));
    top.until("one is left", |it| counts(it) == 1 && it.contains(&meant));

    // Anything but `y` is no.
    let question = format!("of {meant}? y/n");
    top.press("k");
    top.until("it asks", |it| it.contains(&question));
    top.press("n");
    top.until("it asks no more", |it| !it.contains(&question));
    let (client, upstream) = &mut held[1];
    transfer(client, upstream, KIB);
    top.press("k");
    top.until("it asks again", |it| it.contains(&question));
    top.press("y");
    assert_eq!(held[1].0.receive_until_end(), End::Reset);
    for at in [0, 2] {
        let (client, upstream) = &mut held[at];
        transfer(client, upstream, KIB);
    }
    // The filter is forgotten.
    top.press("/");
    top.until("a filter is written", |it| {
        it.lines().any(|it| it.starts_with('/'))
    });
    top.press("\u{1b}");
    top.until("the others are back", |it| counts(it) == 2);

    let state = || {
        let servers = steered.admin.get("/v1/servers").json();
        let all = servers.as_array().unwrap().iter();
        let address = server.address().to_string();
        let found = all.clone().find(|it| it["address"] == address.as_str());
        found.unwrap()["state"].as_str().unwrap().to_owned()
    };
    top.press("\t");
    top.until("servers are shown", |it| {
        it.contains(" servers by trouble ")
    });
    let all = [server.address().to_string(), spare.address().to_string()];
    top.until("with what is known of them", |it| {
        all.iter().all(|one| it.contains(one))
    });
    let port = server.address().port();
    top.press(&format!("/:{port}\r"));
    let spare = spare.address().to_string();
    top.until("one server is left", |it| !it.contains(&spare));
    for (key, question, becomes) in [("k", "drain ", "drain"), ("r", "let sessions go", "up")] {
        top.press(key);
        top.until(question, |it| {
            it.lines()
                .any(|it| it.starts_with(question) && it.contains("? y/n"))
        });
        top.press("y");
        wait_until("the server is what was meant", PATIENCE, || {
            state() == becomes
        });
    }
    top.press("q");
    top.has_given_back("q");
}

/// Servers that differ in their ports alone are told apart, and what is asked is legible, on any
/// screen; what is wrong stands above all else.
#[test]
fn b149_top_cuts_no_address_and_says_what_is_wrong_on_a_narrow_terminal() {
    if !is_there() {
        return skip(&test_name(), "script is not there");
    }
    let (server, directory) = (Listener::new(), crate::kit::Directory::new());
    let file = directory.join("narrow.toml");
    let text = format!(
        "[upstream.a-rather-long-name]\nservers = [\"{}\", \"127.0.0.1:1\"]\n\
         check = {{ type = \"tcp\", interval = \"100ms\", timeout = \"50ms\" }}\n\
         [upstream.none]\nservers = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\n\
         check = {{ type = \"tcp\", interval = \"100ms\", timeout = \"50ms\" }}\n\
         [[forward]]\nname = \"one\"\nlisten = \"127.0.0.1:0\"\nupstream = \"a-rather-long-name\"\n\
         [[forward]]\nname = \"two\"\nlisten = \"127.0.0.1:0\"\nupstream = \"none\"\n",
        server.address()
    );
    std::fs::write(&file, text).unwrap();
    let steered = steered(Setup::configured(&file, 2));
    let (client, _upstream) = (steered.forwarder.connect(), server.accept());
    wait_until("a pool has no server", PATIENCE, || {
        steered.admin.get("/readyz").body.contains("pool none")
    });
    for size in [USUAL, SMALL] {
        let mut top = seen(&steered, size, "");
        let of_client = client.local().to_string();
        top.until("a client in full", |it| it.contains(&of_client));
        top.until("what is wrong", |it| it.contains("NOT READY: pool none"));
        top.press("2");
        let both = [
            format!("a-rather-long-name/{}", server.address()),
            "none/127.0.0.1:2".to_owned(),
        ];
        top.until("servers in full", |it| {
            both.iter().all(|name| it.contains(name))
        });
        top.until("and their states", |it| it.contains(" down "));
        top.press("3");
        top.until("who serves nobody is first", |it| {
            let mut lines = it.lines().skip_while(|it| !it.starts_with("forward"));
            lines
                .nth(1)
                .is_some_and(|it| it.starts_with("two     not served"))
        });
        top.press("k");
        top.until("it asks in full", |it| {
            it.contains("let nobody in at two? y/n")
        });
        top.press("n");
        // Down to the sessions of the other.
        top.press("\u{1b}[B\r");
        top.until("its sessions", |it| {
            it.contains("sessions of one, by rate") && it.contains(&of_client)
        });
        top.press("q");
        top.has_given_back("q");
    }
}

/// A process that does not answer holds up neither keys nor signals, and what is shown is said to
/// be old.
#[test]
fn b149_keys_of_top_work_while_the_process_stands_still() {
    if !is_there() {
        return skip(&test_name(), "script is not there");
    }
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()));
    let mut top = seen(&steered, USUAL, "");
    top.until("it begins", |it| it.contains("sessions by rate"));
    let signal = |name: &str| {
        let pid = steered.forwarder.process().0.to_string();
        assert!(
            Command::new("kill")
                .args([&format!("-{name}"), &pid])
                .status()
                .unwrap()
                .success()
        );
    };
    signal("STOP");
    top.until("it is said", |it| it.contains("this is old"));
    top.press("s");
    top.until("a key works", |it| it.contains("sessions by bytes"));
    top.press("q");
    top.has_given_back("q");
    signal("CONT");
}

#[test]
fn b149_top_restores_the_terminal_after_any_signal() {
    if !is_there() {
        return skip(&test_name(), "script is not there");
    }
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()));
    let steered = &steered;
    // Some at the same time, for each only waits; few enough that none is one too many for the
    // endpoint.
    let signals = [
        "TERM", "INT", "HUP", "QUIT", "USR1", "ALRM", "TSTP", "ABRT", "PWR", "SEGV", "SYS", "XFSZ",
        "34", "64",
    ];
    for some in signals.chunks(3) {
        thread::scope(|scope| {
            for signal in some {
                scope.spawn(move || is_restored_after(signal, steered));
            }
        });
    }
}

/// Who is at the other end of the terminal is killed, as when a window is closed.
#[test]
fn b149_top_ends_with_its_terminal() {
    if !is_there() {
        return skip(&test_name(), "script is not there");
    }
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()));
    let mut top = seen(&steered, LARGE, TELLS_ITS_NUMBER);
    top.until("it begins", |it| it.contains("sessions by rate"));
    let process = std::path::PathBuf::from(format!("/proc/{}", number(&top)));
    assert!(process.exists());
    top.child.kill().unwrap();
    top.child.wait().unwrap();
    wait_until("it ends", PATIENCE, || !process.exists());
}

/// Put before `top`, tells the terminal which process it is.
const TELLS_ITS_NUMBER: &str = "sh -c 'echo pid=$$; exec \"$0\" \"$@\"' ";

/// See [`TELLS_ITS_NUMBER`].
fn number(top: &Seen) -> String {
    let text = top.text();
    let number = text.split("pid=").nth(1).unwrap();
    let number = number.split(|c: char| !c.is_ascii_digit()).next();
    number.unwrap().to_owned()
}

fn is_restored_after(signal: &str, steered: &Steered) {
    let top = seen(steered, LARGE, TELLS_ITS_NUMBER);
    top.until("it begins", |it| it.contains("sessions by rate"));
    let sent = Command::new("kill")
        .args([&format!("-{signal}"), &number(&top)])
        .status();
    assert!(sent.unwrap().success());
    top.has_given_back(signal);
}
