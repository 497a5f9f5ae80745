//! Shares of a whole: one row for each target, cut into its queues.
//!
//! Invariant: a part is as wide as its share; small lines above show where equal parts would end.

use maud::{Markup, html};

use super::bars::names_width;
use super::legend::{short, text_width};
use super::style::{Paint, px};
use super::{Drawing, Width};
use crate::report::number::{count, real, real_len, three};

/// A chart of shares.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SharePlot {
    pub(crate) rows: Vec<ShareRow>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ShareRow {
    pub(crate) name: String,
    pub(crate) paint: Paint,
    /// Queue and packets.
    pub(crate) parts: Vec<(u16, u64)>,
}

const ROW: f64 = 40.0;
const THICK: f64 = 18.0;
const FIGURE: f64 = 84.0;

impl SharePlot {
    pub(crate) fn draw(&self, width: Width) -> Drawing {
        let narrow = width == Width::Narrow;
        let left = if narrow { 0.0 } else { names_width(self.rows.iter().map(|row| &row.name)) };
        let heading = if narrow { 16.0 } else { 0.0 };
        let right = width.pixels() - FIGURE;
        let top = 34.0;
        let row_top = |index| top + real_len(index) * (ROW + heading);
        let body = html! {
            text x=(px(left)) y="14" { "share of the packets, queue by queue" }
            text x=(px(width.pixels())) y="14" text-anchor="end" { "max / mean" }
            @for (index, row) in self.rows.iter().enumerate() {
                (row.draw(row_top(index), heading, (left, right), width.pixels()))
            }
        };
        Drawing { width: width.pixels(), height: row_top(self.rows.len()) + 4.0, body }
    }
}

impl ShareRow {
    fn total(&self) -> f64 {
        self.parts.iter().map(|(_, packets)| real(*packets)).sum()
    }

    /// The fullest queue over the mean; 1 is even.
    pub(crate) fn skew(&self) -> Option<f64> {
        let most = self.parts.iter().map(|(_, packets)| *packets).max()?;
        let mean = self.total() / real_len(self.parts.len());
        (mean > 0.0).then(|| real(most) / mean)
    }

    fn draw(&self, top: f64, heading: f64, (left, right): (f64, f64), figure_right: f64) -> Markup {
        let bar = top + heading;
        let pixel = |share: f64| left + share * (right - left);
        let equal = |index: usize| pixel(real_len(index) / real_len(self.parts.len()));
        html! {
            @if heading > 0.0 {
                text.name x="0" y=(px(top + 6.0)) { (short(&self.name)) }
            } @else {
                text.name x=(px(left - 12.0)) y=(px(bar + 13.5)) text-anchor="end" {
                    (short(&self.name))
                }
            }
            @for (queue, packets, from, to) in self.cuts() {
                (self.part(queue, packets, (pixel(from), pixel(to)), bar))
            }
            @for index in 1..self.parts.len() {
                line.axis x1=(px(equal(index))) x2=(px(equal(index)))
                    y1=(px(bar - 6.0)) y2=(px(bar - 1.0)) {}
            }
            @if let Some(skew) = self.skew() {
                text.value x=(px(figure_right)) y=(px(bar + 13.5)) text-anchor="end" {
                    (three(skew))
                }
            }
        }
    }

    fn part(&self, queue: u16, packets: u64, (from, to): (f64, f64), top: f64) -> Markup {
        // One pixel of paper between two parts.
        let width = (to - from - 1.0).max(0.5);
        let label = format!("queue {queue}: {}", tenths(real(packets) / self.total().max(1.0)));
        html! {
            rect class={ "part soft f" (self.paint.hue) } x=(px(from)) y=(px(top))
                width=(px(width)) height=(px(THICK)) {
                title { (self.name) ", " (label) ", " (count(packets)) " packets" }
            }
            @if width > text_width(&label) {
                text.value x=(px(f64::midpoint(from, to))) y=(px(top + 13.0)) text-anchor="middle" {
                    (label)
                }
            } @else if width > 16.0 {
                text.value x=(px(f64::midpoint(from, to))) y=(px(top + 13.0)) text-anchor="middle" {
                    (queue)
                }
            }
        }
    }

    /// Queue, packets, and where its part begins and ends, as shares of all.
    fn cuts(&self) -> Vec<(u16, u64, f64, f64)> {
        let total = self.total().max(1.0);
        let mut sum = 0.0;
        let parts = self.parts.iter().map(|(queue, packets)| {
            let from = sum / total;
            sum += real(*packets);
            (*queue, *packets, from, sum / total)
        });
        parts.collect()
    }
}

/// Per cent with one decimal, so that neighbours line up.
fn tenths(share: f64) -> String {
    format!("{:.1}\u{202f}%", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(packets: &[u64]) -> ShareRow {
        let parts = (0..).zip(packets.iter().copied()).collect();
        ShareRow { name: "a".to_owned(), paint: Paint { hue: 0, shape: 0, dashed: false }, parts }
    }

    #[test]
    fn a_part_is_as_wide_as_its_share() {
        let plot = SharePlot { rows: vec![row(&[100, 300])] };
        let text = plot.draw(Width::Wide).body.into_string();
        let all = 880.0 - FIGURE - 70.0;
        assert_eq!(text.matches("<rect").count(), 2);
        for share in [0.25, 0.75] {
            let width = format!("width=\"{}\"", px(share * all - 1.0));
            assert!(text.contains(&width), "{width} in {text}");
        }
        assert!(text.contains(">1.50<"), "{text}");
    }

    #[test]
    fn skew_is_the_fullest_over_the_mean() {
        assert!((row(&[1, 1, 1, 5]).skew().unwrap() - 2.5).abs() < 1e-9);
        assert_eq!(row(&[]).skew(), None);
        assert_eq!(row(&[0, 0]).skew(), None);
        assert!(row(&[u64::MAX, u64::MAX]).skew().unwrap() < 1.01);
    }
}
