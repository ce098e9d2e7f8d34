//! What has a name keeps its identity from one configuration to the next.

use std::collections::BTreeSet;

use super::*;
use crate::config::LogLevel;

const TWO: &str = r#"
[[forward]]
name = "web"
listen = ["127.0.0.1:5000", "127.0.0.1:5001"]
upstream = "pool"

[[forward]]
name = "db"
listen = "127.0.0.1:0"
upstream = "pool"

[upstream.pool]
servers = ["a.example:1", "10.0.0.1:2", "a.example:1"]
"#;

fn config(text: &str) -> Arc<Config> {
    Arc::new(Config::parse(text).unwrap())
}

fn ids_of(plan: &Plan) -> Vec<(String, ForwardId, PoolId, Vec<ListenerId>)> {
    let mut all: Vec<_> = plan
        .forwards
        .iter()
        .map(|it| {
            let listeners = it.listeners.iter().map(|it| it.id).collect();
            (it.config.name.clone(), it.id, it.pool, listeners)
        })
        .collect();
    all.sort();
    all
}

#[test]
fn the_order_of_forwards_does_not_matter() {
    let mut ids = Identities::default();
    let (one, other) = (config(TWO), {
        let (web, rest) = TWO.split_at(TWO.rfind("\n[[forward]]").unwrap());
        let (db, pool) = rest.split_at(rest.find("\n[upstream").unwrap());
        config(&format!("{db}{web}{pool}"))
    });
    let first = ids_of(&Plan::of(&one, &mut ids));
    assert_eq!(first, ids_of(&Plan::of(&other, &mut ids)));
}

#[test]
fn nothing_gets_the_identity_of_something_else() {
    let mut ids = Identities::default();
    let before = config(TWO);
    let before = ids_of(&Plan::of(&before, &mut ids));
    let after = config(
        &TWO.replace("\"db\"", "\"database\"")
            .replace(":5001", ":5002"),
    );
    let after = ids_of(&Plan::of(&after, &mut ids));
    let forwards = |all: &[(String, ForwardId, PoolId, Vec<ListenerId>)]| -> BTreeSet<_> {
        all.iter().map(|it| it.1).collect()
    };
    let (old, new) = (forwards(&before), forwards(&after));
    assert_eq!(old.intersection(&new).count(), 1, "only web is the same");
    // Its first listener is the same, its second is another.
    let (web_before, web_after) = (&before[1], &after[1]);
    assert_eq!(web_before.3[0], web_after.3[0]);
    assert!(!web_before.3.contains(&web_after.3[1]));
    // A port that the kernel chooses belongs to its forward.
    assert!(!before[0].3.contains(&after[0].3[0]));
}

#[test]
fn forwards_share_a_pool_and_a_name_is_asked_for_once() {
    let config = config(TWO);
    let plan = Plan::of(&config, &mut Identities::default());
    assert_eq!(plan.pools.len(), 1);
    assert_eq!(plan.forwards[0].pool, plan.forwards[1].pool);
    assert_eq!(plan.names.len(), 1, "{:?}", plan.names);
    let names = &plan.pools[0].names;
    assert_eq!(
        names,
        &[Some(plan.names[0].id), None, Some(plan.names[0].id)]
    );
}

#[test]
fn other_options_are_another_identity_of_the_same_pool() {
    let text = format!("{TWO}\n[profile.far]\nmss = 1200\n")
        .replace("name = \"db\"", "name = \"db\"\nupstream_profile = \"far\"");
    let config = config(&text);
    let plan = Plan::of(&config, &mut Identities::default());
    assert_eq!(plan.pools.len(), 1, "servers are shared");
    assert_ne!(
        plan.forwards[0].pool, plan.forwards[1].pool,
        "spares are not"
    );
}

#[test]
fn of_the_very_same_forwards_there_is_one_plan() {
    let mut ids = Identities::default();
    let before = config(TWO);
    let plan = Plan::of(&before, &mut ids);
    let mut other_log = Config::clone(&before);
    other_log.log.level = LogLevel::Debug;
    let other_log = Arc::new(other_log);
    let again = Plan::again(&other_log, &plan, &mut ids);
    assert!(again.has_forwards_of(&plan) && Arc::ptr_eq(&again.config, &other_log));
    let mut other = Config::clone(&before);
    other.forwards.reverse();
    let again = Plan::again(&Arc::new(other), &plan, &mut ids);
    assert!(!again.has_forwards_of(&plan));
    assert_eq!(again.forwards[0].id, plan.forwards[1].id);
}
