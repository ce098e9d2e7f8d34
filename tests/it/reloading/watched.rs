//! `watch = true` and `include`: behaviour 118, and files beside the configuration.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use super::kit::*;
use crate::http_connect::users;
use crate::kit::directory::Directory;
use crate::kit::*;

/// Long enough for a reload that should not be.
const NOTHING: Duration = Duration::from_millis(1_500);

fn text(port: u16, server: std::net::SocketAddr, seconds: u32) -> String {
    format!(
        "[global]\nwatch = true\n[[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{port}\"\n\
         upstream = \"{server}\"\nidle_timeout = \"{seconds}s\"\n"
    )
}

/// How often it was reloaded, and how often that was refused.
fn counts(it: &Forwarder) -> (usize, usize) {
    let of = |kind: &str| {
        let records = it.records().into_iter();
        records.filter(|it| it.text("kind") == kind).count()
    };
    (of("reloaded"), of("reload_refused"))
}

/// Waits for one more reload, which changed what is asked for and nothing else.
#[track_caller]
fn reloaded(it: &Forwarder, before: (usize, usize), seconds: u32) {
    until("it is reloaded", || counts(it).0 > before.0);
    let changes = it.lines_with("reloaded: ").last().unwrap().json()["changes"].to_string();
    let now = format!("{}", Shown(seconds));
    assert!(changes.contains(&now), "{now}: {changes}");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(counts(it), (before.0 + 1, before.1), "read more than once");
}

/// Seconds as the configuration prints them.
struct Shown(u32);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.0 / 60, self.0 % 60) {
            (0, seconds) => write!(f, "{seconds}s"),
            (minutes, 0) => write!(f, "{minutes}m"),
            (minutes, seconds) => write!(f, "{minutes}m{seconds}s"),
        }
    }
}

fn start(case: Case, file: &Path, forwards: usize) -> Forwarder {
    let setup = Setup::configured(file, forwards).engine(case.engine);
    let it = setup.reactors(1).set("log.sessions", "off").start();
    it.wait_for_line("watching ");
    it
}

/// Behaviour 118: each way in which an editor or a script writes a file.
#[test]
fn b118_a_file_that_is_renamed_written_in_place_or_made_anew_is_read_once() {
    on_every_engine(|case| {
        let (server, port, folder) = (Echo::new(b'a'), free_port(), Directory::new());
        let file = folder.join("thalweg.toml");
        let text = |seconds| text(port, server.address, seconds);
        fs::write(&file, text(10)).unwrap();
        let it = start(case, &file, 1);
        // Renamed over it, as most editors do.
        let before = counts(&it);
        fs::write(folder.join(".thalweg.toml.swp"), text(11)).unwrap();
        fs::rename(folder.join(".thalweg.toml.swp"), &file).unwrap();
        reloaded(&it, before, 11);
        // In place, slowly: until it is closed it is half a file, which would be valid.
        let before = counts(&it);
        let mut half = fs::File::create(&file).unwrap();
        let whole = text(12);
        let (first, second) = whole.split_at(whole.find("idle_timeout").unwrap());
        half.write_all(first.as_bytes()).unwrap();
        std::thread::sleep(NOTHING);
        assert_eq!(counts(&it), before, "half of it was read");
        half.write_all(second.as_bytes()).unwrap();
        drop(half);
        reloaded(&it, before, 12);
        // The old one is put away, and a new one is written: vim with `backupcopy=no`.
        let before = counts(&it);
        fs::rename(&file, folder.join("thalweg.toml~")).unwrap();
        fs::write(&file, text(13)).unwrap();
        reloaded(&it, before, 13);
        // A link in its place.
        let before = counts(&it);
        fs::write(folder.join("other.toml"), text(14)).unwrap();
        fs::remove_file(&file).unwrap();
        symlink("other.toml", &file).unwrap();
        reloaded(&it, before, 14);
        // Through the link.
        let before = counts(&it);
        fs::write(folder.join("other.toml"), text(15)).unwrap();
        reloaded(&it, before, 15);
        // What is beside it is nobody's business.
        let before = counts(&it);
        fs::write(folder.join("notes"), "x").unwrap();
        std::thread::sleep(NOTHING);
        assert_eq!(counts(&it), before);
    });
}

/// Behaviour 118: what Kubernetes does when a ConfigMap changes, again and again: the
/// watch is not lost with the folder that goes.
#[test]
fn b118_the_swap_of_a_configmap_is_seen_each_time() {
    on_every_engine(|case| {
        let (server, port, folder) = (Echo::new(b'a'), free_port(), Directory::new());
        let swap = |turn: u32| {
            let data = folder.join(&format!("..2026_{turn}"));
            fs::create_dir(&data).unwrap();
            fs::write(
                data.join("thalweg.toml"),
                text(port, server.address, 10 + turn),
            )
            .unwrap();
            symlink(data.file_name().unwrap(), folder.join("..data_tmp")).unwrap();
            fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
            if turn > 0 {
                fs::remove_dir_all(folder.join(&format!("..2026_{}", turn - 1))).unwrap();
            }
        };
        swap(0);
        let file = folder.join("thalweg.toml");
        symlink("..data/thalweg.toml", &file).unwrap();
        let it = start(case, &file, 1);
        for turn in 1..=5 {
            let before = counts(&it);
            swap(turn);
            reloaded(&it, before, 10 + turn);
        }
        assert_eq!(counts(&it).1, 0, "{:?}", it.complaints());
    });
}

/// Behaviour 118: an empty file or none changes nothing, and the watch goes on.
#[test]
fn b118_an_empty_or_vanished_file_keeps_what_runs() {
    on_every_engine(|case| {
        let (server, port, folder) = (Echo::new(b'a'), free_port(), Directory::new());
        let file = folder.join("thalweg.toml");
        fs::write(&file, text(port, server.address, 10)).unwrap();
        let it = start(case, &file, 1);
        fs::write(&file, "").unwrap();
        until("an empty file is refused", || counts(&it) == (0, 1));
        fs::remove_file(&file).unwrap();
        until("no file is refused", || counts(&it) == (0, 2));
        assert!(
            it.lines_with("cannot read").len() == 1,
            "{:?}",
            it.complaints()
        );
        Peer::connect(([127, 0, 0, 1], port).into()).send(10);
        fs::write(&file, text(port, server.address, 11)).unwrap();
        reloaded(&it, (0, 2), 11);
        // Nobody looks any more.
        let off = text(port, server.address, 12).replace("true", "false");
        fs::write(&file, &off).unwrap();
        until("it is reloaded", || counts(&it) == (2, 2));
        fs::write(&file, text(port, server.address, 13)).unwrap();
        std::thread::sleep(NOTHING);
        assert_eq!(counts(&it), (2, 2));
        let threads = it.process().threads();
        assert!(!threads.iter().any(|it| it == "watch"), "{threads:?}");
    });
}

/// Included files are watched, those that come to be among them; editors' files are not.
#[test]
fn b118_included_files_are_watched_and_named_in_errors() {
    on_every_engine(|case| {
        let (server, folder) = (Echo::new(b'a'), Directory::new());
        let [main, one, two] = [free_port(), free_port(), free_port()];
        let file = folder.join("thalweg.toml");
        let more = folder.join("conf.d");
        fs::create_dir(&more).unwrap();
        let forward = |port: u16| {
            format!(
                "[[forward]]\nname = \"f{port}\"\nlisten = \"127.0.0.1:{port}\"\nupstream = \"{}\"\n",
                server.address
            )
        };
        let begin = "include = [\"conf.d/*.toml\"]\n[global]\nwatch = true\n";
        fs::write(&file, format!("{begin}{}", forward(main))).unwrap();
        fs::write(more.join("one.toml"), forward(one)).unwrap();
        let it = start(case, &file, 2);
        let listens = |port: u16| Peer::try_connect(([127, 0, 0, 1], port).into()).is_ok();
        assert!(listens(main) && listens(one));
        // Half a file that an editor has open keeps nobody waiting.
        let mut swap = fs::File::create(more.join(".two.toml.swp")).unwrap();
        swap.write_all(b"b0VIM").unwrap();
        fs::write(more.join("two.toml"), forward(two)).unwrap();
        until("the second one listens", || listens(two));
        until("that is told", || counts(&it) == (1, 0));
        drop(swap);
        fs::write(
            more.join("two.toml"),
            format!("{}idle_timeout = 5\n", forward(two)),
        )
        .unwrap();
        let refused = it.wait_for_line("not reloaded");
        let error = refused.text("error").to_owned();
        assert!(error.contains("conf.d/two.toml:5:16"), "{error}");
        // The same name in two files.
        fs::write(
            more.join("two.toml"),
            forward(one).replace(&format!(":{one}"), &format!(":{two}")),
        )
        .unwrap();
        let twice = it.wait_for_line(&format!("`f{one}` exists already"));
        assert!(
            twice.text("error").contains("conf.d/one.toml:2)"),
            "{twice:?}"
        );
        assert!(listens(main) && listens(one) && listens(two));
        let before = counts(&it);
        fs::remove_file(more.join("two.toml")).unwrap();
        until("it is gone", || !listens(two));
        until("that is told", || counts(&it) == (before.0 + 1, before.1));
    });
}

/// Lists of networks and files of users are watched as the configuration itself is: what
/// they say by now holds for whoever comes, and a wrong one changes nothing.
#[test]
fn b118_lists_and_files_of_users_are_watched_too() {
    on_every_engine(|case| {
        let (server, folder) = (Echo::new(b'a'), Directory::new());
        let [web, proxy] = [free_port(), free_port()];
        let [file, list, file_of_users] =
            ["thalweg.toml", "list", "users"].map(|it| folder.join(it));
        fs::write(&list, "127.0.0.9\n").unwrap();
        fs::write(&file_of_users, users()).unwrap();
        let text = format!(
            "[global]\nwatch = true\n[[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{web}\"\n\
             upstream = \"{}\"\naccess = [\"deny @{}\", \"allow all\"]\n\
             [[forward]]\nname = \"proxy\"\nlisten = \"127.0.0.1:{proxy}\"\nmode = \"http-connect\"\n\
             connect = {{ allow = [\"127.0.0.0/8:*\"], users = \"{}\" }}\n",
            server.address,
            list.display(),
            file_of_users.display()
        );
        fs::write(&file, text).unwrap();
        let it = start(case, &file, 2);
        let is_let_in = |last: u8| {
            let client = client_of(last, ([127, 0, 0, 1], web).into());
            client.is_ok_and(|it| it.stream().read(&mut [0]).is_ok_and(|len| len == 1))
        };
        let ask = || {
            let client = Peer::connect(([127, 0, 0, 1], proxy).into());
            let to = server.address;
            let request = format!(
                "CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\
                 Proxy-Authorization: Basic YW5uOnNlY3JldA==\r\n\r\n"
            );
            client.stream().write_all(request.as_bytes()).unwrap();
            let mut answer = [0; 12];
            client.stream().read_exact(&mut answer).unwrap();
            String::from_utf8_lossy(&answer[9..]).into_owned()
        };
        assert!(!is_let_in(9) && is_let_in(8));
        assert_eq!(ask(), "200");
        // Renamed over it.
        let before = counts(&it);
        fs::write(folder.join("list.new"), "127.0.0.8\n").unwrap();
        fs::rename(folder.join("list.new"), &list).unwrap();
        until("the list is read again", || counts(&it).0 > before.0);
        assert!(is_let_in(9) && !is_let_in(8));
        // In place; it says nothing that can be followed.
        let before = counts(&it);
        fs::write(&list, "127.0.0.300\n").unwrap();
        until("it is refused", || counts(&it).1 > before.1);
        assert!(is_let_in(9) && !is_let_in(8));
        // Mended, with nothing else touched.
        fs::write(&list, "127.0.0.7\n").unwrap();
        until("it is read again", || counts(&it).0 > before.0);
        assert!(is_let_in(8) && !is_let_in(7));
        let before = counts(&it);
        let without_ann = users().replace("ann:", "eve:");
        fs::write(&file_of_users, without_ann).unwrap();
        until("the users are read again", || counts(&it).0 > before.0);
        assert_eq!(ask(), "407");
        drop(it);
    });
}

/// `${NAME}` is what the environment has when it is read.
#[test]
fn variables_are_those_of_the_process_and_an_unset_one_is_refused() {
    let (server, port, folder) = (Echo::new(b'a'), free_port(), Directory::new());
    let file = folder.join("thalweg.toml");
    let text = format!(
        "[[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{port}\"\nupstream = \"127.0.0.1:${{PORT_OF_SERVER}}\"\n"
    );
    fs::write(&file, &text).unwrap();
    let check = |variable: Option<u16>| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_thalweg"));
        command.args(["check", "-c"]).arg(&file);
        command.env_remove("PORT_OF_SERVER");
        command.envs(variable.map(|it| ("PORT_OF_SERVER", it.to_string())));
        command.output().unwrap()
    };
    let output = check(None);
    assert_eq!(output.status.code(), Some(2));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains("the variable `PORT_OF_SERVER` is not set"),
        "{errors}"
    );
    assert!(errors.contains("thalweg.toml:4:12"), "{errors}");
    let output = check(Some(server.address.port()));
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(printed.contains(&server.address.to_string()), "{printed}");
}
