//! Picks held against models that walk over all servers.

use super::*;

/// What happens to a pool between two picks.
#[derive(Debug, Clone)]
enum Happening {
    Pick { key: u64, tried: Vec<u16> },
    Leave(usize),
    Up(usize, bool),
    Fail(usize),
    Later(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let tried = prop::collection::vec(0..90_u16, 0..3);
    prop_oneof![
        6 => (any::<u64>(), tried).prop_map(|(key, tried)| Happening::Pick { key, tried }),
        2 => any::<usize>().prop_map(Happening::Leave),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(at, up)| Happening::Up(at, up)),
        1 => any::<usize>().prop_map(Happening::Fail),
        1 => (0..15_000_000_u64).prop_map(Happening::Later),
    ]
}

fn given() -> impl Strategy<Value = Vec<Given>> {
    let weight = prop_oneof![Just(0), Just(1), 1..9_u32];
    let family = prop::option::weighted(0.3, 0..3_u16);
    let server = (weight, prop::bool::weighted(0.2), family);
    prop::collection::vec(server, 1..90).prop_map(|mut all| {
        // Those of a name stand together.
        all.sort_by_key(|(_, _, family)| *family);
        all
    })
}

impl Pool {
    fn tier(&self, at: usize, given: &Given) -> Option<usize> {
        let server = &self.servers[at];
        let marked = self.servers.len() > 1 && !server.is_open(self.now);
        let tier = usize::from(given.1) + if marked { MARKED } else { 0 };
        (given.0 > 0 && server.is_up()).then_some(tier)
    }

    /// Those that may be picked now: the servers of the first tier that is in use, of a
    /// name that is one server the first; `Err` where nobody is to be picked.
    fn candidates(&self, given: &[Given], tried: &Tried) -> Result<Vec<u16>, Choice> {
        let of_tier = |tier: usize| {
            let all = given.iter().enumerate();
            let of_tier = all.filter(move |(at, it)| self.tier(*at, it) == Some(tier));
            of_tier.filter(|(at, _)| !tried.contains(*at as u16))
        };
        for tier in 0..TIERS {
            let mut open: Vec<u16> = of_tier(tier)
                .filter(|(at, _)| !self.servers[*at].is_full(self.now))
                .map(|(at, _)| at as u16)
                .collect();
            open.dedup_by_key(|at| given[usize::from(*at)].2.ok_or(*at));
            if !open.is_empty() {
                return Ok(open);
            }
            if tier < MARKED && of_tier(tier).next().is_some() {
                return Err(Choice::Full);
            }
        }
        Err(Choice::Nowhere)
    }

    fn happens(&mut self, happening: &Happening, entered: &mut Vec<usize>) {
        let len = self.servers.len();
        match happening {
            Happening::Leave(at) if !entered.is_empty() => {
                let server = entered.swap_remove(at % entered.len());
                self.servers[server].leave(self.now);
            }
            Happening::Up(at, up) => self.set_up(at % len, *up),
            Happening::Fail(at) => {
                self.servers[at % len].failed(Admission::Free, self.now);
            }
            Happening::Later(by) => self.later(Duration::from_micros(*by)),
            Happening::Leave(_) | Happening::Pick { .. } => {}
        }
    }
}

proptest! {
    /// Whatever happened before, a pick is one of those that a walk over all servers
    /// finds, and there is one whenever that finds one.
    #[test]
    fn b32_picks_are_among_those_that_a_walk_finds(
        policy in prop::sample::select(&POLICIES[..]),
        given in given(),
        max in prop::option::of(1..4_u32),
        happenings in prop::collection::vec(happening(), 1..60),
    ) {
        let mut pool = Pool::of(policy, &given, max);
        let mut entered = Vec::new();
        for happening in happenings {
            pool.happens(&happening, &mut entered);
            pool.balancer.check_invariants(&pool.servers, pool.now);
            let Happening::Pick { key, tried: listed } = happening else { continue };
            let mut tried = Tried::default();
            for at in listed.iter().filter(|at| usize::from(**at) < given.len()) {
                tried.insert(*at);
            }
            // As many marks may run out at once as one pick looks at, and more.
            for _ in 0..given.len() {
                pool.balancer.is_worth_a_try(&pool.servers, pool.now);
            }
            let candidates = pool.candidates(&given, &tried);
            match (pool.choose(key, &tried), candidates) {
                (Choice::Server { at, marked }, Ok(candidates)) => {
                    prop_assert!(candidates.contains(&at), "{at} of {candidates:?}");
                    let tier = pool.tier(at.into(), &given[usize::from(at)]);
                    prop_assert_eq!(marked, tier >= Some(MARKED));
                    if policy == Policy::First {
                        prop_assert_eq!(at, candidates[0]);
                    }
                    pool.servers[usize::from(at)].enter(pool.now);
                    entered.push(at.into());
                }
                (choice, candidates) => prop_assert_eq!(Err(choice), candidates),
            }
        }
    }

    /// Round robin is nginx's order without the steps of those that may not be picked.
    #[test]
    fn b32_round_robin_is_nginx_s_order_without_those_that_are_down(
        weights in prop::collection::vec(0..7_u32, 1..14),
        downs in prop::collection::vec((0..14_usize, any::<bool>(), 1..20_usize), 1..20),
    ) {
        let total: i64 = weights.iter().copied().map(i64::from).sum();
        prop_assume!(total > 0);
        let (mut currents, mut order) = (vec![0; weights.len()], Vec::new());
        for _ in 0..total {
            for (current, weight) in currents.iter_mut().zip(&weights) {
                *current += i64::from(*weight);
            }
            let eligible = (0..weights.len()).filter(|at| weights[*at] > 0);
            let best = eligible.rev().max_by_key(|at| currents[*at]).unwrap();
            currents[best] -= total;
            order.push(best);
        }
        let mut pool = Pool::new(Policy::RoundRobin, &weights);
        let mut at = 0;
        for (server, up, count) in downs {
            pool.set_up(server % weights.len(), up);
            pool.later(SLOW_START);
            let open = |server: usize| weights[server] > 0 && pool.servers[server].is_up();
            if !(0..weights.len()).any(open) {
                continue;
            }
            for _ in 0..count {
                while !open(order[at % order.len()]) {
                    at += 1;
                }
                prop_assert_eq!(pool.pick(), Some(order[at % order.len()] as u16));
                at += 1;
            }
        }
    }

    /// After as many picks as the weights' sum each server had its weight of them.
    #[test]
    fn b32_round_robin_shares_are_exact(weights in prop::collection::vec(0..60_u32, 1..24)) {
        let total: u32 = weights.iter().sum();
        prop_assume!(total > 0);
        let pool = Pool::new(Policy::RoundRobin, &weights);
        let mut had = vec![0; weights.len()];
        for _ in 0..2 * total {
            had[usize::from(pool.pick().unwrap())] += 1;
        }
        let due: Vec<u32> = weights.iter().map(|weight| 2 * weight).collect();
        prop_assert_eq!(had, due);
    }

    /// At no time is a server more than two turns from what is due to it.
    #[test]
    fn b32_round_robin_is_smooth_at_any_time(weights in prop::collection::vec(1..50_u32, 2..12)) {
        let total: u32 = weights.iter().sum();
        let pool = Pool::new(Policy::RoundRobin, &weights);
        let mut had = vec![0_u32; weights.len()];
        for turn in 1..=total {
            had[usize::from(pool.pick().unwrap())] += 1;
            for (had, weight) in had.iter().zip(&weights) {
                let due = f64::from(turn * weight) / f64::from(total);
                prop_assert!((f64::from(*had) - due).abs() < 2.0, "{} of {}", had, due);
            }
        }
    }

    /// The least of all loads, whatever comes and goes; among idle ones shares by weight.
    #[test]
    fn least_conn_never_passes_over_a_less_busy_server(
        weights in prop::collection::vec(1..300_u32, 1..90),
        happenings in prop::collection::vec(happening(), 1..90),
    ) {
        let mut pool = Pool::new(Policy::LeastConn, &weights);
        let mut entered = Vec::new();
        let load = |pool: &Pool, at: usize| Load {
            active: pool.servers[at].active().into(),
            weight: pool.servers[at].weight(weights[at], pool.now, SLOW_START).into(),
        };
        for happening in happenings {
            pool.happens(&happening, &mut entered);
            // A slow start is looked at in steps: then at its end.
            if matches!(happening, Happening::Up(..)) {
                pool.later(SLOW_START);
            }
            for _ in 0..weights.len() {
                pool.balancer.is_worth_a_try(&pool.servers, pool.now);
            }
            let given: Vec<Given> = weights.iter().map(|it| (*it, false, None)).collect();
            let Ok(candidates) = pool.candidates(&given, &Tried::default()) else {
                continue;
            };
            let picked = usize::from(pool.pick().unwrap());
            for other in candidates {
                let (picked, other) = (load(&pool, picked), load(&pool, other.into()));
                prop_assert!(!other.is_below(picked), "{other:?} {picked:?}");
            }
            pool.enter(picked, 1);
            entered.push(picked);
        }
    }

    /// Lots are those of a row of the weights of all that may be picked.
    #[test]
    fn random_draws_as_a_walk_over_the_weights_would(
        weights in prop::collection::vec(0..9_u32, 1..90),
        down in prop::collection::vec(prop::bool::weighted(0.3), 90),
        seed in any::<u64>(),
    ) {
        let pool = Pool::new(Policy::Random, &weights);
        for at in (0..weights.len()).filter(|at| down[*at]) {
            pool.set_up(at, false);
        }
        let row: Vec<u16> = (0..weights.len())
            .filter(|at| !down[*at])
            .flat_map(|at| std::iter::repeat_n(at as u16, weights[at] as usize))
            .collect();
        prop_assume!(!row.is_empty());
        *pool.random.borrow_mut() = Random::new(seed);
        let mut random = Random::new(seed);
        for _ in 0..50 {
            let lot = random.below(row.len() as u64) as usize;
            prop_assert_eq!(pool.pick(), Some(row[lot]));
        }
    }

    /// A session that tries on and on visits every open server once, and then ends.
    #[test]
    fn b32_every_policy_tries_each_open_server_once_and_terminates(
        policy in prop::sample::select(&POLICIES[..]),
        weights in prop::collection::vec(prop_oneof![Just(0), 1..300_u32, Just(1000)], 1..100),
        down in prop::collection::vec(prop::bool::weighted(0.5), 100),
        key in any::<u64>(),
        sessions in 1..4,
    ) {
        let pool = Pool::new(policy, &weights);
        for at in (0..weights.len()).filter(|at| down[*at]) {
            pool.set_up(at, false);
        }
        let open = (0..weights.len()).filter(|at| weights[*at] > 0 && !down[*at]);
        let open: Vec<u16> = open.map(|at| at as u16).collect();
        for _ in 0..sessions {
            let mut tried = Tried::default();
            let mut order = Vec::new();
            while let Some(server) = pool.pick_of(key, &tried) {
                prop_assert!(!tried.contains(server));
                tried.insert(server);
                order.push(server);
                prop_assert!(order.len() <= open.len());
            }
            order.sort_unstable();
            prop_assert_eq!(&order, &open);
        }
    }
}
