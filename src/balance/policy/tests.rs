#![allow(clippy::unwrap_used)]

use std::cell::RefCell;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::balance::condition::Terms;
use crate::balance::health::{Admission, Change};

mod models;

const POLICIES: [Policy; 6] = [
    Policy::RoundRobin,
    Policy::LeastConn,
    Policy::PowerOfTwo,
    Policy::Random,
    Policy::Hash,
    Policy::First,
];

const SLOW_START: Duration = Duration::from_secs(16);

/// A server of a test: weight, backup, name.
type Given = (u32, bool, Option<u16>);

/// A pool with everything that a pick takes.
struct Pool {
    servers: Vec<Standing>,
    balancer: Balancer,
    random: RefCell<Random>,
    now: Time,
}

impl Pool {
    fn new(policy: Policy, weights: &[u32]) -> Self {
        let given: Vec<Given> = weights
            .iter()
            .map(|weight| (*weight, false, None))
            .collect();
        Self::of(policy, &given, None)
    }

    fn of(policy: Policy, given: &[Given], max_connections: Option<u32>) -> Self {
        Self::unseated(policy, given, max_connections).seated()
    }

    fn unseated(policy: Policy, given: &[Given], max_connections: Option<u32>) -> Self {
        let standing = |_: &Given| {
            Standing::new(&Terms {
                max_connections,
                connect_rate: None,
                active: true,
                max_fails: 1,
                fail_timeout: Duration::from_secs(10),
            })
        };
        let servers: Vec<Standing> = given.iter().map(standing).collect();
        let names: Vec<String> = (0..given.len()).map(|n| format!("s{n}:1")).collect();
        let places = given
            .iter()
            .zip(&names)
            .map(|((weight, backup, family), name)| Place {
                name,
                weight: *weight,
                backup: *backup,
                family: *family,
            });
        let rules = Rules {
            policy,
            name_is_one_server: true,
            slow_start: SLOW_START,
        };
        Self {
            balancer: Balancer::new(rules, &places.collect::<Vec<_>>()),
            servers,
            random: RefCell::new(Random::new(7)),
            now: Time::from_micros(1),
        }
    }

    fn seated(self) -> Self {
        self.balancer.seat(&self.servers, self.now);
        self
    }

    /// One that takes the place of another, whose servers stand first in it.
    fn after(earlier: &Self, policy: Policy, weights: &[u32]) -> Self {
        let given: Vec<Given> = weights
            .iter()
            .map(|weight| (*weight, false, None))
            .collect();
        let next = Self::unseated(policy, &given, None);
        let known = |at: u16| (usize::from(at) < earlier.servers.len()).then_some(at);
        next.balancer.follow(&earlier.balancer, known);
        next.seated()
    }

    fn choose(&self, key: u64, tried: &Tried) -> Choice {
        let now = self.now;
        let ask = Ask { key, tried, now };
        self.balancer
            .pick(&self.servers, &ask, &mut self.random.borrow_mut())
    }

    fn pick(&self) -> Option<u16> {
        self.pick_of(0, &Tried::default())
    }

    fn pick_of(&self, key: u64, tried: &Tried) -> Option<u16> {
        match self.choose(key, tried) {
            Choice::Server { at, .. } => Some(at),
            Choice::Full | Choice::Nowhere => None,
        }
    }

    fn picks(&self, count: usize) -> Vec<u16> {
        (0..count).map(|_| self.pick().unwrap()).collect()
    }

    /// So many sessions on a server.
    fn enter(&self, server: usize, sessions: u32) {
        for _ in 0..sessions {
            assert!(self.servers[server].enter(self.now));
        }
    }

    fn set_up(&self, server: usize, up: bool) {
        let change = if up { Change::Up } else { Change::Down };
        self.servers[server].checked(change, self.now);
    }

    fn later(&mut self, by: Duration) {
        self.now = self.now + by;
    }
}

fn counts(picks: &[u16]) -> Vec<usize> {
    let mut counts = std::collections::BTreeMap::new();
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
    let picks = Pool::new(Policy::RoundRobin, &[1, 1]).picks(30);
    assert_eq!(counts(&picks), [15, 15]);
    assert_eq!(longest_run(&picks), 1);
}

#[test]
fn b32_round_robin_of_1_to_2_is_10_to_20_and_smooth() {
    let picks = Pool::new(Policy::RoundRobin, &[1, 2]).picks(30);
    assert_eq!(counts(&picks), [10, 20]);
    for turn in picks.chunks(3) {
        assert_eq!(turn, [1, 0, 1], "not in bursts: {picks:?}");
    }
}

/// The example with which nginx introduced the algorithm.
#[test]
fn b32_round_robin_of_5_1_1_is_that_of_nginx() {
    let picks = Pool::new(Policy::RoundRobin, &[5, 1, 1]).picks(7);
    assert_eq!(picks, [0, 0, 1, 0, 2, 0, 0]);
}

/// What one may not be picked for, another takes in the order of the rest.
#[test]
fn b32_the_order_of_the_others_is_kept_while_one_is_down() {
    let pool = Pool::new(Policy::RoundRobin, &[1, 1, 1, 1]);
    pool.set_up(2, false);
    assert_eq!(pool.picks(7), [0, 1, 3, 0, 1, 3, 0]);
    let pool = Pool::new(Policy::RoundRobin, &[5, 1, 1]);
    pool.set_up(1, false);
    assert_eq!(pool.picks(6), [0, 0, 0, 2, 0, 0]);
}

/// A thousand times more than fits into an order that is written down.
#[test]
fn b32_shares_of_thousands_of_unlike_servers_are_exact() {
    let weights: Vec<u32> = (1..=400).collect();
    let total: usize = 400 * 401 / 2;
    let pool = Pool::new(Policy::RoundRobin, &weights);
    let picks = pool.picks(total);
    let due: Vec<usize> = weights.iter().map(|weight| *weight as usize).collect();
    assert_eq!(counts(&picks), due);
    // Half a round gives half of it, to a few turns.
    for (server, due) in due.iter().enumerate() {
        let half = picks[..total / 2].iter();
        let had = half.filter(|it| usize::from(**it) == server).count();
        assert!(had.abs_diff(due / 2) <= 5, "{had} of {due}");
    }
    // The others share what one leaves.
    pool.set_up(399, false);
    let picks = pool.picks(total);
    assert_eq!(picks.iter().filter(|it| **it == 399).count(), 0);
    for (had, due) in counts(&picks).iter().zip(&weights) {
        let due = f64::from(*due) * total as f64 / (total - 400) as f64;
        assert!((*had as f64 - due).abs() < 4.0, "{had} of {due}");
    }
}

#[test]
fn b32_least_conn_terminates_with_every_server_saturated() {
    let given = [1, 2, 3].map(|weight| (weight, false, None));
    let pool = Pool::of(Policy::LeastConn, &given, Some(10));
    for server in 0..3 {
        pool.enter(server, 10);
    }
    assert_eq!(pool.choose(0, &Tried::default()), Choice::Full);
    pool.servers[1].leave(pool.now);
    assert_eq!(pool.pick(), Some(1));
}

#[test]
fn least_conn_fills_in_proportion_to_the_weights() {
    let pool = Pool::new(Policy::LeastConn, &[1, 2, 3]);
    for _ in 0..60 {
        let server = pool.pick().unwrap();
        pool.enter(server.into(), 1);
    }
    let active: Vec<u32> = pool.servers.iter().map(|it| it.active()).collect();
    assert_eq!(active, [10, 20, 30]);
}

#[test]
fn least_conn_among_idle_servers_is_round_robin_by_weight() {
    let picks = Pool::new(Policy::LeastConn, &[1, 2]).picks(30);
    assert_eq!(counts(&picks), [10, 20]);
    assert_eq!(longest_run(&picks), 2);
}

/// Turns that passed while it was busier are not made up for; it has the next one.
#[test]
fn least_conn_saves_up_no_turns_for_a_server_that_was_busy() {
    let pool = Pool::new(Policy::LeastConn, &[1, 1, 1]);
    pool.enter(0, 1);
    assert_eq!(counts(&pool.picks(100)), [50, 50]);
    pool.servers[0].leave(pool.now);
    let picks = pool.picks(30);
    assert_eq!(counts(&picks[1..7]), [2, 2, 2], "{picks:?}");
}

#[test]
fn power_of_two_takes_the_less_busy_of_two() {
    // Two servers: they are always the two that are drawn.
    let pool = Pool::new(Policy::PowerOfTwo, &[1, 1]);
    pool.enter(0, 5);
    pool.enter(1, 4);
    assert_eq!(counts(&pool.picks(50)), [50]);
    assert_eq!(pool.pick(), Some(1));
    // Fewer for its weight, though more in number.
    let pool = Pool::new(Policy::PowerOfTwo, &[10, 1]);
    pool.enter(0, 5);
    pool.enter(1, 4);
    assert_eq!(counts(&pool.picks(50)), [50]);
    assert_eq!(pool.pick(), Some(0));
    pool.set_up(0, false);
    assert_eq!(pool.pick(), Some(1));
}

#[test]
fn random_has_shares_by_weight() {
    let picks = Pool::new(Policy::Random, &[1, 2, 0, 7]).picks(100_000);
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
    let pool = Pool::new(Policy::First, &[1, 1, 1]);
    assert_eq!(pool.pick(), Some(0));
    pool.set_up(0, false);
    assert_eq!(pool.pick(), Some(1));
    pool.set_up(0, true);
    assert_eq!(pool.pick(), Some(0));
}

#[test]
fn hash_keeps_to_the_server_of_a_key() {
    let (one, other) = (
        Pool::new(Policy::Hash, &[1; 10]),
        Pool::new(Policy::Hash, &[1; 10]),
    );
    let none = Tried::default();
    for key in (0..1000).map(|n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
        let server = one.pick_of(key, &none);
        assert_eq!(other.pick_of(key, &none), server);
        let mut tried = Tried::default();
        tried.insert(server.unwrap());
        assert_ne!(one.pick_of(key, &tried), server);
    }
}

#[test]
fn b32_one_open_server_of_thousands_is_found_by_every_policy() {
    for policy in POLICIES {
        let pool = Pool::new(policy, &vec![1; 5000]);
        for server in (0..5000).filter(|it| *it != 4321) {
            pool.set_up(server, false);
        }
        let picked: Vec<_> = (0..200)
            .map(|key| pool.pick_of(key * 77, &Tried::default()))
            .collect();
        assert_eq!(picked, [Some(4321); 200], "{policy:?}");
        pool.set_up(4321, false);
        assert_eq!(
            pool.choose(5, &Tried::default()),
            Choice::Nowhere,
            "{policy:?}"
        );
    }
}

/// Backups while nobody else may be picked, and marked ones while nobody else is left.
#[test]
fn tiers_are_used_in_their_order() {
    for policy in POLICIES {
        let given = [(1, false, None), (1, true, None)];
        let mut pool = Pool::of(policy, &given, Some(1));
        let server = |at, marked| Choice::Server { at, marked };
        let none = Tried::default();
        assert_eq!(pool.choose(0, &none), server(0, false), "{policy:?}");
        // Not for want of room.
        pool.enter(0, 1);
        assert_eq!(pool.choose(0, &none), Choice::Full);
        pool.servers[0].leave(pool.now);
        let mark = |pool: &Pool, at: usize| {
            assert_eq!(
                pool.servers[at].failed(Admission::Free, pool.now),
                Some(Change::Down)
            );
        };
        mark(&pool, 0);
        assert_eq!(pool.choose(0, &none), server(1, false));
        mark(&pool, 1);
        assert_eq!(pool.choose(0, &none), server(0, true));
        let mut tried = Tried::default();
        tried.insert(0);
        assert_eq!(pool.choose(0, &tried), server(1, true));
        tried.insert(1);
        assert_eq!(pool.choose(0, &tried), Choice::Nowhere);
        // A mark runs out without anybody doing anything.
        pool.later(Duration::from_secs(10));
        assert_eq!(pool.choose(0, &none), server(0, false));
        assert_eq!(pool.servers[0].admit(pool.now), Admission::Trial);
        assert_eq!(pool.choose(0, &none), server(1, false));
        pool.servers[0].succeeded(Admission::Trial, pool.now);
        assert_eq!(pool.choose(0, &none), server(0, false));
    }
}

/// Of a name that is one server the first address that may be is used.
#[test]
fn a_name_is_one_server_with_one_share() {
    let name = |weight| (weight, false, Some(0));
    for policy in [
        Policy::RoundRobin,
        Policy::LeastConn,
        Policy::Random,
        Policy::PowerOfTwo,
    ] {
        let pool = Pool::of(policy, &[name(1), name(1), name(1), (1, false, None)], None);
        let shares = counts(&pool.picks(1000));
        assert_eq!(shares.len(), 2, "{policy:?}");
        assert!((400..600).contains(&shares[0]), "{policy:?}: {shares:?}");
        pool.set_up(0, false);
        let picks = pool.picks(1000);
        assert!(!picks.contains(&0) && picks.contains(&1) && !picks.contains(&2));
        let mut tried = Tried::default();
        tried.insert(1);
        let picks: Vec<_> = (0..100).map(|_| pool.pick_of(0, &tried).unwrap()).collect();
        assert!(picks.contains(&2) && picks.contains(&3), "{policy:?}");
    }
}

#[test]
fn a_slow_start_grows_and_its_turns_are_at_even_distances() {
    let mut pool = Pool::new(Policy::RoundRobin, &[1, 1]);
    pool.set_up(1, false);
    pool.set_up(1, true);
    let share = |pool: &Pool| pool.picks(272).iter().filter(|it| **it == 1).count();
    // A 16th of the weight of the other.
    assert_eq!(share(&pool), 16);
    let picks = pool.picks(340);
    let turns: Vec<_> = picks.split(|it| *it == 1).map(<[u16]>::len).collect();
    assert!(
        turns[1..turns.len() - 1].iter().all(|it| *it == 16),
        "{turns:?}"
    );
    pool.later(SLOW_START / 2);
    assert!((80..100).contains(&share(&pool)));
    pool.later(SLOW_START / 2);
    assert_eq!(share(&pool), 136);
}

#[test]
fn least_conn_takes_note_of_a_slow_start_without_a_session() {
    let mut pool = Pool::new(Policy::LeastConn, &[1, 1]);
    pool.set_up(1, false);
    pool.set_up(1, true);
    pool.enter(0, 3);
    pool.enter(1, 1);
    // One session is 16 for its weight.
    assert_eq!(pool.pick(), Some(0));
    pool.later(SLOW_START * 3 / 4);
    assert_eq!(pool.pick(), Some(1));
}

#[test]
fn a_server_that_returns_has_neither_debts_nor_savings() {
    let mut pool = Pool::new(Policy::RoundRobin, &[10, 1]);
    pool.picks(4);
    pool.set_up(1, false);
    pool.picks(1000);
    pool.set_up(1, true);
    pool.later(SLOW_START);
    let picks = pool.picks(110);
    assert_eq!(counts(&picks[..11])[1..], [1]);
    assert!((9..=11).contains(&counts(&picks)[1]), "{picks:?}");
}

/// A set that takes another's place goes on where that one was.
#[test]
fn b32_shares_go_on_over_a_change_of_the_set() {
    let mut pool = Pool::new(Policy::RoundRobin, &[1, 1, 1, 1]);
    let mut had = [0; 5];
    // The fifth comes and goes, after three picks each time.
    for round in 0..200 {
        for server in pool.picks(3) {
            had[usize::from(server)] += 1;
        }
        pool = Pool::after(&pool, Policy::RoundRobin, &[1; 5][..4 + round % 2]);
    }
    for had in &had[..4] {
        assert!((120..=150).contains(had), "{had} of 600");
    }
    let idle = Pool::new(Policy::LeastConn, &[1; 3]);
    assert_eq!(idle.picks(1), [0]);
    let next = Pool::after(&idle, Policy::LeastConn, &[1; 3]);
    assert_eq!(next.picks(3), [1, 2, 0]);
}

/// A name whose servers are of two tiers has one turn in both: who was picked as a backup
/// is not first in line as a server because of it.
#[test]
fn b32_a_turn_as_a_backup_is_one_as_a_server_too() {
    let name = |backup| (1, backup, Some(0));
    let given = [name(false), name(true), (1, false, None), (1, true, None)];
    let pool = Pool::of(Policy::LeastConn, &given, None);
    let mut servers = Tried::default();
    servers.insert(0);
    servers.insert(2);
    assert_eq!(pool.pick_of(0, &servers), Some(1));
    assert_eq!(pool.pick(), Some(2), "the other had no turn yet");
    for _ in 0..20 {
        pool.pick_of(0, &servers).unwrap();
        pool.balancer.check_invariants(&pool.servers, pool.now);
        pool.pick().unwrap();
        pool.balancer.check_invariants(&pool.servers, pool.now);
    }
}

#[test]
fn an_empty_pool_is_nowhere() {
    for policy in POLICIES {
        let pool = Pool::new(policy, &[]);
        assert_eq!(pool.choose(0, &Tried::default()), Choice::Nowhere);
        let pool = Pool::new(policy, &[0, 0]);
        assert_eq!(pool.choose(0, &Tried::default()), Choice::Nowhere);
        assert!(pool.balancer.is_worth_a_try(&pool.servers, pool.now));
    }
}
