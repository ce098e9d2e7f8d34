//! `accept_proxy`, `send_proxy` and `[[forward.route]]`.

use std::sync::Arc;

use super::*;
use crate::policy::route::{ListenAt, Pattern, Protocol};
use crate::proto::proxy::Version;

const POOLS: &str =
    "[upstream.a]\nservers = \"10.0.0.1:1\"\n[upstream.b]\nservers = \"10.0.0.2:1\"\n";

fn forward(lines: &str) -> String {
    format!("{POOLS}[[forward]]\nlisten = \":5000\"\nupstream = \"a\"\n{lines}")
}

fn routes(lines: &str) -> Vec<Route> {
    let config = good(&forward(lines));
    let text = config.to_toml();
    assert_eq!(Config::parse(&text).as_ref(), Ok(&config), "{text}");
    config.forwards[0].routes.clone()
}

#[test]
fn every_key_of_a_route_is_read() {
    let routes = routes(
        "[[forward.route]]\nname = \"web\"\nsni = [\"A.example.\", \"*.b.example\"]\nalpn = \"h2\"\n\
         client = \"10.0.0.0/8\"\nlistener = [5000, \"192.0.2.1:5000\"]\nshare = \"0.5%\"\n\
         upstream = \"b\"\n\
         [[forward.route]]\nhost = \"c.example\"\nprotocol = \"http\"\nreject = true\n\
         [[forward.route]]\nno_sni = true\nupstream = \"10.0.0.9:443\"\n\
         [[forward.route]]\nprotocol = [\"ssh\", \"other\"]\nmode = \"http-connect\"\n\
         connect = { realm = \"r\" }\n",
    );
    let [web, host, no_sni, asks] = &routes[..] else {
        panic!("{routes:?}");
    };
    let conditions = &web.conditions;
    assert_eq!(
        conditions.sni,
        [
            Pattern::Exact("a.example".to_owned()),
            Pattern::Below("b.example".to_owned())
        ]
    );
    assert_eq!(
        (conditions.alpn.join(","), conditions.share),
        ("h2".to_owned(), Some(50))
    );
    let address = "192.0.2.1:5000".parse().expect("an address");
    assert_eq!(
        conditions.listener,
        [ListenAt::Port(5000), ListenAt::Address(address)]
    );
    assert_eq!(web.pool("f").map(|(name, _)| name).as_deref(), Some("b"));
    assert_eq!((host.name.as_str(), &host.to), ("2", &RouteTo::Reject));
    assert_eq!(host.conditions.protocol, [Protocol::Http]);
    assert!(no_sni.conditions.no_sni);
    assert_eq!(
        no_sni.pool("f").map(|(name, _)| name).as_deref(),
        Some("f/3")
    );
    assert!(matches!(&asks.to, RouteTo::HttpConnect(connect) if connect.realm == "r"));
    // One pool by its name, however many routes lead there.
    let config = good(&forward(
        "[[forward.route]]\nsni = \"x\"\nupstream = \"a\"\n",
    ));
    let pool = config.forwards[0].routes[0]
        .pool("f")
        .expect("a pool")
        .1
        .clone();
    assert!(Arc::ptr_eq(&pool, &config.forwards[0].pool));
}

#[test]
fn every_form_of_a_header_key_is_read() {
    let accepts = |value: &str| {
        let config = good(&forward(&format!("accept_proxy = {value}\n")));
        assert_eq!(Config::parse(&config.to_toml()).as_ref(), Ok(&config));
        config.forwards[0].accept_proxy.clone()
    };
    assert_eq!(accepts("false"), None);
    let everybody = accepts("true").expect("true");
    assert!(everybody.trusts_everybody() && everybody.unix && everybody.v1 && everybody.v2);
    assert_eq!(everybody.timeout, Duration::from_secs(3));
    let list = accepts("[\"10.0.0.0/8\", \"unix\"]").expect("a list");
    assert!(!list.trusts_everybody() && list.unix && list.from.len() == 1);
    let table = accepts("{ from = \"::1\", versions = [\"v2\"], timeout = \"1s\" }");
    let table = table.expect("a table");
    assert_eq!((table.v1, table.v2, table.unix), (false, true, false));
    assert_eq!(table.timeout, Duration::from_secs(1));

    let sends = |value: &str| {
        let text = format!(
            "{POOLS}[[forward]]\nlisten = \":1\"\nupstream = {{ servers = \"a:1\", send_proxy = {value} }}\n"
        );
        let config = good(&text);
        assert_eq!(Config::parse(&config.to_toml()).as_ref(), Ok(&config));
        config.forwards[0].pool.send_proxy
    };
    assert_eq!(sends("\"off\""), None);
    assert_eq!(sends("\"v1\"").map(|it| it.version), Some(Version::V1));
    let all =
        sends("{ version = \"v2\", tlvs = [\"authority\", \"alpn\", \"unique_id\", \"crc32c\"] }");
    let all = all.expect("a table");
    assert!(all.authority && all.alpn && all.unique_id && all.crc32c && all.needs_hello());
}

#[test]
fn a_trust_list_of_everybody_is_warned_of() {
    let advice = |value: &str| good(&forward(&format!("accept_proxy = {value}\n"))).advice();
    for value in ["true", "\"0.0.0.0/0\"", "[\"10.0.0.0/8\", \"::/0\"]"] {
        let advice = advice(value);
        assert_eq!(advice.len(), 1, "{value}");
        assert!(advice[0].contains("everybody"), "{advice:?}");
    }
    assert_eq!(advice("\"10.0.0.0/8\""), Vec::<String>::new());
}

/// Behaviour 70 for routes and headers: all errors in one run, each with its place and a
/// remedy.
#[test]
fn b70_what_is_wrong_with_routes_is_told_at_once() {
    let text = forward(
        "accept_proxy = [\"10.0.0.1/8\", \"pizza\"]\n\
         sniff_timeout = \"off\"\n\
         [[forward.route]]\nsni = \"a.example\"\nupstream = \"b\"\n\
         [[forward.route]]\nsni = \"a.example\"\nalpn = \"h2\"\nupstream = \"b\"\n\
         [[forward.route]]\nsni = \"x\"\nno_sni = true\nreject = true\n\
         [[forward.route]]\nclient = \"10.0.0.1/8\"\nupstream = \"b\"\n\
         [[forward.route]]\nalpn = \"h3\"\nupstream = \"bb\"\n\
         [[forward.route]]\nprotocol = \"ssh\"\n\
         [[forward.route]]\nprotocol = \"proxy\"\nupstream = \"b\"\nreject = true\n\
         [[forward.route]]\nlistener = 6000\nupstream = \"b\"\n\
         [[forward.route]]\nshare = \"110%\"\nupstream = \"b\"\n\
         [[forward.route]]\nsni = \"*.*.x\"\nupstream = \"b\"\n\
         [[forward.route]]\nsmi = \"a\"\nupstream = \"b\"\n",
    );
    let errors = errors(&text, &[], &[]);
    for words in [
        "has bits set behind",
        "`pizza` is not a network",
        "sniff_timeout",
        "`a.example` never takes this route",
        "`sni` asks for a server name and `no_sni` for none",
        "there is no pool named `bb`",
        "leads nowhere",
        "leads to several places",
        "does not listen at :6000",
        "more than all clients",
        "`*.` stands in front",
        "did you mean `sni`",
    ] {
        let found = errors.iter().filter(|it| it.contains(words)).count();
        assert!(found >= 1, "{words}: {errors:#?}");
    }
    let networks = errors.iter().filter(|it| it.contains("write 10.0.0.0/8,"));
    assert_eq!(
        networks.count(),
        2,
        "both networks with host bits: {errors:#?}"
    );
    assert!(
        errors.iter().all(|it| it.starts_with("t.toml:")),
        "{errors:#?}"
    );
}

#[test]
fn what_version_1_and_empty_lists_cannot_say_is_refused() {
    let send = |value: &str| {
        format!(
            "{POOLS}[[forward]]\nlisten = \":1\"\nupstream = {{ servers = \"a:1\", send_proxy = {value} }}\n"
        )
    };
    for (text, words) in [
        (send("\"v3\""), "`v3` is not one of"),
        (
            send("{ version = \"v1\", tlvs = [\"crc32c\"] }"),
            "version = \\\"v2\\\"",
        ),
        (send("{ tlvs = [\"sni\"] }"), "is not one of"),
        (
            forward("accept_proxy = []\n"),
            "every client would be turned away",
        ),
        (
            forward("accept_proxy = { versions = \"v1\" }\n"),
            "whose headers are believed",
        ),
        (
            forward("accept_proxy = { from = \"::1\", versions = [] }\n"),
            "no header would be taken",
        ),
        (
            forward("[forward.route]\nreject = true\n"),
            "[[forward.route]]",
        ),
        (
            forward("[[forward.route]]\nsni = []\nreject = true\n"),
            "the list is empty",
        ),
        (forward("send_proxy = \"v2\"\n"), "of a pool"),
        (
            forward(
                "[[forward.route]]\nshare = \"10%\"\nupstream = \"b\"\n[[forward.route]]\nshare = \"10%\"\nupstream = \"b\"\n",
            ),
            "never taken",
        ),
    ] {
        let errors = errors(&text, &[], &[]);
        let words = words.replace("\\\"", "\"");
        assert!(
            errors.iter().any(|it| it.contains(&words)),
            "{words}: {errors:#?}"
        );
    }
}
