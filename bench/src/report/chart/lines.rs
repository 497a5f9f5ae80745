//! Line charts: one panel or several with the same axes, lines named at their ends where there is room.
//!
//! Invariant: each point of the data is one mark with its values as a tooltip; a hollow mark is one that the text
//! of the chart warns of.

use maud::{Markup, html};

use super::legend::{Entry, legend, short, spread, text_width, wrapped};
use super::scale::Scale;
use super::style::{Paint, px};
use super::{Drawing, Width};
use crate::report::number::{axis_plain, real_len};

/// A chart of lines.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LinePlot {
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    /// Whether there is a line on which y is x, and what it is called.
    pub(crate) ideal: Option<&'static str>,
    pub(crate) panels: Vec<Panel>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Panel {
    pub(crate) title: Option<String>,
    pub(crate) series: Vec<Series>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) paint: Paint,
    pub(crate) line: Vec<(f64, f64)>,
    pub(crate) marks: Vec<Mark>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Mark {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) text: String,
    pub(crate) hollow: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Axis {
    pub(crate) title: &'static str,
    pub(crate) kind: AxisKind,
}

/// How an axis runs and what its labels say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AxisKind {
    /// From 0; 50 k, 1.5 M.
    Rate,
    /// From 0; per cent.
    Percent,
    /// Microseconds, logarithmic.
    Time,
    /// 1 / (1 - share), logarithmic, labelled with the share.
    Percentile,
}

const LEFT: f64 = 52.0;
const BELOW: f64 = 44.0;
const TITLE_LINE: f64 = 18.0;
const LABEL_GAP: f64 = 17.0;

/// Where a panel's lines are, and by which scales.
struct Area {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    x: Scale,
    y: Scale,
}

impl LinePlot {
    pub(crate) fn draw(&self, width: Width) -> Drawing {
        let names = self.names();
        let narrow = width == Width::Narrow;
        let direct = !narrow && self.panels.len() == 1 && names.len() <= 8;
        let columns = if narrow || self.panels.len() == 1 { 1 } else { 2 };
        let (keys, keys_height) =
            if direct { (html! {}, 0.0) } else { legend(&names, width.pixels()) };
        let longest = names.iter().map(|(_, name)| text_width(&short(name))).fold(0.0, f64::max);
        let right = if direct { longest + 44.0 } else { 12.0 };
        let gap = 28.0;
        let cell_width = if columns == 1 { width.pixels() } else { (width.pixels() - gap) / 2.0 };
        let title_lines =
            self.panels.iter().map(|panel| panel.title_lines(cell_width - right).len());
        let above = 26.0 + TITLE_LINE * real_len(title_lines.max().unwrap_or(0));
        let cell_height = above + BELOW + if narrow { 220.0 } else { 270.0 };

        let mut bodies = Vec::new();
        let (mut x, mut y) = (0.0, keys_height + if direct { 0.0 } else { 10.0 });
        for (index, panel) in self.panels.iter().enumerate() {
            if index > 0 {
                (x, y) = if index % columns == 0 {
                    (0.0, y + cell_height)
                } else {
                    (x + cell_width + gap, y)
                };
            }
            let area =
                self.area((x + LEFT, x + cell_width - right), (y + above, y + cell_height - BELOW));
            bodies.push(self.panel(panel, &area, direct));
        }
        let body = html! { (keys) @for panel in &bodies { (panel) } };
        Drawing { width: width.pixels(), height: y + cell_height, body }
    }

    /// Each name once, in order.
    fn names(&self) -> Vec<Entry<'_>> {
        let mut names: Vec<Entry<'_>> = Vec::new();
        for series in self.panels.iter().flat_map(|panel| &panel.series) {
            if !names.iter().any(|(_, name)| *name == series.name) {
                names.push((series.paint, &series.name));
            }
        }
        names
    }

    fn area(&self, (left, right): (f64, f64), (top, bottom): (f64, f64)) -> Area {
        let points = || {
            let series = self.panels.iter().flat_map(|panel| &panel.series);
            series.flat_map(|series| {
                let marks = series.marks.iter().map(|mark| (mark.x, mark.y));
                series.line.iter().copied().chain(marks)
            })
        };
        let x = self.x.scale(points().map(|point| point.0), (left, right));
        let y = self.y.scale(points().map(|point| point.1), (bottom, top));
        Area { left, right, top, bottom, x, y }
    }

    fn panel(&self, panel: &Panel, area: &Area, direct: bool) -> Markup {
        let title = panel.title_lines(area.right - (area.left - LEFT));
        html! {
            @for (index, line) in title.iter().rev().enumerate() {
                text.panel x=(px(area.left - LEFT))
                    y=(px(area.top - 32.0 - TITLE_LINE * real_len(index))) { (line) }
            }
            (self.grid(area))
            @for series in &panel.series {
                (series.draw(area))
            }
            @if direct { (labels(&panel.series, area)) }
        }
    }

    fn grid(&self, area: &Area) -> Markup {
        let Area { left, right, top, bottom, x, y } = area;
        let columns = ((right - left) / 64.0).max(2.0);
        let x_ticks = self.x.ticks(x, if columns > 8.0 { 10 } else { 5 });
        html! {
            text x=(px(left - LEFT)) y=(px(top - 12.0)) { (self.y.title) }
            @for tick in y.ticks(if self.y.kind == AxisKind::Time { 9 } else { 6 }) {
                line.grid x1=(px(*left)) x2=(px(*right)) y1=(px(y.at(tick))) y2=(px(y.at(tick))) {}
                text x=(px(left - 8.0)) y=(px(y.at(tick) + 4.0)) text-anchor="end" {
                    (self.y.label(tick))
                }
            }
            @for tick in x_ticks {
                line.axis x1=(px(x.at(tick))) x2=(px(x.at(tick)))
                    y1=(px(*bottom)) y2=(px(bottom + 4.0)) {}
                text x=(px(x.at(tick))) y=(px(bottom + 18.0)) text-anchor="middle" {
                    (self.x.label(tick))
                }
            }
            line.axis x1=(px(*left)) x2=(px(*right)) y1=(px(*bottom)) y2=(px(*bottom)) {}
            text x=(px(*right)) y=(px(bottom + 37.0)) text-anchor="end" { (self.x.title) }
            @if let Some(ideal) = self.ideal { (self::ideal(area, ideal)) }
        }
    }
}

/// The line on which y is x, as far as both axes go.
fn ideal(area: &Area, name: &str) -> Markup {
    let end = area.x.high().min(area.y.high());
    let (x, y) = (area.x.at(end), area.y.at(end));
    html! {
        line.ideal x1=(px(area.x.at(0.0))) y1=(px(area.y.at(0.0))) x2=(px(x)) y2=(px(y)) {}
        text x=(px(x - 8.0)) y=(px(y + 4.0)) text-anchor="end" { (name) }
    }
}

/// Names in the right margin, each joined to the end of its line.
fn labels(series: &[Series], area: &Area) -> Markup {
    let ended: Vec<_> = series.iter().filter_map(|s| Some((s, *s.line.last()?))).collect();
    let wanted: Vec<_> = ended.iter().map(|(_, end)| area.y.at(end.1)).collect();
    let places = spread(&wanted, LABEL_GAP, area.top, area.bottom - 4.0);
    html! {
        @for ((series, end), place) in ended.iter().zip(places) {
            @let (x, y) = (area.x.at(end.0), area.y.at(end.1));
            line.leader x1=(px(x + 6.0)) y1=(px(y)) x2=(px(area.right + 8.0)) y2=(px(place)) {}
            (series.paint.swatch(area.right + 12.0, place))
            text.name x=(px(area.right + 36.0)) y=(px(place + 4.5)) { (short(&series.name)) }
        }
    }
}

impl Panel {
    fn title_lines(&self, width: f64) -> Vec<String> {
        self.title.as_ref().map_or_else(Vec::new, |title| wrapped(title, width))
    }
}

impl Series {
    fn draw(&self, area: &Area) -> Markup {
        let mut path = String::new();
        for (index, (x, y)) in self.line.iter().enumerate() {
            path.push(if index == 0 { 'M' } else { 'L' });
            path.push_str(&px(area.x.at(*x)));
            path.push(' ');
            path.push_str(&px(area.y.at(*y)));
        }
        html! {
            @if self.line.len() > 1 { path class=(self.paint.stroke()) d=(path) {} }
            @for mark in &self.marks {
                path class={ "mark " (if mark.hollow { 'h' } else { 'f' }) (self.paint.hue) }
                    d=(self.paint.outline(area.x.at(mark.x), area.y.at(mark.y))) {
                    title { (mark.text) }
                }
            }
        }
    }
}

impl Axis {
    fn scale(self, values: impl Iterator<Item = f64>, pixels: (f64, f64)) -> Scale {
        let finite = values.filter(|value| value.is_finite());
        let (low, high) = finite.fold((f64::MAX, 0.0_f64), |(low, high), value| {
            (if value > 0.0 { low.min(value) } else { low }, high.max(value))
        });
        match self.kind {
            AxisKind::Rate => Scale::linear(0.0, high * 1.02, pixels),
            AxisKind::Percent => Scale::from_zero(high.max(1.0), 5, pixels),
            AxisKind::Time => Scale::log_rounded(low, high, pixels),
            AxisKind::Percentile => Scale::log(1.0, high.max(10.0), pixels),
        }
    }

    fn ticks(self, scale: &Scale, about: usize) -> Vec<f64> {
        if self.kind != AxisKind::Percentile {
            return scale.ticks(about);
        }
        let nines = std::iter::successors(Some(10.0), |tick| Some(tick * 10.0));
        let below = nines.take_while(|tick| *tick <= scale.high() * 1.001);
        std::iter::once(2.0).chain(below).collect()
    }

    fn label(self, tick: f64) -> String {
        use crate::report::number::{axis_rate, axis_time};
        match self.kind {
            AxisKind::Rate => axis_rate(tick),
            AxisKind::Percent => format!("{}\u{202f}%", axis_plain(tick)),
            AxisKind::Time => axis_time(tick),
            AxisKind::Percentile => axis_plain(100.0 - 100.0 / tick),
        }
    }
}

#[cfg(test)]
mod tests;
