//! The report as a self-contained HTML file: plots as inline SVG, with the figures below them.

use std::fmt::Write;

use crate::statistics::{Latencies, Spread, readable_ns};

/// A report under construction.
#[derive(Debug, Default)]
pub struct Page {
    body: String,
    /// Sections so far.
    sections: usize,
}

/// A curve of a plot.
#[derive(Clone, Copy, Debug)]
pub struct Curve<'a> {
    /// Its name in the legend.
    pub name: &'a str,
    /// Index of its colour, the same in all plots.
    pub color: usize,
    /// Its values.
    pub latencies: &'a Latencies,
}

/// A rod of a bar chart of times in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Rod<'a> {
    /// Its label.
    pub name: &'a str,
    /// Index of its colour.
    pub color: usize,
    /// Its length, and the range shown by the line across its end.
    pub spread: Spread,
}

impl Page {
    /// A page with a heading and a line on machine and date.
    pub fn new(heading: &str, subtitle: &str) -> Self {
        let mut page = Self::default();
        page.push(format_args!(
            "<h1>{}</h1>\n<p class=\"note\">{}</p>\n",
            escape(heading),
            escape(subtitle)
        ));
        page
    }

    /// Adds a heading.
    pub fn heading(&mut self, text: &str) {
        self.push(format_args!("<h2>{}</h2>\n", escape(text)));
    }

    /// Adds links to the sections that follow.
    pub fn contents<'a>(&mut self, titles: impl Iterator<Item = &'a str>) {
        self.body.push_str("<nav>");
        for (number, title) in titles.enumerate() {
            let number = self.sections + number + 1;
            self.push(format_args!("<a href=\"#s{number}\">{}</a> ", escape(title)));
        }
        self.body.push_str("</nav>\n");
    }

    /// Adds the heading of a section in the contents.
    pub fn section(&mut self, title: &str) {
        self.sections += 1;
        let number = self.sections;
        self.push(format_args!("<h2 id=\"s{number}\">{}</h2>\n", escape(title)));
    }

    /// Adds a table; the first row is its heading.
    pub fn table(&mut self, rows: &[Vec<String>]) {
        self.body.push_str("<div class=\"wide\"><table>\n");
        for (index, row) in rows.iter().enumerate() {
            let tag = if index == 0 { "th" } else { "td" };
            self.body.push_str("<tr>");
            for cell in row {
                let class = match cell.as_str() {
                    "met" => " class=\"met\"",
                    "missed" => " class=\"missed\"",
                    "not measured" => " class=\"unknown\"",
                    _ => "",
                };
                self.push(format_args!("<{tag}{class}>{}</{tag}>", escape(cell)));
            }
            self.body.push_str("</tr>\n");
        }
        self.body.push_str("</table></div>\n");
    }

    /// Adds preformatted text.
    pub fn text(&mut self, text: &str) {
        self.push(format_args!("<pre>{}</pre>\n", escape(text)));
    }

    /// Adds a legend of colours.
    pub fn legend<'a>(&mut self, entries: impl Iterator<Item = (&'a str, usize)>) {
        self.body.push_str("<p class=\"legend\">");
        for (name, color) in entries {
            let color = color_of(color);
            self.push(format_args!(
                "<span><i style=\"background:{color}\"></i>{}</span>",
                escape(name)
            ));
        }
        self.body.push_str("</p>\n");
    }

    /// Adds a plot of latency over the percentile, on whose axis each further nine has the same width.
    pub fn plot(&mut self, caption: &str, curves: &[Curve<'_>]) {
        let curves: Vec<_> = curves.iter().filter(|curve| !curve.latencies.is_empty()).collect();
        if curves.is_empty() {
            return;
        }
        let low = curves.iter().map(|curve| curve.latencies.quantile_ns(0.01)).min();
        let high = curves.iter().map(|curve| curve.latencies.quantile_ns(1.0)).max();
        let most = curves.iter().map(|curve| curve.latencies.len()).max().unwrap_or(1);
        // Up to the finest percentile that the number of samples supports.
        let nines = (most as f64).log10().ceil().clamp(1.0, NINES_MAX);
        let scale = Scale::of(low.unwrap_or(1), high.unwrap_or(1), nines);
        self.push(format_args!(
            "<figure><figcaption>{0}</figcaption>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             role=\"img\" aria-label=\"{0}\">\n",
            escape(caption)
        ));
        self.axes(&scale);
        for curve in curves.iter().rev() {
            self.curve(&scale, curve);
        }
        self.body.push_str("</svg></figure>\n");
    }

    /// Adds a bar chart with one rod below the other.
    pub fn rods(&mut self, caption: &str, rods: &[Rod<'_>]) {
        let medians: Vec<_> = rods.iter().map(|rod| rod.spread.median).collect();
        let Some(all) = Spread::of(&medians).filter(|all| all.max > 0.0) else { return };
        // A rod that is far longer than the others is cut.
        let longest = all.max.min(all.median * ROD_CUT);
        let caption = match longest < all.max {
            true => format!("{caption}; longer rods are cut"),
            false => caption.to_owned(),
        };
        let caption = caption.as_str();
        let height = ROD_STEP * rods.len() as f64 + 8.0;
        self.push(format_args!(
            "<figure><figcaption>{0}</figcaption>\n<svg viewBox=\"0 0 {WIDTH} {height}\" \
             role=\"img\" aria-label=\"{0}\">\n",
            escape(caption)
        ));
        for (index, rod) in rods.iter().enumerate() {
            self.rod(4.0 + ROD_STEP * index as f64, (ROD_END - ROD_START) / longest, rod);
        }
        self.body.push_str("</svg></figure>\n");
    }

    /// The content of the file.
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
            let x = scale.x_of(quantile);
            if x > RIGHT + 0.1 {
                break;
            }
            self.push(format_args!(
                "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{BOTTOM}\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name}</text>\n",
                BOTTOM + 18.0
            ));
        }
        for time_ns in scale.ticks() {
            let y = scale.y_of(time_ns);
            self.push(format_args!(
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                LEFT - 6.0,
                y + 4.0,
                round_time(time_ns)
            ));
        }
    }

    fn curve(&mut self, scale: &Scale, curve: &Curve<'_>) {
        let color = color_of(curve.color);
        let mut points = String::new();
        // Percentiles that need more samples are not shown.
        let finest = 1.0 / curve.latencies.len() as f64;
        for step in 0..=STEPS {
            let rest = 10_f64.powf(-(f64::from(step) / f64::from(STEPS)) * scale.nines);
            if rest < finest {
                break;
            }
            let time_ns = curve.latencies.quantile_ns(1.0 - rest).max(1) as f64;
            write!(points, "{:.1},{:.1} ", scale.x_of(1.0 - rest), scale.y_of(time_ns))
                .expect("a string takes whatever is written to it");
        }
        let shown = |quantile| readable_ns(curve.latencies.quantile_ns(quantile) as f64);
        self.push(format_args!(
            "<polyline points=\"{points}\" stroke=\"{color}\"><title>{}: p50 {}, p99 {}, max {}\
             </title></polyline>\n",
            escape(curve.name),
            shown(0.5),
            shown(0.99),
            shown(1.0),
        ));
    }

    fn rod(&mut self, y: f64, scale: f64, rod: &Rod<'_>) {
        let Spread { median, min, max } = rod.spread;
        let x_of = |time_ns: f64| (ROD_START + scale * time_ns).min(WIDTH - 5.0);
        let (middle, color) = (y + ROD_STEP / 2.0 - 2.0, color_of(rod.color));
        let after = x_of(max).max(x_of(median));
        // The figure is behind the rod, or on it if there is no room.
        let (x, anchor, class) = match after > WIDTH - 80.0 {
            true => (x_of(min) - 6.0, "end", " class=\"on\""),
            false => (after + 6.0, "start", ""),
        };
        self.push(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{ROD_START}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" \
             fill=\"{color}\"/>\
             <line class=\"range\" x1=\"{:.1}\" y1=\"{middle:.1}\" x2=\"{:.1}\" \
             y2=\"{middle:.1}\"/>\
             <text{class} x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>\n",
            ROD_START - 6.0,
            middle + 4.0,
            escape(rod.name),
            (x_of(median) - ROD_START).max(1.0),
            ROD_STEP - 4.0,
            x_of(min),
            x_of(max),
            middle + 4.0,
            readable_ns(median),
        ));
    }

    fn push(&mut self, arguments: std::fmt::Arguments<'_>) {
        self.body.write_fmt(arguments).expect("a string takes whatever is written to it");
    }
}

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 925.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 310.0;

/// Length of the longest rod as a multiple of the median one.
const ROD_CUT: f64 = 5.0;
const ROD_STEP: f64 = 22.0;
const ROD_START: f64 = 150.0;
const ROD_END: f64 = 880.0;

/// Bound on the nines of the percentile axis.
const NINES_MAX: f64 = 5.0;

/// Number of points of a curve.
const STEPS: u32 = 200;

const TICKS: [(&str, f64); 7] = [
    ("0", 0.0),
    ("50 %", 0.5),
    ("90 %", 0.9),
    ("99 %", 0.99),
    ("99.9 %", 0.999),
    ("99.99 %", 0.9999),
    ("99.999 %", 0.99999),
];

/// Colours that are distinguishable on white and on black; the first two are those of the floor and of the
/// main target.
const COLORS: [&str; 10] = [
    "#8a8f98", "#1f77d0", "#17a3b8", "#d1495b", "#2e933c", "#e09f3e", "#8e4bb0", "#b5651d",
    "#e377c2", "#6b8e23",
];

fn color_of(place: usize) -> &'static str {
    COLORS[place % COLORS.len()]
}

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:1120px;margin:2em auto;padding:0 1em;\
color:#222;background:#fff}\
h1{font-size:1.7em;margin-bottom:.2em}h2{font-size:1.25em;margin:2.2em 0 .4em;\
border-top:1px solid #ddd;padding-top:.8em}.note{color:#666}\
nav{font-size:14px;line-height:2}nav a{display:inline-block;padding:0 .7em;margin:0 .2em .2em 0;\
border-radius:1em;background:#eef1f5;color:inherit;text-decoration:none}\
.wide{overflow-x:auto}table{border-collapse:collapse;margin:.8em 0;font-size:14px;\
font-variant-numeric:tabular-nums}th,td{padding:.25em .7em;text-align:right;\
border-bottom:1px solid #ddd;white-space:nowrap}th{font-weight:600;vertical-align:bottom}\
th:first-child,td:first-child{text-align:left}tr:hover td{background:#f4f6f9}\
.met,.missed,.unknown{font-weight:600}.met{color:#1b7f3b}.missed{color:#c0293b}\
.unknown{color:#8a8f98}\
figure{margin:.8em 0}figcaption{font-size:14px;color:#666}\
svg{width:100%;height:auto}svg text{font-size:12px;fill:currentColor}svg text.on{fill:#fff}\
.grid{stroke:#ddd}.range{stroke:currentColor;stroke-width:2}\
polyline{fill:none;stroke-width:2}polyline:hover{stroke-width:4}\
.legend{display:flex;flex-wrap:wrap;gap:.2em 1.2em;font-size:14px;margin:.6em 0}\
.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.4em;border-radius:2px}\
pre{overflow:auto;font-size:13px;background:#f4f6f9;padding:.5em .8em;border-radius:4px}\
@media(prefers-color-scheme:dark){body{color:#ddd;background:#1b1b1d}h2,th,td{border-color:#444}\
.grid{stroke:#3a3a3d}nav a,pre,tr:hover td{background:#2a2b2f}.note,figcaption{color:#aaa}\
.met{color:#5fd38a}.missed{color:#ff7b8a}}";

/// The axes: percentiles, on which each further nine has the same width, and times, logarithmic, from and
/// to 1, 2 or 5 times a power of ten.
struct Scale {
    nines: f64,
    low_ns: f64,
    high_ns: f64,
}

impl Scale {
    fn of(low_ns: u64, high_ns: u64, nines: f64) -> Self {
        let (low, high) = (low_ns.max(1) as f64, high_ns.max(1) as f64);
        let low_ns = steps().take_while(|step| *step <= low).last().unwrap_or(1.0);
        // Room for a curve that is flat.
        let high_ns = steps().find(|step| *step >= high.max(low_ns * 2.0)).unwrap_or(high);
        Self { nines, low_ns, high_ns }
    }

    fn x_of(&self, quantile: f64) -> f64 {
        let nines = -(1.0 - quantile).max(1e-9).log10();
        LEFT + (RIGHT - LEFT) * nines / self.nines
    }

    fn y_of(&self, time_ns: f64) -> f64 {
        let part = (time_ns / self.low_ns).log10() / (self.high_ns / self.low_ns).log10();
        BOTTOM - (BOTTOM - TOP) * part.max(0.0)
    }

    /// Ticks of the time axis: three a decade if there is room, otherwise one.
    fn ticks(&self) -> impl Iterator<Item = f64> {
        let is_wide = self.high_ns / self.low_ns > 2_000.0;
        let ticks = steps().skip_while(|step| *step < self.low_ns * 0.999);
        ticks
            .take_while(|step| *step <= self.high_ns * 1.001)
            .filter(move |step| !is_wide || is_decade(*step))
    }
}

/// 1, 2, 5, 10, 20 … ns, to over a day.
fn steps() -> impl Iterator<Item = f64> {
    (0..14).flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(decade)))
}

fn is_decade(step: f64) -> bool {
    (step.log10() - step.log10().round()).abs() < 1e-9
}

/// A round time without decimals.
fn round_time(time_ns: f64) -> String {
    let (unit, unit_ns) = match time_ns {
        ..1e3 => ("ns", 1.0),
        ..1e6 => ("µs", 1e3),
        ..1e9 => ("ms", 1e6),
        _ => ("s", 1e9),
    };
    format!("{:.0} {unit}", time_ns / unit_ns)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_self_contained() {
        let mut latencies = Latencies::default();
        (1..100_000).for_each(|value| latencies.record(value * 10));
        let mut page = Page::new("a < b", "now");
        page.contents(["first"].into_iter());
        page.section("first");
        page.legend([("ours & theirs", 1)].into_iter());
        page.plot("delivery", &[Curve { name: "ours & theirs", color: 1, latencies: &latencies }]);
        let spread = Spread { median: 2_000.0, min: 1_000.0, max: 3_000.0 };
        page.rods("CPU", &[Rod { name: "ours", color: 1, spread }]);
        page.table(&[vec!["x".into()], vec!["missed".into()]]);
        let page = page.finish();
        assert!(page.contains("<h1>a &lt; b</h1>") && page.contains("ours &amp; theirs"));
        assert!(page.contains("<a href=\"#s1\">first</a>") && page.contains("<h2 id=\"s1\">first"));
        assert!(page.contains("<polyline points=\"70.0,"), "{page}");
        assert!(page.contains(">2.00 µs</text>"), "{page}");
        assert!(page.contains("<td class=\"missed\">missed</td>"), "{page}");
        assert!(!page.contains("http"), "{page}");
    }

    #[test]
    fn nines_have_the_same_width() {
        let scale = Scale::of(1, 2, 5.0);
        assert_eq!(scale.x_of(0.0), LEFT);
        let step = scale.x_of(0.99) - scale.x_of(0.9);
        assert!((scale.x_of(0.999) - scale.x_of(0.99) - step).abs() < 1e-6);
        assert!((scale.x_of(0.99999) - RIGHT).abs() < 1e-6);
    }

    #[test]
    fn the_ends_of_the_axis_are_round_times() {
        let scale = Scale::of(12_345, 78_000, 5.0);
        let ticks: Vec<_> = scale.ticks().map(round_time).collect();
        assert_eq!(ticks, ["10 µs", "20 µs", "50 µs", "100 µs"]);
        assert!((scale.y_of(10_000.0) - BOTTOM).abs() < 1e-6);
        assert!((scale.y_of(100_000.0) - TOP).abs() < 1e-6);
        let wide: Vec<_> = Scale::of(900, 2_000_000_000, 5.0).ticks().map(round_time).collect();
        assert_eq!(wide.first().map(String::as_str), Some("1 µs"));
        assert_eq!(wide.last().map(String::as_str), Some("1 s"));
    }
}
