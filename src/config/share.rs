//! What a configuration has in common with the one before it becomes the very same, so that
//! whoever goes from one to the other sees at a glance what is to be done: pools and forwards
//! that are equal are one `Arc` afterwards.
//!
//! ```text
//!   pools, by name and place   equal ──► that of before, for every forward that has it
//!   forwards, by name          equal, with the very same pools ──► that of before
//! ```
//! Invariant: forwards that had the same pool have the same one afterwards, and no others do.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::alike::Others;
use super::forward::Forward;
use super::model::Config;
use super::pool::Pool;

impl Config {
    /// See the module's documentation. Equal to what it was.
    pub fn share(&mut self, before: &Self) {
        let others = Others::of(&before.forwards, &self.forwards);
        if others.new.is_empty() {
            return;
        }
        let names = others.new.iter().flat_map(|at| {
            let forward = &self.forwards[*at];
            forward.pools().map(|it| label(it, forward).to_owned())
        });
        let names: HashSet<String> = names.collect();
        let known: HashMap<(&str, usize), &Arc<Pool>> = before.pools(&names).into_iter().collect();
        let is_as_before = |(which, pool): ((&str, usize), &Arc<Pool>)| {
            let known = known.get(&which).filter(|it| **it == pool)?;
            Some((Arc::as_ptr(pool), (*known).clone()))
        };
        // The pools of this one are kept until the end: their addresses are names here.
        let (held, same): (Vec<Arc<Pool>>, HashMap<_, _>) = {
            let pools = self.pools(&names);
            let held = pools.iter().map(|(_, pool)| (*pool).clone()).collect();
            (held, pools.into_iter().filter_map(is_as_before).collect())
        };
        let forwards = others.old.iter().map(|at| &before.forwards[*at]);
        let forwards: HashMap<&str, &Arc<Forward>> =
            forwards.map(|it| (it.name.as_str(), it)).collect();
        for at in others.new {
            let forward = &mut self.forwards[at];
            if forward
                .pools()
                .any(|pool| same.contains_key(&Arc::as_ptr(pool)))
            {
                let forward = Arc::make_mut(forward);
                for pool in forward.pools_mut() {
                    if let Some(before) = same.get(&Arc::as_ptr(pool)) {
                        *pool = before.clone();
                    }
                }
            }
            let is_same = |before: &&&Arc<Forward>| {
                let pools = before.pools().map(Arc::as_ptr);
                pools.eq(forward.pools().map(Arc::as_ptr)) && ***before == *forward
            };
            if let Some(before) = forwards.get(forward.name.as_str()).filter(is_same) {
                *forward = (*before).clone();
            }
        }
        drop(held);
    }

    /// Every pool of these names once, with its name and which of those of this name it is:
    /// ranges of ports make several.
    fn pools(&self, names: &HashSet<String>) -> Vec<((&str, usize), &Arc<Pool>)> {
        let mut seen = HashSet::new();
        let mut counts: HashMap<&str, usize> = HashMap::new();
        let mut pools = Vec::new();
        for forward in &self.forwards {
            for pool in forward.pools() {
                if !seen.insert(Arc::as_ptr(pool)) {
                    continue;
                }
                let name = label(pool, forward);
                if !names.contains(name) {
                    continue;
                }
                let nth = counts.entry(name).or_default();
                pools.push(((name, *nth), pool));
                *nth += 1;
            }
        }
        pools
    }
}

/// What a pool of a forward is called.
fn label<'c>(pool: &'c Pool, forward: &'c Forward) -> &'c str {
    pool.name.as_deref().unwrap_or(&forward.name)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        [upstream.both]
        servers = ["10.0.0.1:80", "10.0.0.2:80"]
        [[forward]]
        name = "a"
        listen = ":8001"
        upstream = "both"
        [[forward]]
        name = "b"
        listen = ":8002"
        upstream = "both"
        [[forward]]
        name = "c"
        listen = ":8003"
        upstream = "10.0.0.3:80"
        [[forward]]
        name = "range"
        listen = ":9000-9003"
        upstream = "10.0.0.4:7000-7003"
    "#;

    fn shared(text: &str) -> (Config, Config, Config) {
        let (before, alone) = (Config::parse(TEXT).unwrap(), Config::parse(text).unwrap());
        let mut now = alone.clone();
        now.share(&before);
        (before, alone, now)
    }

    fn named<'c>(config: &'c Config, name: &str) -> &'c Arc<Forward> {
        let mut forwards = config.forwards.iter();
        forwards.find(|it| it.name == name).unwrap()
    }

    #[test]
    fn what_is_as_before_is_the_very_same() {
        let (before, alone, now) = shared(TEXT);
        assert_eq!(now, alone);
        for (before, now) in before.forwards.iter().zip(&now.forwards) {
            assert!(Arc::ptr_eq(before, now), "{}", now.name);
        }
    }

    #[test]
    fn a_forward_that_changed_has_the_pool_that_did_not() {
        let text = TEXT.replace("listen = \":8001\"", "listen = \":8011\"");
        let (before, alone, now) = shared(&text);
        assert_eq!(now, alone);
        assert!(!Arc::ptr_eq(named(&before, "a"), named(&now, "a")));
        assert!(Arc::ptr_eq(
            &named(&before, "a").pool,
            &named(&now, "a").pool
        ));
        assert!(Arc::ptr_eq(named(&before, "b"), named(&now, "b")));
    }

    #[test]
    fn a_pool_that_changed_changes_whoever_has_it_and_nobody_else() {
        let text = TEXT.replace("10.0.0.2:80", "10.0.0.9:80");
        let (before, alone, now) = shared(&text);
        assert_eq!(now, alone);
        assert!(Arc::ptr_eq(&named(&now, "a").pool, &named(&now, "b").pool));
        for (name, same) in [("a", false), ("b", false), ("c", true)] {
            let same_forward = Arc::ptr_eq(named(&before, name), named(&now, name));
            assert_eq!(same_forward, same, "{name}");
        }
    }
}
