//! Colours and lettering, the same for the page and for a chart that stands alone.
//!
//! Invariant: colours are those of Okabe and Ito, which people with any colour vision tell apart (in the dark their
//! blue is a little lighter, to be seen at all); text is never in a series' colour; rules hold literal values, so
//! that programs which know no CSS variables draw a chart right.

use std::fmt::Write;

use maud::{Markup, html};

/// How many colours there are for programs.
pub(crate) const HUES: u8 = 6;
/// The colour of what is no program: a grey.
pub(crate) const GREY: u8 = HUES;

/// How one target is drawn, everywhere on the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paint {
    /// Below [`HUES`], or [`GREY`].
    pub(crate) hue: u8,
    /// The shape of its points.
    pub(crate) shape: u8,
    /// The second of two with the same colour.
    pub(crate) dashed: bool,
}

struct Theme {
    paper: &'static str,
    card: &'static str,
    ink: &'static str,
    quiet: &'static str,
    grid: &'static str,
    axis: &'static str,
    alarm: &'static str,
    alarm_paper: &'static str,
    accent: &'static str,
    hues: [&'static str; HUES as usize + 1],
}

const LIGHT: Theme = Theme {
    paper: "#ffffff",
    card: "#f6f7f9",
    ink: "#16191d",
    quiet: "#5b6570",
    grid: "#e6e9ec",
    axis: "#aab2bb",
    alarm: "#a02c00",
    alarm_paper: "#fff1ea",
    accent: "#0072b2",
    hues: ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a9199"],
};

const DARK: Theme = Theme {
    paper: "#14171b",
    card: "#1c2025",
    ink: "#eceef0",
    quiet: "#a0a9b3",
    grid: "#2a2f36",
    axis: "#5a636e",
    alarm: "#ff9d6e",
    alarm_paper: "#33201a",
    accent: "#56b4e9",
    hues: ["#56b4e9", "#e8702a", "#16b389", "#cc79a7", "#e69f00", "#2f86c5", "#7d8791"],
};

const FONT: &str = "system-ui,-apple-system,'Segoe UI','Helvetica Neue',Arial,sans-serif";

/// The rules for charts; light, and dark on screens that ask for it.
pub(crate) fn chart_rules() -> String {
    let fixed = format!(
        ".chart text{{font:12px {FONT};font-variant-numeric:tabular-nums}}\
         .chart .name{{font-size:13px}}.chart .head{{font-size:16px;font-weight:600}}\
         .chart .panel{{font-size:13px;font-weight:600}}.chart line,.chart path{{fill:none}}\
         .chart .curve{{stroke-width:2;stroke-linejoin:round;stroke-linecap:round}}\
         .chart .dashed{{stroke-dasharray:5 4}}.chart .mark{{stroke-width:1.5}}\
         .chart .leader{{stroke-dasharray:1 3}}.chart .soft{{fill-opacity:.38}}\
         .chart .whisker{{stroke-width:1.5}}\
         .chart .again{{stroke-width:1.5;stroke-dasharray:3 2;fill-opacity:.3}}.chart .again.soft{{fill-opacity:.08}}"
    );
    format!(
        "{fixed}{}@media screen and (prefers-color-scheme:dark){{{}}}",
        themed(&LIGHT),
        themed(&DARK)
    )
}

fn themed(theme: &Theme) -> String {
    let Theme { paper, ink, quiet, grid, axis, .. } = theme;
    let mut rules = format!(
        ".chart text{{fill:{quiet}}}.chart .name,.chart .value,.chart .head,.chart .panel{{fill:{ink}}}\
         .chart .paper{{fill:{paper}}}.chart .sheet{{fill:{paper};stroke:{grid}}}\
         .chart .grid{{stroke:{grid}}}.chart .axis,.chart .leader,.chart .ideal{{stroke:{axis}}}\
         .chart .whisker{{stroke:{ink}}}"
    );
    for (hue, colour) in theme.hues.iter().enumerate() {
        let _ = write!(
            rules,
            ".chart .f{hue}{{fill:{colour}}}.chart .k{hue}{{stroke:{colour}}}\
             .chart .h{hue}{{fill:{paper};stroke:{colour}}}"
        );
    }
    rules
}

/// The page's own colours, as variables.
pub(crate) fn page_variables() -> String {
    format!(
        ":root{{--font:{FONT};{}}}@media screen and (prefers-color-scheme:dark){{:root{{{}}}}}",
        variables(&LIGHT),
        variables(&DARK)
    )
}

fn variables(theme: &Theme) -> String {
    let Theme { paper, card, ink, quiet, grid, axis, alarm, alarm_paper, accent, .. } = theme;
    format!(
        "--paper:{paper};--card:{card};--ink:{ink};--quiet:{quiet};--grid:{grid};--axis:{axis};\
         --alarm:{alarm};--alarm-paper:{alarm_paper};--accent:{accent}"
    )
}

impl Paint {
    /// The class of a filled shape.
    pub(crate) fn fill(self) -> String {
        if self.dashed { format!("f{0} k{0} again", self.hue) } else { format!("f{}", self.hue) }
    }

    /// The class of a line.
    pub(crate) fn stroke(self) -> String {
        format!("curve k{}{}", self.hue, if self.dashed { " dashed" } else { "" })
    }

    /// The path of a point's shape around a place.
    pub(crate) fn outline(self, x: f64, y: f64) -> String {
        match self.shape % 5 {
            0 => format!("M{:.1} {y:.1}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z", x - 4.0),
            1 => format!("M{:.1} {:.1}h7v7h-7Z", x - 3.5, y - 3.5),
            2 => format!("M{x:.1} {:.1}l4.5 8h-9Z", y - 5.0),
            3 => format!("M{x:.1} {:.1}l4.8 4.8l-4.8 4.8l-4.8 -4.8Z", y - 4.8),
            _ => format!("M{x:.1} {:.1}l4.5 -8h-9Z", y + 5.0),
        }
    }

    /// A piece of this target's line with its point, 18 pixels wide, from `x` on.
    pub(crate) fn swatch(self, x: f64, y: f64) -> Markup {
        html! {
            line class=(self.stroke()) x1=(px(x)) x2=(px(x + 18.0)) y1=(px(y)) y2=(px(y)) {}
            path class={ "key f" (self.hue) } d=(self.outline(x + 9.0, y)) {}
        }
    }
}

/// A length or a place, to a tenth of a pixel.
pub(crate) fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or_else(|| text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contrast of two colours, as WCAG 2 defines it.
    fn contrast(one: &str, other: &str) -> f64 {
        let luminance = |colour: &str| {
            let channel = |at: usize| {
                let value = u8::from_str_radix(&colour[at..at + 2], 16).unwrap();
                let value = f64::from(value) / 255.0;
                if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
            };
            0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
        };
        let (one, other) = (luminance(one), luminance(other));
        (one.max(other) + 0.05) / (one.min(other) + 0.05)
    }

    #[test]
    fn text_can_be_read_and_lines_be_seen() {
        for theme in [LIGHT, DARK] {
            for text in [theme.ink, theme.quiet, theme.accent] {
                assert!(contrast(text, theme.paper) >= 4.5, "{text}");
                assert!(contrast(text, theme.card) >= 4.5, "{text}");
            }
            assert!(contrast(theme.alarm, theme.alarm_paper) >= 4.5);
            for hue in theme.hues {
                assert!(contrast(hue, theme.paper) >= 2.1, "{hue}");
            }
        }
    }

    #[test]
    fn every_colour_has_its_rules_in_both_themes() {
        let rules = chart_rules();
        for hue in 0..=GREY {
            for class in ["f", "k", "h"] {
                assert_eq!(rules.matches(&format!(".chart .{class}{hue}{{")).count(), 2);
            }
        }
    }
}
