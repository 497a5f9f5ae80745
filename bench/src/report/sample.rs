//! A result for tests. MADE UP: every figure comes from the formulas below, none was measured.
//!
//! Invariant: the same on every call; the account of each trial closes; four programs, a baseline and an A/A pair.

use std::collections::BTreeMap;

use crate::result::{
    Account, Arrivals, Bucket, ConnectionFinding, CpuFinding, CpuUse, CurveFinding, CurvePoint,
    Document, Estimate, Family, Findings, FlowChoice, FrameSize, Hook, LabSetting, LatencyFinding,
    Limit, LoadKind, LoadSetting, Machine, Percentile, QueueShare, RateFinding, Run, SCHEMA,
    TargetSetting, TcpFinding, Topology, Trial,
};

const TRIALS: usize = 7;
/// What share 1 of the curves means.
const REFERENCE_PPS: f64 = 400_000.0;
const LOADS: [(&str, f64); 2] =
    [("1000/s", 1000.0), ("50 % of the slowest loss-free rate", 30_500.0)];

/// A made-up target.
struct MadeUp {
    name: &'static str,
    program: bool,
    us_per_packet: f64,
    loss_free_pps: f64,
    calls: f64,
    median_us: f64,
    tail_us: f64,
    gbit: f64,
    /// Packets of its queues, in thousands.
    queues: [u64; 4],
}

#[rustfmt::skip]
const TARGETS: [MadeUp; 6] = [
    MadeUp { name: "fanq", program: true, us_per_packet: 0.84, loss_free_pps: 412_000.0, calls: 0.031,
        median_us: 22.0, tail_us: 30.0, gbit: 11.8, queues: [251, 250, 249, 250] },
    MadeUp { name: "libnetfilter_queue", program: true, us_per_packet: 1.62, loss_free_pps: 214_000.0, calls: 2.0,
        median_us: 26.0, tail_us: 52.0, gbit: 7.4, queues: [262, 241, 255, 242] },
    MadeUp { name: "nfq", program: true, us_per_packet: 0.983, loss_free_pps: 305_000.0, calls: 2.0,
        median_us: 24.0, tail_us: 45.0, gbit: 8.9, queues: [301, 262, 238, 199] },
    MadeUp { name: "netfilterqueue", program: true, us_per_packet: 4.9, loss_free_pps: 61_000.0, calls: 2.1,
        median_us: 41.0, tail_us: 160.0, gbit: 2.3, queues: [250, 252, 248, 250] },
    MadeUp { name: "kernel", program: false, us_per_packet: 0.0, loss_free_pps: 905_000.0, calls: 0.0,
        median_us: 9.0, tail_us: 12.0, gbit: 18.6, queues: [0; 4] },
    MadeUp { name: "fanq (again)", program: true, us_per_packet: 0.8484, loss_free_pps: 409_000.0, calls: 0.031,
        median_us: 22.1, tail_us: 31.0, gbit: 11.7, queues: [249, 251, 250, 250] },
];

/// The made-up result.
pub(crate) fn document() -> Document {
    let mut document = empty();
    document.run.complete = true;
    "standard".clone_into(&mut document.run.suite);
    document.targets = TARGETS.iter().map(target).collect();
    document.findings = Findings {
        cpu: TARGETS.iter().filter(|made_up| made_up.program).map(cpu).collect(),
        rates: TARGETS
            .iter()
            .flat_map(|made_up| [rate(made_up, 0.0), rate(made_up, 0.005)])
            .collect(),
        curves: TARGETS[..4].iter().map(curve).collect(),
        latencies: TARGETS
            .iter()
            .flat_map(|made_up| LOADS.map(|load| latency(made_up, load)))
            .collect(),
        tcp: TARGETS.iter().flat_map(|made_up| [tcp(made_up, true), tcp(made_up, false)]).collect(),
        connections: TARGETS.iter().map(connections).collect(),
    };
    for round in 0..TRIALS {
        for made_up in &TARGETS {
            document.trials.push(cpu_trial(made_up, round));
            document.trials.extend(LOADS.map(|(_, pps)| delay_trial(made_up, round, pps)));
        }
    }
    for index in [8, 29, 50] {
        let late = format!("generator late: {} us at the 99th percentile", 210 + index);
        document.trials[index].void = Some(late);
    }
    document.trials[40].void = Some("the host took 3.1 % of the CPU time".to_owned());
    document.trials[40].stolen_share = 0.031;
    document
}

/// A result without targets, findings or trials.
pub(crate) fn empty() -> Document {
    let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    Document {
        schema: SCHEMA.to_owned(),
        run: Run {
            command: "fanq-bench versus --suite standard --out made-up.json # MADE UP, for tests"
                .to_owned(),
            version: "0.0.0".to_owned(),
            commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
            began: "2026-11-22T03:01:00Z".to_owned(),
            seconds: 1624.0,
            suite: String::new(),
            complete: false,
            cpu: None,
        },
        machine: Machine {
            kernel: "6.18.44 (made up)".to_owned(),
            cpu: "Made-up CPU for tests".to_owned(),
            cpus: 4,
            memory_mib: 8192,
            governor: None,
            stolen_share: 0.0011,
            mitigations: pairs(&[
                ("spectre_v2", "Mitigation: made up"),
                ("meltdown", "Not affected"),
            ]),
            sysctls: pairs(&[
                ("net.core.rmem_max", "212992"),
                ("net.core.netdev_max_backlog", "1000"),
            ]),
        },
        lab: LabSetting {
            hook: Hook::Forward,
            topology: Topology::Shared,
            pairs: 4,
            offloads: false,
            queues: "0-3".to_owned(),
            load_cpus: vec![0, 1, 2, 3],
            queue_cpus: vec![0, 1, 2, 3],
            user_namespace: false,
        },
        load: LoadSetting {
            kind: LoadKind::Xdp,
            frame: FrameSize::Bytes(74),
            flows: 64,
            flow_choice: FlowChoice::Uniform,
            arrivals: Arrivals::Constant,
            family: Family::Ipv4,
            fragments: 0.0,
            capture: None,
        },
        targets: Vec::new(),
        findings: Findings::default(),
        trials: Vec::new(),
    }
}

fn target(made_up: &MadeUp) -> TargetSetting {
    let queue = "iptables -A FORWARD -p udp -j NFQUEUE --queue-balance 0:3 --queue-cpu-fanout";
    TargetSetting {
        name: made_up.name.to_owned(),
        command: if made_up.program {
            format!("{} --queues 0-3", made_up.name)
        } else {
            String::new()
        },
        rules: vec![
            if made_up.program { queue } else { "iptables -A FORWARD -p udp -j ACCEPT" }.to_owned(),
        ],
    }
}

fn estimate(median: f64, spread: f64) -> Estimate {
    Estimate { median, low: median * (1.0 - spread), high: median * (1.0 + spread), n: TRIALS }
}

fn cpu(made_up: &MadeUp) -> CpuFinding {
    let ratio = made_up.us_per_packet / TARGETS[0].us_per_packet;
    CpuFinding {
        target: made_up.name.to_owned(),
        us_per_packet: estimate(made_up.us_per_packet, 0.03),
        ratio_to_first: (made_up.name != TARGETS[0].name).then_some(Estimate {
            low: ratio - 0.02,
            high: ratio + 0.02,
            ..estimate(ratio, 0.0)
        }),
        system_calls_per_packet: Some(made_up.calls),
        packets_per_receive: Some((1.0 / made_up.calls).max(1.0)),
        lost_share: 0.0,
    }
}

fn rate(made_up: &MadeUp, loss_allowed: f64) -> RateFinding {
    let pps = made_up.loss_free_pps * (1.0 + 14.0 * loss_allowed);
    RateFinding {
        target: made_up.name.to_owned(),
        loss_allowed,
        pps,
        upper_pps: made_up.program.then_some(pps * 1.01),
        delivered_pps: pps * (1.0 - loss_allowed),
        limited_by: if made_up.program { Limit::Loss } else { Limit::Generator },
        trials: 21,
    }
}

/// Above its capacity a target delivers less the more comes.
fn curve(made_up: &MadeUp) -> CurveFinding {
    let points = (1..=20_u32).map(|step| {
        let share = f64::from(step) / 10.0;
        let offered_pps = share * REFERENCE_PPS;
        let beyond = (offered_pps / made_up.loss_free_pps).max(1.0);
        let delivered_pps = offered_pps.min(made_up.loss_free_pps * beyond.powf(-0.15));
        let lost_share = 1.0 - delivered_pps / offered_pps;
        CurvePoint { share, offered_pps, delivered_pps, lost_share, valid: step < 20 }
    });
    CurveFinding {
        target: made_up.name.to_owned(),
        reference_pps: REFERENCE_PPS,
        points: points.collect(),
    }
}

/// The delay that one packet in `x` exceeds.
fn delay_us(made_up: &MadeUp, pps: f64, x: f64) -> f64 {
    let busy = if pps > 2000.0 { 1.0 } else { 1.7 };
    made_up.median_us * busy * x.powf(0.06) + made_up.tail_us * (x / 1000.0).sqrt()
}

fn latency(made_up: &MadeUp, (load, pps): (&str, f64)) -> LatencyFinding {
    let percentiles = [(50.0, 2.0), (90.0, 10.0), (99.0, 100.0), (99.9, 1e3), (99.99, 1e4)];
    let percentiles =
        percentiles.map(|(percent, x)| Percentile { percent, us: delay_us(made_up, pps, x) });
    LatencyFinding {
        target: made_up.name.to_owned(),
        offered_pps: pps,
        load: load.to_owned(),
        lost_share: 0.0,
        count: 7 * sent(pps),
        percentiles: percentiles.to_vec(),
        median_us: estimate(delay_us(made_up, pps, 2.0), 0.01),
    }
}

/// Packets of a trial at that rate.
fn sent(pps: f64) -> u64 {
    if pps > 2000.0 { 305_000 } else { 20_000 }
}

fn tcp(made_up: &MadeUp, gso: bool) -> TcpFinding {
    let gbit = if gso { made_up.gbit } else { made_up.gbit / 4.0 };
    TcpFinding { target: made_up.name.to_owned(), gso, gbit_per_s: estimate(gbit, 0.04) }
}

fn connections(made_up: &MadeUp) -> ConnectionFinding {
    let per_second = estimate(made_up.gbit * 1500.0, 0.05);
    ConnectionFinding { target: made_up.name.to_owned(), per_second }
}

fn trial(made_up: &MadeUp, round: usize, purpose: &str, offered: u64) -> Trial {
    Trial {
        purpose: purpose.to_owned(),
        target: made_up.name.to_owned(),
        round,
        intended_pps: None,
        seconds: 10.0,
        account: Account { offered, delivered: offered, ..Account::default() },
        void: None,
        lateness_us_p99: Some(38.0),
        stolen_share: 0.001,
        rested_seconds: None,
        cpu: None,
        queues: Vec::new(),
        latency: Vec::new(),
        gbit_per_s: None,
        connections_per_s: None,
    }
}

fn cpu_trial(made_up: &MadeUp, round: usize) -> Trial {
    let answered: u64 = made_up.queues.iter().map(|thousands| thousands * 1000).sum();
    let dropped = answered / 400;
    let mut trial = trial(made_up, round, "cpu", answered + dropped);
    trial.account.delivered = answered;
    trial.account.queue_drops = dropped;
    trial.cpu = made_up.program.then_some(CpuUse {
        us: made_up.us_per_packet * 1e6,
        answered,
        receive_calls: Some(answered / 32),
        send_calls: Some(answered / 32),
        resident_kib_max: 9000,
    });
    trial.queues = (0..)
        .zip(made_up.queues)
        .filter(|(_, thousands)| *thousands > 0)
        .map(|(queue, thousands)| QueueShare {
            queue,
            packets: thousands * 1000,
            queue_drops: dropped / 4,
            socket_drops: 0,
        })
        .collect();
    trial
}

fn delay_trial(made_up: &MadeUp, round: usize, pps: f64) -> Trial {
    let offered = sent(pps);
    let mut trial = trial(made_up, round, "latency", offered);
    trial.intended_pps = Some(pps);
    let own = 0.985 + 0.005 * f64::from(u32::try_from(round).unwrap_or(0));
    // One packet in x is later than the delay at x; x grows by a sixth from bucket to bucket.
    let (mut x, mut left) = (1.0_f64, offered);
    while left > 0 {
        let beyond = part_of(offered, x * 1.17).min(left - 1);
        let ns = whole(delay_us(made_up, pps, x * 1.08) * own * 1000.0);
        trial.latency.push(Bucket { ns, count: left - beyond });
        (x, left) = (x * 1.17, beyond);
    }
    trial
}

fn part_of(all: u64, x: f64) -> u64 {
    u32::try_from(all).map_or(0, |all| whole(f64::from(all) / x))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}
