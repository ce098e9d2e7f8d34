#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::balance::index::bits::Bits;

/// Clients whose movements are counted.
const CLIENTS: u64 = 20_000;

fn names(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("10.0.{n}.1:443")).collect()
}

fn table(servers: &[(String, u32)]) -> Maglev {
    let servers: Vec<_> = servers.iter().map(|(n, w)| (n.as_str(), *w)).collect();
    Maglev::new(&servers)
}

/// As a balancer picks, of servers that are its units.
fn pick(table: &Maglev, key: u64, open: impl Fn(u16) -> bool) -> Option<u16> {
    table.walk(key, &open).or_else(|| {
        let bits = Bits::new(table.keys.len());
        for server in 0..table.keys.len() {
            bits.put(server, open(server as u16));
        }
        let lot = |level, at| match level {
            0 => table.lot(key, at as u16),
            _ => lot_of_block(key, level, at),
        };
        bits.descend(lot).map(|server| server as u16)
    })
}

fn equals(count: usize) -> Vec<(String, u32)> {
    names(count).into_iter().map(|name| (name, 1)).collect()
}

fn clients() -> impl Iterator<Item = u64> {
    (0..CLIENTS).map(|n| mix(n.wrapping_mul(GOLDEN)))
}

fn entries_by_name(servers: &[(String, u32)]) -> Vec<String> {
    let table = table(servers);
    let name = |server: &u16| servers[usize::from(*server)].0.clone();
    table.entries.iter().map(name).collect()
}

/// A pool of unlike servers, and one of them.
fn pools() -> impl Strategy<Value = (Vec<(String, u32)>, usize)> {
    prop::collection::vec(1..=20_u32, 3..24).prop_flat_map(|weights| {
        let len = weights.len();
        let servers: Vec<_> = names(len).into_iter().zip(weights).collect();
        (Just(servers), 0..len)
    })
}

/// Nodes of a fleet: the same servers in three orders; on one of them another server has the place of the last.
#[test]
fn b161_ten_thousand_clients_have_the_same_server_on_every_node() {
    const NODES_CLIENTS: usize = 10_000;
    let servers = equals(7);
    let mut rotated = servers.clone();
    rotated.rotate_left(3);
    let reversed: Vec<_> = servers.iter().rev().cloned().collect();
    let picks = |servers: &[(String, u32)]| -> Vec<String> {
        let table = table(servers);
        let picked = clients().take(NODES_CLIENTS);
        let picked = picked.map(|key| usize::from(pick(&table, key, |_| true).unwrap()));
        picked.map(|at| servers[at].0.clone()).collect()
    };
    let one = picks(&servers);
    assert_eq!(one, picks(&rotated));
    assert_eq!(one, picks(&reversed));

    let mut ahead = reversed;
    ahead[0].0 = "10.0.200.1:443".to_owned();
    let (gone, come) = (&servers[6].0, &ahead[0].0.clone());
    let other = picks(&ahead);
    let pairs = one.iter().zip(&other);
    let moved = pairs.filter(|(a, b)| a != b && *a != gone && *b != come);
    let percent = moved.count() as f64 * 100.0 / NODES_CLIENTS as f64;
    assert!(percent < 2.0, "{percent} % of the other servers' clients");
}

/// If this fails, fleets that run two versions no longer agree on servers.
#[test]
fn b32_the_table_never_changes() {
    let table = table(&[
        ("192.0.2.1:443".into(), 1),
        ("192.0.2.2:443".into(), 2),
        ("[2001:db8::1]:443".into(), 3),
    ]);
    let digest = table
        .entries
        .iter()
        .fold(0, |digest, entry| mix(digest ^ u64::from(*entry)));
    assert_eq!(digest, DIGEST, "{digest:#x}");
}

/// Computed by an independent program, which filled the table and digested it.
const DIGEST: u64 = 0x6cdc_f6b4_ef22_5eba;

#[test]
fn several_servers_of_one_name_share() {
    let table = table(&[("a:1".into(), 1), ("a:1".into(), 1), ("b:1".into(), 1)]);
    for server in 0..3 {
        let share = table.entries.iter().filter(|it| **it == server).count();
        assert!((ENTRIES / 3 - 1..=ENTRIES / 3 + 1).contains(&share));
    }
}

#[test]
fn a_server_of_weight_zero_has_no_entry() {
    let table = table(&[("a:1".into(), 0), ("b:1".into(), 1)]);
    assert!(clients().all(|key| pick(&table, key, |_| true) == Some(1)));
    // It may be given a weight while running.
    assert_eq!(pick(&table, 7, |server| server == 0), Some(0));
}

#[test]
fn no_server_open_is_none_and_ends() {
    assert_eq!(pick(&table(&equals(300)), 7, |_| false), None);
    assert_eq!(pick(&Maglev::new(&[]), 7, |_| true), None);
    let without_weights = Maglev::new(&[("a:1", 0), ("b:1", 0)]);
    assert!(pick(&without_weights, 7, |_| true).is_some());
}

/// The paper's own measure, on the pool sizes people have.
#[test]
fn b32_removing_one_of_equals_moves_few_others() {
    for count in [3, 10, 100] {
        let all = equals(count);
        let fewer = all[1..].to_vec();
        let (with, without) = (table(&all), table(&fewer));
        let moved = clients()
            .filter(|key| {
                let before = pick(&with, *key, |_| true).unwrap();
                let after = pick(&without, *key, |_| true).unwrap();
                before != 0 && before - 1 != after
            })
            .count();
        let percent = moved as f64 * 100.0 / CLIENTS as f64;
        println!("{count} servers: {percent:.2} % of the clients of others moved");
        assert!(percent < 3.0, "{count} servers: {percent:.2} %");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn b32_shares_of_a_hundred_entries_are_within_a_percent(
        weights in prop::collection::vec(prop_oneof![Just(1), 1..=1000_u32], 1..60),
    ) {
        let total: u32 = weights.iter().sum();
        let servers: Vec<_> = names(weights.len()).into_iter().zip(weights).collect();
        let mut had = vec![0_u32; servers.len()];
        for entry in &table(&servers).entries {
            had[usize::from(*entry)] += 1;
        }
        for (had, (_, weight)) in had.into_iter().zip(servers) {
            let due = ENTRIES as f64 * f64::from(weight) / f64::from(total);
            let off = (f64::from(had) - due).abs();
            // Of the least such share a percent is an entry.
            prop_assert!(off <= (due / 100.0).max(1.5), "{} of {:.1}", had, due);
        }
    }

    #[test]
    fn b32_the_order_of_the_list_does_not_matter(
        (servers, first) in pools(),
        shuffled in Just(()).prop_perturb(|(), mut random| random.next_u64()),
    ) {
        let mut other = servers.clone();
        other.rotate_left(first);
        other.sort_by_key(|(name, _)| mix(shuffled ^ server_key(name, 0)));
        prop_assert_eq!(entries_by_name(&servers), entries_by_name(&other));
    }

    /// Taking a server out of the configuration moves its clients, and of the
    /// others' few.
    #[test]
    fn b32_removing_a_server_moves_its_share_and_a_few_more((servers, gone) in pools()) {
        let mut fewer = servers.clone();
        fewer.remove(gone);
        let (with, without) = (entries_by_name(&servers), entries_by_name(&fewer));
        let gone = &servers[gone].0;
        let kept = with.iter().filter(|name| *name != gone).count();
        let moved = with.iter().zip(&without).filter(|(a, b)| *a != gone && a != b).count();
        let percent = moved as f64 * 100.0 / kept as f64;
        prop_assert!(percent < 3.0, "{:.2} % of the others' entries moved", percent);
    }

    /// A server that is down moves its own clients only, whatever else is down, and
    /// they are spread over those that are left.
    #[test]
    fn b32_a_server_that_goes_down_moves_only_its_own_clients(
        (servers, goes) in pools(),
        down in prop::collection::vec(prop::bool::weighted(0.3), 24),
    ) {
        let table = table(&servers);
        let goes = goes as u16;
        let up = |server: u16| !down[usize::from(server)] || server == goes;
        let mut heirs = std::collections::BTreeSet::new();
        for key in clients() {
            let before = pick(&table, key, up).unwrap();
            let after = pick(&table, key, |server| up(server) && server != goes);
            if before == goes {
                prop_assert!(after.is_none_or(|after| up(after) && after != goes));
                heirs.extend(after);
            } else {
                prop_assert_eq!(after, Some(before));
            }
        }
        let left = (0..servers.len() as u16).filter(|it| up(*it) && *it != goes).count();
        prop_assert!(heirs.len() <= left && (left == 0 || !heirs.is_empty()));
    }

    /// The same where the walk gives up and lots decide.
    #[test]
    fn b32_nearly_all_down_is_as_stable(goes in 0..200_u16, stays in 0..200_u16) {
        let table = table(&equals(200));
        for key in clients().take(2000) {
            let before = pick(&table, key, |server| server == goes || server == stays);
            let after = pick(&table, key, |server| server == stays);
            prop_assert_eq!(after, Some(stays));
            prop_assert!(before == Some(goes) || before == Some(stays));
        }
    }
}
