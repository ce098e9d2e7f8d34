//! Under a service manager: behaviour 154.

use super::kit::*;
use crate::kit::*;
use crate::reloading::kit::Echo;
use crate::service::manager::Manager;

/// Behaviour 154: it is told who is the service before the former process ends, and never
/// that anything stops; and so again at the next upgrade.
#[test]
fn b154_the_manager_is_told_who_is_the_service_and_never_that_it_stops() {
    on_every_engine(|case| {
        let (manager, server) = (Manager::new(), Echo::new(b'a'));
        let setup = manager.of(Setup::new(server.address).case(case));
        let it = Upgradable::start(setup);
        manager.wait_for("READY=1", 1);
        let mut held = Held::open(it.forwarder.address());
        let mut process = it.serving();
        for nth in 1..=2 {
            let next = it.upgrade();
            is_gone(process);
            let main = format!("MAINPID={}", next.0);
            // It has told that, and had it heeded, before it ended.
            let told = manager.with(&main);
            assert_eq!(told.len(), 1, "{:#?}", manager.messages());
            let barriers = manager.with("BARRIER=1");
            assert_eq!(barriers.len(), nth, "{:#?}", manager.messages());
            assert!(barriers[nth - 1].at >= told[0].at);
            manager.wait_for("READY=1", nth + 1);
            held.ping();
            process = next;
        }
        assert!(manager.with("STOPPING=1").is_empty());
        process.signal(nix::sys::signal::Signal::SIGTERM);
        // This one is the service, so it is believed.
        manager.wait_for("STOPPING=1", 1);
    });
}

/// Behaviours 154 and 160: a listener that the next process does not have is not kept for it.
#[test]
fn b160_what_an_upgrade_leaves_behind_is_kept_no_more() {
    on_every_engine(|case| {
        let (manager, server) = (Manager::new(), Echo::new(b'a'));
        let directory = directory::Directory::new();
        let file = directory.join("thalweg.toml");
        let forward = |name| forward(name, server.address);
        std::fs::write(&file, forward("a") + &forward("b")).unwrap();
        let setup = Setup::configured(&file, 1).engine(case.engine);
        let it = Upgradable::start_in(manager.of(setup).env("FDSTORE", 16), directory);
        wait_until("both are kept", PATIENCE, || manager.kept().len() == 2);
        std::fs::write(&file, forward("b")).unwrap();
        it.upgrade();
        wait_until("a is kept no more", PATIENCE, || {
            let kept = manager.kept();
            kept.len() == 1 && kept[0].0.ends_with(",b")
        });
    });
}

/// Behaviours 154 and 160: where only the main process is heeded the new one says nothing before it
/// is that, so what it listens on newly is kept from then on.
#[test]
fn b160_what_is_new_in_the_next_process_is_kept_where_only_the_main_one_is_heeded() {
    on_every_engine(|case| {
        let (manager, server) = (Manager::of_main(), Echo::new(b'a'));
        let directory = directory::Directory::new();
        let file = directory.join("thalweg.toml");
        let forwards = |count: usize| -> String {
            let one = |nth| {
                format!(
                    "[[forward]]\nname = \"f{nth}\"\nlisten = \"127.0.0.1:0\"\n\
                     upstream = \"{}\"\n",
                    server.address
                )
            };
            (0..count).map(one).collect()
        };
        std::fs::write(&file, forwards(1)).unwrap();
        let setup = Setup::configured(&file, 1).engine(case.engine);
        let it = Upgradable::start_in(manager.of(setup).env("FDSTORE", 32), directory);
        manager.wait_for("READY=1", 1);
        for count in 2..=5 {
            let old = it.serving();
            std::fs::write(&file, forwards(count)).unwrap();
            it.upgrade();
            wait_until("all are kept", PATIENCE, || manager.kept().len() == count);
            let ready = manager.wait_for("READY=1", count);
            let status = format!("forwarding: {count} listeners, configuration {count}");
            assert_eq!(ready.value("STATUS"), Some(&*status));
            is_gone(old);
        }
        // Two at once: the second waits until the first is the service.
        let (before, first) = (it.serving(), it.ask("{}"));
        let second = it.ask("{}");
        assert_eq!((first.status, second.status), (200, 200), "{}", second.body);
        let main = format!("MAINPID={}", second.json()["process"]);
        manager.wait_for(&main, 1);
        is_gone(before);
        assert_eq!(manager.kept().len(), 5);
        // On trial it says nothing either, and afterwards it does.
        let trial = it.ask(r#"{"trial_seconds": 600}"#);
        assert_eq!(trial.status, 200, "{}", trial.body);
        let ready = manager.with("READY=1").len();
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(manager.with("READY=1").len(), ready);
        assert!(it.ctl(&["confirm"]).status.success());
        manager.wait_for("READY=1", ready + 1);
        assert_eq!(manager.refused().len(), 0, "{:#?}", manager.refused());
    });
}

/// Behaviours 123 and 160: a session that is kept goes along with an upgrade, and is kept by the
/// process behind it.
#[test]
fn b160_a_session_survives_an_upgrade_and_then_a_kill() {
    let (manager, server) = (Manager::new(), Echo::new(b'a'));
    let setup = Setup::new(server.address).engine("epoll");
    let setup = manager.of(setup.set("global.survive_crash", true));
    let setup = setup.env("FDSTORE", 32);
    let it = Upgradable::start(setup.clone());
    let address = it.forwarder.address();
    let mut held = Held::open(address);
    held.ping();
    let kept = || -> Vec<String> {
        let names = manager.kept().into_iter().map(|(name, _)| name);
        names
            .filter(|it| it.starts_with("thalweg-session."))
            .collect()
    };
    wait_until("it is kept", PATIENCE, || kept().len() == 2);
    let before = kept();
    it.upgrade();
    held.ping();
    wait_until("the next process keeps it", PATIENCE, || {
        let now = kept();
        now.len() == 2 && now != before
    });
    let journals = || {
        let kept = manager.kept();
        let is_it = |(name, _): &&(String, _)| name.starts_with("thalweg-journal.");
        kept.iter().filter(is_it).count()
    };
    assert_eq!(journals(), 1);
    std::thread::sleep(std::time::Duration::from_millis(100));
    let process = it.serving();
    process.signal(nix::sys::signal::Signal::SIGKILL);
    is_gone(process);
    let mut again = setup;
    for (name, socket) in manager.kept() {
        again = again.passing(&name, &socket);
    }
    let forwarder = again.start();
    let line = forwarder.wait_for_line("the process before was killed");
    assert_eq!(
        (line.number("sessions"), line.number("reset")),
        (Some(1), Some(0))
    );
    assert_eq!(forwarder.address(), address);
    held.ping();
}

/// Behaviours 138 and 154: as long as a new process is on trial the former one is the service.
#[test]
fn b154_a_process_on_trial_is_not_the_service() {
    on_every_engine(|case| {
        let (manager, server) = (Manager::new(), Echo::new(b'a'));
        let setup = manager.of(Setup::new(server.address).case(case));
        let it = Upgradable::start(setup);
        let old = it.serving();
        let answer = it.ask(r#"{"trial_seconds": 600}"#);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let tried = it.serving();
        assert!(it.ctl(&["go-back"]).status.success());
        is_gone(tried);
        let mains = |process: crate::kit::process::Process| {
            manager.with(&format!("MAINPID={}", process.0)).len()
        };
        assert_eq!(mains(tried), 0, "{:#?}", manager.messages());
        wait_until("the former one serves", PATIENCE, || it.serving() == old);
        let next = it.upgrade();
        is_gone(old);
        assert_eq!(mains(next), 1);
        assert!(manager.with("STOPPING=1").is_empty());
    });
}

/// Behaviours 156 to 158: in the sandbox a reload and an upgrade work, and the next process is
/// in it as well.
#[test]
fn b157_in_the_sandbox_a_reload_and_an_upgrade_work() {
    on_every_engine(|case| {
        let server = Echo::new(b'a');
        let directory = directory::Directory::new();
        let file = directory.join("thalweg.toml");
        let text = |timeout: &str| {
            let forward = forward("a", server.address);
            format!("[global]\nsandbox = \"auto\"\n{forward}idle_timeout = \"{timeout}\"\n")
        };
        std::fs::write(&file, text("5m")).unwrap();
        let setup = Setup::configured(&file, 1).engine(case.engine);
        let it = Upgradable::start_in(setup, directory);
        let mut held = Held::open(it.forwarder.address());
        let mut process = it.serving();
        for timeout in ["6m", "7m"] {
            // The port was given by the kernel, and is not among those of the configuration.
            std::fs::write(&file, text(timeout)).unwrap();
            let reloaded = it.ctl(&["reload"]);
            assert!(reloaded.status.success(), "{reloaded:?}");
            held.ping();
            let next = it.upgrade();
            is_gone(process);
            held.ping();
            it.exchange();
            let status = std::fs::read_to_string(format!("/proc/{}/status", next.0)).unwrap();
            assert!(status.contains("Seccomp:\t2"), "{status}");
            process = next;
        }
    });
}
