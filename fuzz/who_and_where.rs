//! Who may come in and where they go, as an operator writes it: rules of `access`, files of
//! networks, and what `check --route` asks.

use std::net::IpAddr;
use std::path::Path;

use thalweg::cli::route;
use thalweg::config::Config;
use thalweg::config::clients::{AccessRule, AccessScope};
use thalweg::control::networks_of_text;
use thalweg::policy::clients::{ClientRule, ClientRules, Whom};

use super::read_back;

/// Addresses of both families that lists are asked about.
const CLIENTS: [&str; 6] = [
    "0.0.0.0",
    "10.9.8.7",
    "192.0.2.1",
    "::1",
    "2001:db8::1",
    "::ffff:10.9.8.7",
];

/// A rule of `access` for each line: what the compiled rules decide is what the first one that
/// is about a client says.
pub(crate) fn client_rule(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut rules = Vec::new();
    for line in text.lines() {
        match line.parse::<AccessRule>() {
            Ok(rule) => {
                read_back(&rule, &rule.to_string().parse());
                rules.push(rule);
            }
            Err(error) => assert!(!error.problem.is_empty() && !error.remedy.is_empty()),
        }
    }
    let whom = |rule: &AccessRule| match &rule.whom {
        AccessScope::All => Some(Whom::All),
        AccessScope::Network(network) => Some(Whom::Networks(vec![*network])),
        AccessScope::File(_) => None,
    };
    let compiled = rules.iter().filter_map(|rule| {
        let denies = rule.denies;
        whom(rule).map(|whom| ClientRule { denies, whom })
    });
    let compiled: Vec<_> = compiled.collect();
    let table = ClientRules::new(&compiled);
    for client in CLIENTS {
        let client: IpAddr = client.parse().expect("an address");
        let client = client.to_canonical();
        let is_about = |rule: &&ClientRule| match &rule.whom {
            Whom::All => true,
            Whom::Networks(networks) => networks.iter().any(|it| it.contains(&client)),
        };
        let denies = compiled.iter().find(is_about).is_some_and(|it| it.denies);
        assert_eq!(table.denied_by(Some(client)).is_some(), denies, "{client}");
    }
}

/// A file of networks: each of its lines is one, or is named with what to write in its place.
pub(crate) fn access_list(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let networks = networks_of_text(Path::new("fuzz.txt"), &text);
    match networks {
        Ok(networks) => {
            assert!(networks.len() <= text.lines().count());
            let written = networks.iter().map(|it| format!("{it} # again\r\n"));
            let again = networks_of_text(Path::new("fuzz.txt"), &written.collect::<String>());
            read_back(&networks, &again);
            // However a file spells a network, its bits behind the prefix are zero.
            assert!(networks.iter().all(|it| it.addr() == it.network()));
        }
        Err(error) => assert!(error.to_string().contains("fuzz.txt:")),
    }
}

/// What `check --route` asks, of forwards with every condition: it is answered, or what is
/// wrong with it is said.
pub(crate) fn asked_route(data: &[u8]) {
    const ROUTES: &str = r#"
        [[forward]]
        name = "web"
        listen = ["127.0.0.1:443", "unix:/run/fuzz.sock"]
        upstream = "192.0.2.1:443"
        [[forward.route]]
        sni = ["a.example", "*.a.example"]
        alpn = "h2"
        upstream = "192.0.2.2:443"
        [[forward.route]]
        host = "*.example"
        client = ["10.0.0.0/8", "2001:db8::/32"]
        upstream = "192.0.2.3:80"
        [[forward.route]]
        share = "10%"
        listener = 443
        upstream = "192.0.2.4:443"
        [[forward.route]]
        no_sni = true
        reject = true
        [[forward]]
        name = "plain"
        listen = "127.0.0.1:80"
        upstream = "192.0.2.5:80"
    "#;
    let config = Config::parse(ROUTES).expect("the routes are right");
    let asked = String::from_utf8_lossy(data);
    match route::explained(&config, &asked) {
        Ok(text) => {
            let lines = text.lines().count();
            assert!((1..=2).contains(&lines), "{lines} of two forwards");
            assert!(
                text.lines()
                    .all(|it| it.starts_with("forward ") && it.contains(" -> "))
            );
        }
        Err(told) => assert!(!told.is_empty()),
    }
}
