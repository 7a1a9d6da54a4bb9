//! Latencies over time as a picture (SVG): a line a quantile on a logarithmic scale, upright lines where something happened.

use std::fmt::Write as _;
use std::time::Duration;

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
    let values = || windows.iter().flatten().copied().filter(|ms| *ms > 0.0);
    // Whole powers of ten around everything.
    let lowest = values()
        .fold(f64::INFINITY, f64::min)
        .min(1.0)
        .log10()
        .floor();
    let highest = values()
        .fold(0.0, f64::max)
        .max(1.0)
        .log10()
        .ceil()
        .max(lowest + 1.0);
    let seconds = (windows.len().max(1) as f64) * window.as_secs_f64();
    let x = |at: f64| LEFT + at / seconds * (WIDTH - LEFT - AROUND);
    let y = |ms: f64| {
        let share = (ms.max(1e-6).log10() - lowest) / (highest - lowest);
        HEIGHT - AROUND - share * (HEIGHT - 2.0 * AROUND)
    };

    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    let mut add = |line: std::fmt::Arguments<'_>| {
        writeln!(text, "{line}").expect("a string takes everything");
    };
    for power in lowest as i32..=highest as i32 {
        let ms = 10_f64.powi(power);
        let (at, right) = (y(ms), WIDTH - AROUND);
        add(format_args!(
            "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#ddd\"/>"
        ));
        add(format_args!(
            "<text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{ms} ms</text>",
            LEFT - 6.0,
            at + 4.0
        ));
    }
    for (name, when) in marks {
        let at = x(when.saturating_sub(from).as_secs_f64());
        let (top, bottom) = (AROUND, HEIGHT - AROUND);
        add(format_args!(
            "<path d=\"M{at:.1} {top}V{bottom}\" stroke=\"#555\" stroke-dasharray=\"4\"/>"
        ));
        add(format_args!(
            "<text x=\"{at:.1}\" y=\"{:.0}\">{name}</text>",
            top - 6.0
        ));
    }
    for (at, ((_, name), colour)) in quantiles.iter().zip(COLOURS).enumerate() {
        let points: Vec<String> = windows
            .iter()
            .enumerate()
            .map(|(nth, window_ms)| {
                // A window's value stands at its middle.
                let middle = (nth as f64 + 0.5) * window.as_secs_f64();
                format!("{:.1},{:.1}", x(middle), y(window_ms[at]))
            })
            .collect();
        add(format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        ));
        add(format_args!(
            "<text x=\"{:.0}\" y=\"{:.0}\" fill=\"{colour}\">{name}</text>",
            LEFT + 60.0 * at as f64,
            HEIGHT - 8.0
        ));
    }
    add(format_args!(
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{seconds:.0} s, a point every {:.0} s</text>",
        WIDTH - AROUND,
        HEIGHT - 8.0,
        window.as_secs_f64()
    ));
    text.push_str("</svg>\n");
    text
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
}
