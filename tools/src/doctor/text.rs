//! The findings for people: grouped, aligned, 80 columns wide, with colours only where they are wanted.
//!
//! Invariant: colours add nothing that the words do not say. A command stands on one line whatever its length, so that
//! it can be copied.

use std::fmt::Write as _;

use super::finding::{Finding, Group, Status};
use super::posture::Case;
use super::report::Report;

/// Writes the whole page.
pub(super) fn page(report: &Report, coloured: bool) -> String {
    let mut page = String::new();
    for (group, findings) in report.groups() {
        if !findings.is_empty() {
            write_group(&mut page, group, &findings, coloured);
        }
    }
    if !report.posture.is_empty() {
        write_posture(&mut page, &report.posture);
    }
    page.push_str(&report.last_line());
    page.push('\n');
    page
}

fn write_group(page: &mut String, group: Group, findings: &[&Finding], coloured: bool) {
    let _ = writeln!(page, "{}", group.title());
    let ids = findings.iter().map(|finding| finding.id.len()).max().unwrap_or(0);
    for finding in findings {
        let status = finding.status;
        let word = format!("{:<6}", status.word());
        let word = if coloured { format!("{}{word}\x1b[0m", colour(status)) } else { word };
        let title = match &finding.subject {
            Some(subject) => format!("{subject}: {}", finding.title),
            None => finding.title.clone(),
        };
        let indent = STATUS_COLUMNS + ids + 2;
        let _ = write!(page, "  {word}  {:<ids$}  ", finding.id);
        write_folded(page, &title, indent);
        if status == Status::Warn || status == Status::Fail {
            detail(page, "why", finding.why);
        }
        for line in &finding.evidence {
            detail(page, "seen", line);
        }
        for command in &finding.mend {
            let _ = writeln!(page, "{:STATUS_COLUMNS$}mend  {command}", "");
        }
    }
    page.push('\n');
}

fn write_posture(page: &mut String, posture: &[Case]) {
    let _ = writeln!(page, "crash posture: what becomes of packets");
    let (cases, packets) = (
        posture.iter().map(|case| case.name.len()).max().unwrap_or(0),
        posture.iter().map(|case| case.packets.len()).max().unwrap_or(0),
    );
    for case in posture {
        let _ = write!(page, "  {:<cases$}  {:<packets$}  ", case.name, case.packets);
        write_folded(page, &case.because, cases + packets + 6);
    }
    page.push('\n');
}

fn detail(page: &mut String, label: &str, text: &str) {
    let _ = write!(page, "{:STATUS_COLUMNS$}{label:<4}  ", "");
    write_folded(page, text, STATUS_COLUMNS + 6);
}

/// Writes a text that begins at column `indent`, and folds it there at blanks.
fn write_folded(page: &mut String, text: &str, indent: usize) {
    let width = COLUMNS.saturating_sub(indent).max(20);
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > width {
            let _ = write!(page, "\n{:indent$}", "");
            used = 0;
        } else if used > 0 {
            page.push(' ');
            used += 1;
        }
        page.push_str(word);
        used += length;
    }
    page.push('\n');
}

const fn colour(status: Status) -> &'static str {
    match status {
        Status::Ok => "\x1b[32m",
        Status::Unseen => "\x1b[36m",
        Status::Warn => "\x1b[33m",
        Status::Fail => "\x1b[31m",
    }
}

/// Two blanks, the widest status, two blanks.
const STATUS_COLUMNS: usize = 10;

const COLUMNS: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_folded_below_its_beginning() {
        let mut page = "1234567890".to_owned();
        write_folded(&mut page, &"word ".repeat(20), 10);
        let lines: Vec<_> = page.trim_end().lines().collect();
        assert_eq!(lines.len(), 2, "{page}");
        assert!(lines[1].starts_with("          word"), "{page}");
        assert!(lines.iter().all(|line| line.len() <= 80), "{page}");
    }
}
