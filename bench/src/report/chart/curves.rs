//! The charts over load: what is lost, and what arrives.
//!
//! Invariant: a point at which the generator was late is drawn hollow, and the text says so.

use super::lines::{Axis, AxisKind, LinePlot, Mark, Panel, Series};
use super::{Chart, ChartName, Plot};
use crate::report::lineup::Lineup;
use crate::report::number::{percent, three};
use crate::report::table::Table;
use crate::result::{CurvePoint, Document};

const OFFERED: Axis = Axis { title: "packets offered per second", kind: AxisKind::Rate };

pub(super) fn loss(document: &Document, lineup: &Lineup<'_>) -> Option<Chart> {
    let plot = LinePlot {
        x: OFFERED,
        y: Axis { title: "lost", kind: AxisKind::Percent },
        ideal: None,
        panels: panel(document, lineup, |point| point.lost_share * 100.0)?,
    };
    Some(Chart {
        name: ChartName::Loss,
        title: "Loss against load",
        about: format!(
            "Share of the packets that did not arrive; lower is better.{}",
            late(document)
        ),
        plot: Plot::Lines(plot),
        table: table(document, lineup),
    })
}

pub(super) fn goodput(document: &Document, lineup: &Lineup<'_>) -> Option<Chart> {
    let plot = LinePlot {
        x: OFFERED,
        y: Axis { title: "packets delivered per second", kind: AxisKind::Rate },
        ideal: Some("all delivered"),
        panels: panel(document, lineup, |point| point.delivered_pps)?,
    };
    Some(Chart {
        name: ChartName::Goodput,
        title: "Delivered against offered",
        about: format!(
            "What arrives of what is sent; higher is better, and what falls with more load is a \
             collapse.{}",
            late(document)
        ),
        plot: Plot::Lines(plot),
        table: table(document, lineup),
    })
}

fn late(document: &Document) -> &'static str {
    let mut points = document.findings.curves.iter().flat_map(|curve| &curve.points);
    if points.all(|point| point.valid) {
        ""
    } else {
        " Hollow: the generator could not keep to its times."
    }
}

fn panel(
    document: &Document,
    lineup: &Lineup<'_>,
    y: impl Fn(&CurvePoint) -> f64,
) -> Option<Vec<Panel>> {
    let series: Vec<_> = rows(document, lineup)
        .map(|(name, points)| {
            let marks = points.iter().map(|point| Mark {
                x: point.offered_pps,
                y: y(point),
                text: format!(
                    "{name}: {} offered, {} delivered, {} lost",
                    three(point.offered_pps),
                    three(point.delivered_pps),
                    percent(point.lost_share)
                ),
                hollow: !point.valid,
            });
            let marks: Vec<_> = marks.collect();
            let line = marks.iter().map(|mark| (mark.x, mark.y)).collect();
            let paint = lineup.member(name).map(|member| member.paint)?;
            Some(Series { name: name.to_owned(), paint, line, marks })
        })
        .collect::<Option<_>>()?;
    (!series.is_empty()).then(|| vec![Panel { title: None, series }])
}

/// Targets and their points, in the order of the lineup and of the load.
fn rows<'a>(
    document: &'a Document,
    lineup: &Lineup<'a>,
) -> impl Iterator<Item = (&'a str, Vec<CurvePoint>)> {
    lineup.members().iter().filter_map(|member| {
        let own = document.findings.curves.iter().filter(|curve| curve.target == member.name);
        let mut points: Vec<_> = own.flat_map(|curve| curve.points.iter().copied()).collect();
        points.sort_by(|a, b| a.offered_pps.total_cmp(&b.offered_pps));
        (!points.is_empty()).then_some((member.name, points))
    })
}

fn table(document: &Document, lineup: &Lineup<'_>) -> Table {
    let mut table = Table::new(["Target", "Of reference", "Offered/s", "Delivered/s", "Lost", ""]);
    for (name, points) in rows(document, lineup) {
        for point in points {
            table.row([
                name.to_owned(),
                percent(point.share),
                three(point.offered_pps),
                three(point.delivered_pps),
                percent(point.lost_share),
                if point.valid { String::new() } else { "generator late".to_owned() },
            ]);
        }
    }
    table
}
