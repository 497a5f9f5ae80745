//! Horizontal bars: one row for each target, one or more bars in it, each with its value at its end.
//!
//! Invariant: bars begin at 0, so that their lengths can be compared; an interval is drawn over its bar.

use maud::{Markup, html};

use super::legend::{short, text_width};
use super::scale::Scale;
use super::style::{Paint, px};
use super::{Drawing, Width};
use crate::report::number::{axis_plain, axis_rate, real_len};

/// A chart of bars.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BarPlot {
    /// What the values are, with their unit.
    pub(crate) axis: &'static str,
    /// What full and pale bars mean, where there are both.
    pub(crate) key: Option<[&'static str; 2]>,
    pub(crate) rows: Vec<BarRow>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct BarRow {
    pub(crate) name: String,
    pub(crate) paint: Paint,
    pub(crate) bars: Vec<Bar>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bar {
    pub(crate) value: f64,
    /// Its interval.
    pub(crate) ends: Option<(f64, f64)>,
    /// What stands at its end.
    pub(crate) text: String,
    /// The second kind of a row: drawn pale.
    pub(crate) soft: bool,
}

const PITCH: f64 = 19.0;
const THICK: f64 = 14.0;
const ROW_GAP: f64 = 14.0;
const BELOW: f64 = 44.0;

impl BarPlot {
    pub(crate) fn draw(&self, width: Width) -> Drawing {
        let narrow = width == Width::Narrow;
        let (key, top) = self.key.map_or((html! {}, 8.0), |key| (draw_key(key), 34.0));
        let left = if narrow { 0.0 } else { names_width(self.rows.iter().map(|row| &row.name)) };
        let bars = || self.rows.iter().flat_map(|row| &row.bars);
        let texts = bars().map(|bar| text_width(&bar.text) + 12.0).fold(24.0, f64::max);
        let greatest = bars().map(Bar::greatest).fold(0.0, f64::max);
        let scale = Scale::from_zero(greatest, 5, (left, width.pixels() - texts));
        let heading = if narrow { 20.0 } else { 0.0 };

        let mut rows = Vec::with_capacity(self.rows.len());
        let mut y = top;
        for row in &self.rows {
            rows.push(row.draw(y, left, heading, &scale));
            y += heading + real_len(row.bars.len()) * PITCH + ROW_GAP;
        }
        let body = html! {
            (key)
            (axis(&scale, self.axis, greatest >= 1000.0, (top - 4.0, y - 6.0), narrow))
            @for row in &rows { (row) }
        };
        Drawing { width: width.pixels(), height: y + BELOW, body }
    }
}

impl BarRow {
    fn draw(&self, top: f64, left: f64, heading: f64, scale: &Scale) -> Markup {
        let height = real_len(self.bars.len()) * PITCH;
        html! {
            @if heading > 0.0 {
                text.name x="0" y=(px(top + 13.0)) { (short(&self.name)) }
            } @else {
                text.name x=(px(left - 12.0)) y=(px(top + height / 2.0 + 2.5)) text-anchor="end" {
                    (short(&self.name))
                }
            }
            @for (index, bar) in self.bars.iter().enumerate() {
                (bar.draw(self, top + heading + real_len(index) * PITCH, scale))
            }
        }
    }
}

impl Bar {
    fn greatest(&self) -> f64 {
        let ends = self.ends.map_or(0.0, |(_, high)| high);
        [self.value, ends].into_iter().filter(|v| v.is_finite()).fold(0.0, f64::max)
    }

    fn draw(&self, row: &BarRow, top: f64, scale: &Scale) -> Markup {
        let (zero, end) = (scale.at(0.0), scale.at(self.value));
        let soft = if self.soft { " soft" } else { "" };
        let middle = top + THICK / 2.0;
        html! {
            rect class={ "bar " (row.paint.fill()) (soft) } x=(px(zero)) y=(px(top))
                width=(px((end - zero).max(1.0))) height=(px(THICK)) rx="2" {
                title { (row.name) ": " (self.text) }
            }
            @if let Some((low, high)) = self.ends {
                (whisker(scale.at(low), scale.at(high), middle))
            }
            text.value x=(px(scale.at(self.greatest()) + 8.0)) y=(px(middle + 4.2)) { (self.text) }
        }
    }
}

fn whisker(low: f64, high: f64, y: f64) -> Markup {
    let (above, below) = (px(y - 3.5), px(y + 3.5));
    html! {
        path.whisker d={
            "M" (px(low)) " " (above) "V" (below) "M" (px(low)) " " (px(y)) "H" (px(high))
            "M" (px(high)) " " (above) "V" (below)
        } {}
    }
}

/// Lines of the grid and their labels below.
fn axis(
    scale: &Scale,
    title: &str,
    rates: bool,
    (top, bottom): (f64, f64),
    narrow: bool,
) -> Markup {
    let label = |tick| if rates { axis_rate(tick) } else { axis_plain(tick) };
    html! {
        @for tick in scale.ticks(if narrow { 4 } else { 6 }) {
            line.grid x1=(px(scale.at(tick))) x2=(px(scale.at(tick)))
                y1=(px(top)) y2=(px(bottom)) {}
            text x=(px(scale.at(tick))) y=(px(bottom + 17.0))
                text-anchor=(if narrow && tick <= 0.0 { "start" } else { "middle" }) {
                (label(tick))
            }
        }
        text x=(px(scale.at(scale.high()))) y=(px(bottom + 37.0)) text-anchor="end" { (title) }
    }
}

/// What full and pale bars mean.
fn draw_key(key: [&str; 2]) -> Markup {
    let second = 22.0 + text_width(key[0]) + 14.0;
    html! {
        rect class="key f6" x="0" y="4" width="14" height="14" rx="2" {}
        text.name x="22" y="15.5" { (key[0]) }
        rect class="key f6 soft" x=(px(second)) y="4" width="14" height="14" rx="2" {}
        text.name x=(px(second + 22.0)) y="15.5" { (key[1]) }
    }
}

/// Room for a column of names.
pub(crate) fn names_width<'a>(names: impl Iterator<Item = &'a String>) -> f64 {
    names.map(|name| text_width(&short(name)) + 20.0).fold(70.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot() -> BarPlot {
        let paint = Paint { hue: 0, shape: 0, dashed: false };
        let bar = |value, soft| Bar {
            value,
            ends: Some((value - 1.0, value + 1.0)),
            text: value.to_string(),
            soft,
        };
        let row = |name: &str, value: f64| BarRow {
            name: name.to_owned(),
            paint,
            bars: vec![bar(value, false), bar(value / 2.0, true)],
        };
        BarPlot { axis: "µs", key: None, rows: vec![row("a", 4.0), row("b", 9.0)] }
    }

    /// Scale from 0 to 10, from pixel 70 on: names are short. 880 - (3 x 7.8 + 12) pixels to its end.
    #[test]
    fn a_bar_is_as_long_as_its_value() {
        let drawing = plot().draw(Width::Wide);
        let text = drawing.body.into_string();
        assert_eq!(text.matches("<rect").count(), 4);
        assert_eq!(text.matches("class=\"whisker\"").count(), 4);
        let share = (880.0 - 35.4 - 70.0) / 10.0;
        for value in [4.0, 2.0, 9.0, 4.5] {
            let width = format!("width=\"{}\"", px(value * share));
            assert!(text.contains(&width), "{width} in {text}");
        }
    }

    #[test]
    fn what_is_no_number_has_no_length() {
        let mut plot = plot();
        for (row, value) in plot.rows.iter_mut().zip([f64::NAN, f64::INFINITY]) {
            row.bars[0].value = value;
            row.bars[0].ends = Some((value, value));
        }
        let text = plot.draw(Width::Narrow).body.into_string();
        assert!(!text.contains("NaN") && !text.contains("=\"inf"), "{text}");
    }
}
