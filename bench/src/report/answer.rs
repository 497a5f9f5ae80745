//! The answer, in words: which configuration to choose, and how sure that is.
//!
//! Invariant: what cannot be told apart is called level; where the first target is not first, that is said.

use maud::{Markup, html};

use super::lineup::Lineup;
use super::number::{percent, three};
use super::standing::{Better, Entry, Standing, Standings, at_load};
use crate::result::Document;

/// The verdict over three questions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) headline: String,
    pub(crate) because: String,
    pub(crate) cards: Vec<Card>,
}

/// One question's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Card {
    pub(crate) question: &'static str,
    pub(crate) figure: String,
    pub(crate) unit: &'static str,
    pub(crate) who: String,
    /// Against the next, or how the first target does where it is not first.
    pub(crate) remarks: Vec<String>,
}

/// A question and how its figures are called.
struct Question<'s, 'a> {
    standing: &'s Standing<'a>,
    title: &'static str,
    unit: &'static str,
    /// In "is first in ...".
    topic: &'static str,
}

impl Answer {
    pub(crate) fn of(document: &Document, lineup: &Lineup<'_>, standings: &Standings<'_>) -> Self {
        let questions = [
            ("Highest loss-free rate", "packets/s", "rate", &standings.rate),
            ("Least CPU per packet", "µs", "CPU time", &standings.cpu),
            ("Least delay, 99th percentile", "µs", "delay", &standings.p99),
        ]
        .map(|(title, unit, topic, standing)| Question { standing, title, unit, topic });
        let asked: Vec<_> = questions.iter().filter(|q| !q.standing.entries.is_empty()).collect();
        let first = lineup.programs().next().map(|member| member.name);
        let (headline, because) = verdict(lineup, &asked);
        let mut cards: Vec<_> = asked.iter().map(|question| question.card(first)).collect();
        if let (Some(load), Some(card)) = (standings.load, cards.last_mut())
            && !standings.p99.entries.is_empty()
        {
            card.remarks
                .insert(0, format!("At {}{}.", load.name, rate_beside(load.name, load.pps)));
            for finding in at_load(document, standings.load) {
                let unranked = standings.p99.entry(&finding.target).is_none();
                if unranked && lineup.is_program(&finding.target) && finding.lost_share > 0.0 {
                    let lost = percent(finding.lost_share);
                    card.remarks.push(format!("{} lost {lost} there: not ranked.", finding.target));
                }
            }
        }
        Self { headline, because, cards }
    }

    pub(crate) fn draw(&self) -> Markup {
        html! {
            p.answer { (self.headline) }
            p.because { (self.because) }
            @if !self.cards.is_empty() {
                div.cards {
                    @for card in &self.cards {
                        section.card {
                            h2 { (card.question) }
                            p.figure { (card.figure) " " span.unit { (card.unit) } }
                            p.who { (card.who) }
                            @for remark in &card.remarks { p.remark { (remark) } }
                        }
                    }
                }
            }
        }
    }
}

/// The rate, where the load's name does not say it.
pub(crate) fn rate_beside(load: &str, pps: f64) -> String {
    if load.ends_with("/s") || pps >= f64::MAX {
        String::new()
    } else {
        format!(" ({} packets/s)", three(pps))
    }
}

/// Who leads in everything asked, or that nobody does.
fn verdict(lineup: &Lineup<'_>, asked: &[&Question<'_, '_>]) -> (String, String) {
    let Some(some) = asked.first() else {
        return (
            "Nothing to choose by.".to_owned(),
            "The document holds no rate, no CPU time and no delay of any program.".to_owned(),
        );
    };
    let topics = join(&asked.iter().map(|question| question.topic).collect::<Vec<_>>(), "and");
    let mut programs = lineup.programs();
    if let (Some(only), None) = (programs.next(), programs.next()) {
        return (
            format!("{} was measured alone.", only.name),
            format!("There is nothing to compare its {topics} with."),
        );
    }
    let leads_all = |entry: &&Entry<'_>| asked.iter().all(|q| q.standing.leads(entry.name));
    let choice: Vec<_> = some.standing.leaders().filter(leads_all).map(|e| e.name).collect();
    let alone = asked.iter().all(|question| question.standing.leaders().count() == 1);
    match choice.as_slice() {
        [] => (
            "Choose by what matters to you.".to_owned(),
            format!("No target is first in all of {topics}."),
        ),
        [name] if alone => {
            let beyond = if lineup.pairs().next().is_some() {
                "beyond the noise."
            } else {
                "beyond the intervals; no target was measured twice (--again), so the noise is not known."
            };
            (format!("Choose {name}."), format!("It is first in {topics}, {beyond}"))
        }
        [name] => (
            format!("Choose {name}."),
            format!("It is first in {topics}, or level with the first within the intervals."),
        ),
        several => (
            format!("Choose {}.", join(several, "or")),
            format!("They are level in {topics}: the intervals do not tell them apart."),
        ),
    }
}

impl Question<'_, '_> {
    fn card(&self, first: Option<&str>) -> Card {
        let leaders: Vec<_> = self.standing.leaders().collect();
        let best = self.standing.entries[0];
        let names: Vec<_> = leaders.iter().map(|entry| entry.name).collect();
        let level = leaders.len() > 1;
        let behind = first.filter(|first| self.standing.entry(first).is_some_and(|e| !e.leads));
        let mut remarks = Vec::new();
        if level {
            let figures: Vec<_> = leaders.iter().map(|entry| figure(entry)).collect();
            let figures: Vec<_> = figures.iter().map(String::as_str).collect();
            remarks.push(format!("Level within the intervals: {}.", join(&figures, "and")));
        } else if let Some(next) = self.standing.entries.get(1).filter(|e| Some(e.name) != behind) {
            remarks.push(self.against(&best, next));
        }
        if let Some(entry) = behind.and_then(|first| self.standing.entry(first)) {
            remarks.push(format!("{} is not first here: {}.", entry.name, self.behind(entry)));
        }
        Card {
            question: self.title,
            figure: figure(&best),
            unit: self.unit,
            who: join(&names, "and"),
            remarks,
        }
    }

    fn against(&self, best: &Entry<'_>, next: &Entry<'_>) -> String {
        let Entry { name, .. } = next;
        match self.standing.better {
            _ if best.value <= 0.0 || next.value <= 0.0 => {
                format!("Next: {name}, {}.", figure(next))
            }
            Better::More => {
                let times = three(best.value / next.value);
                format!("{times} times the next, {name} ({}).", figure(next))
            }
            Better::Less => {
                let times = three(next.value / best.value);
                format!("The next, {name}, takes {times} times as much ({}).", figure(next))
            }
        }
    }

    fn behind(&self, entry: &Entry<'_>) -> String {
        let best = self.standing.entries[0].value;
        let share = if best > 0.0 { three(entry.value / best) } else { "more".to_owned() };
        match self.standing.better {
            Better::More => format!("{} {}, {share} of the highest", figure(entry), self.unit),
            Better::Less => format!("{} {}, {share} times the least", figure(entry), self.unit),
        }
    }
}

fn figure(entry: &Entry<'_>) -> String {
    format!("{}{}", if entry.at_least { "≥ " } else { "" }, three(entry.value))
}

/// One, two or more names in a sentence; of many, some.
fn join(names: &[&str], word: &str) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [all @ .., last] if names.len() <= 4 => format!("{} {word} {last}", all.join(", ")),
        [a, b, c, rest @ ..] => format!("{a}, {b}, {c} {word} {} more", rest.len()),
        [a, b] => format!("{a} {word} {b}"),
    }
}

#[cfg(test)]
mod tests;
