//! What is refused: every fault with its place, its words and its remedy.

use std::time::Duration;

use super::{BASE, errors, expect, expect_in_profile, good, load, properties};
use crate::config::*;

#[test]
fn a_wrong_override_names_its_argument() {
    for (set, place, words) in [
        ("defaults.idle_timout=5s", "", "did you mean `idle_timeout`"),
        ("defaults.idle_timeout=5", "", "5s"),
        ("global.reactors=0", "", "from 1 to 1024"),
        ("global.engine=uring", "", "`uring` is not one of"),
        ("nonsense", "", "KEY=VALUE"),
        ("=5", "", "is not a key"),
        ("a b=5", "", "is not a key"),
        ("gobal.reactors=1", "", "did you mean `global`"),
        (
            "forward.wbe.data_path=copy",
            "",
            "did you mean forward.web.data_path?",
        ),
        ("forward.1.data_path=copy", "", "the forwards are: web"),
        ("default.mss=1", "", "`default` in the configuration"),
        ("idle_timeout=5s", "", "defaults.idle_timeout=VALUE"),
        ("reactors=5", "", "global.reactors=VALUE"),
        ("forward.web=copy", "", "forward.web.data_path"),
        (
            "forward.web.listen.x=1",
            "",
            "is a string: it has no key `x`",
        ),
        ("profile.wna.mss=1400", "", "no forward uses a profile"),
        ("forward.web.upstream=[\"::1:443\"]", "", "`[::1]:443`"),
        (
            "global.reactors=2\nglobal.engine=1",
            "",
            "number or \"auto\"",
        ),
    ] {
        let text = "[[forward]]\nname = \"web\"\nlisten = \":1\"\nupstream = \"a:1\"\n";
        let errors = errors(text, &[], &[set]);
        assert_eq!(errors.len(), 1, "{set}: {errors:#?}");
        let place = format!("--set {}{place}: ", set.replace('\n', "\u{fffd}"));
        assert!(errors[0].starts_with(&place), "{errors:#?}");
        assert!(errors[0].contains(words), "{errors:#?}");
    }
}

/// A forward without a name is called by its address, which needs no quotes of its own.
#[test]
fn a_forward_is_changed_by_its_address_as_it_is_written() {
    let pairs = [
        (":5000", "a:1"),
        ("127.0.0.1:5001", "a:1"),
        ("[::1]:5002", "a:1"),
    ];
    for name in [":5000", "127.0.0.1:5001", "[::1]:5002", "\":5000\""] {
        let set = format!("forward.{name}.idle_timeout=5s");
        let config = load("", &pairs, &[&set]).expect(&set);
        let five = Duration::from_secs(5);
        let changed = config.forwards.iter().filter(|it| it.timeouts.idle == five);
        assert_eq!(changed.count(), 1, "{set}");
    }
    for (set, words) in [
        (
            "forward.5000.idle_timeout=5s",
            "forward.:5000.idle_timeout?",
        ),
        ("forward.127.0.0.2:5001.x=5s", "forward.127.0.0.1:5001.x?"),
        ("forward.:5000=5s", "must follow its name"),
    ] {
        let errors = errors("", &pairs, &[set]);
        assert_eq!(errors.len(), 1, "{errors:#?}");
        assert!(errors[0].contains(words), "{errors:#?}");
    }
}

/// What people write who do not think of TOML.
#[test]
fn a_value_without_its_quotes_is_shown_with_them() {
    let forward = |line: &str| format!("[[forward]]\n{line}\n");
    for (line, words) in [
        ("listen = 10.0.0.1:5000", "write \"10.0.0.1:5000\""),
        ("listen = 10.0.0.1:5000 # web", "write \"10.0.0.1:5000\""),
        ("listen = :5000", "write \":5000\""),
        ("listen = [::1]:5000", "write \"[::1]:5000\""),
        ("listen = 5000", "write \":5000\""),
        ("upstream = 5000", "such as \"127.0.0.1:5000\""),
        (
            "upstream = [10.0.0.1:80, 10.0.0.2:80]",
            "write \"10.0.0.1:80\"",
        ),
        ("upstream = [\"a:1\", 10.0.0.2:80]", "write \"10.0.0.2:80\""),
        ("upstream = [[::1]:80]", "write \"[::1]:80\""),
        (
            "upstream = { address = 1.2.3.4:5, weight = 2 }",
            "write \"1.2.3.4:5\"",
        ),
        (
            "listen = \u{201c}:5000\u{201d}",
            "write straight ones: \":5000\"",
        ),
        ("name = \u{2018}web\u{2019}", "write straight ones: \"web\""),
        ("name = \u{201e}web\u{201c}", "write straight ones: \"web\""),
        ("name = 1.2", "put it in quotes: \"1.2\""),
        (
            "upstream = \"10.0.0.1\"",
            "the port of `10.0.0.1` is missing",
        ),
        ("upstream = \"db\"", "`db:PORT`"),
        ("upstream = \"443\"", "`HOST:443`"),
    ] {
        let errors = errors(&forward(line), &[], &[]);
        let found = errors.iter().filter(|it| it.contains(words)).count();
        assert_eq!(found, 1, "{line}: {errors:#?}");
        assert!(!errors.iter().any(|it| it.contains("float")), "{errors:#?}");
    }
    // A name that is like one of a pool is that of a pool.
    let text = "[upstream.web]\nservers = \"a:1\"\n[[forward]]\nlisten = \":1\"\n\
                upstream = \"wbe\"\n";
    assert!(errors(text, &[], &[])[0].contains("did you mean `web`?"));
}

#[test]
fn half_a_pair_is_one_mistake() {
    for pair in [(":1", ""), ("", "b:1")] {
        assert_eq!(errors("", &[pair], &[]).len(), 1, "{pair:?}");
    }
    assert!(errors("", &[], &[])[0].contains("nothing to forward"));
}

#[test]
fn half_a_pair_names_the_missing_half() {
    let errors = errors("", &[(":1", "a:1"), (":2", ""), ("", "b:1")], &[]);
    assert!(errors[0].starts_with("-l :2: ") && errors[0].contains("`-r` is missing"));
    assert!(errors[1].starts_with("-r b:1: ") && errors[1].contains("`-l` is missing"));
    assert_eq!(errors.len(), 2);
}

#[test]
fn b160_a_ring_cannot_leave_sessions_to_another_process() {
    let text = format!("[global]\nengine = \"io_uring\"\nsurvive_crash = true\n{BASE}");
    let words = ["`survive_crash` cannot be had", "reads ahead"];
    expect(&text, "3:17", &words);
    let other = format!("[global]\nengine = \"auto\"\nsurvive_crash = true\n{BASE}");
    assert!(good(&other).global.survive_crash);
}

#[test]
fn b70_every_error_of_a_file_is_reported_at_once() {
    let text = r#"[global]
reactorz = 4
engine = "kqueue"

[defaults]
idle_timeout = 10
connect_timeout = "5 parsecs"
client_profile = "wam"

[profile.wan]
mss = 70000
congestion = 1

[[forward]]
listen = ["::1:443", ":65536"]
upstream = "pol"

[[forward]]
name = "b"

[upstream.pool]
balance = "leastconn"
servers = [ { address = "a.example:443", weigth = 2 }, ":443" ]
"#;
    let expected = [
        ("2:1", "unknown key `reactorz`", "did you mean `reactors`"),
        ("3:10", "`kqueue` is not one of", ""),
        ("6:16", "needs a unit", "\"10s\""),
        ("7:19", "`parsecs`", "units are"),
        ("8:18", "no profile named `wam`", "did you mean `wan`"),
        ("11:7", "70000 is out of range", "88 to 32767"),
        ("12:14", "must be a string", "quotes"),
        ("14:1", "", ""),
        ("15:12", "brackets", "did you mean `[::1]:443`"),
        ("15:23", "65536 is too large", "65535"),
        ("16:12", "no pool named `pol`", "did you mean `pool`"),
        ("18:1", "has no `listen`", "listen ="),
        ("18:1", "has no `upstream`", "upstream ="),
        (
            "22:11",
            "\"leastconn\" is what HAProxy calls it",
            "\"least_conn\"",
        ),
        ("23:42", "unknown key `weigth`", "did you mean `weight`"),
        ("23:57", "a server needs a host", "127.0.0.1:443"),
    ];
    let errors = errors(text, &[], &[]);
    let expected: Vec<_> = expected.iter().filter(|e| !e.1.is_empty()).collect();
    assert_eq!(errors.len(), expected.len(), "{errors:#?}");
    for (error, (place, message, remedy)) in errors.iter().zip(expected) {
        assert!(
            error.starts_with(&format!("t.toml:{place}: ")),
            "{place} {error}"
        );
        assert!(error.contains(message) && error.contains(remedy), "{error}");
    }
}

#[test]
fn b70_errors_of_syntax_do_not_hide_each_other_or_the_rest() {
    let text = "[global]\nreactors = 4 4\nengine = epoll\nscratch = 1\n\n\
                [[forward]\nlisten = 5\n\n[[forward]]\nlisten = \":1\nlisten = \":2\"\nlisten = \":3\"\n\
                upstream = [\"a:1\"\n[log]\nlevel = \"wran\"\n";
    let errors = errors(text, &[], &[]);
    for (place, words) in [
        ("2:12", "write \"4 4\""),
        ("3:10", "write \"epoll\""),
        ("4:1", "unknown key `scratch`"),
        ("6:11", ""),
        ("10:13", ""),
        ("12:1", "`listen` is given twice"),
        ("15:9", "did you mean `warn`"),
    ] {
        let place = format!("t.toml:{place}: ");
        let found = errors.iter().find(|error| error.starts_with(&place));
        assert!(
            found.is_some_and(|e| e.contains(words)),
            "{place} {errors:#?}"
        );
    }
    assert_eq!(errors.len(), 8, "{errors:#?}");
}

#[test]
fn wrong_structure_is_explained() {
    expect(" ", "1:1", &["nothing to forward", "[[forward]]"]);
    expect(
        "[forward]\nlisten = \":1\"\n",
        "1:1",
        &["`[[forward]]`, two brackets"],
    );
    expect("forward = 5", "1:11", &["must be a list, not a number"]);
    expect(
        &format!("{BASE}[global]\n[global]\n"),
        "5:2",
        &["`global` is given twice"],
    );
    expect(
        &format!("global = 5\n{BASE}"),
        "1:10",
        &["[global] must be a table"],
    );
    expect(
        &format!("{BASE}[profile]\nwan = 3\n"),
        "5:7",
        &["must be a table"],
    );
    expect(
        &format!("{BASE}[upstream.p]\n"),
        "4:11",
        &["has no `servers`"],
    );
    expect(
        &format!("{BASE}[upstream.p]\nservers = []\n"),
        "5:11",
        &["list is empty"],
    );
    expect(
        &format!("{BASE}[upstream.p]\nservers = [{{}}]\n"),
        "5:12",
        &["no `address`"],
    );
    expect(
        &format!("{BASE}[upstream.\"a:b\"]\nservers = [\"a:1\"]\n"),
        "4:11",
        &["cannot contain"],
    );
    expect(
        &format!("{BASE}timeout = \"1s\"\n"),
        "4:1",
        &["did you mean `idle_timeout`"],
    );
    expect(
        &format!("{BASE}banana = 1\n"),
        "4:1",
        &["keys here: name, listen, upstream"],
    );
    expect(
        &format!("{BASE}max_fails = 1\n"),
        "4:1",
        &["`max_fails` is a key of a pool", "upstream = {"],
    );
    expect(&format!("{BASE}name = \"\"\n"), "4:8", &["cannot be empty"]);
    expect(
        "[[forward]]\nlisten = \":5000\"\nupstream = []\n",
        "3:12",
        &["list is empty"],
    );
    expect(
        &format!("{BASE}[log]\nto = \"stdrr\"\n"),
        "5:6",
        &["did you mean \"stderr\""],
    );
    expect(
        &format!("{BASE}[log]\nto = \"my.log\"\n"),
        "5:6",
        &["\"./my.log\""],
    );
    expect(
        &format!("{BASE}idle_timeout = \"400d\"\n"),
        "4:16",
        &["longer than a year", "off"],
    );
    expect(
        &format!("{BASE}[global]\nbusy_poll = \"2s\"\n"),
        "5:13",
        &["from 0s to 1s"],
    );
}

#[test]
fn name_sources_are_addresses_and_absolute_paths() {
    for (line, place, words) in [
        (
            "dns_servers = [\"10.0.0.1\", \"dns.example\"]",
            "5:29",
            &["`dns.example` is not an IP address", "127.0.0.1:5353"][..],
        ),
        ("dns_servers = \"0.0.0.0\"", "5:16", &["cannot be asked"]),
        ("dns_servers = \"::1, [::1]:0\"", "5:21", &["port 0", "53"]),
        ("dns_servers = [53]", "5:16", &["`dns_servers`", "a string"]),
        (
            "dns_servers = \"1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4,1.1.1.5,1.1.1.6,1.1.1.7,1.1.1.8,1.1.1.9\"",
            "5:15",
            &["more than 8"],
        ),
        (
            "resolv_conf = \"\"",
            "5:15",
            &["empty", "leave the key out"],
        ),
        ("hosts = \"hosts\"", "5:9", &["begin at the root"]),
    ] {
        expect(&format!("{BASE}[global]\n{line}\n"), place, words);
    }
}

#[test]
fn what_must_be_unique_is() {
    let two = |first: &str, second: &str| {
        format!("[[forward]]\n{first}\nupstream=\"a:1\"\n[[forward]]\n{second}\nupstream=\"a:1\"\n")
    };
    let twice =
        |first: &str, second: &str| two(&format!("listen={first}"), &format!("listen={second}"));
    expect(&twice("\":1\"", "\":1\""), "5:9", &["twice", "line 2"]);
    for (first, second) in [
        (":1", "0.0.0.0:1"),
        ("[::]:1", "*:1"),
        (":1", "127.0.0.1:1"),
        ("[::1]:1", ":1"),
        ("10.0.0.1:1", "0.0.0.0:1-2"),
        ("[::]:1", "[2001:db8::1]:1"),
        (":1", "localhost:1"),
    ] {
        let text = twice(&format!("\"{first}\""), &format!("\"{second}\""));
        expect(&text, "5:9", &["are the same port", "line 2"]);
    }
    expect(
        &twice("\":1-9\"", "[\":20\", \":5-7\"]"),
        "5:17",
        &["`:5` is listened on twice"],
    );
    expect(&twice("\"unix:/a\"", "\"unix:/a\""), "5:9", &["twice"]);
    good(&twice("\"0.0.0.0:1\"", "\"[::]:1\""));
    good(&twice("\"127.0.0.1:1\"", "[\"127.0.0.2:1\", \"[::]:1\"]"));
    let own = "[metrics]\nlisten=\":1\"\n[[forward]]\nlisten=\"127.0.0.1:1\"\nupstream=\"a:1\"\n";
    expect(own, "2:8", &["are the same port", "line 4"]);
    let own = own
        .replace("metrics", "admin")
        .replace("\":1\"", "\"127.0.0.1:1\"");
    expect(&own, "2:8", &["is listened on twice", "line 4"]);
    let profiles = "[profile.a]\ninterface=\"a\"\n[profile.b]\ninterface=\"b\"\n";
    let apart = two(
        "client_profile=\"a\"\nlisten=\":1\"",
        "client_profile=\"b\"\nlisten=\"10.0.0.1:1\"",
    );
    good(&format!("{apart}{profiles}"));
    let config = good(&twice("\"127.0.0.1:0\"", "\"127.0.0.1:0\""));
    assert_eq!(config.forwards[1].name, "127.0.0.1:0#2");
    expect(
        &two("name=\"x\"\nlisten=\":1\"", "name=\"x\"\nlisten=\":2\""),
        "6:6",
        &["`x` exists already (line 2)"],
    );
    expect(
        "[[forward]]\nlisten=\":5000\"\nupstream=\"127.0.0.1:5000\"\n",
        "2:9",
        &["dials itself"],
    );
    expect(
        "[[forward]]\nlisten=\"unix:/x\"\nupstream=\"unix:/x\"\n",
        "2:9",
        &["dials itself"],
    );
}

#[test]
fn options_the_kernel_would_refuse_are_refused_with_a_place() {
    expect_in_profile("mss = 87", &["88 to 32767"]);
    expect_in_profile("nodelay = \"on\"", &["write true, without quotes"]);
    expect_in_profile("nodelay = 1", &["true or false, not a number"]);
    expect_in_profile("send_buffer = \"4GiB\"", &["out of range"]);
    expect_in_profile("send_buffer = \"64k\"", &["`64KiB`"]);
    expect_in_profile("send_buffer = -1", &["not a size"]);
    expect_in_profile("send_buffer = 1.5", &["not a fraction"]);
    expect_in_profile(
        "congestion = \"a_name_of_sixteen\"",
        &["congestion control"],
    );
    expect_in_profile("user_timeout = \"500us\"", &["out of range"]);
    expect_in_profile("user_timeout = \"1500us\"", &["steps of 1ms"]);
    expect_in_profile("user_timeout = 1979-05-27", &["not a date"]);
    expect_in_profile("syn_retries = 0", &["1 to 127"]);
    expect_in_profile("dscp = \"af44\"", &["did you mean `af4"]);
    expect_in_profile("dscp = 64", &["0 to 63"]);
    expect_in_profile("tos = 256", &["0 to 255"]);
    expect_in_profile("max_pacing_rate = 100", &["100Mbit"]);
    expect_in_profile("max_pacing_rate = \"0bit\"", &["nothing pass"]);
    expect_in_profile("source = \"1.2.3.4:5\"", &["without a port"]);
    expect_in_profile("interface = \"an interface\"", &["ip link"]);
    expect_in_profile("mark = 4294967296", &["out of range"]);
    expect_in_profile("raw = 5", &["must be a list"]);
    let with = |lines: &str| format!("{BASE}[profile.wan]\n{lines}\n");
    expect(&with("tos = 1\ndscp = 1"), "4:1", &["same byte"]);
    expect(
        &with("raw = [{ level = 1, name = 2 }]"),
        "5:8",
        &["`value`", "missing"],
    );
    expect(&with("sndbuf = 1"), "5:1", &["did you mean `send_buffer`"]);
    expect(
        &with("keepalive = { idel = \"1s\" }"),
        "5:15",
        &["did you mean `idle`"],
    );
}

#[test]
fn bytes_that_are_not_utf8_have_a_place() {
    let bytes = b"[global]\nengine = \"\xff\"\n".to_vec();
    let name = "t.toml".to_owned();
    let file = Some(FileText { name, bytes });
    let inputs = Inputs {
        file,
        ..Inputs::default()
    };
    let errors = Config::load(&inputs).expect_err("not UTF-8");
    let encoding = errors
        .problems()
        .iter()
        .find(|p| p.message.contains("UTF-8"));
    assert_eq!(
        encoding.map(|p| p.place.to_string()).as_deref(),
        Some("t.toml:2:11")
    );
}

#[test]
fn a_flood_of_errors_is_bounded() {
    let text = "[[forward]]\n".repeat(100_000);
    let errors = load(&text, &[], &[]).expect_err("wrong");
    assert!(errors.count() > 100_000 && errors.problems().len() < 1_000);
    assert!(errors.to_string().contains("more errors"));
    for deep in [
        "a.".repeat(100_000) + "a = 1",
        "a = ".to_owned() + &"[".repeat(100_000),
    ] {
        assert!(properties::errors_of(&deep) > 0);
    }
}
