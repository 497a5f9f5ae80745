//! The signs that bars and histories are drawn with.
//!
//! Invariant: each is one column wide, in both sets; a bar has a mark wherever it is not empty, a history wherever
//! something waited.

use super::super::rates::float;

/// A set of signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::top) struct Glyphs {
    /// Parts of a full cell, rising, the last being the whole.
    bar: &'static [char],
    bar_empty: char,
    /// Levels of a history, rising from just above nothing.
    levels: &'static [char],
    /// Marks the column that lines are sorted by.
    pub(super) sorted: char,
    pub(super) rule: char,
}

impl Glyphs {
    pub(in crate::top) const UNICODE: Self = Self {
        bar: &['▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'],
        bar_empty: '·',
        levels: &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'],
        sorted: '▾',
        rule: '─',
    };

    /// For terminals and locales that know no other.
    pub(in crate::top) const ASCII: Self = Self {
        bar: &['#'],
        bar_empty: '.',
        levels: &['_', '.', '-', '=', '+', '*', '#'],
        sorted: 'v',
        rule: '-',
    };

    /// `share` (0 to 1) of `width` columns.
    pub(super) fn bar(&self, share: f64, width: usize) -> String {
        let parts = self.bar.len();
        let whole = width * parts;
        // At least one part if there is anything at all.
        let filled = scale(share, whole).clamp(usize::from(share > 0.0), whole);
        let sign = |column: usize| match filled.saturating_sub(column * parts).min(parts) {
            0 => self.bar_empty,
            part => self.bar[part - 1],
        };
        (0..width).map(sign).collect()
    }

    /// The last `width` depths, against `most`; blanks before the first.
    pub(super) fn history(&self, depths: &[u64], most: u64, width: usize) -> String {
        let shown = &depths[depths.len().saturating_sub(width)..];
        let levels = self.levels.len();
        let sign = |depth: &u64| match float(*depth) / float(most.max(1)) {
            0.0 => ' ',
            share => self.levels[scale(share, levels).clamp(1, levels) - 1],
        };
        std::iter::repeat_n(' ', width - shown.len()).chain(shown.iter().map(sign)).collect()
    }
}

/// `share` of `whole`, rounded up, so that little is not nothing.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a share of a screen's width, kept within it"
)]
fn scale(share: f64, whole: usize) -> usize {
    (share.clamp(0.0, 1.0) * whole as f64).ceil() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_wide_as_asked_and_never_lies_about_nothing() {
        assert_eq!(Glyphs::ASCII.bar(0.0, 5), ".....");
        assert_eq!(Glyphs::ASCII.bar(0.001, 5), "#....");
        assert_eq!(Glyphs::ASCII.bar(0.5, 4), "##..");
        assert_eq!(Glyphs::ASCII.bar(7.0, 4), "####");
        assert_eq!(Glyphs::UNICODE.bar(0.5, 3), "█▌·");
        assert_eq!(Glyphs::UNICODE.bar(f64::NAN, 1), "·");
    }

    #[test]
    fn a_history_ends_at_the_right() {
        let text = Glyphs::UNICODE.history(&[9, 0, 1, 4, 8], 8, 6);
        assert_eq!(text, " █ ▁▄█");
    }
}
