//! Pools that are refused: every fault with its place, its words and its remedy.

use super::super::{errors, good};
use super::{pool, with_pool};
use crate::config::Balance;
use crate::config::words::Words;

/// One error at this line and column, with these words.
#[track_caller]
fn refused_at(lines: &str, place: &str, words: &[&str]) {
    let errors = errors(&with_pool(lines), &[], &[]);
    assert_eq!(errors.len(), 1, "{lines}\n{errors:#?}");
    let place = format!("t.toml:{place}: ");
    assert!(errors[0].starts_with(&place), "{place} {errors:#?}");
    for word in words {
        assert!(errors[0].contains(word), "no `{word}` in {errors:#?}");
    }
}

/// A key of a pool with one good server: one error at its value.
#[track_caller]
fn refused(line: &str, words: &[&str]) {
    let column = 1 + line.find('=').map_or(0, |at| at + 2);
    refused_at(
        &format!("servers = \"a:1\"\n{line}"),
        &format!("6:{column}"),
        words,
    );
}

/// A check of a pool with one good server: one error, where `at` stands.
#[track_caller]
fn check_refused(check: &str, at: &str, words: &[&str]) {
    let line = format!("check = {check}");
    let column = 1 + line.find(at).expect("the place of the error");
    refused_at(
        &format!("servers = \"a:1\"\n{line}"),
        &format!("6:{column}"),
        words,
    );
}

#[test]
fn a_pool_needs_servers_that_can_be_used() {
    refused_at(
        "balance = \"first\"",
        "4:11",
        &["[upstream.p] has no `servers`", "servers = ["],
    );
    refused_at("servers = []", "5:11", &["list is empty"]);
    refused_at(
        "servers = [{ weight = 2 }]",
        "5:12",
        &["this server has no `address`"],
    );
    let zero = "{ address = \"a:1\", weight = 0 }";
    refused_at(
        &format!("servers = [{zero}, {zero}]"),
        "5:11",
        &["weight of zero", "\"drain\""],
    );
    pool(&format!("servers = [{zero}, \"b:1\"]"));
    let backup = "{ address = \"a:1\", backup = true }";
    refused_at(
        &format!("servers = [{backup}, {backup}]"),
        "5:11",
        &["every server of this pool is a backup"],
    );
    refused_at(
        &format!("servers = [{backup}, \":1\"]"),
        "5:49",
        &["a server needs a host"],
    );
    pool("servers = [\"a:1\", \"a:1\"]");
    pool("servers = [{ address = \"a:1\", state = \"maintenance\" }]");
    for upstream in [format!("[{backup}]"), format!("{{ servers = {backup} }}")] {
        let text = format!("[[forward]]\nlisten = \":1\"\nupstream = {upstream}\n");
        let errors = errors(&text, &[], &[]);
        assert_eq!(errors.len(), 1, "{errors:#?}");
        assert!(errors[0].contains("is a backup"), "{errors:#?}");
    }
    let text = "[[forward]]\nlisten = \":1\"\nupstream = {}\n";
    let errors = errors(text, &[], &[]);
    assert!(
        errors[0].starts_with("t.toml:3:12: `upstream` has no `servers`"),
        "{errors:#?}"
    );
}

#[test]
fn an_unknown_policy_is_answered_with_ours() {
    refused(
        "balance = \"round_robbin\"",
        &["did you mean `round_robin`"],
    );
    refused("balance = \"fist\"", &["did you mean `first`"]);
    refused(
        "balance = \"banana\"",
        &["not one of: round_robin, least_conn"],
    );
    refused("balance = 5", &["word in quotes", "one of: round_robin"]);
    for (foreign, owner, ours) in [
        ("ip_hash", "nginx", "hash_address"),
        ("random two", "nginx", "p2c"),
        ("random  TWO least_conn", "nginx", "p2c"),
        ("hash $remote_addr consistent", "nginx", "hash_address"),
        ("leastconn", "HAProxy", "least_conn"),
        ("source", "HAProxy", "hash_address"),
        ("roundrobin", "HAProxy", "round_robin"),
        ("LEAST_REQUEST", "Envoy", "p2c"),
        ("maglev", "Envoy", "hash_address"),
    ] {
        let ours = format!("write \"{ours}\"");
        refused(&format!("balance = \"{foreign}\""), &[owner, &ours]);
    }
    for (name, owner, ours) in crate::config::pool::FOREIGN_BALANCES {
        let known = |word: &str| Balance::WORDS.iter().any(|(known, _)| *known == word);
        assert!(known(ours) && !known(name), "{owner} {name}");
        assert_eq!(*name, name.to_lowercase());
    }
}

#[test]
fn values_out_of_range_are_refused_with_the_range() {
    refused("retries = 256", &["0 to 255"]);
    refused("retries = \"many\"", &["number or \"all\""]);
    refused("retry_timeout = 5", &["needs a unit", "\"5s\""]);
    refused("max_fails = -1", &["out of range"]);
    refused("fail_timeout = \"0s\"", &["from 1ms to 1d"]);
    refused("slow_start = \"2d\"", &["from 0s to 1d"]);
    refused("queue = 1000001", &["0 to 1000000"]);
    refused("queue_timeout = \"off\"", &["is not a duration"]);
    refused("resolve = \"any\"", &["not one of: all, first"]);
    refused("resolve_ttl_min = \"1ms\"", &["from 10ms to 1d"]);
    refused("resolve_ttl_max = \"8d\"", &["from 10ms to 7d"]);
    refused(
        "resolve_ttl_max = \"500ms\"",
        &["`resolve_ttl_min` of 1s is more than `resolve_ttl_max` of 500ms"],
    );
    refused("attempt_delay = \"5ms\"", &["from 10ms to 2s"]);
    refused("attempt_delay = \"3s\"", &["from 10ms to 2s"]);
    refused("interface = \"an interface\"", &["ip link"]);
    refused("transparent = \"on\"", &["write true, without quotes"]);
    refused("warm = 1025", &["0 to 1024"]);
    refused("warm_max_age = \"10ms\"", &["from 100ms to 1d"]);
    for (key, value, words) in [
        ("weight", "1001", "0 to 1000"),
        ("weight", "-1", "0 to 1000"),
        ("backup", "1", "true or false"),
        ("max_connections", "0", "1 to 4294967295"),
        ("state", "\"drian\"", "did you mean `drain`"),
        ("max_fails", "\"3\"", "write 3, without quotes"),
        ("fail_timeout", "10", "needs a unit"),
    ] {
        let line = format!("servers = [\"a:1\", {{ address = \"b:1\", {key} = {value} }}]");
        let column = 4 + line.rfind(key).expect("the key") + key.len();
        refused_at(&line, &format!("5:{column}"), &[key, words]);
    }
}

#[test]
fn sources_suit_the_servers() {
    refused("source = \"10.0.0.1:5\"", &["without a port"]);
    refused_at(
        "servers = \"a:1\"\nsource = [\"10.0.0.1\", 5]",
        "6:23",
        &["`source`", "must be a string"],
    );
    let two = with_pool("servers = \"[::1]:2\"\nsource = \"10.0.0.1, x, 10.0.0.9:1\"");
    assert_eq!(errors(&two, &[], &[]).len(), 2);
    refused("source = \"0.0.0.0\"", &["kernel's choice"]);
    refused(
        "source = \"224.0.0.1\"",
        &["cannot be the address of a host"],
    );
    let many = vec!["\"10.0.0.1\""; 1025].join(",");
    refused(&format!("source = [{many}]"), &["1025", "1024 is the most"]);
    refused_at(
        "servers = [\"a:1\", \"10.0.0.1:1\", \"[::1]:3\"]\nsource = \"10.0.0.2\"",
        "5:34",
        &["`[::1]:3` cannot be reached", "add an IPv6 address"],
    );
    refused_at(
        "servers = \"10.0.0.1:1\"\nsource = [\"fd00::1\"]",
        "5:12",
        &["no IPv4 address"],
    );
    pool("servers = [\"a:1\", \"unix:/x\", \"10.0.0.1:1\"]\nsource = \"10.0.0.2, 10.0.0.3\"");
    assert!(
        pool("servers = \"[::1]:2\"\nsource = []")
            .sources
            .is_empty()
    );
}

#[test]
fn transparent_stands_alone() {
    let lines = |more: &str| format!("servers = \"a:1\"\ntransparent = true\n{more}");
    refused_at(
        &lines("source = \"10.0.0.1\""),
        "7:10",
        &["client's address is the source", "remove one"],
    );
    refused_at(&lines("warm = 1"), "7:8", &["belongs to one client"]);
    assert!(pool(&lines("warm = 0\nsource = []")).transparent);
    let profile = "[profile.x]\nsource = \"10.0.0.1\"\n[defaults]\nupstream_profile = \"x\"";
    refused_at(
        &lines(profile),
        "3:12",
        &["`transparent`", "profile `x` has a `source`"],
    );
}

#[test]
fn a_check_is_not_longer_than_what_lies_between_checks() {
    check_refused(
        "{ type = \"tcp\", interval = \"1s\", timeout = \"2s\" }",
        "\"2s\"",
        &[
            "2s is longer than the interval of 1s",
            "timeout = \"1s\" or less",
        ],
    );
    check_refused(
        "{ type = \"tcp\", timeout = \"3s\" }",
        "\"3s\"",
        &["longer than the interval of 2s"],
    );
    check_refused(
        "{ type = \"tcp\", fast_interval = \"500ms\", timeout = \"1s\" }",
        "\"1s\"",
        &["longer than the fast_interval of 500ms"],
    );
    check_refused(
        "{ type = \"tcp\", interval = \"1s\", fast_interval = \"5s\" }",
        "\"5s\"",
        &["5s is longer than the interval of 1s"],
    );
    check_refused(
        "{ type = \"tcp\", interval = \"1ms\" }",
        "\"1ms\"",
        &["from 10ms to 1d"],
    );
    check_refused("{ type = \"tcp\", rise = 0 }", "0 }", &["1 to 1000"]);
    check_refused("{ type = \"tcp\", fall = 1001 }", "1001", &["1 to 1000"]);
    check_refused("{ type = \"tcp\", jitter = 10 }", "10", &["\"10%\""]);
    check_refused(
        "{ type = \"tcp\", jitter = \"51%\" }",
        "\"51%\"",
        &["\"0%\" to \"50%\""],
    );
    check_refused(
        "{ type = \"tcp\", jitter = \"some\" }",
        "\"some\"",
        &["not a percentage"],
    );
    check_refused(
        "{ type = \"tcp\", on_down = \"kill\" }",
        "\"kill\"",
        &["not one of: keep, close"],
    );
    check_refused("{ type = \"tcp\", port = 0 }", "0 }", &["1 to 65535"]);
}

#[test]
fn a_check_is_of_a_known_type_with_the_keys_of_that_type() {
    check_refused("\"tpc\"", "\"tpc\"", &["`check`", "did you mean `tcp`"]);
    check_refused("true", "true", &["a word in quotes"]);
    check_refused(
        "{ type = \"ping\" }",
        "\"ping\"",
        &["`type`", "not one of: tcp, exchange"],
    );
    check_refused("{ rise = 1 }", "{", &["has no `type`", "type = \"tcp\""]);
    check_refused(
        "{ type = \"tcp\", path = \"/\" }",
        "path",
        &["`path` belongs to a check of type \"http\""],
    );
    check_refused(
        "{ type = \"http\", expect = \"200\" }",
        "expect",
        &["belongs to a check of type \"exchange\""],
    );
    check_refused(
        "{ type = \"tcp\", intervall = \"1s\" }",
        "intervall",
        &["did you mean `interval`"],
    );
    check_refused("\"exchange\"", "\"exchange\"", &["has no `expect`"]);
    check_refused(
        "{ type = \"exchange\", send = \"PING\" }",
        "{",
        &["has no `expect`", "+PONG"],
    );
    check_refused("\"command\"", "\"command\"", &["has no `command`"]);
}

#[test]
fn what_a_check_sends_and_expects_is_checked() {
    for (key, value, words) in [
        ("expect", "\"\"", "any server would do"),
        ("expect", "\"hex:4g\"", "`g` is not a hexadecimal digit"),
        ("expect", "\"hex:414\"", "one is missing"),
        ("expect", "\"hex:\"", "any server would do"),
        ("expect", "5", "must be a string"),
    ] {
        let text = format!("{{ type = \"exchange\", {key} = {value} }}");
        check_refused(&text, value, &[words]);
    }
    let long = format!("\"{}\"", "x".repeat(1025));
    let text = format!("{{ type = \"exchange\", expect = \"x\", send = {long} }}");
    check_refused(&text, &long, &["1025 bytes; 1024 is the most"]);
    for (key, value, words) in [
        ("path", "\"health\"", "write \"/health\""),
        ("path", "\"/a b\"", "%XX"),
        ("path", "\"\"", "cannot be empty"),
        ("path", "\"/x\\r\\nEvil: 1\"", "visible ASCII"),
        ("host", "\"http://x\"", "did you mean \"x\""),
        ("host", "\"a\\nb\"", "visible ASCII"),
        ("status", "\"20x\"", "`20x` is not a status"),
        ("status", "\"99\"", "100 to 599"),
        ("status", "\"200-600\"", "`600` is not a status"),
        ("status", "\"399-200\"", "did you mean \"200-399\""),
        ("status", "\"200,\"", "`` is not a status"),
        ("status", "600", "100 to 599"),
        ("status", "[200]", "must be a string"),
    ] {
        let text = format!("{{ type = \"http\", {key} = {value} }}");
        check_refused(&text, value, &[key, words]);
    }
    for (value, words) in [
        ("\"1.2.3.4\"", "not an IP address"),
        ("\"[::1]\"", "not an IP address"),
        ("\"a:443\"", "without a port"),
        ("\"0x7f\"", "nor an IPv4"),
        ("\"\"", "is empty"),
        ("\"a b\"", "cannot stand"),
    ] {
        let text = format!("{{ type = \"tls\", server_name = {value} }}");
        check_refused(&text, value, &["`server_name`", words]);
    }
    let words = format!("[{}]", ["\"/x\""; 65].join(","));
    for (value, words) in [
        ("[]", "the command is empty"),
        ("[\"\", \"x\"]", "the command is empty"),
        ("[\"probe\"]", "absolute path"),
        ("\"/bin/probe\"", "must be a list"),
        ("[\"/x\", 5]", "must be a string"),
        ("[\"/x\\u0000\"]", "NUL"),
        (&words, "put it into a script"),
    ] {
        let text = format!("{{ type = \"command\", command = {value} }}");
        check_refused(&text, value, &["`command`", words]);
    }
}

#[test]
fn a_key_in_the_wrong_table_is_shown_the_right_one() {
    refused_at(
        "servers = \"a:1\"\nweight = 2",
        "6:1",
        &["`weight` is a key of a server, not of [upstream.p]"],
    );
    refused_at(
        "servers = \"a:1\"\ninterval = \"1s\"",
        "6:1",
        &["`interval` is a key of a check"],
    );
    refused_at(
        "servers = { address = \"a:1\", balance = \"first\" }",
        "5:30",
        &["`balance` is a key of a pool, not of a server of `servers`"],
    );
    refused_at(
        "servers = \"a:1\"\nbalanse = \"first\"",
        "6:1",
        &["did you mean `balance`"],
    );
    refused_at(
        "servers = \"a:1\"\nname = \"q\"",
        "6:1",
        &["unknown key `name`"],
    );
    for (key, words) in [
        ("balance = \"first\"", "a key of a pool, not of [[forward]]"),
        ("backup = true", "a key of a server, not of [[forward]]"),
    ] {
        let text = format!("[[forward]]\nlisten = \":1\"\nupstream = \"a:1\"\n{key}\n");
        let errors = errors(&text, &[], &[]);
        assert_eq!(errors.len(), 1, "{errors:#?}");
        assert!(errors[0].starts_with("t.toml:4:1: "), "{errors:#?}");
        assert!(errors[0].contains(words), "{errors:#?}");
    }
}

#[test]
fn the_name_of_a_pool_in_a_forward_is_its_own() {
    let text = |name: &str| {
        format!(
            "[[forward]]\nlisten = \":1\"\nupstream = {{ name = {name}, servers = \"a:1\" }}\n\
             [upstream.p]\nservers = \"b:1\"\n"
        )
    };
    for (name, words) in [
        ("\"p\"", "there is an [upstream.p] already"),
        ("\"a:1\"", "cannot contain `:`"),
        ("\"\"", "cannot be empty"),
        ("5", "must be a string"),
    ] {
        let errors = errors(&text(name), &[], &[]);
        assert_eq!(errors.len(), 1, "{errors:#?}");
        assert!(
            errors[0].starts_with("t.toml:3:21: `name`: "),
            "{errors:#?}"
        );
        assert!(errors[0].contains(words), "{errors:#?}");
    }
    good(&text("\"q\""));
}

#[test]
fn srv_names_are_servers_and_no_listeners() {
    let text = |listen: &str, upstream: &str| {
        format!("[[forward]]\nlisten = \"{listen}\"\nupstream = \"{upstream}\"\n")
    };
    let srv = "srv:_http._tcp.example.com";
    let config = good(&text(":1", &format!("{srv}, a:1")));
    let address = &config.forwards[0].pool.servers[0].address;
    assert_eq!(address.to_string(), srv);
    let errors_of = |text: String| errors(&text, &[], &[]);
    let errors = errors_of(text(srv, "a:1"));
    assert!(
        errors[0].contains("cannot be listened on") && errors[0].contains("`:5000`"),
        "{errors:#?}"
    );
    let errors = errors_of(text(":1", "srv:_http._tcp.a:80"));
    assert!(errors[0].contains("has no port"), "{errors:#?}");
}

#[test]
fn a_wrong_override_of_a_pool_names_its_argument() {
    for (set, words) in [
        ("upstream.p.balance=leastconn", "\"least_conn\""),
        ("upstream.p.balanse=first", "did you mean `balance`"),
        ("upstream.p.servers=[]", "list is empty"),
        ("upstream.p.check=pong", "not one of: tcp"),
        ("upstream.pp.balance=first", "did you mean `p`"),
        ("upstream.banana.balance=first", "pools in use: p"),
        ("upstream.q.servers=\"z:1\"", "no forward uses a pool"),
    ] {
        let errors = errors(&with_pool("servers = \"a:1\""), &[], &[set]);
        assert_eq!(errors.len(), 1, "{set}: {errors:#?}");
        assert!(
            errors[0].starts_with(&format!("--set {set}: ")),
            "{errors:#?}"
        );
        assert!(errors[0].contains(words), "{errors:#?}");
    }
}
