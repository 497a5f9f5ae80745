//! Goal: points are where their values say. Method: plots small enough to compute the pixels by hand.

use super::*;

const PAINT: Paint = Paint { hue: 2, shape: 0, dashed: false };

fn plot(x: AxisKind, y: AxisKind, points: &[(f64, f64)]) -> LinePlot {
    let mark =
        |(x, y): &(f64, f64)| Mark { x: *x, y: *y, text: "a point".to_owned(), hollow: false };
    let series = Series {
        name: "a".to_owned(),
        paint: PAINT,
        line: points.to_vec(),
        marks: points.iter().map(mark).collect(),
    };
    LinePlot {
        x: Axis { title: "x", kind: x },
        y: Axis { title: "y", kind: y },
        ideal: None,
        panels: vec![Panel { title: None, series: vec![series] }],
    }
}

fn text(plot: &LinePlot, width: Width) -> String {
    plot.draw(width).body.into_string()
}

/// One panel of a wide chart: from 52 to 880 - (7.8 + 44) pixels, and from 26 + 270 up to 26.
#[test]
fn points_are_at_the_pixels_of_their_values() {
    let shown = text(
        &plot(AxisKind::Rate, AxisKind::Percent, &[(0.0, 0.0), (500.0, 25.0), (1000.0, 50.0)]),
        Width::Wide,
    );
    let x = |share: f64| px(52.0 + (880.0 - 51.8 - 52.0) * share / 1.02);
    let path = format!("d=\"M52 296L{} 161L{} 26\"", x(0.5), x(1.0));
    assert!(shown.contains(&path), "{path} in {shown}");
    assert_eq!(shown.matches("class=\"mark f2\"").count(), 3);
    assert!(shown.contains(&format!("d=\"{}\"", PAINT.outline(52.0, 296.0))));
}

/// Delays from 10 to 1000: two decades, 270 pixels. One packet in 1, 10, 100: two decades too.
#[test]
fn percentiles_and_delays_are_logarithmic() {
    let points = [(1.0, 10.0), (10.0, 100.0), (100.0, 1000.0)];
    let shown = text(&plot(AxisKind::Percentile, AxisKind::Time, &points), Width::Wide);
    let path = format!("d=\"M52 296L{} 161L{} 26\"", px(52.0 + 776.2 / 2.0), px(52.0 + 776.2));
    assert!(shown.contains(&path), "{path} in {shown}");
    for label in [">50<", ">90<", ">99<", ">100\u{202f}µs<", ">1\u{202f}ms<"] {
        assert!(shown.contains(label), "{label} in {shown}");
    }
    assert!(!shown.contains(">99.9<"));
}

#[test]
fn lines_are_named_at_their_ends_or_in_a_legend() {
    let mut plot = plot(AxisKind::Rate, AxisKind::Percent, &[(1.0, 1.0), (2.0, 2.0)]);
    assert_eq!(text(&plot, Width::Wide).matches("class=\"leader\"").count(), 1);
    assert!(!text(&plot, Width::Narrow).contains("class=\"leader\""));
    assert_eq!(text(&plot, Width::Narrow).matches(">a</text>").count(), 1);
    plot.panels.push(plot.panels[0].clone());
    assert!(!text(&plot, Width::Wide).contains("class=\"leader\""));
    assert_eq!(text(&plot, Width::Wide).matches(">a</text>").count(), 1, "once for both panels");
}

#[test]
fn a_plot_without_points_has_its_axes() {
    let shown = text(&plot(AxisKind::Percentile, AxisKind::Time, &[]), Width::Wide);
    assert!(shown.contains("class=\"grid\"") && !shown.contains("NaN"), "{shown}");
}
