//! The charts: what each shows, as data, then as SVG, inside the page or standing alone.
//!
//! Invariant: a chart whose data is missing is left out; what is drawn stands in a table too; a chart says in
//! words what it shows. Nothing here knows the page around it.

mod bars;
mod costs;
mod curves;
mod delays;
mod legend;
mod lines;
mod scale;
mod shares;
pub(crate) mod style;

use clap::ValueEnum;
use maud::{Markup, PreEscaped, html};

use super::lineup::Lineup;
use super::number::real_len;
use super::table::Table;
use crate::result::Document;
use legend::wrapped;
use style::px;

/// From one line of small text to the next.
const LINE: f64 = 17.0;

/// The charts, in the page's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ChartName {
    /// Delay by percentile
    Delay,
    /// Loss against load
    Loss,
    /// Delivered against offered
    Goodput,
    /// CPU time per packet
    Cpu,
    /// Highest rates with no loss and with 0.5 % lost
    Rates,
    /// Packets of each queue
    Queues,
    /// Bulk TCP
    Tcp,
    /// Short TCP connections
    Connections,
}

/// One chart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chart {
    pub(crate) name: ChartName,
    pub(crate) title: &'static str,
    /// What is shown, how, and which way is better.
    pub(crate) about: String,
    pub(crate) plot: Plot,
    pub(crate) table: Table,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Plot {
    Lines(lines::LinePlot),
    Bars(bars::BarPlot),
    Shares(shares::SharePlot),
}

/// For which screens a chart is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Width {
    Wide,
    /// Phones.
    Narrow,
}

/// What is inside an SVG.
#[derive(Debug)]
pub(crate) struct Drawing {
    width: f64,
    height: f64,
    body: Markup,
}

impl ChartName {
    /// As on the command line.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::Loss => "loss",
            Self::Goodput => "goodput",
            Self::Cpu => "cpu",
            Self::Rates => "rates",
            Self::Queues => "queues",
            Self::Tcp => "tcp",
            Self::Connections => "connections",
        }
    }
}

impl Width {
    fn pixels(self) -> f64 {
        match self {
            Self::Wide => 880.0,
            Self::Narrow => 340.0,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Wide => "wide",
            Self::Narrow => "narrow",
        }
    }
}

impl Chart {
    /// The chart, if the document has data for it.
    pub(crate) fn of(name: ChartName, document: &Document, lineup: &Lineup<'_>) -> Option<Self> {
        match name {
            ChartName::Delay => delays::delay(document, lineup),
            ChartName::Loss => curves::loss(document, lineup),
            ChartName::Goodput => curves::goodput(document, lineup),
            ChartName::Cpu => costs::cpu(document, lineup),
            ChartName::Rates => costs::rates(document, lineup),
            ChartName::Queues => costs::queues(document, lineup),
            ChartName::Tcp => costs::tcp(document, lineup),
            ChartName::Connections => costs::connections(document, lineup),
        }
    }

    /// Every chart that the document has data for.
    pub(crate) fn all(document: &Document, lineup: &Lineup<'_>) -> Vec<Self> {
        let names = ChartName::value_variants().iter();
        names.filter_map(|name| Self::of(*name, document, lineup)).collect()
    }

    /// Part of a page; drawn twice, for the page to show the one that fits.
    pub(crate) fn inline(&self) -> Markup {
        html! {
            figure #{ "chart-" (self.name.as_str()) } {
                h3 { (self.title) }
                p.about { (self.about) }
                @for width in [Width::Wide, Width::Narrow] {
                    div class=(width.as_str()) { (self.svg(width)) }
                }
                details { summary { "Figures as a table" } (self.table.draw()) }
            }
        }
    }

    fn draw(&self, width: Width) -> Drawing {
        match &self.plot {
            Plot::Lines(plot) => plot.draw(width),
            Plot::Bars(plot) => plot.draw(width),
            Plot::Shares(plot) => plot.draw(width),
        }
    }

    fn svg(&self, width: Width) -> Markup {
        let Drawing { width: w, height: h, body } = self.draw(width);
        let id = format!("{}-{}", self.name.as_str(), width.as_str());
        html! {
            svg.chart role="img" aria-labelledby={ (id) "-title " (id) "-desc" }
                viewBox={ "0 0 " (px(w)) " " (px(h)) } {
                (self.words(&id))
                (body)
            }
        }
    }

    /// A document of its own, with its own paper and lettering.
    pub(crate) fn stand_alone(&self) -> String {
        let Drawing { width, height, body } = self.draw(Width::Wide);
        let about = about_lines(&self.about, width);
        let (side, above, below) = (24.0, 62.0 + LINE * real_len(about.len()), 20.0);
        let (w, h) = (width + 2.0 * side, height + above + below);
        let id = self.name.as_str();
        let svg = html! {
            svg.chart xmlns="http://www.w3.org/2000/svg" role="img"
                aria-labelledby={ (id) "-title " (id) "-desc" }
                width=(px(w)) height=(px(h)) viewBox={ "0 0 " (px(w)) " " (px(h)) } {
                (self.words(id))
                style { (PreEscaped(style::chart_rules())) }
                rect.sheet x="0.5" y="0.5" width=(px(w - 1.0)) height=(px(h - 1.0)) rx="8" {}
                text.head x=(px(side)) y="34" { (self.title) }
                @for (index, line) in about.iter().enumerate() {
                    text x=(px(side)) y=(px(54.0 + LINE * real_len(index))) { (line) }
                }
                g transform={ "translate(" (px(side)) " " (px(above)) ")" } { (body) }
            }
        };
        svg.into_string().replace(forbidden_in_xml, "\u{fffd}") + "\n"
    }

    fn words(&self, id: &str) -> Markup {
        html! {
            title #{ (id) "-title" } { (self.title) }
            desc #{ (id) "-desc" } { (self.about) }
        }
    }
}

/// What XML has no way to write; HTML is more patient.
fn forbidden_in_xml(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t') || matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// As many sentences as two lines hold.
fn about_lines(about: &str, width: f64) -> Vec<String> {
    let ends = about.match_indices(". ").map(|(index, _)| index + 1).chain([about.len()]);
    let fits = |lines: &Vec<String>| lines.iter().all(|line| !line.ends_with('…'));
    ends.map(|end| wrapped(&about[..end], width)).take_while(fits).last().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_that_stands_alone_says_whole_sentences() {
        let about = "One is short. Two is a little longer than that. Three does not fit any more.";
        assert_eq!(
            about_lines(about, 200.0),
            ["One is short. Two is a", "little longer than that."]
        );
        assert!(about_lines(&"word ".repeat(400), 200.0).is_empty());
    }
}
