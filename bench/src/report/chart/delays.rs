//! The delay chart: percentile curves, a panel for each load.
//!
//! Invariant: a curve is thinned to what can be seen, never smoothed.

use super::lines::{Axis, AxisKind, LinePlot, Mark, Panel, Series};
use super::style::Paint;
use super::{Chart, ChartName, Plot};
use crate::report::answer::rate_beside;
use crate::report::histogram::{Measured, measured};
use crate::report::lineup::Lineup;
use crate::report::number::{count, three, three_or_missing};
use crate::report::table::Table;
use crate::result::Document;

/// Percentiles with a mark on the curve and a column in the table.
const LANDMARKS: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 99.99];
/// Neighbours on a curve are at least this far apart, as a factor: about a pixel of a wide chart.
const FACTOR_MIN: f64 = 1.02;

pub(super) fn delay(document: &Document, lineup: &Lineup<'_>) -> Option<Chart> {
    let measured = measured(document);
    let mut loads: Vec<(&str, f64)> = Vec::new();
    for one in &measured {
        if !loads.iter().any(|(load, _)| *load == one.load) {
            loads.push((&one.load, one.pps));
        }
    }
    loads.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut table = Table::new([
        "Target",
        "Load",
        "n",
        "50 %, µs",
        "90 %, µs",
        "99 %, µs",
        "99.9 %, µs",
        "99.99 %, µs",
    ]);
    let mut panels = Vec::new();
    for (load, pps) in loads {
        let mut series = Vec::new();
        for member in lineup.members() {
            let own = measured.iter().filter(|m| m.target == member.name && m.load == load);
            for one in own {
                table.rows.push(row(one));
                series.push(one_series(one, member.paint));
            }
        }
        panels.push(Panel { title: Some(format!("At {load}{}", rate_beside(load, pps))), series });
    }
    if panels.is_empty() {
        return None;
    }
    Some(Chart {
        name: ChartName::Delay,
        title: "Delay by percentile",
        about: "One-way delay that so many per cent of the packets do not exceed, from the time \
                at which each was due; lower is better. Both axes are logarithmic. A curve ends \
                where fewer than ten packets lie beyond."
            .to_owned(),
        plot: Plot::Lines(LinePlot {
            x: Axis { title: "per cent of packets", kind: AxisKind::Percentile },
            y: Axis { title: "one-way delay", kind: AxisKind::Time },
            ideal: None,
            panels,
        }),
        table,
    })
}

fn row(one: &Measured<'_>) -> Vec<String> {
    let head = [one.target.to_owned(), one.load.clone(), count(one.all.total())];
    let percentiles = LANDMARKS.map(|percent| three_or_missing(one.all.percentile_us(percent)));
    head.into_iter().chain(percentiles).collect()
}

fn one_series(one: &Measured<'_>, paint: Paint) -> Series {
    let marks = LANDMARKS.iter().filter_map(|percent| {
        let us = one.all.percentile_us(*percent)?;
        let text = format!("{}: {percent} % within {} µs", one.target, three(us));
        Some(Mark { x: 100.0 / (100.0 - percent), y: us, text, hollow: false })
    });
    Series {
        name: one.target.to_owned(),
        paint,
        line: thinned(&one.all.curve()),
        marks: marks.collect(),
    }
}

/// Without points that cannot be told from their neighbours; the first and the last stay.
fn thinned(curve: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for (index, point) in curve.iter().enumerate() {
        let far = kept.last().is_none_or(|last| point.0 >= last.0 * FACTOR_MIN);
        if far || index + 1 == curve.len() {
            kept.push(*point);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_of_many_points_is_thinned_and_keeps_its_ends() {
        let curve: Vec<_> =
            (0..100_000).map(|i| (1.0 + f64::from(i) / 100.0, f64::from(i))).collect();
        let kept = thinned(&curve);
        assert!(kept.len() < 400, "{}", kept.len());
        assert_eq!(kept.first(), curve.first());
        assert_eq!(kept.last(), curve.last());
    }
}
