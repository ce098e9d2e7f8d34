//! Who may ask, and for what (57).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::{
    Answer, ESTABLISHED, LOOPBACK, Proxy, expect_text, nobody_came, port_of, request, write,
};
use crate::kit::directory::Directory;
use crate::kit::peer::Refusing;
use crate::kit::*;

/// `secret` for both: as `openssl passwd -6` and `htpasswd -nbB -C 4` write it.
pub(crate) fn users() -> String {
    let bob = bcrypt::hash_with_salt("secret", 4, [7; 16]).unwrap();
    let bob = bob.format_for_version(bcrypt::Version::TwoY);
    let ann = "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1";
    format!("# users\nann:{ann}\nbob:{bob}\n")
}

/// `ann:secret`, `bob:secret`, `ann:Secret`, `eve:secret`.
const ANN: &str = "YW5uOnNlY3JldA==";
const BOB: &str = "Ym9iOnNlY3JldA==";
const WRONG: [&str; 2] = ["YW5uOlNlY3JldA==", "ZXZlOnNlY3JldA=="];

pub(crate) fn with_users(case: Case) -> Proxy {
    let table = format!("{LOOPBACK}users = \"{{dir}}/users\"\nrealm = \"the cellar\"\n");
    Proxy::start_with(case, &table, |setup, directory| {
        std::fs::write(directory.join("users"), users()).unwrap();
        setup
    })
}

fn with_credentials(target: impl ToString, credentials: &str) -> String {
    let request = request(target);
    request.replacen(
        "\r\n",
        &format!("\r\nProxy-Authorization: {credentials}\r\n"),
        1,
    )
}

#[test]
fn b57_407_and_then_the_same_client_with_credentials() {
    on_every_engine(|case| {
        let (proxy, server) = (with_users(case), Listener::new());
        let to = server.address();
        let answer = proxy.answer_to(request(to));
        assert_eq!(answer.status, 407);
        let asks = "\r\nProxy-Authenticate: Basic realm=\"the cellar\", charset=\"UTF-8\"\r\n";
        assert!(answer.head.contains(asks), "{answer:?}");
        for wrong in WRONG.map(|it| format!("Basic {it}")) {
            assert_eq!(proxy.answer_to(with_credentials(to, &wrong)).status, 407);
        }
        for wrong in ["Bearer x", "Basic !", "Basic"] {
            assert_eq!(proxy.answer_to(with_credentials(to, wrong)).status, 407);
        }
        nobody_came(&server);
        // The second time it is remembered.
        for credentials in [ANN, ANN, BOB].map(|it| format!("basic {it}")) {
            let mut client = proxy.connect();
            write(&client, with_credentials(to, &credentials));
            client.send(1000);
            let mut upstream = server.accept();
            upstream.expect(1000);
            expect_text(&client, ESTABLISHED);
            drop((client, upstream));
        }
        let records = proxy.wait_for_sessions(9);
        let users: Vec<_> = records[6..].iter().map(|it| it.text("user")).collect();
        assert_eq!(users, ["ann", "ann", "bob"]);
        assert_eq!(proxy.counters().of("http_connect_407"), 6);
        proxy.check_idle();
    });
}

/// One list, with a file, as the list of clients has: the first rule decides.
#[test]
fn b57_rules_in_one_list_decide_by_the_first() {
    on_every_engine(|case| {
        let (server, other) = (Listener::new(), Listener::new());
        let table = format!(
            "access = [\"deny 127.0.0.1:{}\", \"allow @{{dir}}/targets.txt\", \"deny all\"]\n",
            port_of(&other)
        );
        let proxy = Proxy::start_with(case, &table, |setup, directory| {
            let targets = "# here\n127.0.0.0/8:*\n";
            std::fs::write(directory.join("targets.txt"), targets).unwrap();
            setup
        });
        drop((proxy.tunnel(server.address()), server.accept()));
        assert_eq!(proxy.answer_to(request(other.address())).status, 403);
        assert_eq!(proxy.answer_to(request("1.1.1.1:443")).status, 403);
        nobody_came(&other);
    });
}

/// Guesses from one address at once, and from another somebody who knows his password.
#[test]
fn guesses_from_one_address_lock_out_nobody_at_another() {
    use base64::Engine as _;
    on_every_engine(|case| {
        let (proxy, server) = (with_users(case), Listener::new());
        let to = server.address();
        let guess = |number: u32| {
            let pair = format!("ann:guess{number}");
            let pair = base64::engine::general_purpose::STANDARD.encode(pair);
            with_credentials(to, &format!("Basic {pair}"))
        };
        let guessers: Vec<_> = (0..80)
            .map(|number| {
                let client = Peer::connect_from_address([127, 0, 57, 9], proxy.address());
                write(&client, guess(number));
                client
            })
            .collect();
        // Some of them at least are waiting now, or were told to come again.
        for _ in 0..4 {
            let client = proxy.connect();
            write(&client, with_credentials(to, &format!("Basic {BOB}")));
            expect_text(&client, ESTABLISHED);
            drop((client, server.accept()));
        }
        let statuses: Vec<u16> = guessers
            .iter()
            .map(|it| Answer::read(it.stream()).status)
            .collect();
        assert!(
            statuses.iter().all(|it| [407, 503].contains(it)),
            "{statuses:?}"
        );
        let busy = statuses.iter().filter(|it| **it == 503).count();
        assert!(busy > 40, "{statuses:?}");
        drop(guessers);
        proxy.wait_for_sessions(84);
        proxy.check_idle();
    });
}

#[test]
fn b57_a_file_of_users_that_is_wrong_is_told_at_the_start() {
    let directory = crate::kit::directory::Directory::new();
    let (users, file) = (directory.join("users"), directory.join("proxy.toml"));
    let text = format!(
        "[[forward]]\nname = \"proxy\"\nlisten = \"127.0.0.1:0\"\nmode = \"http-connect\"\n\
         connect = {{ users = \"{}\" }}\n",
        users.display()
    );
    std::fs::write(&file, text).unwrap();
    for (content, words) in [
        (None, "cannot read users from"),
        (Some("ann:secret\n"), "line 1: this is no bcrypt"),
        (Some("# nobody\n"), "has no user"),
    ] {
        if let Some(content) = content {
            std::fs::write(&users, content).unwrap();
        }
        let why = Setup::configured(&file, 1).try_start();
        let why = why.expect_err("it must not start");
        assert!(
            why.contains(words) && why.contains("forward proxy"),
            "{why}"
        );
    }
}

#[test]
fn b57_by_default_nothing_of_this_host_can_be_reached() {
    on_every_engine(|case| {
        // On every address of this host, so that whatever is dialled gets through.
        let server = Listener::with(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)), 16, None);
        let port = port_of(&server);
        let proxy = Proxy::start(case, &format!("allow = \":{port}\"\n"));
        for host in [
            "127.0.0.1",
            "127.1.2.3",
            "0.0.0.0",
            "[::]",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:0.0.0.0]",
            "[64:ff9b::127.0.0.1]",
        ] {
            let answer = proxy.answer_to(request(format!("{host}:{port}")));
            assert_eq!(answer.status, 403, "{host}: {answer:?}");
        }
        // A name that is there is answered like one that is not.
        for host in ["localhost", "LOCALHOST."] {
            let answer = proxy.answer_to(request(format!("{host}:{port}")));
            assert_eq!(answer.status, 502, "{host}: {answer:?}");
        }
        for host in ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0x7f000001"] {
            let answer = proxy.answer_to(request(format!("{host}:{port}")));
            assert_eq!(answer.status, 400, "{host}: {answer:?}");
        }
        // Another port than those that are allowed.
        assert_eq!(proxy.answer_to(request("1.1.1.1:22")).status, 403);
        proxy.wait_for_sessions(16);
        let counters = proxy.counters();
        assert_eq!(counters.of("http_connect_403"), 9);
        assert_eq!(counters.of("http_connect_502"), 2);
        assert_eq!(counters.of("connects"), 0);
        nobody_came(&server);
        proxy.check_idle();
    });
}

/// A proxy that asks this name server.
fn with_names(case: Case, dns: &Dns, connect: &str) -> Proxy {
    Proxy::start_with(case, connect, |setup, directory| {
        let file = |name: &str, text: &str| {
            std::fs::write(directory.join(name), text).unwrap();
            format!("\"{}\"", directory.join(name).display())
        };
        setup
            .set("global.dns_servers", format!("\"{}\"", dns.address()))
            .set(
                "global.resolv_conf",
                file("resolv.conf", "options timeout:1 attempts:1\n"),
            )
            .set("global.hosts", file("hosts", ""))
            .set("defaults.connect_timeout", "\"5s\"")
    })
}

#[test]
fn b57_the_list_applies_to_the_address_that_is_dialled() {
    on_every_engine(|case| {
        let dns = Dns::start();
        let address = |last| SocketAddr::from(([127, 0, 57, last], 0));
        let allowed = Listener::with(address(1), 16, None);
        let port = port_of(&allowed);
        let denied = SocketAddr::from(([127, 0, 57, 2], port));
        let denied = Listener::with(denied, 16, None);
        let lists = format!(
            "allow = [\"*.test:{port}\", \"127.0.57.0/24:{port}\"]\ndeny = [\"127.0.57.2\", \"evil.test\"]\n"
        );
        let proxy = with_names(case, &dns, &lists);
        dns.set("good.test", Says::addresses(60, &["127.0.57.1"]));
        dns.set(
            "both.test",
            Says::addresses(60, &["127.0.57.2", "127.0.57.1"]),
        );
        dns.set("bad.test", Says::addresses(60, &["127.0.57.2"]));
        dns.set("out.test", Says::addresses(60, &["127.0.58.1"]));
        dns.set("evil.test", Says::addresses(60, &["127.0.57.1"]));
        for name in ["good.test", "both.test", "GOOD.test."] {
            let client = proxy.tunnel(format!("{name}:{port}"));
            drop((client, allowed.accept()));
        }
        let evil = proxy.answer_to(request(format!("evil.test:{port}")));
        assert_eq!(evil.status, 403);
        assert_eq!(dns.asked_for("evil.test"), 0, "there was no hope");
        // Whether a name is there that leads where it may not is the record's business alone.
        let told = ["bad.test", "out.test", "nowhere.test"].map(|name| {
            let answer = proxy.answer_to(request(format!("{name}:{port}")));
            assert_eq!(answer.status, 502, "{name}");
            (answer.head, answer.body)
        });
        assert!(told.iter().all(|it| *it == told[0]), "{told:?}");
        let records = proxy.wait_for_sessions(7);
        let causes = records[3..].iter().map(|it| it.cause().to_owned());
        assert_eq!(
            causes.collect::<Vec<_>>(),
            ["denied", "address_denied", "address_denied", "name_failed"]
        );
        assert_eq!(records[1].text("target"), format!("both.test:{port}"));
        assert_eq!(records[1].text("server"), allowed.address().to_string());
        nobody_came(&denied);
        proxy.check_idle();
    });
}

#[test]
fn names_that_do_not_resolve_are_502_and_silence_is_504() {
    on_every_engine(|case| {
        let dns = Dns::start();
        let proxy = with_names(case, &dns, LOOPBACK);
        dns.set("broken.test", Says::SERV_FAIL);
        dns.set("empty.test", Says::Nothing);
        dns.set("silent.test", Says::Silence);
        for (name, status) in [
            ("nowhere.test", 502),
            ("broken.test", 502),
            ("empty.test", 502),
            ("silent.test", 504),
        ] {
            let answer = proxy.answer_to(request(format!("{name}:443")));
            assert_eq!(answer.status, status, "{name}: {answer:?}");
        }
        let records = proxy.wait_for_sessions(4);
        assert_eq!(
            (records[0].code(), records[0].cause()),
            ("SC", "name_failed")
        );
        assert_eq!(
            (records[3].code(), records[3].cause()),
            ("sC", "name_timeout")
        );
        proxy.check_quiet();
    });
}

#[test]
fn b60_of_several_addresses_the_one_that_answers_is_taken() {
    on_every_engine(|case| {
        let dns = Dns::start();
        let nobody = Refusing::new();
        let port = nobody.address().port();
        let server = Listener::with(SocketAddr::from(([127, 0, 57, 3], port)), 16, None);
        let proxy = with_names(case, &dns, LOOPBACK);
        let dead = ["::1", "127.0.0.1", "127.0.57.3"].map(|it| it.parse::<IpAddr>().unwrap());
        dns.set("many.test", Says::all(60, dead));
        let mut client = proxy.tunnel(format!("many.test:{port}"));
        let mut upstream = server.accept();
        crate::kit::peer::transfer(&mut client, &mut upstream, 100_000);
        crate::kit::peer::transfer(&mut upstream, &mut client, 100_000);
        drop((client, upstream));
        let record = proxy.wait_for_session();
        assert_eq!(record.text("server"), server.address().to_string());
        assert_eq!(record.number("status"), Some(200));
        proxy.check_idle();
    });
}

/// 99 clients became 9,800 sessions by asking a proxy for itself, again and again within
/// the tunnel.
#[test]
fn b28_own_listeners_are_no_targets_unless_they_are_listed() {
    on_every_engine(|case| {
        let server = Listener::new();
        let [own, other, open] = [(); 3].map(|()| free_port());
        let directory = Directory::new();
        let file = directory.join("proxy.toml");
        let text = format!(
            "[[forward]]\nname = \"proxy\"\nlisten = \":{own}\"\nmode = \"http-connect\"\n\
             [forward.connect]\nallow = [\"127.0.0.0/8:*\", \"127.0.0.1:{open}\"]\n\
             [[forward]]\nname = \"private\"\nlisten = \"127.0.0.1:{other}\"\nupstream = \"{0}\"\n\
             [[forward]]\nname = \"open\"\nlisten = \"127.0.0.1:{open}\"\nupstream = \"{0}\"\n",
            server.address()
        );
        std::fs::write(&file, text).unwrap();
        let forwarder = Setup::configured(&file, 3).case(case).start();
        let proxy = SocketAddr::from(([127, 0, 0, 1], own));
        let status = |target: String| {
            let client = Peer::connect(proxy);
            write(&client, request(target));
            Answer::read(client.stream()).status
        };
        for ip in ["127.0.0.1", "127.7.7.7"] {
            assert_eq!(status(format!("{ip}:{own}")), 403, "{ip}");
        }
        assert_eq!(status(format!("localhost:{own}")), 502);
        assert_eq!(status(format!("127.0.0.1:{other}")), 403);
        let client = Peer::connect(proxy);
        write(&client, request(format!("127.0.0.1:{open}")));
        expect_text(&client, ESTABLISHED);
        let _upstream = server.accept();
        forwarder.check_quiet();
    });
}
