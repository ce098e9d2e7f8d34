//! Picks of one pool by the reactors of a process at the same time.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use thalweg::balance::health::{Admission, Change};
use thalweg::balance::{
    Ask, Balancer, Choice, Place, Policy, Random, Rules, Standing, Terms, Tried,
};
use thalweg::relay::time::Time;

const REACTORS: u64 = 4;

struct Pool {
    servers: Vec<Standing>,
    balancer: Balancer,
}

impl Pool {
    fn new(policy: Policy, weights: &[u32], max_connections: Option<u32>) -> Self {
        let standing = |_: &u32| {
            Standing::new(&Terms {
                max_connections,
                connect_rate: None,
                active: true,
                max_fails: 2,
                fail_timeout: Duration::from_millis(1),
            })
        };
        let servers: Vec<Standing> = weights.iter().map(standing).collect();
        let names: Vec<String> = (0..weights.len()).map(|n| format!("s{n}:1")).collect();
        let places = weights.iter().zip(&names).map(|(weight, name)| Place {
            name,
            weight: *weight,
            backup: false,
            family: None,
        });
        let rules = Rules {
            policy,
            name_is_one_server: false,
            slow_start: Duration::ZERO,
        };
        let balancer = Balancer::new(rules, &places.collect::<Vec<_>>());
        balancer.seat(&servers, at(0));
        Self { servers, balancer }
    }

    fn choose(&self, key: u64, now: Time, random: &mut Random) -> Choice {
        let tried = Tried::default();
        let ask = Ask {
            key,
            tried: &tried,
            now,
        };
        self.balancer.pick(&self.servers, &ask, random)
    }
}

fn at(micros: u64) -> Time {
    Time::from_micros(1 + micros)
}

/// So many threads, each with its number.
fn reactors(run: impl Fn(u64) + Sync) {
    std::thread::scope(|scope| {
        for reactor in 0..REACTORS {
            let run = &run;
            scope.spawn(move || run(reactor));
        }
    });
}

/// One sequence for the whole process: exact at every number of picks that is a whole
/// number of rounds, whoever made them.
#[test]
fn b32_shares_are_exact_however_many_reactors_pick() {
    // Equal weights, some that are written down, and some that are too many for that.
    let many: Vec<u32> = (1..=400).collect();
    for (weights, rounds) in [(vec![1; 7], 3000), (vec![1, 2, 3], 6000), (many, 1)] {
        let pool = Pool::new(Policy::RoundRobin, &weights, None);
        let had: Vec<AtomicU32> = weights.iter().map(|_| AtomicU32::new(0)).collect();
        let total: u32 = weights.iter().sum();
        let picks = total * rounds / REACTORS as u32;
        assert_eq!(picks * REACTORS as u32, total * rounds, "whole rounds");
        reactors(|reactor| {
            let mut random = Random::new(reactor);
            for _ in 0..picks {
                match pool.choose(0, at(0), &mut random) {
                    Choice::Server { at, marked: false } => {
                        had[usize::from(at)].fetch_add(1, Ordering::Relaxed);
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
        for (had, weight) in had.iter().zip(&weights) {
            assert_eq!(
                had.load(Ordering::Relaxed),
                weight * rounds,
                "of weight {weight}"
            );
        }
    }
}

/// Sessions that come and go, servers that go down, are marked and come back, by four
/// threads at once: no server ever has more than it may, and at the end everything that
/// is kept of them is what they say themselves.
#[test]
fn b32_what_is_kept_of_servers_is_right_once_nobody_changes_them() {
    let policies = [
        Policy::RoundRobin,
        Policy::LeastConn,
        Policy::PowerOfTwo,
        Policy::Random,
        Policy::Hash,
        Policy::First,
    ];
    for (policy, servers) in policies.into_iter().flat_map(|it| [(it, 3), (it, 150)]) {
        let weights: Vec<u32> = (0..servers).map(|at| 1 + at % 5).collect();
        let pool = Pool::new(policy, &weights, Some(2));
        reactors(|reactor| churn(&pool, reactor));
        let end = at(1_000_000);
        for _ in 0..pool.servers.len() {
            pool.balancer.is_worth_a_try(&pool.servers, end);
        }
        pool.balancer.check_invariants(&pool.servers, end);
        assert!(pool.servers.iter().all(|server| server.active() == 0));
    }
}

fn churn(pool: &Pool, reactor: u64) {
    let mut random = Random::new(reactor);
    let mut entered = Vec::new();
    for turn in 0..4000_u64 {
        // Each by a clock of its own, as fast as the others' but for a few turns.
        let now = at(turn * 3);
        let server = random.below(pool.servers.len() as u64) as usize;
        match random.below(16) {
            0 => pool.servers[server].checked(Change::Down, now),
            1 | 2 => pool.servers[server].checked(Change::Up, now),
            3 | 4 if !entered.is_empty() => {
                let left: usize = entered.swap_remove(0);
                pool.servers[left].leave(now);
            }
            _ => {
                let Choice::Server { at, marked } = pool.choose(turn, now, &mut random) else {
                    continue;
                };
                let standing = &pool.servers[usize::from(at)];
                let admission = if marked {
                    Admission::Free
                } else {
                    standing.admit(now)
                };
                if admission == Admission::Marked {
                    continue;
                }
                if !standing.enter(now) {
                    standing.abandoned(admission, now);
                    continue;
                }
                assert!(standing.active() <= 2 + REACTORS as u32);
                if random.below(3) == 0 {
                    standing.failed(admission, now);
                    standing.leave(now);
                } else {
                    standing.succeeded(admission, now);
                    entered.push(usize::from(at));
                }
            }
        }
    }
    for server in entered {
        pool.servers[server].leave(at(12_000));
    }
}

/// Who has fewest sessions is picked, to as many as are under way at the same moment.
#[test]
fn b32_least_conn_stays_even_while_reactors_compete() {
    let pool = Pool::new(Policy::LeastConn, &[1; 32], None);
    reactors(|reactor| {
        let mut random = Random::new(reactor);
        for _ in 0..800 {
            if let Choice::Server { at: server, .. } = pool.choose(0, at(0), &mut random) {
                assert!(pool.servers[usize::from(server)].enter(at(0)));
            }
        }
    });
    let active: Vec<u32> = pool.servers.iter().map(|it| it.active()).collect();
    assert_eq!(active.iter().sum::<u32>(), 3200);
    let spread = active.iter().max().unwrap() - active.iter().min().unwrap();
    assert!(u64::from(spread) <= REACTORS, "{active:?}");
    pool.balancer.check_invariants(&pool.servers, at(0));
}
