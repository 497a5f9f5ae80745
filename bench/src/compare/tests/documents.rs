//! Goal: result documents without a measurement. Method: one lab, load and machine, and trials as they are given.

use std::collections::BTreeMap;

use crate::result::{
    Account, Arrivals, Bucket, CpuMethod, CpuUse, Document, Family, Findings, FlowChoice,
    FrameSize, Hook, LabSetting, Limit, LoadKind, LoadSetting, Machine, RateFinding, Run, SCHEMA,
    TargetSetting, Topology, Trial,
};

/// Of these trials, each of their targets being one of the document's.
pub(super) fn document(trials: Vec<Trial>) -> Document {
    let mut targets: Vec<TargetSetting> = Vec::new();
    for trial in &trials {
        if targets.iter().all(|target| target.name != trial.target) {
            let (name, command) = (trial.target.clone(), String::new());
            targets.push(TargetSetting { name, command, rules: Vec::new() });
        }
    }
    let empty = String::new;
    Document {
        schema: SCHEMA.to_owned(),
        run: Run {
            command: empty(),
            version: empty(),
            commit: empty(),
            began: empty(),
            seconds: 0.0,
            suite: empty(),
            complete: true,
            cpu: Some(CpuMethod { apart: false, packets: 10_000 }),
        },
        machine: Machine {
            kernel: "6.18".to_owned(),
            cpu: "simulated".to_owned(),
            cpus: 2,
            memory_mib: 4_096,
            governor: None,
            stolen_share: 0.0,
            mitigations: BTreeMap::new(),
            sysctls: BTreeMap::new(),
        },
        lab: LabSetting {
            hook: Hook::Forward,
            topology: Topology::Shared,
            pairs: 1,
            offloads: false,
            queues: "0-1".to_owned(),
            load_cpus: vec![0, 1],
            queue_cpus: vec![0, 1],
            user_namespace: false,
        },
        load: LoadSetting {
            kind: LoadKind::Xdp,
            frame: FrameSize::Bytes(74),
            flows: 1,
            flow_choice: FlowChoice::Uniform,
            arrivals: Arrivals::Constant,
            family: Family::Ipv4,
            fragments: 0.0,
            capture: None,
        },
        targets,
        findings: Findings::default(),
        trials,
    }
}

/// One trial a round, at so many us of CPU a packet.
pub(super) fn cpu_trials(target: &str, us_per_packet: &[f64]) -> Vec<Trial> {
    let trials = us_per_packet.iter().enumerate().map(|(round, us)| {
        let (receive_calls, send_calls) = (None, None);
        let cpu = CpuUse {
            us: us * 1e5,
            answered: 100_000,
            receive_calls,
            send_calls,
            resident_kib_max: 0,
        };
        Trial { cpu: Some(cpu), ..trial("cpu", target, round) }
    });
    trials.collect()
}

/// One trial a round, with this median delay.
pub(super) fn latency_trials(target: &str, pps: f64, median_us: &[f64]) -> Vec<Trial> {
    let trials = median_us.iter().enumerate().map(|(round, us)| {
        let bucket = |factor: f64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few us")]
            let ns = (us * factor * 1e3).round() as u64;
            Bucket { ns, count: 1_000 }
        };
        let latency = [0.8, 1.0, 3.0].map(bucket).to_vec();
        Trial { intended_pps: Some(pps), latency, ..trial("latency", target, round) }
    });
    trials.collect()
}

/// Twenty rounds of short connections, around so many a second.
pub(super) fn connection_trials(target: &str, per_second: f64) -> Vec<Trial> {
    let trials = (0..20).map(|round| {
        let connections_per_s = Some(per_second * if round % 2 == 0 { 1.01 } else { 0.99 });
        Trial { connections_per_s, ..trial("connections", target, round) }
    });
    trials.collect()
}

/// One trial a round, of one connection that got so much through.
pub(super) fn tcp_trials(target: &str, gbit_per_s: &[f64]) -> Vec<Trial> {
    let trials = gbit_per_s.iter().enumerate().map(|(round, gbit)| {
        let gbit_per_s = Some(*gbit);
        Trial { gbit_per_s, ..trial("tcp", target, round) }
    });
    trials.collect()
}

/// Has each trial of a target lose such a share of its packets, one after the other.
pub(super) fn lose(trials: &mut [Trial], target: &str, shares: &[f64]) {
    let own = trials.iter_mut().filter(|trial| trial.target == target);
    for (trial, share) in own.zip(shares.iter().cycle()) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share")]
        let queue_drops = (share * 1e6) as u64;
        let (offered, delivered) = (1_000_000, 1_000_000 - queue_drops);
        trial.account = Account { offered, delivered, queue_drops, ..Account::default() };
    }
}

/// The highest rate without loss, between bounds a percent apart.
pub(super) fn rate(target: &str, pps: f64) -> RateFinding {
    RateFinding {
        target: target.to_owned(),
        loss_allowed: 0.0,
        pps,
        upper_pps: Some(pps * 1.01),
        delivered_pps: pps,
        limited_by: Limit::Loss,
        trials: 90,
    }
}

fn trial(purpose: &str, target: &str, round: usize) -> Trial {
    Trial {
        purpose: purpose.to_owned(),
        target: target.to_owned(),
        round,
        intended_pps: None,
        seconds: 1.0,
        account: Account::default(),
        void: None,
        lateness_us_p99: None,
        stolen_share: 0.0,
        rested_seconds: None,
        cpu: None,
        queues: Vec::new(),
        latency: Vec::new(),
        gbit_per_s: None,
        connections_per_s: None,
    }
}
