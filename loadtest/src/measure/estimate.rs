//! The middle of what was measured several times, and how sure it is.

use serde_json::{Value, json};

/// Samples drawn from what was measured; more change the interval in the third digit.
const RESAMPLES: usize = 10_000;

/// So that the same values always give the same interval.
const SEED: u64 = 1;

/// A median with the interval in which it lies with 95 % (percentile bootstrap).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Estimate {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Estimate {
    /// Of measured values, at least one.
    pub(crate) fn of(values: &[f64]) -> Estimate {
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut sample = values.to_vec();
        let mut medians: Vec<f64> = (0..RESAMPLES)
            .map(|_| {
                sample.fill_with(|| values[random.usize(..values.len())]);
                median(&mut sample)
            })
            .collect();
        medians.sort_by(f64::total_cmp);
        Estimate {
            median: median(&mut values.to_vec()),
            low: medians[RESAMPLES / 40],
            high: medians[RESAMPLES - 1 - RESAMPLES / 40],
        }
    }

    /// Of something that is counted, not sampled.
    pub(crate) fn exact(value: f64) -> Estimate {
        Estimate {
            median: value,
            low: value,
            high: value,
        }
    }

    /// With so many digits behind the point; the interval only where there is one.
    pub(crate) fn text(&self, digits: usize) -> String {
        let Estimate { median, low, high } = self;
        if low == high {
            return format!("{median:.digits$}");
        }
        format!("{median:.digits$} [{low:.digits$}, {high:.digits$}]")
    }

    pub(crate) fn json(&self) -> Value {
        json!({"median": self.median, "low": self.low, "high": self.high})
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_holds_the_middle_and_is_narrower_than_the_values() {
        let values: Vec<f64> = (0..15).map(|n| 0.80 + f64::from(n) / 100.0).collect();
        let estimate = Estimate::of(&values);
        assert!((estimate.median - 0.87).abs() < 1e-9);
        assert!(estimate.low > 0.80 && estimate.low < 0.87, "{estimate:?}");
        assert!(estimate.high < 0.94 && estimate.high > 0.87, "{estimate:?}");
        assert_eq!(estimate, Estimate::of(&values));
    }

    #[test]
    fn intervals_of_made_up_runs_hold_the_true_middle_about_nineteen_times_of_twenty() {
        let mut random = fastrand::Rng::with_seed(7);
        let held = (0..200).filter(|_| {
            let values: Vec<f64> = (0..15).map(|_| 1.0 + random.f64() + random.f64()).collect();
            let estimate = Estimate::of(&values);
            (estimate.low..=estimate.high).contains(&2.0)
        });
        let held = held.count();
        assert!((180..=199).contains(&held), "{held} of 200");
    }

    #[test]
    fn one_value_has_no_interval() {
        assert_eq!(Estimate::of(&[1.25]), Estimate::exact(1.25));
        assert_eq!(Estimate::exact(1.25).text(1), "1.2");
        assert_eq!(Estimate::of(&[1.0, 3.0]).text(1), "2.0 [1.0, 3.0]");
    }
}
