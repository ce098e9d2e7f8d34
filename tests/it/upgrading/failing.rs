//! A new process that comes to nothing, at every step: behaviours 126, 127 and 136.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::json;

use super::fake::*;
use super::kit::*;
use crate::kit::*;
use crate::reloading::kit::Echo;

/// How far a new process comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Connected,
    Hello,
    SomeListeners,
    AllListeners,
    Ready,
    Commit,
}

const STEPS: [Step; 6] = [
    Step::Connected,
    Step::Hello,
    Step::SomeListeners,
    Step::AllListeners,
    Step::Ready,
    Step::Commit,
];

/// Goes as far as this.
fn until(fake: &Fake, step: Step) {
    if step == Step::Connected {
        return;
    }
    if step <= Step::SomeListeners {
        fake.say(&hello());
        fake.hear("hello");
        if step == Step::SomeListeners {
            fake.hear("listeners");
        }
        return;
    }
    let (labels, _sockets) = fake.prepare();
    if step >= Step::Ready {
        fake.say(&json!({ "kind": "ready", "taken": labels }));
        fake.hear("tables");
    }
    if step >= Step::Commit {
        fake.hear("commit");
    }
}

/// Behaviour 126: it is killed.
#[test]
fn b126_a_new_process_that_dies_at_any_step_changes_nothing() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let it = Upgradable::start(Setup::new(server.address).case(case).reactors(2));
        let old = it.serving();
        let mut held = Held::open(it.forwarder.address());
        for step in STEPS {
            let fake = Fake::new_process(&it.entrance());
            until(&fake, step);
            drop(fake);
            held.ping();
            it.goes_on(old);
        }
        wait_until("each is told of", PATIENCE, || {
            it.forwarder.lines_with("no upgrade: ").len() == STEPS.len()
        });
        it.upgrade();
        it.exchange();
        held.ping();
    });
}

/// Behaviour 126: it refuses, with the reason.
#[test]
fn b126_a_new_process_that_refuses_at_any_step_changes_nothing() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let it = Upgradable::start(Setup::new(server.address).case(case));
        let old = it.serving();
        let mut held = Held::open(it.forwarder.address());
        for step in STEPS {
            let fake = Fake::new_process(&it.entrance());
            until(&fake, step);
            let reason = format!("no mood at {step:?}");
            fake.say(&json!({ "kind": "refused", "reason": reason }));
            it.forwarder.wait_for_line(&reason);
            held.ping();
            it.goes_on(old);
        }
        it.upgrade();
        it.exchange();
    });
}

/// Behaviour 126: it hangs. Up to where it stands nobody waits for it; from there on for
/// seconds at the most.
#[test]
fn b126_a_new_process_that_hangs_keeps_nobody_waiting_for_long() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let it = Upgradable::start(Setup::new(server.address).case(case));
        let old = it.serving();
        let mut held = Held::open(it.forwarder.address());
        for step in [Step::Connected, Step::AllListeners] {
            let fake = Fake::new_process(&it.entrance());
            until(&fake, step);
            held.ping();
            it.goes_on(old);
            if step > Step::Connected {
                let answer = it.ask("{}");
                assert_eq!(answer.status, 409, "b136: {}", answer.body);
                assert!(answer.body.contains("process 1"), "{}", answer.body);
            }
        }
        for step in [Step::Ready, Step::Commit] {
            wait_until("the one before is over", PATIENCE, || {
                let busy = it.ask(r#"{"binary":"/nonexistent"}"#).body;
                !busy.contains("under way")
            });
            let fake = Fake::new_process(&it.entrance());
            until(&fake, step);
            // Whoever comes now waits in the queue.
            it.exchange();
            held.ping();
            // What it says now comes too late.
            fake.say(&json!({ "kind": "committed" }));
            if step == Step::Ready {
                fake.hear("commit");
            }
            fake.hear("given_up");
            it.goes_on(old);
        }
        it.upgrade();
        it.exchange();
    });
}

/// Behaviour 127: the room for descriptors is looked at before anything is handed over.
#[test]
fn b127_a_new_process_without_room_is_refused_before_anything_moves() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let it = Upgradable::start(Setup::new(server.address).case(case));
        let old = it.serving();
        let fake = Fake::new_process(&it.entrance());
        let mut cramped = hello();
        cramped["room"] = json!(20);
        fake.say(&cramped);
        let heard = fake.hear("refused");
        let reason = heard.message["reason"].as_str().unwrap();
        assert!(reason.contains("room for 20 descriptors"), "{reason}");
        assert!(fake.try_hear().is_none(), "nothing follows");
        it.goes_on(old);
    });
}

/// Behaviour 127: what has come is named, and a name too few is a failure.
#[test]
fn b127_a_descriptor_that_is_not_named_is_not_let_go_of() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let it = Upgradable::start(Setup::new(server.address).case(case));
        let old = it.serving();
        let fake = Fake::new_process(&it.entrance());
        fake.say(&hello());
        fake.hear("hello");
        let heard = fake.hear("listeners");
        let cookies = heard.message["cookies"].as_array().unwrap();
        fake.say(&json!({ "kind": "have", "cookies": cookies[1..] }));
        let refused = fake.hear("refused");
        let reason = refused.message["reason"].as_str().unwrap();
        let expected = format!("1 sockets of {}", cookies.len());
        assert!(reason.contains(&expected), "{reason}");
        it.goes_on(old);
    });
}

/// Behaviour 136: whoever connects and says nothing, or nonsense, keeps nobody from anything.
#[test]
fn b136_a_stranger_stalls_nothing() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let it = Upgradable::start(Setup::new(server.address).case(case));
        let silent: Vec<UnixStream> = (0..20)
            .map(|_| UnixStream::connect(it.entrance()).unwrap())
            .collect();
        let mut nonsense = UnixStream::connect(it.entrance()).unwrap();
        let _ = nonsense.write_all(b"GET / HTTP/1.1\r\n\r\n");
        it.exchange();
        it.upgrade();
        it.exchange();
        drop(silent);
    });
}

/// Behaviour 136: the kernel says who it is, whatever the mode of the path.
#[test]
fn b136_another_user_is_sent_away() {
    if !nix::unistd::geteuid().is_root() {
        return skip(&test_name(), "not root: there is no other user to be");
    }
    let server = Echo::new(b'a');
    let it = Upgradable::start(Setup::new(server.address));
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    open(&it.entrance(), 0o666);
    open(it.directory.path(), 0o755);
    let entrance = it.entrance();
    // A thread's own credentials: those of the others stay.
    let asked = std::thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(65534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let fake = Fake::over(UnixStream::connect(entrance).unwrap());
        fake.say(&hello());
        fake.0.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut byte = [0];
        std::io::Read::read(&mut &fake.0, &mut byte).unwrap_or(0)
    });
    assert_eq!(
        asked.join().unwrap(),
        0,
        "the connection is closed without a word"
    );
    it.upgrade();
}

/// Behaviour 126: real processes that come to nothing.
#[test]
fn b126_a_binary_that_ends_or_a_configuration_with_a_mistake_changes_nothing() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let directory = directory::Directory::new();
        let file = directory.join("thalweg.toml");
        let text = format!(
            "[[forward]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{}\"\n",
            server.address
        );
        std::fs::write(&file, &text).unwrap();
        let setup = Setup::configured(&file, 1).engine(case.engine);
        let it = Upgradable::start_in(setup, directory);
        let old = it.serving();
        let answer = it.ask(r#"{"binary":"/bin/false"}"#);
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert!(answer.body.contains("exit status: 1"), "{}", answer.body);
        it.goes_on(old);
        // A mistake that is seen before anything is taken, and one after it.
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let clash = format!(
            "[[forward]]\nname = \"b\"\nlisten = \"{}\"\nupstream = \"{}\"\n",
            taken.local_addr().unwrap(),
            server.address
        );
        for (more, why) in [("colour = \"red\"\n", "colour"), (&*clash, "in use")] {
            std::fs::write(&file, format!("{text}{more}")).unwrap();
            let answer = it.ask("{}");
            assert_eq!(answer.status, 503, "{}", answer.body);
            assert!(answer.body.contains(why), "{}", answer.body);
            it.goes_on(old);
        }
        std::fs::write(&file, &text).unwrap();
        it.upgrade();
        it.exchange();
        std::thread::sleep(Duration::from_millis(10));
    });
}
