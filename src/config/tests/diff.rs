//! What two configurations differ in, and what it takes.

use super::good;
use crate::config::Applies;

/// The differences as lines.
fn differences(old: &str, new: &str) -> Vec<String> {
    let (old, new) = (good(old), good(new));
    assert_eq!(old.diff(&old), []);
    assert_eq!(new.diff(&new), []);
    old.diff(&new).iter().map(ToString::to_string).collect()
}

const BASE: &str = "[[forward]]\nname = \"web\"\nlisten = [\":1\", \":2\"]\nupstream = \"pool\"\n";
const POOL: &str = "[upstream.pool]\nservers = [\"a:1\", { address = \"b:1\", weight = 2 }]\n";

#[test]
fn what_is_written_and_has_its_default_is_no_difference() {
    let old = format!("{BASE}{POOL}");
    let new = format!("[global]\nreactors = \"auto\"\n{BASE}idle_timeout = \"600s\"\n{POOL}");
    assert_eq!(differences(&old, &new), [""; 0]);
}

#[test]
fn a_changed_key_says_from_what_to_what_and_what_it_takes() {
    let old = format!("{BASE}{POOL}");
    let new = format!(
        "[global]\nengine = \"epoll\"\nmax_connections = 9\n[log]\nlevel = \"debug\"\n\
         {BASE}idle_timeout = \"5s\"\ntap = {{ format = \"hex\" }}\n\
         {POOL}balance = \"first\"\ncheck = {{ type = \"tcp\", interval = \"5s\" }}\n"
    );
    let found = differences(&old, &new);
    let expected = [
        "[global]: engine: \"auto\" becomes \"epoll\" (live)",
        "[global]: max_connections: \"auto\" becomes 9 (live)",
        "[log]: level: \"info\" becomes \"debug\" (live)",
        "forward web: idle_timeout: \"10m\" becomes \"5s\" (live)",
        "pool pool: balance: \"round_robin\" becomes \"first\" (live)",
    ];
    for line in expected {
        assert!(
            found.iter().any(|it| it == line),
            "no `{line}` in {found:#?}"
        );
    }
    let begins = |start: &str| found.iter().any(|it| it.starts_with(start));
    assert!(begins(
        "forward web: tap: \"off\" becomes { format = \"hex\""
    ));
    assert!(begins("pool pool: check: \"off\" becomes { type = \"tcp\""));
    assert_eq!(found.len(), expected.len() + 2, "{found:#?}");
}

#[test]
fn keys_of_tables_within_are_told_by_themselves() {
    let with = |check: &str, filter: &str| {
        format!(
            "{BASE}tap = {{ format = \"hex\", filter = {{ {filter} }} }}\n{POOL}check = {check}\n"
        )
    };
    let old = with("{ type = \"tcp\" }", "sample = \"1/2\"");
    let new = with("{ type = \"http\", interval = \"5s\" }", "sample = \"1/3\"");
    assert_eq!(
        differences(&old, &new),
        [
            "forward web: tap.filter.sample: \"1/2\" becomes \"1/3\" (live)",
            "pool pool: check.type: \"tcp\" becomes \"http\" (live)",
            "pool pool: check.path: not set becomes \"/\" (live)",
            "pool pool: check.status: not set becomes \"200-399\" (live)",
            "pool pool: check.interval: \"2s\" becomes \"5s\" (live)",
        ]
    );
}

#[test]
fn listeners_and_servers_are_known_by_their_addresses() {
    let old = format!("{BASE}{POOL}");
    let new = "[[forward]]\nname = \"web\"\nlisten = [\":2\", \":3\"]\nupstream = \"pool\"\n\
               [upstream.pool]\nservers = [{ address = \"b:1\", weight = 5 }, \"c:1\"]\n";
    assert_eq!(
        differences(&old, new),
        [
            "listener :1 of web: removed (rebind)",
            "listener :3 of web: added (rebind)",
            "server a:1 of pool: removed (live)",
            "server c:1 of pool: added (live)",
            "server b:1 of pool: weight: 2 becomes 5 (live)",
        ]
    );
    // Their order is none of their keys.
    let turned = "[upstream.pool]\nservers = [{ address = \"b:1\", weight = 2 }, \"a:1\"]\n";
    assert_eq!(differences(&old, &format!("{BASE}{turned}")), [""; 0]);
}

#[test]
fn forwards_and_pools_are_known_by_their_names() {
    let old = format!("{BASE}{POOL}");
    let new = "[[forward]]\nname = \"db\"\nlisten = \":9\"\nupstream = \"z:1\"\n";
    assert_eq!(
        differences(&old, new),
        [
            "forward db: added (rebind)",
            "forward web: removed (rebind)",
            "pool db: added (live)",
            "pool pool: removed (live)",
        ]
    );
    let other = format!("{BASE}{POOL}").replace("pool", "other");
    assert_eq!(
        differences(&old, &other),
        [
            "forward web: upstream: \"pool\" becomes \"other\" (live)",
            "pool other: added (live)",
            "pool pool: removed (live)",
        ]
    );
}

#[test]
fn the_same_address_twice_in_a_pool_is_two_servers() {
    let pool = |servers: &str| format!("{BASE}[upstream.pool]\nservers = [{servers}]\n");
    assert_eq!(
        differences(&pool("\"a:1\""), &pool("\"a:1\", \"a:1\"")),
        ["server a:1#2 of pool: added (live)"]
    );
}

#[test]
fn a_range_of_ports_is_one_pool() {
    let with = |balance: &str| {
        format!(
            "[[forward]]\nname = \"r\"\nlisten = \":1-3\"\nupstream = \"p\"\n\
             [upstream.p]\nservers = \"a:1-3\"\nbalance = \"{balance}\"\n"
        )
    };
    assert_eq!(
        differences(&with("first"), &with("random")),
        ["pool p: balance: \"first\" becomes \"random\" (live)"]
    );
}

#[test]
fn an_option_takes_new_listeners_only_where_a_client_leg_has_it() {
    let with = |leg: &str, mss: u32| {
        format!(
            "{BASE}{leg}_profile = \"wan\"\n{POOL}[profile.wan]\nmss = {mss}\nsyn_retries = 3\n"
        )
    };
    assert_eq!(
        differences(&with("client", 1400), &with("client", 1300)),
        ["profile wan: mss: 1400 becomes 1300 (rebind)"]
    );
    assert_eq!(
        differences(&with("upstream", 1400), &with("upstream", 1300)),
        ["profile wan: mss: 1400 becomes 1300 (live)"]
    );
    let other = with("client", 1400).replace("syn_retries = 3", "syn_retries = 4");
    assert_eq!(
        differences(&with("client", 1400), &other),
        ["profile wan: syn_retries: 3 becomes 4 (live)"]
    );
    assert_eq!(
        differences(
            &format!("{BASE}{POOL}"),
            &format!("{BASE}{POOL}[profile.x]\n")
        ),
        ["profile x: added (live)"]
    );
}

#[test]
fn a_proxy_is_compared_rule_by_rule() {
    let with = |connect: &str| {
        format!(
            "[[forward]]\nname = \"p\"\nlisten = \":1\"\nmode = \"http-connect\"\nconnect = {{ {connect} }}\n"
        )
    };
    assert_eq!(
        differences(
            &with("deny = \"10.0.0.0/8\""),
            &with("realm = \"r\", deny = [\"10.0.0.0/8\", \":22\"]")
        ),
        [
            "forward p: connect.deny: [\"10.0.0.0/8\"] becomes [\"10.0.0.0/8\", \":22\"] (live)",
            "forward p: connect.realm: \"thalweg\" becomes \"r\" (live)",
        ]
    );
    assert_eq!(
        differences(
            &with(""),
            "[[forward]]\nname = \"p\"\nlisten = \":1\"\nupstream = \"a:1\"\n"
        ),
        [
            "forward p: mode: \"http-connect\" becomes \"tcp\" (live)",
            "forward p: upstream: not set becomes \"p\" (live)",
            "pool p: added (live)",
        ]
    );
}

#[test]
fn effects_are_ordered_by_what_they_cost() {
    assert!(Applies::Live < Applies::Rebind && Applies::Rebind < Applies::Restart);
}
