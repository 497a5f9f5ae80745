//! Who takes part: every target of the document with its part in the comparison and how it is drawn.
//!
//! Invariant: a target has one colour on the whole page; what is named in findings or trials alone takes part too.

use super::chart::style::{GREY, HUES, Paint};
use crate::result::Document;

/// Behind the name of a target that runs a second time, to learn how much it differs from itself.
const AGAIN: &str = " (again)";

/// What a target is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Can be chosen.
    Program,
    /// No program: no rule at all, or one that the kernel answers itself.
    Baseline,
    /// The second of an A/A pair.
    Again,
}

/// One target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member<'a> {
    pub(crate) name: &'a str,
    pub(crate) part: Part,
    pub(crate) paint: Paint,
}

/// All targets, in the document's order.
#[derive(Debug)]
pub(crate) struct Lineup<'a> {
    members: Vec<Member<'a>>,
}

impl<'a> Lineup<'a> {
    pub(crate) fn of(document: &'a Document) -> Self {
        let mut lineup = Self { members: Vec::new() };
        for target in &document.targets {
            lineup.add(&target.name, target.command.is_empty());
        }
        let findings = &document.findings;
        let elsewhere = (findings.cpu.iter().map(|f| &f.target))
            .chain(findings.rates.iter().map(|f| &f.target))
            .chain(findings.curves.iter().map(|f| &f.target))
            .chain(findings.latencies.iter().map(|f| &f.target))
            .chain(findings.tcp.iter().map(|f| &f.target))
            .chain(document.trials.iter().map(|t| &t.target));
        for name in elsewhere {
            lineup.add(name, false);
        }
        lineup
    }

    fn add(&mut self, name: &'a str, baseline: bool) {
        if self.member(name).is_some() {
            return;
        }
        let original = name.strip_suffix(AGAIN).and_then(|original| self.member(original));
        let (part, paint) = match original {
            Some(original) => (Part::Again, Paint { dashed: true, ..original.paint }),
            None if baseline => (Part::Baseline, paint(self.count(Part::Baseline), GREY, 1)),
            None => (Part::Program, paint(self.count(Part::Program), 0, HUES)),
        };
        self.members.push(Member { name, part, paint });
    }

    fn count(&self, part: Part) -> usize {
        self.members.iter().filter(|member| member.part == part).count()
    }

    pub(crate) fn member(&self, name: &str) -> Option<Member<'a>> {
        self.members.iter().find(|member| member.name == name).copied()
    }

    pub(crate) fn members(&self) -> &[Member<'a>] {
        &self.members
    }

    /// What can be chosen.
    pub(crate) fn programs(&self) -> impl Iterator<Item = Member<'a>> {
        self.members.iter().filter(|member| member.part == Part::Program).copied()
    }

    pub(crate) fn is_program(&self, name: &str) -> bool {
        self.member(name).is_some_and(|member| member.part == Part::Program)
    }

    /// Pairs of the same target: its name, and its name the second time.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let again = self.members.iter().filter(|member| member.part == Part::Again);
        again.filter_map(|member| Some((member.name.strip_suffix(AGAIN)?, member.name)))
    }
}

/// The `index`-th of those that share `hues` colours from `first` on; dashed where they come round again.
fn paint(index: usize, first: u8, hues: u8) -> Paint {
    let hues = usize::from(hues);
    Paint {
        hue: first + u8::try_from(index % hues).unwrap_or(0),
        shape: u8::try_from(index % 5).unwrap_or(0),
        dashed: !(index / hues).is_multiple_of(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn baselines_and_second_runs_are_no_programs() {
        let document = sample::document();
        let lineup = Lineup::of(&document);
        let programs: Vec<_> = lineup.programs().map(|member| member.name).collect();
        assert_eq!(programs, ["fanq", "libnetfilter_queue", "nfq", "netfilterqueue"]);
        assert_eq!(lineup.member("kernel").unwrap().part, Part::Baseline);
        assert_eq!(lineup.pairs().collect::<Vec<_>>(), [("fanq", "fanq (again)")]);
    }

    #[test]
    fn thirty_programs_are_all_drawn_differently() {
        let paints: Vec<_> = (0..30).map(|index| paint(index, 0, HUES)).collect();
        for (index, one) in paints.iter().enumerate() {
            assert!(!paints[..index].contains(one), "{index}: {one:?}");
            assert!(one.hue < HUES);
        }
    }

    #[test]
    fn one_named_in_a_trial_alone_takes_part() {
        let mut document = sample::document();
        document.targets.clear();
        assert!(Lineup::of(&document).is_program("nfq"));
    }
}
