//! A picture of predicted against measured round trips, as SVG.

use std::fmt::Write;

const WIDTH: f32 = 560.0;
const HEIGHT: f32 = 520.0;
const LEFT: f32 = 60.0;
const TOP: f32 = 16.0;
const RIGHT: f32 = 16.0;
const BOTTOM: f32 = 52.0;

/// More points than this only make the file large.
const POINTS_MAX: usize = 5000;

/// Ends of both axes in milliseconds: logarithmic, since a near region matters to a millisecond and a far one does not.
const LOW_MS: f32 = 1.0;
const HIGH_MS: f32 = 1000.0;
const TICKS_MS: [f32; 10] = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];

/// Draws pairs of expected and measured milliseconds.
pub fn scatter(points: &[(f32, f32)]) -> String {
    let share = |ms: f32| (ms.clamp(LOW_MS, HIGH_MS) / LOW_MS).ln() / (HIGH_MS / LOW_MS).ln();
    let x = |ms: f32| LEFT + share(ms) * (WIDTH - LEFT - RIGHT);
    let y = |ms: f32| TOP + (1.0 - share(ms)) * (HEIGHT - TOP - BOTTOM);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"12\" role=\"img\">\n<title>Round trips: measured over expected</title>\n<style>.bg{{fill:#fff}}\
         .t{{fill:#333}}.g{{stroke:#ddd}}.d{{stroke:#111}}.p{{fill:#2563eb}}@media(prefers-color-scheme:dark)\
         {{.bg{{fill:#0d1117}}.t{{fill:#ccc}}.g{{stroke:#333}}.d{{stroke:#fff}}.p{{fill:#60a5fa}}}}</style>\n\
         <rect class=\"bg\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n"
    );
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    for ms in TICKS_MS {
        let (at_x, at_y, end_x, end_y) = (x(ms), y(ms), WIDTH - RIGHT, HEIGHT - BOTTOM);
        line(format!("<path class=\"g\" d=\"M{LEFT} {at_y:.1} H{end_x} M{at_x:.1} {TOP} V{end_y}\"/>"));
        line(format!(
            "<text class=\"t\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{ms}</text>\
             <text class=\"t\" x=\"{at_x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{ms}</text>",
            LEFT - 6.0,
            at_y + 4.0,
            end_y + 18.0
        ));
    }
    let every = points.len().div_ceil(POINTS_MAX).max(1);
    let mut dots = String::new();
    for (expected, measured) in points.iter().step_by(every) {
        // Writing to a string cannot fail.
        let _ = write!(dots, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"1.6\"/>", x(*expected), y(*measured));
    }
    line(format!("<g class=\"p\" fill-opacity=\".45\">{dots}</g>"));
    let (from, to) = ((x(LOW_MS), y(LOW_MS)), (x(HIGH_MS), y(HIGH_MS)));
    line(format!(
        "<path class=\"d\" stroke-dasharray=\"5 4\" d=\"M{:.1} {:.1} L{:.1} {:.1}\"/>",
        from.0, from.1, to.0, to.1
    ));
    let (middle_x, middle_y, below) = ((LEFT + WIDTH - RIGHT) / 2.0, (TOP + HEIGHT - BOTTOM) / 2.0, HEIGHT - 10.0);
    line(format!(
        "<text class=\"t\" x=\"{middle_x}\" y=\"{below}\" text-anchor=\"middle\">expected round trip, ms (network unseen)</text>\
         <text class=\"t\" transform=\"translate(14 {middle_y}) rotate(-90)\" text-anchor=\"middle\">measured round trip, ms</text>"
    ));
    out.push_str("</svg>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_drawn_inside_the_frame() {
        let drawn = scatter(&[(0.01, 5000.0), (20.0, 22.5)]);
        assert_eq!(drawn.matches("<circle").count(), 2);
        assert!(drawn.contains("cx=\"60.0\" cy=\"16.0\""), "{drawn}");
        assert!(drawn.starts_with("<svg") && drawn.ends_with("</svg>\n"));
    }

    #[test]
    fn of_very_many_points_some_are_drawn() {
        assert_eq!(scatter(&vec![(10.0, 10.0); 12_000]).matches("<circle").count(), 4000);
    }
}
