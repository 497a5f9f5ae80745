//! Goal: every id that a check can have stands in docs/DOCTOR.md, once in the program and with one reason.

use std::collections::HashSet;

use super::finding::Topic;
use super::{
    counters, cpus, device_steering, devices, kernel, owners, privileges, queues, spreading,
};

fn topics() -> Vec<Topic> {
    let all: [&[Topic]; 10] = [
        &kernel::TOPICS,
        &privileges::TOPICS,
        &queues::TOPICS,
        &spreading::TOPICS,
        &owners::TOPICS,
        &cpus::TOPICS,
        &devices::TOPICS,
        &device_steering::TOPICS,
        &device_steering::MACHINE_TOPICS,
        &counters::TOPICS,
    ];
    all.concat()
}

#[test]
fn every_id_is_there_once_and_in_the_page() {
    let page = include_str!("../../../docs/DOCTOR.md");
    let mut seen = HashSet::new();
    for Topic { id, why } in topics() {
        assert!(seen.insert(id), "{id} is there twice");
        assert!(page.contains(&format!("| `{id}` |")), "{id} is not in docs/DOCTOR.md");
        assert!(why.len() <= 100 && !why.ends_with('.'), "{id}: {why}");
        assert!(
            id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'),
            "{id}"
        );
    }
}

#[test]
fn the_page_names_no_id_that_is_gone() {
    let known: HashSet<_> = topics().into_iter().map(|topic| topic.id).collect();
    let page = include_str!("../../../docs/DOCTOR.md");
    let named = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let named: Vec<_> =
        named.map(|(id, _)| id).filter(|id| id.contains('-') && !id.starts_with('-')).collect();
    assert!(named.len() > 30, "{named:?}");
    for id in named {
        assert!(known.contains(id), "{id} is in docs/DOCTOR.md and no check has it");
    }
}
