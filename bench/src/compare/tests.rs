//! Goal: a comparison says "same" where nothing changed and finds a slowdown of 10 %, each in 19 of 20 tries; what
//! cannot be compared is refused by name; the exit status fits. Method: documents made of simulated trials, with
//! noise from a fixed seed.

mod documents;
mod lacking;
mod power;
mod rates;

use super::*;
use crate::result::{CpuMethod, Topology};
use documents::{connection_trials, cpu_trials, document, latency_trials, tcp_trials};
use judge::Change;

fn args() -> CompareArgs {
    let [a, b] = ["a.json", "b.json"].map(PathBuf::from);
    CompareArgs { a, b, json: false, across_machines: false, threshold: 0.05, control: None }
}

fn judged(a: &Document, b: &Document) -> Comparison {
    compare(a, b, &args(), 499)
}

/// Twenty steady trials of each target, at so many us a packet.
fn steady(targets: &[(&str, f64)]) -> Document {
    let trials = targets.iter().map(|(target, us)| {
        let noise = |round: i32| 1.0 + 0.01 * f64::from(round % 5 - 2);
        cpu_trials(target, &(0..20).map(|round| us * noise(round)).collect::<Vec<_>>())
    });
    document(trials.flatten().collect())
}

#[test]
fn equal_results_are_the_same_and_slower_ones_worse() {
    let a = steady(&[("fanq", 1.0), ("single", 3.0)]);
    assert_eq!(judged(&a, &a).verdict, Verdict::Same);
    let slower = judged(&a, &steady(&[("fanq", 1.1), ("single", 3.0)]));
    assert_eq!(slower.verdict, Verdict::Worse);
    assert_eq!(slower.summary, "worse: fanq, CPU us/packet 10.0 % more");
    assert_eq!(
        slower.rows.iter().map(|r| r.verdict).collect::<Vec<_>>(),
        [Change::Worse, Change::Same]
    );
    let faster = judged(&a, &steady(&[("fanq", 0.9), ("single", 3.0)]));
    assert_eq!(faster.verdict, Verdict::Better);
    // Both ways at once is worse, and says so.
    let mixed = judged(&a, &steady(&[("fanq", 0.9), ("single", 3.3)]));
    assert_eq!(mixed.verdict, Verdict::Worse);
    assert!(mixed.summary.contains("; better: fanq"), "{}", mixed.summary);
}

#[test]
fn a_change_below_the_threshold_is_the_same_however_sure() {
    let (a, b) = (steady(&[("fanq", 1.0)]), steady(&[("fanq", 1.04)]));
    let comparison = judged(&a, &b);
    assert!(comparison.rows[0].p.unwrap() < 0.01);
    assert_eq!(comparison.verdict, Verdict::Same);
    assert_eq!(
        compare(&a, &b, &CompareArgs { threshold: 0.03, ..args() }, 499).verdict,
        Verdict::Worse
    );
}

#[test]
fn void_trials_do_not_count() {
    let a = steady(&[("fanq", 1.0)]);
    let mut b = a.clone();
    for mut trial in cpu_trials("fanq", &[9.0; 30]) {
        trial.void = Some("the generator was late".to_owned());
        b.trials.push(trial);
    }
    let comparison = judged(&a, &b);
    assert_eq!((comparison.verdict, comparison.rows[0].trials), (Verdict::Same, Some((20, 20))));
    let note = "B: 30 of 50 cpu trials of fanq are void, the first: the generator was late";
    assert!(comparison.notes.iter().any(|n| n == note), "{:?}", comparison.notes);
}

#[test]
fn what_was_measured_elsewhere_is_refused_by_field() {
    let a = steady(&[("fanq", 1.0)]);
    let refused = |change: &dyn Fn(&mut Document), what: &str, across_machines| {
        let mut b = a.clone();
        change(&mut b);
        let comparison = compare(&a, &b, &CompareArgs { across_machines, ..args() }, 499);
        assert_eq!(comparison.verdict, Verdict::NotComparable, "{what}");
        assert!(comparison.summary.contains(what), "{}", comparison.summary);
    };
    let kernel = |b: &mut Document| b.machine.kernel = "7.0".to_owned();
    refused(&kernel, r#"machine.kernel is "6.18" in A and "7.0" in B; --across-machines"#, false);
    refused(&|b| b.machine.cpus = 64, "machine.cpus is 2 in A and 64 in B", false);
    refused(&|b| b.lab.topology = Topology::Split, r#"lab.topology is "shared" in A"#, true);
    let method = |b: &mut Document| {
        b.run.cpu = Some(CpuMethod { apart: true, packets: 500_000 });
    };
    refused(&method, "run.cpu.apart is false in A and true in B; measure both", true);
    refused(&method, "run.cpu.packets is 10000 in A and 500000 in B; measure both", true);
    refused(&|b| b.load.flows = 7, "load.flows is 1 in A and 7 in B; measure both", true);
    refused(&|b| b.targets[0].name = "x".to_owned(), "no target is in both: fanq against x", true);
    refused(&|b| b.trials.clear(), "no trials or figures of the same target", true);

    let mut b = a.clone();
    kernel(&mut b);
    b.lab.load_cpus = vec![4, 5];
    let across = compare(&a, &b, &CompareArgs { across_machines: true, ..args() }, 499);
    assert_eq!(across.verdict, Verdict::Same);
    // A file that does not say how it was measured is older, and can be compared.
    b.run.cpu = None;
    let older = compare(&a, &b, &CompareArgs { across_machines: true, ..args() }, 499);
    assert_eq!(older.verdict, Verdict::Same);
    assert!(older.notes.iter().any(|note| note.starts_with("B is older")), "{:?}", older.notes);
    assert!(across.notes.iter().any(|note| note.contains("machine.kernel")), "{:?}", across.notes);
}

#[test]
fn too_few_trials_are_not_the_same() {
    let few = |us: f64| document(cpu_trials("fanq", &[us, us * 1.01, us * 1.02]));
    let comparison = judged(&few(1.0), &few(2.0));
    assert_eq!(comparison.rows[0].verdict, Change::TooFew);
    assert_eq!(comparison.verdict, Verdict::NotComparable);
    assert!(comparison.summary.contains("too few trials"), "{}", comparison.summary);
}

#[test]
fn delays_are_compared_at_the_same_load_only() {
    let at = |pps: f64, us: f64| latency_trials("fanq", pps, &[us; 20]);
    let a = document([at(1_000.0, 50.0), at(50_000.0, 80.0)].concat());
    let b = document([at(1_000.0, 60.0), at(51_000.0, 80.0), at(90_000.0, 200.0)].concat());
    let comparison = judged(&a, &b);
    assert_eq!(comparison.rows.len(), 2);
    assert_eq!(comparison.summary, "worse: fanq, median delay us at 1000/s 20.0 % more");
    let comparison = judged(&b, &a);
    assert!(comparison.notes.iter().any(|n| n.contains("at 90000/s: B has no such trials")));
}

#[test]
fn tcp_is_compared_by_its_trials() {
    let with = |gbit: f64| {
        let mut document = steady(&[("fanq", 1.0)]);
        document.trials.extend(tcp_trials("fanq", &[gbit, gbit * 1.02].repeat(10)));
        document
    };
    assert_eq!(judged(&with(20.0), &with(20.2)).verdict, Verdict::Same);
    assert_eq!(judged(&with(20.0), &with(16.0)).summary, "worse: fanq, TCP ms/Gbit 25.0 % more");
    assert_eq!(judged(&with(16.0), &with(20.0)).verdict, Verdict::Better);
    // What an interval of seven trials would have called certain.
    let few = |gbit: f64| document(tcp_trials("fanq", &[gbit, gbit * 1.02, gbit * 1.04]));
    assert_eq!(judged(&few(20.0), &few(10.0)).rows[0].verdict, Change::TooFew);
}

#[test]
fn short_connections_are_compared_by_their_trials() {
    let with = |factor: f64| {
        let mut document = steady(&[("fanq", 1.0)]);
        document.trials.extend(connection_trials("fanq", 12_000.0 / factor));
        document
    };
    let row = |b: &Document| {
        let rows = judged(&with(1.0), b).rows;
        rows.into_iter().find(|row| row.question == "us/short connection").unwrap()
    };
    assert_eq!(row(&with(1.0)).verdict, Change::Same);
    assert_eq!(row(&with(1.2)).verdict, Change::Worse);
    assert_eq!(row(&with(0.8)).verdict, Change::Better);
    assert!((row(&with(1.2)).change - 0.2).abs() < 1e-9);
    let mut stuck = with(1.0);
    for trial in &mut stuck.trials {
        trial.connections_per_s = trial.connections_per_s.map(|_| 0.0);
    }
    let notes = judged(&with(1.0), &stuck).notes;
    assert!(notes.iter().any(|note| note.contains("B has no such trials")), "{notes:?}");
}

#[test]
fn a_control_takes_out_what_slowed_the_whole_machine() {
    let a = steady(&[("fanq", 1.0), ("single", 3.0)]);
    let b = steady(&[("fanq", 1.3), ("single", 3.9)]);
    assert_eq!(judged(&a, &b).verdict, Verdict::Worse);
    let control = |name: &str, b: &Document| {
        compare(&a, b, &CompareArgs { control: Some(name.to_owned()), ..args() }, 499)
    };
    let controlled = control("single", &b);
    assert_eq!((controlled.verdict, controlled.rows.len()), (Verdict::Same, 1));
    assert_eq!(
        control("single", &steady(&[("fanq", 1.43), ("single", 3.9)])).verdict,
        Verdict::Worse
    );
    assert!(control("other", &b).summary.contains("A has no target other for --control"));
}

#[test]
fn the_table_ends_with_the_verdict() {
    let a = steady(&[("fanq", 1.0)]);
    let table = show::table(&judged(&a, &steady(&[("fanq", 1.1)])));
    let lines: Vec<_> = table.lines().collect();
    assert!(lines[0].starts_with("target") && lines[1].starts_with("fanq"));
    assert!(
        lines[1].contains("1.000") && lines[1].contains("+10.0 %") && lines[1].ends_with("WORSE")
    );
    assert_eq!(lines.last(), Some(&"worse: fanq, CPU us/packet 10.0 % more"));
}

#[test]
fn the_exit_status_says_which_way() {
    let folder = std::env::temp_dir().join(format!("fanq-compare-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let file = |name: &str, us: f64| {
        let path = folder.join(name);
        steady(&[("fanq", us)]).write(&path).unwrap();
        path
    };
    let (a, slower) = (file("a.json", 1.0), file("slower.json", 1.1));
    let other = folder.join("other.json");
    std::fs::write(&other, r#"{"schema": "fanq.bench/9"}"#).unwrap();
    let missing = folder.join("missing.json");
    let status = |b: &PathBuf| run(&CompareArgs { a: a.clone(), b: b.clone(), ..args() });
    let statuses = [status(&a), status(&slower), status(&other)];
    let (missing, refused) = (status(&missing), compare_files(&a, &other, &args()));
    std::fs::remove_dir_all(&folder).unwrap();

    let shown = statuses.map(|status| format!("{:?}", status.unwrap()));
    assert_eq!(shown, [0, 2, 3].map(|code| format!("{:?}", ExitCode::from(code))));
    assert!(format!("{:#}", missing.unwrap_err()).contains("missing.json"));
    assert!(
        refused
            .unwrap()
            .summary
            .contains("has schema fanq.bench/9; this version reads fanq.bench/1")
    );
    assert!(
        run(&CompareArgs { threshold: 5.0, ..args() })
            .unwrap_err()
            .to_string()
            .contains("0.05 for 5 %")
    );
}
