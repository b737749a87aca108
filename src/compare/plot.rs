//! Plots as SVG: axes, points, lines, bars and heat maps, legible at a phone's width, on a light or
//! dark background.

use super::scale::{Range, Scale};
use crate::escape;
use std::fmt::Write;

/// Width of every plot. A phone shrinks it by a fifth, and its text stays legible.
const WIDTH: f64 = 440.0;
/// Height of plots with axes, without the legend.
const HEIGHT: f64 = 290.0;
/// Font size at ticks and in cells; names are a little larger.
const SMALL: f64 = 11.0;

/// Colours that colour-blind readers can tell apart, each dark enough on white and light enough on
/// black. Markers differ as well.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#a64d9c", "#a87900", "#c0445e", "#808080", "#5b7fd6"];

/// A plot.
#[derive(Debug, Clone)]
pub struct Plot {
    /// The plot's names.
    pub caption: Caption,
    height: f64,
    body: String,
}

/// The names of a plot.
#[derive(Debug, Clone)]
pub struct Caption {
    /// The plot's file name, without its extension.
    pub name: String,
    /// The heading.
    pub title: String,
    /// A description of the plot, in words.
    pub description: String,
}

/// An axis.
pub struct Axis<'a> {
    /// The name of the quantity.
    pub label: &'a str,
    /// The scale.
    pub scale: Scale,
    /// A function that formats the ticks' values.
    pub shown: fn(f64) -> String,
}

/// A series of points, drawn in one style.
#[derive(Debug, Clone)]
pub struct Series {
    /// The name, for the label or the legend.
    pub name: String,
    /// Index of the colour and the marker.
    pub style: usize,
    /// The points, in the order of x.
    pub points: Vec<Point>,
}

/// A measurement.
#[derive(Debug, Clone, Copy)]
pub struct Point {
    /// The horizontal value.
    pub x: f64,
    /// The vertical value.
    pub y: f64,
    /// The standard deviation of `y`; 0 if unknown.
    pub sd: f64,
}

/// A bar.
#[derive(Debug, Clone)]
pub struct PlotBar {
    /// The name, left of the bar.
    pub name: String,
    /// Index of the colour.
    pub style: usize,
    /// The length of the bar.
    pub value: f64,
    /// The standard deviation of `value`; 0 if unknown.
    pub sd: f64,
    /// The value as text.
    pub shown: String,
}

/// The cells of a heat map.
pub struct Heat {
    /// The names of the rows.
    pub rows: Vec<String>,
    /// The names of the columns.
    pub columns: Vec<String>,
    /// The label below the columns.
    pub across: String,
    /// The cells by row, each with its darkness from 0 to 1 and its text; `None` for a cell without
    /// a value.
    pub cells: Vec<Vec<Option<(f64, String)>>>,
}

/// A rectangle in the plot.
#[derive(Clone, Copy)]
struct Area {
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
}

impl Area {
    fn overlap(&self, other: &Area) -> f64 {
        let across = self.right.min(other.right) - self.left.max(other.left);
        let down = self.bottom.min(other.bottom) - self.top.max(other.top);
        across.max(0.0) * down.max(0.0)
    }
}

impl Plot {
    fn new(caption: Caption, height: f64) -> Self {
        Self { caption, height, body: String::new() }
    }

    /// A scatter plot, with each point's name beside it.
    pub fn scatter(caption: Caption, series: &[Series], x: &Axis<'_>, y: &Axis<'_>) -> Self {
        let mut plot = Self::new(caption, HEIGHT);
        let (area, across, up) = plot.axes(series, x, y);
        let points: Vec<(&Series, f64, f64)> = series
            .iter()
            .flat_map(|s| s.points.iter().map(move |p| (s, across.place(p.x), up.place(p.y))))
            .collect();
        let around = |x: f64, y: f64, by: f64| Area {
            left: x - by,
            top: y - by,
            right: x + by,
            bottom: y + by,
        };
        let mut taken: Vec<Area> = points.iter().map(|(_, x, y)| around(*x, *y, 6.0)).collect();
        // A whisker counts as a narrow rectangle only: a label across it is legible, but a free
        // place is better.
        for (series, x, _) in &points {
            for point in &series.points {
                let (a, b) = (up.place(point.y + point.sd), up.place(point.y - point.sd));
                taken.push(Area { left: x - 1.5, top: a, right: x + 1.5, bottom: b });
            }
        }
        for series in series {
            for point in &series.points {
                plot.whisker(across.place(point.x), &up, point, series.style);
                plot.marker(across.place(point.x), up.place(point.y), series.style);
            }
        }
        for (series, x, y) in points {
            let label = label_beside((x, y), text_width(&series.name, SMALL + 1.0), &area, &taken);
            let Some(PointLabel { place, far }) = label else { continue };
            if far {
                let (nx, ny) = (x.clamp(place.left, place.right), y.clamp(place.top, place.bottom));
                let _ = write!(
                    plot.body,
                    r#"<path d="M{x:.1} {y:.1}L{nx:.1} {ny:.1}" stroke="currentColor" stroke-opacity=".45" stroke-width=".8"/>"#
                );
            }
            plot.text(place.left, place.bottom - 3.0, "start", SMALL + 1.0, &series.name);
            taken.push(place);
        }
        plot
    }

    /// A line plot, with a legend below.
    pub fn lines(caption: Caption, series: &[Series], x: &Axis<'_>, y: &Axis<'_>) -> Self {
        let mut plot = Self::new(caption, HEIGHT);
        let (_, across, up) = plot.axes(series, x, y);
        let whiskers = series.iter().flat_map(|one| &one.points).any(|point| point.sd > 0.0);
        let middle = (series.len() as f64 - 1.0) / 2.0;
        for (i, one) in series.iter().enumerate() {
            // Shifts each series a little, so that whiskers do not hide each other.
            let aside = if whiskers { (2.2 * (i as f64 - middle)).clamp(-8.0, 8.0) } else { 0.0 };
            let across = |x: f64| across.place(x) + aside;
            let colour = colour(one.style);
            let path: Vec<String> = one
                .points
                .iter()
                .map(|p| format!("{:.1} {:.1}", across(p.x), up.place(p.y)))
                .collect();
            let _ = write!(
                plot.body,
                r#"<path d="M{}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-linejoin="round"/>"#,
                path.join("L")
            );
            // A marker on every point of a long line would hide the line.
            let every = one.points.len().div_ceil(12).max(1);
            for (i, point) in one.points.iter().enumerate() {
                if i % every == 0 || i + 1 == one.points.len() {
                    plot.whisker(across(point.x), &up, point, one.style);
                    plot.marker(across(point.x), up.place(point.y), one.style);
                }
            }
        }
        plot.legend(series);
        plot
    }

    /// A horizontal bar chart.
    pub fn bars(caption: Caption, bars: &[PlotBar]) -> Self {
        let row = 30.0;
        let mut plot = Self::new(caption, 10.0 + row * bars.len() as f64);
        let widest = bars.iter().map(|bar| text_width(&bar.name, SMALL + 1.0)).fold(0.0, f64::max);
        let left = (widest + 10.0).min(WIDTH * 0.45);
        let figures =
            bars.iter().map(|bar| text_width(&bar.shown, SMALL + 1.0)).fold(0.0, f64::max);
        let right = WIDTH - figures - 12.0;
        let most = bars.iter().map(|bar| bar.value + bar.sd).fold(f64::MIN_POSITIVE, f64::max);
        for (i, bar) in bars.iter().enumerate() {
            let middle = 5.0 + row * (i as f64 + 0.5);
            let length = (right - left) * bar.value / most;
            let off = (right - left) * bar.sd / most;
            plot.text(
                left - 8.0,
                middle + 4.5,
                "end",
                SMALL + 1.0,
                &fitting(&bar.name, left - 10.0, SMALL + 1.0),
            );
            let _ = write!(
                plot.body,
                r#"<rect x="{left:.1}" y="{:.1}" width="{length:.1}" height="18" rx="2" fill="{}"/>"#,
                middle - 9.0,
                colour(bar.style)
            );
            if off > 0.5 {
                let (a, b) = ((left + length - off).max(left), left + length + off);
                let _ = write!(
                    plot.body,
                    r#"<path d="M{a:.1} {middle:.1}H{b:.1}M{a:.1} {0:.1}V{1:.1}M{b:.1} {0:.1}V{1:.1}" stroke="currentColor"/>"#,
                    middle - 4.0,
                    middle + 4.0
                );
            }
            plot.text(left + length + off + 6.0, middle + 4.0, "start", SMALL + 1.0, &bar.shown);
        }
        plot
    }

    /// A heat map: the larger the value, the darker the cell.
    pub fn heat(caption: Caption, heat: &Heat) -> Self {
        let widest = heat.rows.iter().map(|row| text_width(row, SMALL + 1.0)).fold(0.0, f64::max);
        let left = (widest + 10.0).min(WIDTH * 0.42);
        let width = ((WIDTH - left - 2.0) / heat.columns.len().max(1) as f64).min(110.0);
        let height = if heat.rows.len() <= 4 { 44.0 } else { 26.0 };
        let top = 6.0;
        let bottom = top + height * heat.rows.len() as f64;
        let mut plot = Self::new(caption, bottom + 40.0);
        for (i, (row, cells)) in heat.rows.iter().zip(&heat.cells).enumerate() {
            let y = top + height * i as f64;
            plot.text(
                left - 6.0,
                y + height / 2.0 + 4.0,
                "end",
                SMALL + 1.0,
                &fitting(row, left - 8.0, SMALL + 1.0),
            );
            for (j, (column, cell)) in heat.columns.iter().zip(cells).enumerate() {
                let x = left + width * j as f64;
                let place = Area { left: x, top: y, right: x + width, bottom: y + height };
                plot.heat_cell(&place, (row, column), cell.as_ref());
            }
        }
        // If the names of many columns do not fit, only every second one is shown.
        let widest = heat.columns.iter().map(|c| text_width(c, SMALL)).fold(0.0, f64::max);
        let fits = width - 3.0 > widest;
        let every = if fits || heat.columns.len() < 6 { 1 } else { 2 };
        for (j, column) in heat.columns.iter().enumerate().filter(|(j, _)| j % every == 0) {
            let x = left + width * (j as f64 + 0.5);
            let shown = fitting(column, width * every as f64 - 3.0, SMALL);
            plot.text(x, bottom + 14.0, "middle", SMALL, &shown);
        }
        let middle = left + width * heat.columns.len() as f64 / 2.0;
        plot.text(middle, bottom + 32.0, "middle", SMALL + 1.0, &heat.across);
        plot
    }

    /// Draws a cell of a heat map, with its row and column as a tooltip.
    fn heat_cell(
        &mut self,
        place: &Area,
        (row, column): (&str, &str),
        cell: Option<&(f64, String)>,
    ) {
        let (dark, shown) = cell.map_or((0.0, "–"), |(dark, shown)| (*dark, shown.as_str()));
        let (x, y) = (place.left, place.top);
        let (width, height) = (place.right - x, place.bottom - y);
        let _ = write!(
            self.body,
            r##"<g><title>{}, {}: {}</title><rect x="{x:.1}" y="{y:.1}" width="{:.1}" height="{:.1}" fill="#0072b2" fill-opacity="{:.3}" stroke="currentColor" stroke-opacity=".15"/>"##,
            escaped(row),
            escaped(column),
            escaped(shown),
            width - 1.5,
            height - 1.5,
            0.04 + 0.66 * dark.clamp(0.0, 1.0)
        );
        if text_width(shown, SMALL) <= width - 2.0 {
            self.text(x + width / 2.0 - 0.7, y + height / 2.0 + 3.5, "middle", SMALL, shown);
        }
        self.body += "</g>";
    }

    /// Draws the axes for `series`; returns the area within the axes and the ranges of x and y.
    fn axes(&mut self, series: &[Series], x: &Axis<'_>, y: &Axis<'_>) -> (Area, Range, Range) {
        let points = || series.iter().flat_map(|series| &series.points);
        let (top, bottom) = (26.0, HEIGHT - 44.0);
        let ends = points().flat_map(|p| [p.y - p.sd, p.y + p.sd]);
        let up = Range::on(y.scale, ends, bottom, top);
        let labels: Vec<(f64, String)> =
            up.ticks(6).into_iter().map(|t| (t, (y.shown)(t))).collect();
        let widest = labels.iter().map(|(_, label)| text_width(label, SMALL)).fold(0.0, f64::max);
        let area = Area { left: widest + 12.0, top, right: WIDTH - 12.0, bottom };
        let across = Range::on(x.scale, points().map(|p| p.x), area.left, area.right);
        for (tick, label) in labels {
            let y = up.place(tick);
            let _ = write!(
                self.body,
                r#"<path d="M{:.1} {y:.1}H{:.1}" stroke="currentColor" stroke-opacity=".15"/>"#,
                area.left, area.right
            );
            self.text(area.left - 6.0, y + 4.0, "end", SMALL, &label);
        }
        let _ = write!(
            self.body,
            r#"<path d="M{0:.1} {1:.1}V{2:.1}H{3:.1}" fill="none" stroke="currentColor" stroke-opacity=".6"/>"#,
            area.left, area.top, area.bottom, area.right
        );
        let mut free = f64::NEG_INFINITY;
        for tick in across.ticks(8) {
            let (x, label) = (across.place(tick), (x.shown)(tick));
            let _ = write!(
                self.body,
                r#"<path d="M{x:.1} {:.1}v4" stroke="currentColor" stroke-opacity=".6"/>"#,
                area.bottom
            );
            let half = text_width(&label, SMALL) / 2.0;
            // Leaves out a label that would touch the label before it.
            if x - half > free + 4.0 && x + half < WIDTH {
                self.text(x, area.bottom + 17.0, "middle", SMALL, &label);
                free = x + half;
            }
        }
        self.text((area.left + area.right) / 2.0, HEIGHT - 8.0, "middle", SMALL + 1.0, x.label);
        self.text(2.0, 13.0, "start", SMALL + 1.0, y.label);
        (area, across, up)
    }

    /// Draws the legend below the plot.
    fn legend(&mut self, series: &[Series]) {
        let (mut x, mut y) = (6.0, self.height + 10.0);
        for one in series {
            let width = 20.0 + text_width(&one.name, SMALL + 1.0) + 14.0;
            if x + width > WIDTH && x > 6.0 {
                (x, y) = (6.0, y + 19.0);
            }
            self.marker(x + 6.0, y - 4.0, one.style);
            self.text(x + 17.0, y, "start", SMALL + 1.0, &one.name);
            x += width;
        }
        self.height = y + 8.0;
    }

    /// Draws the standard deviation of a point as a whisker.
    fn whisker(&mut self, x: f64, up: &Range, point: &Point, style: usize) {
        if point.sd > 0.0 {
            let (a, b) = (up.place(point.y - point.sd), up.place(point.y + point.sd));
            let _ = write!(
                self.body,
                r#"<path d="M{x:.1} {a:.1}V{b:.1}M{0:.1} {a:.1}H{1:.1}M{0:.1} {b:.1}H{1:.1}" stroke="{2}" stroke-width="1.2" stroke-opacity=".8"/>"#,
                x - 3.0,
                x + 3.0,
                colour(style)
            );
        }
    }

    fn marker(&mut self, x: f64, y: f64, style: usize) {
        let shape = match style % 6 {
            0 => format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="4.2""#),
            1 => path(x, y, &[(-3.9, -3.9), (3.9, -3.9), (3.9, 3.9), (-3.9, 3.9)]),
            2 => path(x, y, &[(0.0, -5.2), (4.8, 3.6), (-4.8, 3.6)]),
            3 => path(x, y, &[(0.0, -5.4), (5.4, 0.0), (0.0, 5.4), (-5.4, 0.0)]),
            4 => path(x, y, &[(0.0, 5.2), (4.8, -3.6), (-4.8, -3.6)]),
            _ => path(x, y, &[(-5.0, -2.0), (0.0, -5.4), (5.0, -2.0), (3.2, 4.4), (-3.2, 4.4)]),
        };
        let _ = write!(self.body, r#"{shape} fill="{}"/>"#, colour(style));
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, size: f64, text: &str) {
        let _ = write!(
            self.body,
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-size="{size}">{}</text>"#,
            escaped(text)
        );
    }

    /// The SVG as part of a page; it takes the page's text colour.
    pub fn inline(&self) -> String {
        self.svg("")
    }

    /// The SVG as a file of its own, with its own light and dark colours.
    pub fn file(&self) -> String {
        let style = "<style>svg{color:#1a1a1a;background:#fff}@media(prefers-color-scheme:dark){svg{color:#e6e6e6;background:#14171a}}</style>";
        self.svg(style) + "\n"
    }

    fn svg(&self, style: &str) -> String {
        let (Caption { name, title, description }, height) = (&self.caption, self.height);
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0}" role="img" aria-labelledby="{name}-title {name}-desc" font-family="system-ui, sans-serif" fill="currentColor"><title id="{name}-title">{}</title><desc id="{name}-desc">{}</desc>{style}{}</svg>"#,
            escaped(title),
            escaped(description),
            self.body
        )
    }
}

/// The place of a point's name.
struct PointLabel {
    place: Area,
    /// Whether the name is so far from its point that a line has to join them.
    far: bool,
}

/// The place for a name of the width `width` beside the point `(x, y)`: of several places around
/// the point, at growing distances, the one that covers least of `taken` and of what is outside
/// `area`.
fn label_beside((x, y): (f64, f64), width: f64, area: &Area, taken: &[Area]) -> Option<PointLabel> {
    let mut best: Option<(f64, PointLabel)> = None;
    for (step, distance) in [8.0, 18.0, 30.0, 44.0].into_iter().enumerate() {
        for (dx, dy) in [
            (distance, 4.0),
            (-distance - width, 4.0),
            (-width / 2.0, -distance),
            (-width / 2.0, distance + 9.0),
            (distance * 0.7, -distance * 0.7),
            (distance * 0.7, distance * 0.7 + 8.0),
            (-width - distance * 0.7, -distance * 0.7),
            (-width - distance * 0.7, distance * 0.7 + 8.0),
        ] {
            let place = Area {
                left: x + dx,
                top: y + dy - 10.0,
                right: x + dx + width,
                bottom: y + dy + 3.0,
            };
            let outside = (area.left - place.left).max(0.0)
                + (place.right - WIDTH + 2.0).max(0.0)
                + (area.top - 12.0 - place.top).max(0.0)
                + (place.bottom - area.bottom).max(0.0);
            let covered: f64 = taken.iter().map(|other| place.overlap(other)).sum();
            let price = covered + 40.0 * outside + 2.0 * step as f64;
            if best.as_ref().is_none_or(|(least, _)| price < *least) {
                best = Some((price, PointLabel { place, far: step > 0 }));
            }
        }
    }
    best.map(|(_, label)| label)
}

fn path(x: f64, y: f64, corners: &[(f64, f64)]) -> String {
    let corners: Vec<String> =
        corners.iter().map(|(dx, dy)| format!("{:.1} {:.1}", x + dx, y + dy)).collect();
    format!(r#"<path d="M{}Z""#, corners.join("L"))
}

fn colour(style: usize) -> &'static str {
    COLOURS.get(style % COLOURS.len()).copied().unwrap_or("currentColor")
}

/// Estimated width of a text, from typical letter widths of a sans-serif font.
fn text_width(text: &str, size: f64) -> f64 {
    let width = |letter: char| match letter {
        'i' | 'l' | 'j' | '.' | ',' | ':' | ' ' | '|' | '\'' => 0.35,
        'm' | 'w' | 'M' | 'W' => 0.98,
        'A'..='Z' | '+' | '±' => 0.76,
        _ if letter.is_ascii() => 0.63,
        _ => 0.95,
    };
    text.chars().map(width).sum::<f64>() * size
}

/// The text, or the beginning of it that fits `width` with an ellipsis.
fn fitting(text: &str, width: f64, size: f64) -> String {
    if text_width(text, size) <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    for letter in text.chars() {
        if text_width(&short, size) + 1.6 * size > width {
            break;
        }
        short.push(letter);
    }
    short.trim_end().to_owned() + "…"
}

/// Text escaped for HTML and XML, which allow no control characters except newlines and tabs.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in escape::text(text).chars() {
        match letter {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            letter => out.push(letter),
        }
    }
    out
}
