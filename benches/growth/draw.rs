//! The growth curves as a picture: a panel for each series, all with the same scale, legible on light and on dark ground.

use std::fmt::Write;

use crate::Measured;

const PANEL_WIDTH: f64 = 300.0;
const PANEL_HEIGHT: f64 = 170.0;
const COLUMNS: usize = 3;
const LEFT: f64 = 44.0;
const TOP: f64 = 34.0;
const RIGHT: f64 = 16.0;
const BOTTOM: f64 = 30.0;

/// The middle tones are told apart on either ground; text and lines follow the reader's choice.
const STYLE: &str = "\
.ground{fill:#fff}text{font:12px system-ui,sans-serif;fill:#333}.title{font-weight:600}.axis{stroke:#999}.grid{stroke:#e4e4e4}\
.band{fill:#2a9d5c;opacity:.13}.program{stroke:#1f6fc4;fill:none;stroke-width:2}.core{stroke:#d0661b;fill:none;stroke-width:2;\
stroke-dasharray:5 3}.dot.program{fill:#1f6fc4}.dot.core{fill:#d0661b;stroke-dasharray:none}\
@media(prefers-color-scheme:dark){.ground{fill:#15181c}text{fill:#d4d7da}.axis{stroke:#70757a}.grid{stroke:#2b3036}\
.program{stroke:#6cb0f5}.core{stroke:#f0954f}.dot.program{fill:#6cb0f5}.dot.core{fill:#f0954f}}";

/// The picture as SVG.
pub fn picture(all: &[(&'static str, Vec<Measured>)]) -> String {
    let highest =
        all.iter().flat_map(|(_, sizes)| sizes).flat_map(|size| [size.program.1, size.core.1]).fold(1.5, f64::max);
    let top = (highest * 2.0).ceil() / 2.0;
    let rows = all.len().div_ceil(COLUMNS);
    let (width, height) = (PANEL_WIDTH * COLUMNS as f64, PANEL_HEIGHT * rows as f64 + 30.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"Cost of a query by size of the configuration, as a multiple of the smallest\">\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{width}\" height=\"{height}\"/>\n"
    );
    for (n, (name, sizes)) in all.iter().enumerate() {
        let (x, y) = (PANEL_WIDTH * (n % COLUMNS) as f64, PANEL_HEIGHT * (n / COLUMNS) as f64);
        writeln!(svg, "<g transform=\"translate({x} {y})\">\n{}</g>", panel(name, sizes, top)).expect("text");
    }
    let y = height - 12.0;
    writeln!(
        svg,
        "<path class=\"program\" d=\"M44 {0}h28\"/><text x=\"78\" y=\"{y}\">whole program (processor time)</text>\
         <path class=\"core\" d=\"M290 {0}h28\"/><text x=\"324\" y=\"{y}\">answering core alone</text>\
         <rect class=\"band\" x=\"480\" y=\"{1}\" width=\"28\" height=\"12\"/><text x=\"514\" y=\"{y}\">within 10 % of the smallest</text>\n</svg>",
        y - 4.0,
        y - 10.0
    )
    .expect("text");
    svg
}

fn panel(name: &str, sizes: &[Measured], top: f64) -> String {
    let x = |n: usize| LEFT + 12.0 + (PANEL_WIDTH - LEFT - RIGHT - 24.0) * n as f64 / (sizes.len() - 1).max(1) as f64;
    let y = |ratio: f64| PANEL_HEIGHT - BOTTOM - (PANEL_HEIGHT - TOP - BOTTOM) * ratio / top;
    let (right, floor) = (PANEL_WIDTH - RIGHT, y(0.0));
    let mut svg = format!("<text class=\"title\" x=\"{LEFT}\" y=\"20\">{name}</text>\n");
    let step = if top > 3.0 { 1.0 } else { 0.5 };
    let mut ratio = 0.0;
    while ratio <= top {
        let at = y(ratio);
        writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{ratio}x</text>", LEFT - 6.0, at + 4.0)
            .expect("text");
        ratio += step;
    }
    writeln!(
        svg,
        "<rect class=\"band\" x=\"{LEFT}\" y=\"{:.1}\" width=\"{}\" height=\"{:.1}\"/><path class=\"axis\" d=\"M{LEFT} {floor:.1}H{right}\"/>",
        y(1.1),
        right - LEFT,
        y(0.9) - y(1.1)
    )
    .expect("text");
    for (n, size) in sizes.iter().enumerate() {
        let anchor = if n + 1 == sizes.len() && size.label.len() > 7 { ("end", right) } else { ("middle", x(n)) };
        let anchor = if n == 0 && size.label.len() > 7 { ("start", LEFT) } else { anchor };
        let label = shortened(&size.label);
        writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{}\">{label}</text>",
            anchor.1,
            floor + 16.0,
            anchor.0
        )
        .expect("text");
    }
    for (class, ratio) in [("core", (|size| size.core.1) as fn(&Measured) -> f64), ("program", |size| size.program.1)] {
        let points: Vec<String> =
            sizes.iter().enumerate().map(|(n, size)| format!("{:.1} {:.1}", x(n), y(ratio(size)))).collect();
        writeln!(svg, "<path class=\"{class}\" d=\"M{}\"/>", points.join("L")).expect("text");
        for point in points {
            let (cx, cy) = point.split_once(' ').expect("two numbers");
            writeln!(svg, "<circle class=\"dot {class}\" cx=\"{cx}\" cy=\"{cy}\" r=\"2.5\"/>").expect("text");
        }
    }
    svg
}

/// `10000` as `10k`.
fn shortened(label: &str) -> String {
    match label.parse::<u64>() {
        Ok(number) if number >= 1000 && number % 1000 == 0 => format!("{}k", number / 1000),
        _ => label.into(),
    }
}
