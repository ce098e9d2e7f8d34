//! The race against a simulated bench whose truth is known.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use proptest::prelude::*;

use super::*;

/// A bench of which the true merits are known, with noise, drift and a clock.
struct Bench {
    /// Logarithm of the true merit of each arm.
    truth: Vec<f64>,
    /// Standard deviation of a run's logarithm.
    noise: f64,
    cost: Duration,
    now: Duration,
    random: Random,
    ran: Vec<usize>,
}

impl Bench {
    fn new(truth: Vec<f64>, noise: f64, cost: Duration, seed: u64) -> Self {
        Self {
            truth,
            noise,
            cost,
            now: Duration::ZERO,
            random: Random::new(seed.wrapping_mul(7_919) + 1),
            ran: Vec::new(),
        }
    }

    fn unit(&mut self) -> f64 {
        self.random.unit()
    }

    /// Normal: the sum of twelve uniform variables.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    fn run(&mut self, arm: usize) -> f64 {
        self.ran.push(arm);
        let late = 0.9 + 0.2 * self.unit();
        self.now += self.cost.mul_f64(late);
        // The machine gets slower over the hours by far more than any effect.
        let drift = -0.5 * self.now.as_secs_f64() / 100.0;
        (self.truth[arm] + drift + self.noise * self.normal()).exp()
    }

    /// The whole race; combinations are worth the sum of their parts.
    fn race(&mut self, budget: Duration, seed: u64) -> Race {
        let mut race = Race::new(RaceOptions {
            arms: self.truth.len(),
            present: None,
            budget,
            run: self.cost,
            minimum_effect: 0.02,
            seed,
        });
        loop {
            match race.next(self.now) {
                Step::Run(arm) => {
                    let merit = self.run(arm);
                    race.tell(arm, Ok(merit), self.now);
                }
                Step::Combine(helped) => {
                    race.join(1);
                    let sum = helped.iter().map(|arm| self.truth[*arm]).sum();
                    self.truth.push(sum);
                }
                Step::Done => return race,
            }
        }
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn without_a_difference_the_answer_is_the_kernel() {
    let seeds = 400;
    let wrong: Vec<u64> = (0..seeds)
        .filter(|seed| {
            let mut bench = Bench::new(vec![0.0; 20], 0.05, SECOND / 3, *seed);
            let race = bench.race(SECOND * 120, *seed);
            matches!(race.decision().unwrap(), Decision::Recommend { .. })
        })
        .collect();
    assert!(
        wrong.len() as u64 * 20 <= seeds,
        "{} of {seeds} recommended noise: {wrong:?}",
        wrong.len()
    );
}

#[test]
fn an_effect_of_twice_the_noise_is_found() {
    let seeds = 200;
    let missed: Vec<u64> = (0..seeds)
        .filter(|seed| {
            let mut truth = vec![0.0; 20];
            truth[7] = 0.1;
            let mut bench = Bench::new(truth, 0.05, SECOND / 3, *seed);
            let race = bench.race(SECOND * 120, *seed);
            // A combination with it is as good.
            let found = matches!(
                race.decision().unwrap(),
                Decision::Recommend { arm, .. } if bench.truth[*arm] >= 0.1
            );
            if !found {
                println!("{seed}: {:?} {:?}", race.decision(), race.fate(7));
            }
            !found
        })
        .collect();
    assert!(
        missed.len() as u64 * 20 <= seeds,
        "{} of {seeds} missed it: {missed:?}",
        missed.len()
    );
}

#[test]
fn two_options_that_help_are_found_together() {
    let mut truth = vec![0.0; 8];
    truth[2] = 0.2;
    truth[5] = 0.15;
    let mut bench = Bench::new(truth, 0.02, SECOND / 3, 3);
    let race = bench.race(SECOND * 120, 3);
    let Decision::Recommend { arm, ratio } = race.decision().unwrap() else {
        panic!("{:?}", race.decision());
    };
    assert_eq!(*arm, 8, "the combination");
    assert!((ratio.estimate.ln() - 0.35).abs() < 0.05, "{ratio:?}");
}

#[test]
fn time_goes_to_what_is_close() {
    let mut truth = vec![-0.6; 12];
    truth[DEFAULTS] = 0.0;
    truth[3] = 0.04;
    truth[4] = 0.03;
    let mut bench = Bench::new(truth, 0.03, SECOND / 3, 5);
    let race = bench.race(SECOND * 120, 5);
    let ran = |arm: usize| bench.ran.iter().filter(|ran| **ran == arm).count();
    assert!(matches!(race.fate(1), Fate::Worse { .. }));
    assert!(ran(3) > 4 * ran(1), "{} and {}", ran(3), ran(1));
    assert!(ran(DEFAULTS) >= ran(3), "the defaults run in every round");
}

#[test]
fn what_is_reported_is_not_the_lucky_figure_of_the_race() {
    // The leader of twenty equal arms looks better than it is; the confirmation
    // must not.
    let (mut led, mut confirmed, mut count) = (0.0, 0.0, 0.0);
    for seed in 0..60 {
        let mut bench = Bench::new(vec![0.0; 20], 0.1, SECOND / 2, seed);
        let race = bench.race(SECOND * 90, seed);
        if let Decision::Leave {
            why: Leave::NotConfirmed { arm, ratio },
        }
        | Decision::Recommend { arm, ratio } = race.decision().unwrap()
        {
            led += race.ratio(*arm).unwrap().estimate.ln();
            confirmed += ratio.estimate.ln();
            count += 1.0;
        }
    }
    assert!(count > 10.0, "{count} confirmations");
    let (led, confirmed): (f64, f64) = (led / count, confirmed / count);
    assert!(led > 0.02, "{led}");
    assert!(confirmed.abs() < led / 2.0, "{led} and {confirmed}");
}

#[test]
fn an_arm_that_cannot_be_measured_is_out_and_the_rest_goes_on() {
    let mut bench = Bench::new(vec![0.0, 0.3, 0.0], 0.02, SECOND / 3, 1);
    let mut race = Race::new(RaceOptions {
        arms: 3,
        present: None,
        budget: SECOND * 60,
        run: SECOND / 3,
        minimum_effect: 0.02,
        seed: 1,
    });
    loop {
        match race.next(bench.now) {
            Step::Run(2) => {
                bench.run(2);
                race.tell(2, Err("refused".to_owned()), bench.now);
            }
            Step::Run(arm) => {
                let merit = bench.run(arm);
                race.tell(arm, Ok(merit), bench.now);
            }
            Step::Combine(helped) => assert!(helped.len() > 1),
            Step::Done => break,
        }
    }
    assert!(matches!(race.fate(2), Fate::Failed { why } if why == "refused"));
    assert!(matches!(
        race.decision().unwrap(),
        Decision::Recommend { arm: 1, .. }
    ));
}

#[test]
fn defaults_that_cannot_be_measured_end_the_race() {
    let mut race = Race::new(RaceOptions {
        arms: 4,
        present: None,
        budget: SECOND * 60,
        run: SECOND / 3,
        minimum_effect: 0.02,
        seed: 1,
    });
    let mut now = Duration::ZERO;
    for _ in 0..1000 {
        match race.next(now) {
            Step::Run(arm) => {
                now += SECOND / 3;
                let outcome = if arm == DEFAULTS {
                    Err("gone".to_owned())
                } else {
                    Ok(1.0)
                };
                race.tell(arm, outcome, now);
            }
            Step::Combine(_) => {}
            Step::Done => break,
        }
    }
    assert!(matches!(
        race.decision().unwrap(),
        Decision::Leave { why: Leave::Broken { error } } if error == "gone"
    ));
}

#[test]
fn present_settings_stay_to_the_end_and_are_confirmed_against_the_defaults() {
    // What the user has now is three times slower than the defaults.
    let mut bench = Bench::new(vec![0.0, -1.1, 0.0, 0.0], 0.03, SECOND / 3, 9);
    let mut race = Race::new(RaceOptions {
        arms: 4,
        present: Some(1),
        budget: SECOND * 40,
        run: SECOND / 3,
        minimum_effect: 0.02,
        seed: 9,
    });
    loop {
        match race.next(bench.now) {
            Step::Run(arm) => {
                let merit = bench.run(arm);
                race.tell(arm, Ok(merit), bench.now);
            }
            Step::Combine(_) => {}
            Step::Done => break,
        }
    }
    assert!(matches!(race.decision().unwrap(), Decision::Leave { .. }));
    assert_eq!(race.fate(1), &Fate::Stayed);
    let ratio = race.confirmed(1).unwrap();
    assert!(ratio.is_below(0.5), "{ratio:?}");
}

#[test]
fn an_interrupt_decides_by_the_fresh_runs_or_recommends_nothing() {
    // Stopped while racing, and after so many fresh rounds of the winner.
    for (fresh, recommends) in [(None, false), (Some(1), false), (Some(6), true)] {
        let mut bench = Bench::new(vec![0.0, 0.3, 0.0], 0.02, SECOND / 3, 4);
        let mut race = Race::new(RaceOptions {
            arms: 3,
            present: None,
            budget: SECOND * 60,
            run: SECOND / 3,
            minimum_effect: 0.02,
            seed: 4,
        });
        loop {
            let is_enough = match fresh {
                None => race.rounds(DEFAULTS)[0] >= 5,
                Some(rounds) => race.rounds(1)[1] >= rounds && race.rounds(DEFAULTS)[1] >= rounds,
            };
            if is_enough {
                race.interrupt();
            }
            match race.next(bench.now) {
                Step::Run(arm) => {
                    let merit = bench.run(arm);
                    race.tell(arm, Ok(merit), bench.now);
                }
                Step::Combine(_) => {}
                Step::Done => break,
            }
        }
        match race.decision().unwrap() {
            Decision::Recommend { arm: 1, .. } => assert!(recommends, "{fresh:?}"),
            Decision::Leave {
                why: Leave::NoTime { arm: 1 },
            } => assert!(!recommends, "{fresh:?}"),
            other => panic!("{fresh:?}: {other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_run_ends_after_the_budget_and_every_round_has_the_defaults(
        arms in 1_usize..24,
        noise in 0.0..0.5_f64,
        cost in 50_u64..3_000,
        budget in 1_u64..200,
        seed in any::<u64>(),
    ) {
        let truth = (0..arms).map(|arm| (arm % 5) as f64 * 0.02).collect();
        let cost = Duration::from_millis(cost);
        let budget = Duration::from_secs(budget);
        let mut bench = Bench::new(truth, noise, cost, seed);
        let race = bench.race(budget, seed);
        prop_assert!(race.decision().is_some());
        prop_assert!(bench.now <= budget, "{:?} of {budget:?}", bench.now);
        for arm in 1..race.arms.len() {
            let defaults = race.rounds(DEFAULTS);
            let others = race.rounds(arm);
            // A round that time cut short may lack them.
            prop_assert!(others[0] <= defaults[0] + 1 && others[1] <= defaults[1] + 1);
        }
    }
}
