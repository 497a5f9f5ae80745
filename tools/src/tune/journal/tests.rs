//! Journals on disk: whole or not there, one process at a time, nothing guessed.

use super::*;
use crate::tune::step::kill;

fn journal(old: &str) -> Journal {
    let mut journal = Journal::new("boot".to_owned());
    journal.entries.push(Entry {
        setting: Setting::Sysctl { name: "net.core.rmem_max".to_owned() },
        old: old.to_owned(),
        ours: vec!["1".to_owned()],
        rounded_from: None,
        owner: String::new(),
        under_way: false,
    });
    journal
}

#[test]
fn what_was_saved_is_loaded_and_without_entries_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("var/lib/fanq/tune.json");
    let store = Store::open(&path).unwrap();
    assert_eq!(store.load().unwrap(), None);
    // A value's bytes stay what they are.
    for old in ["212992\n", "a\tb \"\\\u{7f}\n"] {
        store.save(&journal(old)).unwrap();
        assert_eq!(store.load().unwrap(), Some(journal(old)));
    }
    store.save(&Journal::new("boot".to_owned())).unwrap();
    assert_eq!(store.load().unwrap(), None);
    drop(store);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
}

/// Whoever may look at the machine may look at the plan for it, which reads the journal.
#[test]
fn everybody_may_read_it_as_far_as_new_files_may_be_read() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("tune.json"), folder.path().join("other"));
    Store::open(&path).unwrap().save(&journal("1")).unwrap();
    File::create(&other).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), mode(&other) & 0o644);
}

/// Killed at each step of writing, the journal is the one before or the one behind.
#[test]
fn a_journal_is_whole_wherever_its_writer_is_killed() {
    let mut steps = 0;
    loop {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tune.json");
        Store::open(&path).unwrap().save(&journal("first")).unwrap();
        let ended = kill::at(steps, || Store::open(&path).unwrap().save(&journal("second")));
        let found = read(&path).unwrap();
        if ended.is_ok() {
            assert_eq!(found, Some(journal("second")));
            break;
        }
        assert!(found == Some(journal("first")) || found == Some(journal("second")), "{found:?}");
        // The next one is not in its way.
        Store::open(&path).unwrap().save(&journal("third")).unwrap();
        assert_eq!(read(&path).unwrap(), Some(journal("third")));
        steps += 1;
    }
    assert!(steps >= 4, "{steps}");
}

#[test]
fn one_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tune.json");
    let first = Store::open(&path).unwrap();
    let error = Store::open(&path).unwrap_err().to_string();
    assert!(error.contains("another fanq tune is at work"), "{error}");
    drop(first);
    // What a killed process left is no lock.
    std::fs::write(beside(&path, LOCK), "").unwrap();
    Store::open(&path).unwrap();
}

#[test]
fn a_journal_that_is_none_or_anothers_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tune.json");
    let good = serde_json::to_string(&journal("7")).unwrap();
    let twice = {
        let mut twice = journal("7");
        twice.entries.push(twice.entries[0].clone());
        serde_json::to_string(&twice).unwrap()
    };
    for (bad, why) in [
        (String::new(), "EOF"),
        ("{}".to_owned(), "names no format"),
        (good[..good.len() / 2].to_owned(), "EOF"),
        (good.replace("fanq.tune/1", "fanq.tune/2"), "fanq.tune/2"),
        (good.replace("net.core.rmem_max", "kernel.core_pattern"), "kernel.core_pattern"),
        (good.replace("\"old\"", "\"older\""), "older"),
        (twice, "twice"),
    ] {
        std::fs::write(&path, &bad).unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains(why) && error.contains("mv "), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
    }
}
