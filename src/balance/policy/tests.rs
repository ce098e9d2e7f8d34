#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const POLICIES: [Policy; 6] = [
    Policy::RoundRobin,
    Policy::LeastConn,
    Policy::PowerOfTwo,
    Policy::Random,
    Policy::Hash,
    Policy::First,
];

/// Servers as a test sets them: weights (in units) and sessions.
#[derive(Debug, Clone)]
struct Servers(Vec<(u32, u32)>);

impl Servers {
    fn idle(weights: &[u32]) -> Self {
        let idle = weights.iter().map(|weight| (weight * WEIGHT_UNIT, 0));
        Self(idle.collect())
    }
}

impl View for Servers {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn weight(&self, server: u16) -> u32 {
        self.0[usize::from(server)].0
    }

    fn active(&self, server: u16) -> u32 {
        self.0[usize::from(server)].1
    }
}

fn balancer(policy: Policy, weights: &[u32]) -> Balancer {
    let names: Vec<String> = (0..weights.len()).map(|n| format!("s{n}:1")).collect();
    let names = names.iter().map(String::as_str);
    let servers: Vec<_> = names.zip(weights.iter().copied()).collect();
    Balancer::new(policy, &servers, 0, 7)
}

fn pick(balancer: &mut Balancer, view: &impl View) -> Option<u16> {
    balancer.pick(view, 0, &Tried::default())
}

fn picks(balancer: &mut Balancer, view: &impl View, count: usize) -> Vec<u16> {
    (0..count).map(|_| pick(balancer, view).unwrap()).collect()
}

fn counts(picks: &[u16]) -> Vec<usize> {
    let mut counts = BTreeMap::new();
    for server in picks {
        *counts.entry(*server).or_insert(0) += 1;
    }
    counts.into_values().collect()
}

/// The longest run of one server.
fn longest_run(picks: &[u16]) -> usize {
    picks
        .chunk_by(|a, b| a == b)
        .map(<[u16]>::len)
        .max()
        .unwrap()
}

#[test]
fn b32_round_robin_of_equals_is_15_to_15_in_turns() {
    let picks = picks(
        &mut balancer(Policy::RoundRobin, &[1, 1]),
        &Servers::idle(&[1, 1]),
        30,
    );
    assert_eq!(counts(&picks), [15, 15]);
    assert_eq!(longest_run(&picks), 1);
}

#[test]
fn b32_round_robin_of_1_to_2_is_10_to_20_and_smooth() {
    let picks = picks(
        &mut balancer(Policy::RoundRobin, &[1, 2]),
        &Servers::idle(&[1, 2]),
        30,
    );
    assert_eq!(counts(&picks), [10, 20]);
    for turn in picks.chunks(3) {
        assert_eq!(turn, [1, 0, 1], "not in bursts: {picks:?}");
    }
}

/// The example with which nginx introduced the algorithm.
#[test]
fn b32_round_robin_of_5_1_1_is_that_of_nginx() {
    let weights = [5, 1, 1];
    let picks = picks(
        &mut balancer(Policy::RoundRobin, &weights),
        &Servers::idle(&weights),
        7,
    );
    assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn reactors_begin_at_different_servers() {
    let first = balancer(Policy::RoundRobin, &[1, 1, 1, 1]);
    let view = Servers::idle(&[1, 1, 1, 1]);
    let firsts: Vec<u16> = (0..8)
        .map(|reactor| pick(&mut first.for_reactor(reactor, 0), &view).unwrap())
        .collect();
    assert_eq!(firsts, [0, 1, 2, 3, 0, 1, 2, 3]);
}

#[test]
fn b32_least_conn_terminates_with_every_server_saturated() {
    let mut balancer = balancer(Policy::LeastConn, &[1, 2, 3]);
    let full = Servers(vec![(0, 10), (0, 20), (0, 30)]);
    assert_eq!(pick(&mut balancer, &full), None);
    // As many as a counter holds, and room all the same.
    let busy = Servers(vec![(256, u32::MAX), (256_000, u32::MAX), (1, u32::MAX)]);
    assert_eq!(pick(&mut balancer, &busy), Some(1));
}

#[test]
fn least_conn_fills_in_proportion_to_the_weights() {
    let mut balancer = balancer(Policy::LeastConn, &[1, 2, 3]);
    let mut view = Servers::idle(&[1, 2, 3]);
    for _ in 0..60 {
        let server = pick(&mut balancer, &view).unwrap();
        view.0[usize::from(server)].1 += 1;
    }
    let active: Vec<u32> = view.0.iter().map(|(_, active)| *active).collect();
    assert_eq!(active, [10, 20, 30]);
}

#[test]
fn least_conn_among_idle_servers_is_round_robin_by_weight() {
    let view = Servers::idle(&[1, 2]);
    let picks = picks(&mut balancer(Policy::LeastConn, &[1, 2]), &view, 30);
    assert_eq!(counts(&picks), [10, 20]);
    assert_eq!(longest_run(&picks), 2);
}

#[test]
fn power_of_two_takes_the_less_busy_of_two() {
    let mut balancer = balancer(Policy::PowerOfTwo, &[1, 1]);
    // Two servers: they are always the two that are drawn.
    let view = Servers(vec![(256, 5), (256, 4)]);
    assert_eq!(counts(&picks(&mut balancer, &view, 50)), [50]);
    assert_eq!(pick(&mut balancer, &view), Some(1));
    // Fewer for its weight, though more in number.
    let view = Servers(vec![(2560, 5), (256, 4)]);
    assert_eq!(pick(&mut balancer, &view), Some(0));
    let alone = Servers(vec![(256, 5), (0, 0)]);
    assert_eq!(pick(&mut balancer, &alone), Some(0));
}

#[test]
fn random_has_shares_by_weight() {
    let view = Servers::idle(&[1, 2, 0, 7]);
    let picks = picks(&mut balancer(Policy::Random, &[1, 2, 0, 7]), &view, 100_000);
    // A seeded sequence: the same in every run. Five standard deviations.
    for (count, weight) in counts(&picks).into_iter().zip([1.0, 2.0, 7.0]) {
        let share = weight / 10.0_f64;
        let deviation = (100_000.0 * share * (1.0 - share)).sqrt();
        let off = (count as f64 - 100_000.0 * share).abs();
        assert!(off < 5.0 * deviation, "{count} of weight {weight}");
    }
}

#[test]
fn first_fills_in_the_order_of_the_list() {
    let mut balancer = balancer(Policy::First, &[1, 1, 1]);
    let mut view = Servers::idle(&[1, 1, 1]);
    assert_eq!(pick(&mut balancer, &view), Some(0));
    view.0[0].0 = 0;
    assert_eq!(pick(&mut balancer, &view), Some(1));
    view.0[0].0 = 256;
    assert_eq!(pick(&mut balancer, &view), Some(0));
}

#[test]
fn hash_keeps_to_the_server_of_a_key() {
    let weights = [1; 10];
    let view = Servers::idle(&weights);
    let (mut one, mut other) = (
        balancer(Policy::Hash, &weights),
        balancer(Policy::Hash, &weights).for_reactor(3, 99),
    );
    let none = Tried::default();
    for key in (0..1000).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
        let server = one.pick(&view, key, &none);
        assert_eq!(other.pick(&view, key, &none), server);
        let mut tried = Tried::default();
        tried.insert(server.unwrap());
        assert_ne!(one.pick(&view, key, &tried), server);
    }
}

#[test]
fn weights_that_fall_are_not_followed_by_a_burst() {
    let mut balancer = balancer(Policy::RoundRobin, &[1000, 1000]);
    // Leaves a current of half a total behind.
    pick(&mut balancer, &Servers::idle(&[1000, 1000]));
    let picks = picks(&mut balancer, &Servers::idle(&[1, 1]), 100);
    assert!(longest_run(&picks) <= 5, "{picks:?}");
    assert_eq!(longest_run(&picks[10..]), 1, "{picks:?}");
}

#[test]
fn a_server_that_returns_has_neither_debts_nor_savings() {
    let mut balancer = balancer(Policy::RoundRobin, &[10, 1]);
    let (both, without) = (Servers::idle(&[10, 1]), Servers::idle(&[10, 0]));
    // The second is owed a turn, and goes down.
    picks(&mut balancer, &both, 4);
    picks(&mut balancer, &without, 1000);
    let picks = picks(&mut balancer, &both, 110);
    assert_eq!(counts(&picks[..11])[1..], [1]);
    assert!((9..=11).contains(&counts(&picks)[1]), "{picks:?}");
}

fn any_policy() -> impl Strategy<Value = Policy> {
    prop::sample::select(&POLICIES[..])
}

/// Weights in units and sessions, many of them closed.
fn any_servers() -> impl Strategy<Value = Servers> {
    let weight = prop_oneof![Just(0), 1..=300_u32, Just(256_000)];
    let active = prop_oneof![0..5_u32, Just(u32::MAX)];
    prop::collection::vec((weight, active), 1..100).prop_map(Servers)
}

proptest! {
    /// After as many picks as the weights' sum each server had its weight of them.
    #[test]
    fn b32_round_robin_shares_are_exact(weights in prop::collection::vec(0..60_u32, 1..24)) {
        let total: u32 = weights.iter().sum();
        prop_assume!(total > 0);
        let mut balancer = balancer(Policy::RoundRobin, &weights);
        let view = Servers::idle(&weights);
        let mut had = vec![0; weights.len()];
        for _ in 0..2 * total {
            had[usize::from(pick(&mut balancer, &view).unwrap())] += 1;
        }
        let due: Vec<u32> = weights.iter().map(|weight| 2 * weight).collect();
        prop_assert_eq!(had, due);
        prop_assert!(balancer.currents.iter().all(|current| *current == 0));
    }

    /// At no time is a server more than two turns from what is due to it.
    #[test]
    fn b32_round_robin_is_smooth_at_any_time(weights in prop::collection::vec(1..50_u32, 2..12)) {
        let total: u32 = weights.iter().sum();
        let mut balancer = balancer(Policy::RoundRobin, &weights);
        let view = Servers::idle(&weights);
        let mut had = vec![0_u32; weights.len()];
        for turn in 1..=total {
            had[usize::from(pick(&mut balancer, &view).unwrap())] += 1;
            for (had, weight) in had.iter().zip(&weights) {
                let due = f64::from(turn * weight) / f64::from(total);
                prop_assert!((f64::from(*had) - due).abs() < 2.0, "{} of {}", had, due);
            }
        }
    }

    /// However weights change, nobody saves or owes more than a few totals.
    #[test]
    fn currents_stay_bounded_while_weights_change(
        policy in prop::sample::select(&[Policy::RoundRobin, Policy::LeastConn][..]),
        turns in prop::collection::vec(prop::collection::vec(0..1000_u32, 6), 1..200),
    ) {
        let mut balancer = balancer(policy, &[1; 6]);
        for weights in turns {
            let view = Servers(weights.iter().map(|weight| (*weight, weight % 3)).collect());
            let picked = pick(&mut balancer, &view);
            let total = i64::from(weights.iter().sum::<u32>());
            prop_assert_eq!(picked.is_some(), total > 0);
            for current in &balancer.currents {
                prop_assert!(current.abs() <= CURRENT_TOTALS * total);
            }
        }
    }

    /// A session that tries on and on visits every open server once, and then ends.
    #[test]
    fn b32_every_policy_tries_each_open_server_once_and_terminates(
        policy in any_policy(),
        view in any_servers(),
        key in any::<u64>(),
        sessions in 1..4,
    ) {
        let configured = vec![1; view.len()];
        let mut balancer = balancer(policy, &configured);
        let open: Vec<u16> = (0..view.len() as u16).filter(|it| view.weight(*it) > 0).collect();
        for _ in 0..sessions {
            let mut tried = Tried::default();
            let mut order = Vec::new();
            while let Some(server) = balancer.pick(&view, key, &tried) {
                prop_assert!(!tried.contains(server));
                tried.insert(server);
                order.push(server);
                prop_assert!(order.len() <= open.len());
            }
            order.sort_unstable();
            prop_assert_eq!(&order, &open);
        }
    }

    #[test]
    fn least_conn_never_passes_over_a_less_busy_server(view in any_servers()) {
        let mut balancer = balancer(Policy::LeastConn, &vec![1; view.len()]);
        let Some(picked) = pick(&mut balancer, &view) else {
            return Ok(());
        };
        let load = |server: u16| Load::of(view.active(server), view.weight(server));
        let picked = load(picked).unwrap();
        for other in (0..view.len() as u16).filter_map(load) {
            prop_assert!(!other.is_below(picked));
        }
    }
}
