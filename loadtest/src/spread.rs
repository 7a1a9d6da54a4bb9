//! How values that were measured several times differ.

/// Of values that were seen; NaN where there was none.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) lowest: f64,
    pub(crate) highest: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let value = |at: usize| values.get(at).copied().unwrap_or(f64::NAN);
        Spread {
            median: value(values.len() / 2),
            lowest: value(0),
            highest: value(values.len().saturating_sub(1)),
        }
    }

    /// With so many digits behind the point.
    pub(crate) fn text(&self, digits: usize) -> String {
        format!(
            "{:.digits$} ({:.digits$} to {:.digits$})",
            self.median, self.lowest, self.highest
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_of_values_that_were_seen() {
        assert_eq!(Spread::of([3.0, 1.0, 2.5]).text(1), "2.5 (1.0 to 3.0)");
        assert!(Spread::of([]).median.is_nan());
    }
}
