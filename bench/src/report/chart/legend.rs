//! Names beside what is drawn: legends, labels at the ends of lines, and how much room a text takes.
//!
//! Invariant: labels at the ends of lines keep apart, in the order of the lines.

use maud::{Markup, html};

use super::style::{Paint, px};
use crate::report::number::real_len;

/// The longest name that is drawn; the whole one is in the table below.
const NAME_CHARS_MAX: usize = 30;
const ROW: f64 = 22.0;
/// Width of a character of a panel's title; titles are mostly of small letters.
const TITLE_CHAR: f64 = 7.3;

/// An entry: how it is drawn, and what it is called.
pub(crate) type Entry<'a> = (Paint, &'a str);

/// A name as a chart shows it: of a long one, its beginning and its end, where commands differ.
pub(crate) fn short(name: &str) -> String {
    let count = name.chars().count();
    if count <= NAME_CHARS_MAX {
        return name.to_owned();
    }
    let end = NAME_CHARS_MAX / 2;
    let beginning = name.chars().take(NAME_CHARS_MAX - end - 1);
    beginning.chain(['…']).chain(name.chars().skip(count - end)).collect()
}

/// About how wide a text is at 13 pixels; rather too much than too little.
pub(crate) fn text_width(text: &str) -> f64 {
    real_len(text.chars().count()) * 7.8
}

/// A title in at most two lines.
pub(crate) fn wrapped(text: &str, width: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if title_width(line) + title_width(word) + TITLE_CHAR <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    let more = lines.len() > 2;
    lines.truncate(2);
    for (index, line) in lines.iter_mut().enumerate() {
        if title_width(line) > width || (more && index == 1) {
            while !line.is_empty() && title_width(line) + TITLE_CHAR > width {
                line.pop();
            }
            line.push('…');
        }
    }
    lines
}

fn title_width(text: &str) -> f64 {
    real_len(text.chars().count()) * TITLE_CHAR
}

/// Rows of entries, and their height.
pub(crate) fn legend(entries: &[Entry<'_>], width: f64) -> (Markup, f64) {
    let mut places = Vec::with_capacity(entries.len());
    let (mut x, mut y) = (0.0, 10.0);
    for (paint, name) in entries {
        let name = short(name);
        let entry_width = 24.0 + text_width(&name);
        if x > 0.0 && x + entry_width > width {
            (x, y) = (0.0, y + ROW);
        }
        places.push((*paint, name, x, y));
        x += entry_width + 18.0;
    }
    let height = if entries.is_empty() { 0.0 } else { y + 14.0 };
    let body = html! {
        @for (paint, name, x, y) in &places {
            (paint.swatch(*x, *y))
            text.name x=(px(x + 24.0)) y=(px(y + 4.5)) { (name) }
        }
    };
    (body, height)
}

/// Places near the wanted ones, `gap` apart, within both ends as far as there is room; in the same order.
pub(crate) fn spread(wanted: &[f64], gap: f64, low: f64, high: f64) -> Vec<f64> {
    let mut order: Vec<_> = (0..wanted.len()).collect();
    order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
    let mut places = wanted.to_vec();
    let mut least = low;
    for index in &order {
        places[*index] = places[*index].max(least);
        least = places[*index] + gap;
    }
    let mut most = high;
    for index in order.iter().rev() {
        places[*index] = places[*index].min(most);
        most = places[*index] - gap;
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_keep_apart_and_in_order() {
        let places = spread(&[100.0, 98.0, 101.0, 20.0], 16.0, 10.0, 120.0);
        assert_eq!(places, [104.0, 88.0, 120.0, 20.0]);
        assert_eq!(spread(&[50.0], 16.0, 10.0, 120.0), [50.0]);
        assert!(spread(&[], 16.0, 10.0, 120.0).is_empty());
    }

    #[test]
    fn a_long_name_is_cut() {
        assert_eq!(short("fanq"), "fanq");
        let cut = short(&format!("exec:./{} --batch 64", "ü".repeat(80)));
        assert_eq!(cut, "exec:./üüüüüüü…üüüü --batch 64");
        assert_eq!(cut.chars().count(), NAME_CHARS_MAX);
    }

    #[test]
    fn a_title_takes_two_lines_at_most() {
        assert_eq!(wrapped("At 1000/s", 400.0), ["At 1000/s"]);
        assert_eq!(wrapped("one two three", 60.0), ["one two", "three"]);
        assert_eq!(wrapped("one two three four", 60.0), ["one two", "three…"]);
        assert_eq!(wrapped("a-very-long-word", 60.0), ["a-very-…"]);
    }

    #[test]
    fn a_legend_goes_on_in_the_next_row() {
        let paint = Paint { hue: 0, shape: 0, dashed: false };
        let names = vec![(paint, "libnetfilter_queue"); 4];
        let (one_row, one_height) = legend(&names, 4000.0);
        let (_, four_high) = legend(&names, 200.0);
        assert_eq!(one_row.into_string().matches("<text").count(), 4);
        assert!((four_high - one_height - 3.0 * ROW).abs() < 1e-9);
        assert!(legend(&[], 200.0).1 < 1e-9);
    }
}
