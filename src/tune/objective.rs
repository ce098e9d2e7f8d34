//! What is wanted: throughput, latency under load, little CPU, or a weighted mix.
//!
//! One run has three figures; a *merit* is one number of them, positive, more is
//! better: the weighted geometric mean of throughput, of 1/p99 and of
//! 1/CPU-per-gigabyte. A ratio of merits is then the weighted mean of the ratios of
//! the figures, whatever their units.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// What one run measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Figures {
    /// Bytes a second over all flows, as they arrived.
    pub throughput: f64,
    /// 99th percentile of an exchange beside the bulk flows, nanoseconds; `None`
    /// where latency is not asked for.
    pub p99: Option<f64>,
    /// CPU seconds for a gigabyte (10⁹ bytes), of every process and thread that
    /// this machine has on the path.
    pub cpu: f64,
}

/// Weights, none negative, one at least positive.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Objective {
    /// Of throughput.
    pub throughput: f64,
    /// Of the 99th percentile of latency under load.
    pub latency: f64,
    /// Of CPU seconds for a gigabyte.
    pub cpu: f64,
}

impl Default for Objective {
    fn default() -> Self {
        Self {
            throughput: 1.0,
            latency: 0.0,
            cpu: 0.0,
        }
    }
}

impl Objective {
    /// Whether exchanges must run beside the bulk flows.
    pub fn needs_latency(&self) -> bool {
        self.latency > 0.0
    }

    /// The one number of a run; an error where a figure that counts is missing.
    ///
    /// # Errors
    /// Which.
    pub fn merit(&self, figures: &Figures) -> Result<f64, String> {
        let p99 = match figures.p99 {
            Some(p99) => p99,
            None if self.needs_latency() => {
                return Err("no exchange was answered in the measured time".to_owned());
            }
            None => 1.0,
        };
        let parts = [
            (self.throughput, figures.throughput),
            (self.latency, 1.0 / p99),
            (self.cpu, 1.0 / figures.cpu),
        ];
        let parts = parts.into_iter().filter(|(weight, _)| *weight > 0.0);
        let (sum, weights) = parts.fold((0.0, 0.0), |(sum, weights), (weight, value)| {
            (sum + weight * value.ln(), weights + weight)
        });
        let merit = (sum / weights).exp();
        if merit.is_finite() && merit > 0.0 {
            Ok(merit)
        } else {
            Err("nothing moved in the measured time".to_owned())
        }
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<(&str, f64)> = [
            ("throughput", self.throughput),
            ("latency", self.latency),
            ("cpu", self.cpu),
        ]
        .into_iter()
        .filter(|(_, weight)| *weight > 0.0)
        .collect();
        if let [(name, _)] = parts.as_slice() {
            return f.write_str(name);
        }
        let words: Vec<String> = parts.iter().map(|(n, w)| format!("{n}={w}")).collect();
        f.write_str(&words.join(","))
    }
}

impl FromStr for Objective {
    type Err = String;

    /// `throughput`, or weights: `throughput=1,latency=0.5`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut objective = Self {
            throughput: 0.0,
            latency: 0.0,
            cpu: 0.0,
        };
        for part in text.split(',') {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let weight: f64 = weight
                .parse()
                .ok()
                .filter(|weight: &f64| weight.is_finite() && *weight > 0.0)
                .ok_or_else(|| format!("`{part}`: a weight is a number above zero"))?;
            let slot = match name.trim() {
                "throughput" => &mut objective.throughput,
                "latency" => &mut objective.latency,
                "cpu" => &mut objective.cpu,
                other => {
                    return Err(format!(
                        "`{other}` is no objective: throughput, latency, cpu, or weights such \
                         as throughput=1,latency=0.5"
                    ));
                }
            };
            *slot = weight;
        }
        Ok(objective)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const FIGURES: Figures = Figures {
        throughput: 1e9,
        p99: Some(2e6),
        cpu: 0.5,
    };

    #[test]
    fn a_mix_weighs_the_ratios() {
        let mix: Objective = "throughput=1,latency=0.5".parse().unwrap();
        let better = Figures {
            throughput: 2e9,
            p99: Some(4e6),
            ..FIGURES
        };
        // Twice the throughput at twice the latency: (2^1 × 2^-0.5)^(1/1.5).
        let ratio = mix.merit(&better).unwrap() / mix.merit(&FIGURES).unwrap();
        assert!((ratio - 2_f64.powf(0.5 / 1.5)).abs() < 1e-9, "{ratio}");
        assert_eq!(mix.to_string(), "throughput=1,latency=0.5");
    }

    #[test]
    fn less_is_better_where_it_is() {
        for (text, better) in [
            (
                "latency",
                Figures {
                    p99: Some(1e6),
                    ..FIGURES
                },
            ),
            (
                "cpu",
                Figures {
                    cpu: 0.4,
                    ..FIGURES
                },
            ),
            (
                "throughput",
                Figures {
                    throughput: 2e9,
                    ..FIGURES
                },
            ),
        ] {
            let objective: Objective = text.parse().unwrap();
            assert!(objective.merit(&better).unwrap() > objective.merit(&FIGURES).unwrap());
            assert_eq!(objective.to_string(), text);
        }
    }

    #[test]
    fn nonsense_and_missing_figures_are_named() {
        for (text, word) in [
            ("speed", "no objective"),
            ("latency=x", "weight"),
            ("cpu=-1", "weight"),
            ("", "no objective"),
        ] {
            assert!(
                text.parse::<Objective>().unwrap_err().contains(word),
                "{text}"
            );
        }
        let latency: Objective = "latency".parse().unwrap();
        let without = Figures {
            p99: None,
            ..FIGURES
        };
        assert!(latency.merit(&without).is_err());
        let still = Figures {
            throughput: 0.0,
            ..FIGURES
        };
        assert!(Objective::default().merit(&still).is_err());
    }
}
