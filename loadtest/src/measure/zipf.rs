//! Ranks by Zipf's law: few links get most of the clicks.
//!
//! Rejection-inversion (Hörmann and Derflinger, 1996): constant time and memory for any number of ranks, which an alias
//! table of ten million is not.

/// Draws ranks 0, 1, … with a probability that falls with a power of the rank.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    count: f64,
    exponent: f64,
    first: f64,
    last: f64,
    /// Below this distance a drawn value is taken without a look at the curve.
    sure: f64,
}

impl Zipf {
    /// Over `count` ranks, at least one; the exponent is above 0, and 1 is Zipf's own.
    pub(crate) fn new(count: usize, exponent: f64) -> Self {
        let mut zipf = Self {
            count: count as f64,
            exponent,
            first: 0.0,
            last: 0.0,
            sure: 0.0,
        };
        zipf.first = zipf.area(1.5) - 1.0;
        zipf.last = zipf.area(zipf.count + 0.5);
        zipf.sure = 2.0 - zipf.area_inverse(zipf.area(2.5) - zipf.height(2.0));
        zipf
    }

    /// A rank.
    pub(crate) fn draw(&self, random: &mut fastrand::Rng) -> usize {
        // Ends by chance; more than two rounds are rare for every exponent.
        loop {
            let drawn = self.last + random.f64() * (self.first - self.last);
            let at = self.area_inverse(drawn);
            let rank = (at + 0.5).floor().clamp(1.0, self.count);
            if rank - at <= self.sure || drawn >= self.area(rank + 0.5) - self.height(rank) {
                return rank as usize - 1;
            }
        }
    }

    /// The curve under which points are drawn.
    fn height(&self, x: f64) -> f64 {
        (-self.exponent * x.ln()).exp()
    }

    /// Its integral.
    fn area(&self, x: f64) -> f64 {
        let log = x.ln();
        let power = (1.0 - self.exponent) * log;
        log * if power.abs() > 1e-8 {
            power.exp_m1() / power
        } else {
            1.0 + power / 2.0
        }
    }

    fn area_inverse(&self, y: f64) -> f64 {
        let power = (y * (1.0 - self.exponent)).max(-1.0);
        let log = if power.abs() > 1e-8 {
            power.ln_1p() / power
        } else {
            1.0 - power / 2.0
        };
        (y * log).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_come_as_often_as_the_law_says() {
        const DRAWS: usize = 400_000;
        for exponent in [0.7, 1.0, 1.3] {
            let (zipf, mut random) = (Zipf::new(1000, exponent), fastrand::Rng::with_seed(1));
            let mut counts = vec![0_u32; 1000];
            for _ in 0..DRAWS {
                counts[zipf.draw(&mut random)] += 1;
            }
            let weight = |rank: usize| (rank as f64 + 1.0).powf(-exponent);
            let sum: f64 = (0..1000).map(weight).sum();
            for (from, to) in [(0, 1), (1, 2), (2, 5), (5, 50), (50, 300), (300, 1000)] {
                let expected = (from..to).map(weight).sum::<f64>() / sum * DRAWS as f64;
                let seen = f64::from(counts[from..to].iter().sum::<u32>());
                // Five standard deviations.
                assert!(
                    (seen - expected).abs() < 5.0 * expected.sqrt(),
                    "{exponent} {from}..{to}: {seen}, expected {expected}"
                );
            }
        }
    }

    #[test]
    fn the_only_rank_is_always_drawn() {
        let (zipf, mut random) = (Zipf::new(1, 1.0), fastrand::Rng::with_seed(1));
        assert!((0..1000).all(|_| zipf.draw(&mut random) == 0));
    }
}
