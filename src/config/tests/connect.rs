//! `mode = "http-connect"` and its table.

use super::*;

const LISTEN: &str = "[[forward]]\nlisten = \":3128\"\n";

fn connect(config: &Config) -> &HttpConnect {
    match &config.forwards[0].mode {
        Mode::HttpConnect(connect) => connect,
        Mode::Tcp => panic!("not a proxy: {config:?}"),
    }
}

#[test]
fn a_proxy_needs_no_upstream_and_has_safe_defaults() {
    let config = good(&format!("{LISTEN}mode = \"http-connect\"\n"));
    assert_eq!(connect(&config), &HttpConnect::default());
    assert!(config.forwards[0].pool.servers.is_empty());
    let AccessRules::Lists { allow, .. } = HttpConnect::default().access else {
        panic!("not two lists");
    };
    assert_eq!(allow[0].to_string(), ":443");
    assert_eq!(good(BASE).forwards[0].mode, Mode::Tcp);
    let ports = "[[forward]]\nname = \"p\"\nlisten = \":3128-3130\"\nmode = \"http-connect\"\n";
    assert_eq!(good(ports).forwards[0].listen.len(), 3);
}

#[test]
fn every_key_of_a_proxy_is_read() {
    let text = format!(
        "{LISTEN}mode = \"http-connect\"\n[forward.connect]\nallow = [\":443\", \"10.0.0.0/8:22\"]\n\
         deny = \"*.example.com\"\nusers = \"/etc/users\"\nrealm = \"r\"\n\
         header_timeout = \"2s\"\nheader_max = \"1KiB\"\n"
    );
    let config = good(&text);
    let connect = connect(&config);
    let AccessRules::Lists { allow, deny } = &connect.access else {
        panic!("not two lists");
    };
    assert_eq!(allow.len(), 2);
    assert_eq!(deny[0].to_string(), "*.example.com");
    assert_eq!(connect.users.as_deref(), Some("/etc/users".as_ref()));
    assert_eq!(connect.realm, "r");
    assert_eq!(connect.header_timeout, Duration::from_secs(2));
    assert_eq!(connect.header_max, 1024);
    assert_eq!(Config::parse(&config.to_toml()), Ok(config));
}

#[test]
fn where_requests_may_go_is_one_list_as_that_of_clients() {
    let text = format!(
        "{LISTEN}mode = \"http-connect\"\nconnect = {{ access = [\"deny 10.9.0.0/16\", \
         \"allow *.example.com:443\", \"allow @/etc/partners.txt\", \"deny all\"] }}\n"
    );
    let config = good(&text);
    let access = &connect(&config).access;
    let files: Vec<_> = access.files().collect();
    assert_eq!(files, [std::path::Path::new("/etc/partners.txt")]);
    assert!(config.to_toml().contains("\"deny all\""));
    assert_eq!(Config::parse(&config.to_toml()), Ok(config));
}

#[test]
fn b70_what_is_wrong_with_a_proxy_is_told_with_its_place() {
    let proxy = format!("{LISTEN}mode = \"http-connect\"\n");
    expect(
        &format!("{proxy}upstream = \"a:1\"\n"),
        "4:12",
        &["say where to go", "remove `upstream`"],
    );
    expect(
        &format!("{BASE}connect = {{ allow = \":443\" }}\n"),
        "4:11",
        &["mode = \"http-connect\""],
    );
    expect(
        &format!("{LISTEN}mode = \"http_connect\"\nupstream = \"a:1\"\n"),
        "3:8",
        &["did you mean `http-connect`?"],
    );
    for (key, column, words) in [
        (
            "allow = [\":443\", \"10.0.0.1/8\"]",
            18,
            ["`allow`", "write 10.0.0.0/8"],
        ),
        ("deny = [\"*\"]", 9, ["`deny`", "write the port alone"]),
        (
            "access = [\"allow :443\", \"permit all\"]",
            25,
            ["`access`", "`allow` or `deny`"],
        ),
        (
            "access = [\"allow 10.0.0.1/8\"]",
            11,
            ["`access`", "write 10.0.0.0/8"],
        ),
        ("users = \"\"", 9, ["`users`", "/etc/thalweg/users"]),
        ("realm = \"a\\nb\"", 9, ["`realm`", "visible ASCII"]),
        (
            "header_timeout = \"1ms\"",
            18,
            ["`header_timeout`", "100ms"],
        ),
        ("header_max = \"1MiB\"", 14, ["`header_max`", "64KiB"]),
        ("alow = []", 1, ["alow", "did you mean `allow`?"]),
    ] {
        let text = format!("{proxy}[forward.connect]\n{key}\n");
        expect(&text, &format!("5:{column}"), &words);
    }
    let both = "[forward.connect]\naccess = [\"deny all\"]\nallow = [\":443\"]\n";
    expect(
        &format!("{proxy}{both}"),
        "6:9",
        &["does not go together with `access`", "behind `allow`"],
    );
}
