//! The page: the answer first, then the charts, then why to believe them and how to repeat them.
//!
//! Invariant: one file that names nothing outside itself and runs no script, which its own content security policy
//! holds it to; everything from the document is escaped.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::answer::Answer;
use super::chart::{Chart, style};
use super::lineup::Lineup;
use super::number::{count, duration};
use super::standing::Standings;
use super::{facts, summary, trust};
use crate::result::{Document, Run};

const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

pub(crate) fn draw(document: &Document) -> String {
    let lineup = Lineup::of(document);
    let standings = Standings::of(document, &lineup);
    let answer = Answer::of(document, &lineup, &standings);
    let programs = lineup.programs().count();
    let title = match programs {
        0 => "NFQUEUE bench".to_owned(),
        1 => "NFQUEUE bench: one program".to_owned(),
        several => format!("NFQUEUE bench: {several} programs side by side"),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (head(&title, &answer))
            body {
                main {
                    header {
                        h1 { (title) }
                        p.meta { (run_line(&document.run)) br; (facts::machine_line(&document.machine)) }
                        (alarms(document))
                        (answer.draw())
                    }
                    @if !lineup.members().is_empty() { (summary::draw(document, &lineup, &standings)) }
                    (charts(&Chart::all(document, &lineup)))
                    (rest(document, &lineup))
                }
            }
        }
    };
    page.into_string()
}

fn head(title: &str, answer: &Answer) -> Markup {
    let style = style::page_variables() + include_str!("page.css") + &style::chart_rules();
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width,initial-scale=1";
            meta name="color-scheme" content="light dark";
            meta name="description" content=(answer.headline);
            meta http-equiv="Content-Security-Policy" content=(POLICY);
            title { (title) }
            style { (PreEscaped(style)) }
        }
    }
}

fn charts(charts: &[Chart]) -> Markup {
    html! {
        @if !charts.is_empty() {
            section #charts {
                h2 { "Charts" }
                @for chart in charts { (chart.inline()) }
            }
        }
    }
}

fn rest(document: &Document, lineup: &Lineup<'_>) -> Markup {
    html! {
        section #trust { h2 { "How far to trust this" } (trust::draw(document, lineup)) }
        section #machine { h2 { "The machine" } (facts::machine(&document.machine)) }
        section #settings { h2 { "Lab and load" } (facts::settings(&document.lab, &document.load)) }
        @if !document.targets.is_empty() {
            section #targets { h2 { "Targets and their rules" } (facts::targets(&document.targets)) }
        }
        section #repeat { h2 { "Repeat it" } (facts::repeat(document)) }
        footer {
            "Drawn by fanq-bench " (env!("CARGO_PKG_VERSION")) " from a result of schema "
            (document.schema) "."
        }
    }
}

/// What nobody may overlook.
fn alarms(document: &Document) -> Markup {
    let unaccounted = trust::unaccounted(document);
    html! {
        @if !document.run.complete {
            p.alarm role="alert" {
                strong { "Incomplete. " }
                "The run ended before all that was asked was measured; what follows is what it had by then."
            }
        }
        @if unaccounted > 0 {
            p.alarm role="alert" {
                strong { "The account does not close. " }
                (count(unaccounted)) " packets have no place in it: figures of those trials are in doubt."
            }
        }
    }
}

fn run_line(run: &Run) -> String {
    let mut parts = vec![moment(&run.began)];
    if !run.suite.is_empty() {
        parts.push(format!("{} suite", run.suite));
    }
    parts.push(duration(run.seconds));
    parts.join(" · ")
}

/// `2026-11-22 03:01 UTC` of RFC 3339; anything else as it is.
fn moment(began: &str) -> String {
    let shape = |text: &str| {
        text.bytes().zip(b"0000-00-00T00:00".iter()).all(|(byte, wanted)| match wanted {
            b'0' => byte.is_ascii_digit(),
            _ => byte == *wanted,
        })
    };
    match began.get(..16) {
        Some(start) if shape(start) && began.ends_with('Z') => {
            format!("{} UTC", start.replace('T', " "))
        }
        _ => began.to_owned(),
    }
}

#[cfg(test)]
mod tests;
