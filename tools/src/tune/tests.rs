//! Apply and revert on copies of a machine's files: every byte comes back, wherever a run is killed or refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::apply::apply;
use super::change::Change;
use super::journal::{self, Journal, Store};
use super::knobs::{KnobError, Knobs, RootKnobs};
use super::revert::{Reverted, revert};
use super::setting::{Setting, Table};
use super::step::kill;

const JOURNAL: &str = "var/lib/fanq/tune.json";

const RINGS: &str = "Ring parameters for eth0:\nPre-set maximums:\nRX:\t\t4096\nTX:\t\t4096\n\
                     Current hardware settings:\nRX:\t\t512\nTX:\t\t512\n";

const CHANNELS: &str = "Channel parameters for eth0:\nPre-set maximums:\nCombined:\t4\n\
                        Current hardware settings:\nCombined:\t2\n";

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// A machine with a setting of each kind, in the forms in which kernels show them.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("proc/sys/kernel/random/boot_id", "first\n"),
        ("proc/sys/net/core/rmem_max", "212992\n"),
        ("proc/sys/net/core/netdev_budget", "300\n"),
        ("proc/irq/38/smp_affinity_list", "0-3\n"),
        ("proc/irq/38/eth0-rx-0/x", ""),
        ("sys/class/net/eth0/queues/rx-0/rps_cpus", "00000000,00000000\n"),
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n"),
        ("commands/ethtool -g eth0", RINGS),
    ] {
        write(root.path(), name, text);
    }
    root
}

fn change(setting: Setting, old: &str, new: &str) -> Change {
    Change { setting, old: old.to_owned(), new: new.to_owned(), reason: String::new(), cost: "" }
}

fn sysctl(name: &str) -> Setting {
    Setting::Sysctl { name: name.to_owned() }
}

fn rps() -> Setting {
    Setting::Rps { device: "eth0".to_owned(), queue: 0 }
}

fn ring() -> Setting {
    Setting::Ethtool { device: "eth0".to_owned(), table: Table::Rings, key: "rx".to_owned() }
}

fn changes() -> Vec<Change> {
    vec![
        change(ring(), "512", "4096"),
        change(sysctl("net.core.rmem_max"), "212992\n", "67108864"),
        change(Setting::Irq { number: 38 }, "0-3\n", "2"),
        change(rps(), "00000000,00000000\n", "f"),
        change(Setting::Governor { cpu: 0 }, "powersave\n", "performance"),
    ]
}

/// Every file with its bytes, but the lock that a killed process leaves.
fn files(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn do_apply(root: &Path, changes: &[Change]) -> anyhow::Result<usize> {
    let store = Store::open(&root.join(JOURNAL))?;
    apply(&mut RootKnobs::new(root), &store, changes).map(|applied| applied.changed)
}

fn do_revert(root: &Path, force: bool) -> anyhow::Result<Option<Reverted>> {
    let store = Store::open(&root.join(JOURNAL))?;
    revert(&mut RootKnobs::new(root), &store, force)
}

fn assert_has_new_values(root: &Path) {
    let knobs = RootKnobs::new(root);
    for change in changes() {
        let now = knobs.read(&change.setting).unwrap();
        assert!(change.setting.same(&now, &change.new), "{} is {now}", change.setting.id());
    }
}

#[test]
fn apply_then_revert_leaves_every_byte_as_it_was() {
    let root = machine();
    let before = files(root.path());
    assert_eq!(do_apply(root.path(), &changes()).unwrap(), 5);
    assert_has_new_values(root.path());
    let reverted = do_revert(root.path(), false).unwrap().unwrap();
    assert_eq!(reverted, Reverted { put_back: 5, ..Reverted::default() });
    assert_eq!(files(root.path()), before);
    assert_eq!(do_revert(root.path(), false).unwrap(), None);
}

/// Killed at every step of an apply, and then at every step of the revert: the next revert brings all back.
#[test]
fn killed_at_any_step_of_apply_and_of_revert_every_byte_comes_back() {
    let mut apply_steps = 0;
    loop {
        let root = machine();
        let before = files(root.path());
        let applied = kill::at(apply_steps, || do_apply(root.path(), &changes()));
        let mut revert_steps = 0;
        loop {
            let begun = files(root.path());
            let reverted = kill::at(revert_steps, || do_revert(root.path(), false).unwrap());
            if let Ok(reverted) = reverted {
                let left = reverted.map_or(0, |reverted| reverted.left.len() + reverted.gone.len());
                assert_eq!(left, 0, "apply killed at {apply_steps}");
                break;
            }
            do_revert(root.path(), false).unwrap();
            assert_eq!(files(root.path()), before, "killed at {apply_steps} and {revert_steps}");
            restore(root.path(), &begun);
            revert_steps += 1;
        }
        assert_eq!(files(root.path()), before, "apply killed at {apply_steps}");
        match applied {
            Ok(applied) => break assert_eq!(applied.unwrap(), 5),
            Err(kill::Killed) => apply_steps += 1,
        }
    }
    // Two for each change, and the journal's.
    assert!(apply_steps >= 2 * changes().len() + 8, "{apply_steps} steps");
}

/// The tree as it was at some time.
fn restore(root: &Path, files: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// An apply over one that was killed brings the machine on, and the revert back to before the first.
#[test]
fn an_apply_behind_a_killed_one_keeps_what_was_before_the_first() {
    let mut steps = 0;
    loop {
        let root = machine();
        let before = files(root.path());
        let killed = kill::at(steps, || do_apply(root.path(), &changes()));
        let mut more = changes();
        more[1].new = "134217728".to_owned();
        more.push(change(sysctl("net.core.netdev_budget"), "300\n", "600"));
        do_apply(root.path(), &more).unwrap();
        let journal = journal::read(&root.path().join(JOURNAL)).unwrap().unwrap();
        assert_eq!(
            (journal.entries.len(), journal.is_under_way()),
            (6, false),
            "killed at {steps}"
        );
        do_revert(root.path(), false).unwrap();
        assert_eq!(files(root.path()), before, "killed at {steps}");
        if killed.is_ok() {
            break;
        }
        steps += 1;
    }
}

#[test]
fn applying_twice_changes_nothing_more_and_keeps_the_first_values() {
    let root = machine();
    let before = files(root.path());
    do_apply(root.path(), &changes()).unwrap();
    let once = files(root.path());
    assert_eq!(do_apply(root.path(), &changes()).unwrap(), 0);
    assert_eq!(files(root.path()), once);
    do_revert(root.path(), false).unwrap();
    assert_eq!(files(root.path()), before);
}

#[test]
fn what_somebody_else_set_is_left_alone_and_forced_on_demand() {
    let root = machine();
    let before = files(root.path());
    do_apply(root.path(), &changes()).unwrap();
    write(root.path(), "proc/sys/net/core/rmem_max", "1000000\n");
    let reverted = do_revert(root.path(), false).unwrap().unwrap();
    assert_eq!((reverted.put_back, reverted.left.len()), (4, 1));
    assert!(reverted.left[0].contains("sysctl -w net.core.rmem_max=212992"), "{reverted:?}");
    let now = files(root.path());
    assert_eq!(now["proc/sys/net/core/rmem_max"], b"1000000\n");
    // Once more it is no other; with force it goes back.
    assert_eq!(do_revert(root.path(), false).unwrap().unwrap().left.len(), 1);
    assert_eq!(do_revert(root.path(), true).unwrap().unwrap().put_back, 1);
    assert_eq!(files(root.path()), before);
}

/// An apply over somebody else's value takes that for what is found.
#[test]
fn an_apply_behind_somebody_elses_change_brings_theirs_back() {
    let root = machine();
    do_apply(root.path(), &changes()).unwrap();
    write(root.path(), "proc/sys/net/core/rmem_max", "1000000\n");
    let theirs = files(root.path());
    do_apply(root.path(), &changes()).unwrap();
    do_revert(root.path(), false).unwrap();
    assert_eq!(
        files(root.path())["proc/sys/net/core/rmem_max"],
        theirs["proc/sys/net/core/rmem_max"]
    );
}

/// A restart brings the machine's own values; a half-finished apply before it makes no difference.
#[test]
fn after_a_restart_only_what_still_is_ours_goes_back() {
    for killed_at in [12, 14, usize::MAX] {
        let root = machine();
        let before = files(root.path());
        let _ = kill::at(killed_at, || do_apply(root.path(), &changes()));
        let applied = files(root.path());
        assert!(applied.contains_key(JOURNAL));
        // All is as after the start, but somebody's start script set one as we did, and one otherwise.
        for (name, bytes) in before.iter().filter(|(name, _)| *name != JOURNAL) {
            std::fs::write(root.path().join(name), bytes).unwrap();
        }
        write(root.path(), "proc/sys/kernel/random/boot_id", "second\n");
        write(root.path(), "proc/sys/net/core/rmem_max", "67108864\n");
        write(root.path(), "sys/class/net/eth0/queues/rx-0/rps_cpus", "1\n");
        let reverted = do_revert(root.path(), false).unwrap().unwrap();
        assert!(reverted.restarted);
        assert_eq!((reverted.put_back, reverted.already, reverted.left.len()), (1, 3, 1));
        let now = files(root.path());
        assert_eq!(now["proc/sys/net/core/rmem_max"], b"212992\n");
        assert_eq!(now["sys/class/net/eth0/queues/rx-0/rps_cpus"], b"1\n");
    }
}

/// The number of an interrupt may be another device's after a restart, and a queue may be gone.
#[test]
fn what_is_not_there_or_is_anothers_is_forgotten() {
    let root = machine();
    do_apply(root.path(), &changes()).unwrap();
    std::fs::rename(
        root.path().join("proc/irq/38/eth0-rx-0"),
        root.path().join("proc/irq/38/nvme0"),
    )
    .unwrap();
    std::fs::remove_dir_all(root.path().join("sys/class/net/eth0/queues")).unwrap();
    let reverted = do_revert(root.path(), false).unwrap().unwrap();
    assert_eq!((reverted.put_back, reverted.gone.len(), reverted.left.len()), (3, 2, 0));
    let now = files(root.path());
    assert_eq!(now["proc/irq/38/smp_affinity_list"], b"2");
    assert!(!now.contains_key(JOURNAL));
}

/// A machine that refuses one setting, or makes something else of it.
struct Stubborn {
    inner: RootKnobs,
    setting: Setting,
    /// What it becomes; none for a refusal.
    becomes: Option<&'static str>,
}

impl Knobs for Stubborn {
    fn read(&self, setting: &Setting) -> Result<String, KnobError> {
        self.inner.read(setting)
    }

    fn write(&mut self, setting: &Setting, value: &str) -> Result<(), KnobError> {
        match self.becomes {
            _ if *setting != self.setting || value.trim() == "512" => {
                self.inner.write(setting, value)
            }
            Some(becomes) => self.inner.write(setting, becomes),
            None => Err(KnobError::Refused { place: setting.id(), words: "no".to_owned() }),
        }
    }

    fn is_settable(&self, setting: &Setting) -> bool {
        self.inner.is_settable(setting)
    }

    fn owner(&self, setting: &Setting) -> String {
        self.inner.owner(setting)
    }

    fn boot(&self) -> String {
        self.inner.boot()
    }
}

fn stubborn(root: &Path, setting: Setting, becomes: Option<&'static str>) -> Stubborn {
    Stubborn { inner: RootKnobs::new(root), setting, becomes }
}

/// Whichever is refused, none is changed; killed while it puts back, the revert does the rest.
#[test]
fn a_refused_change_undoes_the_others() {
    for refused in changes() {
        let root = machine();
        let before = files(root.path());
        let mut knobs = stubborn(root.path(), refused.setting.clone(), None);
        let mut steps = 0;
        loop {
            let run = kill::at(steps, || {
                let store = Store::open(&root.path().join(JOURNAL)).unwrap();
                apply(&mut knobs, &store, &changes()).unwrap_err()
            });
            if let Ok(error) = run {
                let text = format!("{error:#}");
                assert!(text.contains("everything is as before"), "{text}");
                assert!(text.contains(&format!("--skip '{}'", refused.setting.id())), "{text}");
                break assert_eq!(files(root.path()), before);
            }
            do_revert(root.path(), false).unwrap();
            assert_eq!(files(root.path()), before, "killed at {steps}");
            steps += 1;
        }
    }
}

/// A change that is taken and has no effect is a refusal; a write that is refused as there is no such file, too.
#[test]
fn a_change_without_effect_and_one_without_a_file_undo_the_others() {
    let root = machine();
    let before = files(root.path());
    let store = Store::open(&root.path().join(JOURNAL)).unwrap();
    let mut knobs = stubborn(root.path(), rps(), Some("0"));
    let error = format!("{:#}", apply(&mut knobs, &store, &changes()).unwrap_err());
    assert!(error.contains("stays") && error.contains("everything is as before"), "{error}");
    drop(store);
    let mut now = files(root.path());
    // The bytes as the kernel's are: it was set to what it was.
    now.insert(
        "sys/class/net/eth0/queues/rx-0/rps_cpus".to_owned(),
        b"00000000,00000000\n".to_vec(),
    );
    assert_eq!(now, before);

    std::fs::remove_file(root.path().join("proc/irq/38/smp_affinity_list")).unwrap();
    std::fs::create_dir(root.path().join("proc/irq/38/smp_affinity_list")).unwrap();
    let before = files(root.path());
    let error = format!("{:#}", do_apply(root.path(), &changes()).unwrap_err());
    assert!(error.contains("irq.38") && error.contains("nothing was changed"), "{error}");
    assert_eq!(files(root.path()), before);
}

/// Nothing can be written any more behind the last change; then the error says that the changes are in force.
#[test]
fn a_journal_that_cannot_be_written_behind_the_changes_says_that_they_are_made() {
    struct FullDisk(RootKnobs, PathBuf);
    impl Knobs for FullDisk {
        fn read(&self, setting: &Setting) -> Result<String, KnobError> {
            self.0.read(setting)
        }
        fn write(&mut self, setting: &Setting, value: &str) -> Result<(), KnobError> {
            // What is in the way of the journal's next version.
            std::fs::create_dir_all(&self.1).unwrap();
            self.0.write(setting, value)
        }
        fn is_settable(&self, setting: &Setting) -> bool {
            self.0.is_settable(setting)
        }
        fn owner(&self, setting: &Setting) -> String {
            self.0.owner(setting)
        }
        fn boot(&self) -> String {
            self.0.boot()
        }
    }
    let root = machine();
    let before = files(root.path());
    let store = Store::open(&root.path().join(JOURNAL)).unwrap();
    let in_the_way = root.path().join(format!("{JOURNAL}.part"));
    let mut knobs = FullDisk(RootKnobs::new(root.path()), in_the_way.clone());
    let error = format!("{:#}", apply(&mut knobs, &store, &changes()).unwrap_err());
    assert!(error.starts_with("the changes are made; fanq tune revert undoes them"), "{error}");
    assert_has_new_values(root.path());
    drop(store);
    std::fs::remove_dir(in_the_way).unwrap();
    assert_eq!(do_revert(root.path(), false).unwrap().unwrap().put_back, 5);
    assert_eq!(files(root.path()), before);
}

/// What the card resets with the number of its queues is no value of ours; it is said whose it was.
#[test]
fn a_card_that_gets_its_queues_back_is_named() {
    let root = machine();
    write(root.path(), "commands/ethtool -l eth0", CHANNELS);
    let (device, key) = ("eth0".to_owned(), "combined".to_owned());
    let channels = Setting::Ethtool { device, table: Table::Channels, key };
    do_apply(root.path(), &[change(channels, "2", "4")]).unwrap();
    let reverted = do_revert(root.path(), false).unwrap().unwrap();
    let reset = vec!["eth0".to_owned()];
    assert_eq!(reverted, Reverted { put_back: 1, reset, ..Reverted::default() });
}

/// A card takes another number than was asked for; that is ours, too.
#[test]
fn what_the_machine_rounds_is_told_and_put_back() {
    let root = machine();
    let before = files(root.path());
    let mut steps = 0;
    loop {
        let mut knobs = stubborn(root.path(), ring(), Some("4078"));
        let run = kill::at(steps, || {
            let store = Store::open(&root.path().join(JOURNAL)).unwrap();
            apply(&mut knobs, &store, &changes()).unwrap()
        });
        let reverted = do_revert(root.path(), false).unwrap().unwrap_or_default();
        assert_eq!(
            (files(root.path()) == before, reverted.left.len()),
            (true, 0),
            "killed at {steps}"
        );
        let Ok(applied) = run else {
            steps += 1;
            continue;
        };
        assert_eq!(applied.rounded, ["ring.eth0.rx: asked for 4096, got 4078"]);
        break;
    }
}

/// What the machine has rounded is not asked for again, but another value is.
#[test]
fn a_rounded_value_is_made_and_another_is_not() {
    let root = machine();
    let store = Store::open(&root.path().join(JOURNAL)).unwrap();
    apply(&mut stubborn(root.path(), ring(), Some("4078")), &store, &changes()).unwrap();
    let journal = store.load().unwrap().unwrap();
    assert!(journal.has_made(&ring(), "4096", "4078"));
    for (asked, value) in [("4096", "512"), ("2048", "4078"), ("4096", "4096")] {
        assert!(!journal.has_made(&ring(), asked, value), "{asked} {value}");
    }
    // Another value was asked for since: what was rounded before is no more what was asked for last.
    apply(&mut RootKnobs::new(root.path()), &store, &[change(ring(), "4078", "2048")]).unwrap();
    let journal = store.load().unwrap().unwrap();
    assert!(!journal.has_made(&ring(), "4096", "4078") && !journal.is_under_way());
}

/// What a revert is refused stays in the journal, and the rest is put back.
#[test]
fn a_revert_that_is_refused_goes_on_with_the_others_and_can_be_repeated() {
    let root = machine();
    let before = files(root.path());
    do_apply(root.path(), &changes()).unwrap();
    let store = Store::open(&root.path().join(JOURNAL)).unwrap();
    let mut knobs = stubborn(root.path(), rps(), None);
    let error = revert(&mut knobs, &store, false).unwrap_err().to_string();
    assert!(error.contains("rps.eth0.rx-0") && error.contains("tries once more"), "{error}");
    let kept: Journal = store.load().unwrap().unwrap();
    assert_eq!(kept.entries.len(), 1);
    drop(store);
    do_revert(root.path(), false).unwrap();
    assert_eq!(files(root.path()), before);
}
