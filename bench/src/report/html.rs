//! The report as one HTML file that needs nothing else: percentile plots as inline SVG, and the
//! figures below them.

use std::fmt::Write;

use crate::statistics::{Latencies, readable_ns};

/// A report under construction.
#[derive(Debug, Default)]
pub struct Page {
    body: String,
}

/// A curve of a plot.
#[derive(Clone, Copy, Debug)]
pub struct Curve<'a> {
    /// What the legend calls it.
    pub name: &'a str,
    /// What it shows.
    pub latencies: &'a Latencies,
}

impl Page {
    /// Begins with a heading and a line on machine and date.
    pub fn new(heading: &str, subtitle: &str) -> Self {
        let mut page = Self::default();
        page.push(format_args!("<h1>{}</h1>\n<p>{}</p>\n", escape(heading), escape(subtitle)));
        page
    }

    /// Adds a heading.
    pub fn heading(&mut self, text: &str) {
        self.push(format_args!("<h2>{}</h2>\n", escape(text)));
    }

    /// Adds a table; the first row is its heading.
    pub fn table(&mut self, rows: &[Vec<String>]) {
        self.body.push_str("<table>\n");
        for (index, row) in rows.iter().enumerate() {
            let tag = if index == 0 { "th" } else { "td" };
            self.body.push_str("<tr>");
            for cell in row {
                self.push(format_args!("<{tag}>{}</{tag}>", escape(cell)));
            }
            self.body.push_str("</tr>\n");
        }
        self.body.push_str("</table>\n");
    }

    /// Adds preformatted text.
    pub fn text(&mut self, text: &str) {
        self.push(format_args!("<pre>{}</pre>\n", escape(text)));
    }

    /// Adds a plot: latency over the percentile, whose axis gives each further nine the same room.
    pub fn plot(&mut self, curves: &[Curve<'_>]) {
        let curves: Vec<_> = curves.iter().filter(|curve| !curve.latencies.is_empty()).collect();
        if curves.is_empty() {
            return;
        }
        let low = curves.iter().map(|curve| curve.latencies.quantile_ns(0.01)).min();
        let high = curves.iter().map(|curve| curve.latencies.quantile_ns(1.0)).max();
        let scale = Scale::of(low.unwrap_or(1), high.unwrap_or(1));
        self.push(format_args!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"latency by percentile\">\n"
        ));
        self.axes(&scale);
        for (index, curve) in curves.iter().enumerate() {
            self.curve(&scale, index, curve);
        }
        self.body.push_str("</svg>\n");
    }

    /// The file.
    pub fn finish(self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <title>com-broker-bench</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{}\
             </body>\n</html>\n",
            self.body
        )
    }

    fn axes(&mut self, scale: &Scale) {
        for (name, quantile) in TICKS {
            let x = x_of(quantile);
            self.push(format_args!(
                "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{BOTTOM}\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>\n",
                BOTTOM + 18.0
            ));
        }
        for decade in scale.decades() {
            let y = scale.y_of(decade);
            self.push(format_args!(
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                LEFT - 6.0,
                y + 4.0,
                readable_ns(decade)
            ));
        }
    }

    fn curve(&mut self, scale: &Scale, index: usize, curve: &Curve<'_>) {
        let color = COLORS[index % COLORS.len()];
        let mut points = String::new();
        // A percentile that fewer than one sample stands for says nothing.
        let finest = 1.0 / curve.latencies.len() as f64;
        for step in 0..=STEPS {
            let rest = 10_f64.powf(-(f64::from(step) / f64::from(STEPS)) * NINES);
            if rest < finest {
                break;
            }
            let time_ns = curve.latencies.quantile_ns(1.0 - rest).max(1) as f64;
            write!(points, "{:.1},{:.1} ", x_of(1.0 - rest), scale.y_of(time_ns))
                .expect("a string takes whatever is written to it");
        }
        let y = TOP + 14.0 + 16.0 * index as f64;
        self.push(format_args!(
            "<polyline points=\"{points}\" stroke=\"{color}\"/>\
             <rect x=\"{:.1}\" y=\"{:.1}\" width=\"10\" height=\"10\" fill=\"{color}\"/>\
             <text x=\"{:.1}\" y=\"{y:.1}\">{}</text>\n",
            LEFT + 10.0,
            y - 9.0,
            LEFT + 26.0,
            escape(curve.name)
        ));
    }

    fn push(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.body.write_fmt(arguments).expect("a string takes whatever is written to it");
    }
}

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 840.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 305.0;

/// Nines of the percentile axis.
const NINES: f64 = 5.0;

/// Points of a curve.
const STEPS: u32 = 200;

const TICKS: [(&str, f64); 6] = [
    ("0", 0.0),
    ("90 %", 0.9),
    ("99 %", 0.99),
    ("99.9 %", 0.999),
    ("99.99 %", 0.9999),
    ("99.999 %", 0.99999),
];

const COLORS: [&str; 8] =
    ["#0b6bcb", "#888888", "#d1495b", "#2e933c", "#e09f3e", "#7b2d8b", "#009fb7", "#5c4d3c"];

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2em auto;padding:0 1em;\
color:#222;background:#fff}\
table{border-collapse:collapse;margin:1em 0}th,td{padding:.2em .8em;text-align:right;\
border-bottom:1px solid #ddd}th:first-child,td:first-child{text-align:left}\
svg{width:100%;height:auto}svg text{font-size:12px;fill:currentColor}\
.grid{stroke:#ddd}polyline{fill:none;stroke-width:2}pre{overflow:auto}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1d}\
th,td{border-color:#444}.grid{stroke:#3a3a3d}}";

/// The place of a quantile: each further nine takes the same room.
fn x_of(quantile: f64) -> f64 {
    let nines = -(1.0 - quantile).max(1e-9).log10();
    LEFT + (RIGHT - LEFT) * (nines / NINES).min(1.0)
}

/// The vertical axis, logarithmic.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    fn of(low_ns: u64, high_ns: u64) -> Self {
        let low = (low_ns.max(1) as f64).log10().floor();
        let high = (high_ns.max(1) as f64).log10().ceil().max(low + 1.0);
        Self { low, high }
    }

    fn y_of(&self, time_ns: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * ((time_ns.log10() - self.low) / (self.high - self.low)).max(0.0)
    }

    fn decades(&self) -> impl Iterator<Item = f64> {
        (self.low as i32..=self.high as i32).map(|exponent| 10_f64.powi(exponent))
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_needs_nothing_else() {
        let mut latencies = Latencies::default();
        (1..100_000).for_each(|value| latencies.record(value * 10));
        let mut page = Page::new("a < b", "now");
        page.plot(&[Curve { name: "ours & theirs", latencies: &latencies }]);
        page.table(&[vec!["x".into()], vec!["1".into()]]);
        let page = page.finish();
        assert!(page.contains("<h1>a &lt; b</h1>") && page.contains("ours &amp; theirs"));
        assert!(page.contains("<polyline points=\"70.0,"), "{page}");
        assert!(!page.contains("http"), "{page}");
    }

    #[test]
    fn nines_take_the_same_room() {
        assert_eq!(x_of(0.0), LEFT);
        let step = x_of(0.99) - x_of(0.9);
        assert!((x_of(0.999) - x_of(0.99) - step).abs() < 1e-6);
        assert!((x_of(0.99999) - RIGHT).abs() < 1e-6);
    }
}
