//! Facts in, findings out: no kernel is asked.

#![allow(clippy::unwrap_used)]

use super::facts::count_cpus;
use super::*;

/// A machine on which nothing limits anything.
fn generous() -> Facts {
    Facts {
        descriptors: Some((1024, 1 << 20)),
        somaxconn: Some(4096),
        syn_backlog: Some(4096),
        receive_max: Some(4 << 20),
        send_max: Some(4 << 20),
        receive_autotuned: Some(6 << 20),
        send_autotuned: Some(4 << 20),
        ports: Some(28_232),
        time_wait_reuse: Some(1),
        timestamps: Some(true),
        pipe_max: Some(1 << 20),
        pipe_user_soft: Some(0),
        pipes_unlimited: false,
        congestion: Congestion {
            default: "cubic".to_owned(),
            available: vec!["reno".to_owned(), "cubic".to_owned()],
            allowed: vec!["reno".to_owned(), "cubic".to_owned()],
            may_choose_any: false,
        },
        migrate_requests: Some(true),
        mtu_probing: Some(1),
        io_uring: IoUring::default(),
        interface: Some(Interface {
            name: "eth0".to_owned(),
            offloads: vec![("tso", Some(true)), ("gro", Some(true))],
        }),
        clock_source: Some("tsc".to_owned()),
        cpus_online: Some(8),
        cpus_allowed: 8,
        cpu_quota: None,
        refused: Vec::new(),
        trials: Vec::new(),
    }
}

fn needs(text: &str) -> Needs {
    Needs::of(&Config::parse(text).unwrap())
}

/// A forward, with these lines in `[global]` and in itself.
fn config(global: &str, forward: &str) -> String {
    format!(
        "[global]\n{global}\n[[forward]]\nlisten = \":5000\"\nupstream = \"10.0.0.1:443\"\n{forward}\n"
    )
}

/// The one finding that is not fine.
#[track_caller]
fn only(facts: &Facts, needs: &Needs) -> Finding {
    let mut findings = judge(facts, needs);
    findings.retain(|it| it.state != State::Fine);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings.remove(0)
}

#[test]
fn a_generous_machine_limits_nothing() {
    let plain = needs(&config("", ""));
    for needs in [Needs::default(), plain] {
        let findings = judge(&generous(), &needs);
        assert!(
            findings.iter().all(|it| it.state == State::Fine),
            "{findings:#?}"
        );
    }
}

#[test]
fn nothing_is_known_and_nothing_falls_short_without_a_configuration() {
    let findings = judge(&Facts::default(), &Needs::default());
    assert!(
        findings.iter().all(|it| it.state != State::Short),
        "{findings:#?}"
    );
    assert!(findings.iter().any(|it| it.found == "unknown"));
}

/// What the kernel does not say is neither good nor bad, whatever is needed.
#[test]
fn unknown_is_never_ok() {
    let everything = needs(&config(
        "max_connections = 10000\nreactors = 4\npipe_size = \"2MiB\"",
        "data_path = \"splice\"\nclient_profile = \"p\"\n[profile.p]\nbacklog = 9000\n\
         receive_buffer = \"8MiB\"\nsend_buffer = \"16MiB\"",
    ));
    for needs in [Needs::default(), everything] {
        let findings = judge(&Facts::default(), &needs);
        let unknown = findings.iter().filter(|it| it.state == State::Unknown);
        assert!(unknown.count() >= 14, "{findings:#?}");
        for it in &findings {
            assert!(
                it.state != State::Fine || !it.found.contains("unknown"),
                "{it:#?}"
            );
            // Without a word of the kernel there is nothing to be content with but a
            // permission, which is tried.
            assert!(it.state != State::Fine || it.name == "io_uring", "{it:#?}");
        }
    }
    let mut facts = generous();
    facts.interface.as_mut().unwrap().offloads[1].1 = None;
    assert_eq!(only(&facts, &Needs::default()).state, State::Unknown);
}

#[test]
fn what_a_start_cannot_have_falls_short() {
    let mut facts = generous();
    let trial = |verdict| Trial {
        name: "listener :80".to_owned(),
        found: "cannot be had".to_owned(),
        verdict,
    };
    facts.trials = vec![
        trial(Verdict::Fine),
        trial(Verdict::Refused("why".to_owned())),
    ];
    let finding = only(&facts, &Needs::default());
    assert_eq!(finding.state, State::Short);
    assert_eq!(finding.remedy.unwrap(), "why");
    facts.trials = vec![trial(Verdict::Note("look".to_owned()))];
    assert_eq!(only(&facts, &Needs::default()).state, State::Note);
}

/// A range of ports may leave no descriptor for a session.
#[test]
fn listeners_take_descriptors_before_sessions_do() {
    let many = "[global]\nreactors = 2\n[[forward]]\nlisten = \":1000-10999\"\n\
                upstream = \"10.0.0.1:1\"\n";
    let many = needs(many);
    assert_eq!(many.own, Some(2 * (40 + 10_000) + 16));
    let mut facts = generous();
    facts.descriptors = Some((1024, 20_000));
    let finding = only(&facts, &many);
    assert_eq!(finding.state, State::Short);
    let wanted = finding.wanted.unwrap();
    assert!(
        wanted.contains("10000 listeners on 2 reactors take 20096"),
        "{wanted}"
    );
    assert!(finding.remedy.unwrap().starts_with("about 0 sessions fit"));
    // What is left is what is said to fit.
    facts.descriptors = Some((1024, 40_096));
    let finding = only(&facts, &many);
    assert_eq!(finding.state, State::Note);
    assert!(finding.remedy.unwrap().starts_with("about 10000 sessions"));
}

#[test]
fn what_a_configuration_needs_is_read_from_it() {
    let text = config(
        "max_connections = 10000\nreactors = 4\nengine = \"io_uring\"\npipe_size = \"2MiB\"",
        "data_path = \"splice\"\nclient_profile = \"p\"\n[profile.p]\nbacklog = 9000\n\
         receive_buffer = \"8MiB\"\nsend_buffer = \"16MiB\"",
    );
    let needs = needs(&text);
    assert_eq!(needs.sessions, Some(10_000));
    // Two each; four reactors with 40 and one listener; 16 to spare.
    assert_eq!(needs.descriptors, Some(20_000 + 4 * 41 + 16));
    assert_eq!(needs.backlog, Some(9_000));
    assert_eq!(needs.receive_buffer, Some(8 << 20));
    assert_eq!(needs.send_buffer, Some(16 << 20));
    assert_eq!(needs.ports, Some(10_000));
    assert_eq!(needs.pipe_size, Some(2 << 20));
    assert!(needs.io_uring);
    assert_eq!(needs.reactors, Some(4));
}

#[test]
fn sessions_are_limited_by_the_whole_or_by_the_parts() {
    assert_eq!(needs(&config("", "")).sessions, None);
    assert_eq!(
        needs(&config("", "max_connections = 50")).sessions,
        Some(50)
    );
    let both = config("max_connections = 20", "max_connections = 50");
    assert_eq!(needs(&both).sessions, Some(20));
}

#[test]
fn descriptors_count_by_the_hard_limit() {
    let mut facts = generous();
    facts.descriptors = Some((1024, 4096));
    let many = needs(&config("max_connections = 10000\nreactors = 1", ""));
    let finding = only(&facts, &many);
    assert_eq!(finding.state, State::Short);
    assert_eq!(finding.found, "soft 1024, hard 4096");
    assert_eq!(finding.wanted.unwrap(), "20057 for 10000 sessions");
    assert!(finding.remedy.unwrap().contains("LimitNOFILE=20057"));
    // Nobody asked: worth knowing, no more.
    assert_eq!(only(&facts, &Needs::default()).state, State::Note);
}

#[test]
fn queues_buffers_and_ports_fall_short_of_what_is_asked() {
    type Less = fn(&mut Facts);
    let profile = "client_profile = \"p\"\n[profile.p]\n";
    let cases: [(&str, &str, Less, &str); 5] = [
        (
            "",
            "backlog = 4096",
            |it| it.somaxconn = Some(128),
            "sysctl -w net.core.somaxconn=4096",
        ),
        (
            "",
            "receive_buffer = \"1MiB\"",
            |it| it.receive_max = Some(212_992),
            "sysctl -w net.core.rmem_max=1048576",
        ),
        (
            "",
            "send_buffer = \"1MiB\"",
            |it| it.send_max = Some(212_992),
            "sysctl -w net.core.wmem_max=1048576",
        ),
        (
            "max_connections = 20000",
            "",
            |it| it.ports = Some(10_000),
            "ip_local_port_range",
        ),
        (
            "reactors = 4",
            "",
            |it| it.cpu_quota = Some(2),
            "reactors = \"auto\" takes 2",
        ),
    ];
    for (global, option, less, remedy) in cases {
        let needs = needs(&config(global, &format!("{profile}{option}")));
        let mut facts = generous();
        let before = judge(&facts, &needs);
        assert!(
            before.iter().all(|it| it.state == State::Fine),
            "{before:#?}"
        );
        less(&mut facts);
        let finding = only(&facts, &needs);
        assert_eq!(finding.state, State::Short, "{finding:?}");
        assert!(finding.remedy.unwrap().contains(remedy));
    }
}

#[test]
fn ports_are_shared_out_among_the_servers() {
    let mut facts = generous();
    facts.ports = Some(10_000);
    let two = "[global]\nmax_connections = 20000\n[[forward]]\nlisten = \":1\"\n\
               upstream = [\"10.0.0.1:1\", \"10.0.0.2:1\"]\n";
    let findings = judge(&facts, &needs(two));
    assert!(
        findings.iter().all(|it| it.state != State::Short),
        "{findings:#?}"
    );
    let unix = "[global]\nmax_connections = 20000\n[[forward]]\nlisten = \":1\"\n\
                upstream = \"unix:/run/x\"\n";
    assert_eq!(needs(unix).ports, None);
}

#[test]
fn pipes_matter_to_those_without_privilege_who_splice() {
    let mut facts = generous();
    facts.pipe_max = Some(64 << 10);
    assert_eq!(only(&facts, &Needs::default()).state, State::Note);
    let splice = needs(&config("", "data_path = \"splice\""));
    assert_eq!(only(&facts, &splice).state, State::Short);
    facts.pipes_unlimited = true;
    let findings = judge(&facts, &splice);
    assert!(findings.iter().all(|it| it.state == State::Fine));

    let mut facts = generous();
    facts.pipe_user_soft = Some(64 << 20);
    let finding = only(&facts, &splice);
    assert_eq!(finding.state, State::Note);
    assert!(finding.remedy.unwrap().starts_with("64 directions"));
}

#[test]
fn io_uring_falls_short_only_where_it_must_be() {
    let wanted = needs(&config("engine = \"io_uring\"", ""));
    let mut facts = generous();
    facts.io_uring.engine = Some("this build has no io_uring engine".to_owned());
    assert!(
        only(&facts, &wanted)
            .remedy
            .unwrap()
            .contains("--features uring")
    );
    facts.io_uring.refused = Some("kernel.io_uring_disabled is 2".to_owned());
    let finding = only(&facts, &wanted);
    assert_eq!(
        finding.found,
        "not permitted: kernel.io_uring_disabled is 2"
    );
    assert!(
        finding
            .remedy
            .unwrap()
            .contains("kernel.io_uring_disabled=0")
    );
    let findings = judge(&facts, &needs(&config("", "")));
    assert!(findings.iter().all(|it| it.state == State::Fine));
}

#[test]
fn what_was_refused_when_it_was_tried_falls_short() {
    let mut facts = generous();
    facts.refused.push(Refused {
        place: "forward web, client leg".to_owned(),
        option: "congestion".to_owned(),
        granted: "cubic".to_owned(),
        asked: "bbr".to_owned(),
        remedy: "`modprobe tcp_bbr`".to_owned(),
    });
    let finding = only(&facts, &Needs::default());
    assert_eq!(finding.name, "forward web, client leg: congestion");
    assert_eq!(finding.state, State::Short);
}

#[test]
fn the_rest_is_worth_a_note() {
    type Odd = fn(&mut Facts);
    let cases: [(Odd, &str); 12] = [
        (|it| it.congestion.default = "bbr".to_owned(), "cubic"),
        (
            |it| it.congestion.available.push("bbr".to_owned()),
            "tcp_allowed_congestion_control=\"reno cubic bbr\"",
        ),
        (
            |it| it.time_wait_reuse = Some(2),
            "about 470 connections a second",
        ),
        (|it| it.time_wait_reuse = Some(0), "tcp_tw_reuse=1"),
        (|it| it.timestamps = Some(false), "tcp_timestamps=1"),
        (|it| it.migrate_requests = Some(false), "tcp_migrate_req=1"),
        (|it| it.mtu_probing = Some(0), "tcp_mtu_probing=1"),
        (
            |it| it.clock_source = Some("hpet".to_owned()),
            "clocksource",
        ),
        (|it| it.cpus_allowed = 2, "2 reactors"),
        (|it| it.receive_autotuned = Some(1_000_000), "100 Mbit/s"),
        (|it| it.syn_backlog = Some(128), "tcp_max_syn_backlog=1024"),
        (
            |it| it.interface.as_mut().unwrap().offloads[0].1 = Some(false),
            "ethtool -K eth0 tso on",
        ),
    ];
    for (odd, remedy) in cases {
        let mut facts = generous();
        odd(&mut facts);
        let finding = only(&facts, &Needs::default());
        assert_eq!(finding.state, State::Note, "{finding:?}");
        let found = finding.remedy.unwrap();
        assert!(found.contains(remedy), "{found}");
    }
}

#[test]
fn lists_of_cpus_are_counted() {
    assert_eq!(count_cpus("0-3,5\n"), Some(5));
    assert_eq!(count_cpus("0\n"), Some(1));
    assert_eq!(count_cpus(""), None);
    assert_eq!(count_cpus("3-1"), None);
}

#[test]
fn this_machine_can_be_examined() {
    let facts = Facts::collect(None);
    assert!(
        facts.descriptors.is_some() && facts.cpus_allowed > 0,
        "{facts:?}"
    );
    assert!(facts.cpus_online.unwrap() >= facts.cpus_allowed);
    assert!(!facts.congestion.default.is_empty());
    assert!(examine(None).iter().all(|it| it.state != State::Short));
}
