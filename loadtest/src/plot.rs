//! Latencies as pictures (SVG) on a logarithmic scale: over time, a line a quantile, with upright lines where something
//! happened; or by percentile, a line a server.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 400.0;
/// Left of the picture for the scale's numbers, and around it.
const LEFT: f64 = 70.0;
const AROUND: f64 = 30.0;

/// One a quantile, told apart also without colours by their height.
const COLOURS: [&str; 3] = ["#1b6ca8", "#d98200", "#b3261e"];

/// Windows of latencies in milliseconds; the first begins at `from`, marks count from the same start.
pub(crate) fn svg(
    quantiles: &[(usize, &str); 3],
    windows: &[[f64; 3]],
    from: Duration,
    window: Duration,
    marks: &[(&str, Duration)],
) -> String {
    let mut picture = Picture::new(windows.as_flattened(), 1.0);
    let seconds = (windows.len().max(1) as f64) * window.as_secs_f64();
    let x = |at: f64| LEFT + at / seconds * (WIDTH - LEFT - AROUND);
    for (name, when) in marks {
        let at = x(when.saturating_sub(from).as_secs_f64());
        picture.upright(at, name, "#555\" stroke-dasharray=\"4");
    }
    for (at, (_, name)) in quantiles.iter().enumerate() {
        let points = windows.iter().enumerate().map(|(nth, window_ms)| {
            // A window's value stands at its middle.
            let middle = (nth as f64 + 0.5) * window.as_secs_f64();
            (x(middle), window_ms[at])
        });
        picture.line(at, name, points);
    }
    picture.finish(&format!(
        "{seconds:.0} s, a point every {:.0} s",
        window.as_secs_f64()
    ))
}

/// Shares of requests on the percentile picture's scale, each ten times as rare as the one before.
const SHARES: [(f64, &str); 5] = [
    (0.0, "fastest"),
    (1.0, "p90"),
    (2.0, "p99"),
    (3.0, "p99.9"),
    (4.0, "p99.99"),
];

/// Points of a percentile line for each power of ten of its scale.
const POINTS: u32 = 20;

/// Latencies (in nanoseconds) by the share of requests that were faster, a line each.
pub(crate) fn percentiles(lines: &[(&str, &Histogram<u64>)]) -> String {
    let last = SHARES[SHARES.len() - 1].0;
    let points = |latencies: &Histogram<u64>| {
        let count = last as u32 * POINTS;
        let points = (0..=count).map(|nth| {
            let nines = f64::from(nth) / f64::from(POINTS);
            let share = 1.0 - 10_f64.powf(-nines);
            (nines, latencies.value_at_quantile(share) as f64 / 1e6)
        });
        points.collect::<Vec<_>>()
    };
    let lines: Vec<_> = lines
        .iter()
        .map(|(name, latencies)| (name, points(latencies)))
        .collect();
    let all = lines.iter().flat_map(|(_, points)| points);
    let all: Vec<f64> = all.map(|(_, ms)| *ms).collect();
    let mut picture = Picture::new(&all, f64::INFINITY);
    let x = |nines: f64| LEFT + nines / last * (WIDTH - LEFT - AROUND);
    for (nines, name) in SHARES {
        picture.upright(x(nines), name, "#ddd");
    }
    for (at, (name, points)) in lines.iter().enumerate() {
        let points = points.iter().map(|(nines, ms)| (x(*nines), *ms));
        picture.line(at, name, points);
    }
    picture.finish("latency by the share of requests that were faster")
}

/// A picture under way: latencies upwards on a logarithmic scale.
struct Picture {
    text: String,
    /// Powers of ten of a millisecond at the lower and the upper edge.
    lowest: f64,
    highest: f64,
}

impl Picture {
    /// Around these milliseconds; the scale begins at `low_ms` or below.
    fn new(values_ms: &[f64], low_ms: f64) -> Self {
        let values = || values_ms.iter().copied().filter(|ms| *ms > 0.0);
        // Whole powers of ten around everything.
        let lowest = values().fold(low_ms, f64::min).log10().floor();
        let lowest = if lowest.is_finite() { lowest } else { 0.0 };
        let highest = values()
            .fold(low_ms.min(1.0), f64::max)
            .log10()
            .ceil()
            .max(lowest + 1.0);
        let mut picture = Self {
            text: format!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
                 <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
            ),
            lowest,
            highest,
        };
        for power in lowest as i32..=highest as i32 {
            let ms = 10_f64.powi(power);
            let (at, right) = (picture.y(ms), WIDTH - AROUND);
            picture.add(format_args!(
                "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#ddd\"/>"
            ));
            picture.add(format_args!(
                "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{ms} ms</text>",
                LEFT - 6.0,
                at + 4.0
            ));
        }
        picture
    }

    fn y(&self, ms: f64) -> f64 {
        let share = (ms.max(1e-6).log10() - self.lowest) / (self.highest - self.lowest);
        HEIGHT - AROUND - share * (HEIGHT - 2.0 * AROUND)
    }

    fn add(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("a string takes everything");
    }

    /// An upright line with a name above it.
    fn upright(&mut self, x: f64, name: &str, stroke: &str) {
        let (top, bottom) = (AROUND, HEIGHT - AROUND);
        self.add(format_args!(
            "<path d=\"M{x:.1} {top}V{bottom}\" stroke=\"{stroke}\"/>"
        ));
        self.add(format_args!(
            "<text x=\"{x:.1}\" y=\"{:.0}\">{name}</text>",
            top - 6.0
        ));
    }

    /// A line through points of a place and milliseconds, and its name below.
    fn line(&mut self, nth: usize, name: &str, points: impl Iterator<Item = (f64, f64)>) {
        let colour = COLOURS[nth % COLOURS.len()];
        let points: Vec<String> = points
            .map(|(x, ms)| format!("{x:.1},{:.1}", self.y(ms)))
            .collect();
        self.add(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        ));
        self.add(format_args!(
            "<text x=\"{:.0}\" y=\"{:.0}\" fill=\"{colour}\">{name}</text>",
            LEFT + 80.0 * nth as f64,
            HEIGHT - 8.0
        ));
    }

    fn finish(mut self, below: &str) -> String {
        self.add(format_args!(
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{below}</text>",
            WIDTH - AROUND,
            HEIGHT - 8.0
        ));
        self.text.push_str("</svg>\n");
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_quantile_inside_the_picture() {
        let text = svg(
            &[(500, "p50"), (990, "p99"), (999, "p99.9")],
            &[[0.1, 1.0, 10.0], [0.2, 2.0, 20.0]],
            Duration::from_secs(30),
            Duration::from_secs(10),
            &[("cut", Duration::from_secs(40))],
        );
        assert_eq!(text.matches("<polyline").count(), 3);
        assert!(text.contains("points=\"285.0,370.0 "), "{text}");
        assert!(text.contains("M500.0 30V370"), "{text}");
    }

    #[test]
    fn percentiles_rise_from_left_to_right() {
        let mut latencies = Histogram::new(3).unwrap();
        (1..=100_000_u64).for_each(|us| latencies.record(us * 1000).unwrap());
        let text = percentiles(&[("sluice", &latencies)]);
        let points = text.split("points=\"").nth(1).unwrap();
        let points = points.split('"').next().unwrap().split(' ');
        let heights: Vec<f64> = points
            .map(|point| point.split(',').nth(1).unwrap().parse().unwrap())
            .collect();
        assert_eq!(heights.len(), 81);
        assert!(
            heights.is_sorted_by(|earlier, later| earlier >= later),
            "{heights:?}"
        );
        assert!(text.contains(">100 ms</text>"), "{text}");
    }
}
