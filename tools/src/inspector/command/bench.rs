//! What rules cost a packet: decoding and deciding in a loop, without a kernel.
//!
//! Three things are measured in turn, A B C A B C, each over the same packets, and reported as medians: accepting all,
//! these rules, and aho-corasick's own search for the same patterns in the same payloads.
//!
//! Invariant: all three see every packet of every round. Nothing is written to a log.

use std::hint::black_box;
use std::path::PathBuf;

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use anyhow::Context;
use clap::Args;
use fanq::nfq::{Message, decode};
use fanq::{Edits, Inspector, Packet, Timestamp};

use super::traffic::Traffic;
use crate::inspector::compiled::CompiledPolicy;
use crate::inspector::control::{PolicyControl, compile};
use crate::inspector::worker::RuleInspector;
use crate::policy::{Policy, PolicyInspector};
use crate::usage;

/// Options of `fanq policy bench`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  fanq policy bench rules.toml --payload 1400")]
pub(super) struct BenchArgs {
    /// The rules file
    file: PathBuf,
    /// Bytes of payload in each packet, 0 to 9000
    #[arg(long, value_name = "BYTES", default_value_t = 1400)]
    payload: u16,
    /// Packets in all for each of the three, at least 100000
    #[arg(long, value_name = "PACKETS", default_value_t = 1_000_000)]
    packets: usize,
}

pub(super) fn run(args: &BenchArgs) -> anyhow::Result<()> {
    if args.payload > PAYLOAD_MAX || args.packets < PACKETS_MIN {
        return Err(usage(format!(
            "payload {} or packets {} is out of range: at most {PAYLOAD_MAX} bytes, at least {PACKETS_MIN} packets",
            args.payload, args.packets
        )));
    }
    let policy = compile(&args.file)?;
    let mut traffic = Traffic::new(FLOWS, args.payload, &policy.words)?;
    let searchers = searchers(&policy)?;
    let control = PolicyControl::start(&args.file, 1, None)?;
    let mut rules = RuleInspector::new(0, control.handover());
    let mut accept = PolicyInspector::new(Policy::Accept, 0);
    let passes = args.packets.div_ceil(FLOWS).max(ROUNDS).div_ceil(ROUNDS);
    let mut rounds: [Vec<f64>; 3] = Default::default();
    // The first round fills caches and tables, and is not counted.
    for round in 0..=ROUNDS {
        let mut spent = [0; 3];
        for _ in 0..passes {
            traffic.advance();
            spent[0] += inspect_all(&mut accept, &traffic);
            spent[1] += inspect_all(&mut rules, &traffic);
            spent[2] += search_all(&searchers, &traffic);
        }
        if round > 0 {
            for (round, spent) in rounds.iter_mut().zip(spent) {
                #[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
                round.push(spent as f64 / (passes * FLOWS) as f64);
            }
        }
    }
    let [accept, rules, search] = rounds.map(median);
    println!("accept all             {accept:8.1} ns/packet");
    println!("these rules            {rules:8.1} ns/packet, {:.1} above accept", rules - accept);
    if !searchers.is_empty() {
        println!("aho-corasick alone     {search:8.1} ns/packet");
        println!("rules / (accept + aho-corasick) {:.3}", rules / (accept + search));
    }
    Ok(())
}

/// aho-corasick as it comes, in the same kind of automaton. (Of 1,000 patterns it would choose the contiguous NFA,
/// which takes twice as long.)
fn searchers(policy: &CompiledPolicy) -> anyhow::Result<Vec<AhoCorasick>> {
    let build = |account: crate::inspector::compiled::ScannerAccount| {
        let kind = match account.kind {
            "DFA" => AhoCorasickKind::DFA,
            _ => AhoCorasickKind::ContiguousNFA,
        };
        AhoCorasick::builder()
            .kind(Some(kind))
            .ascii_case_insensitive(account.ignores_case)
            .build(policy.patterns.texts(account.ignores_case))
            .context("building aho-corasick's own searcher")
    };
    policy.patterns.scanners().map(build).collect()
}

/// Nanoseconds for one pass over all packets.
fn inspect_all<I: Inspector>(inspector: &mut I, traffic: &Traffic) -> u64 {
    let mut edits = Edits::default();
    let began = Timestamp::now();
    for batch in traffic.messages().chunks(BATCH) {
        for message in batch {
            if let Ok((Message::Packet(packet), _)) = decode(message) {
                black_box(inspector.inspect(&mut Packet::new(packet, &mut edits)));
            }
        }
        inspector.batch_end(began);
    }
    Timestamp::now().0 - began.0
}

fn search_all(searchers: &[AhoCorasick], traffic: &Traffic) -> u64 {
    let began = Timestamp::now();
    for payload in traffic.payloads() {
        for searcher in searchers {
            black_box(searcher.find_overlapping_iter(payload).count());
        }
    }
    Timestamp::now().0 - began.0
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// Flows, and packets in a pass: their payloads fill a second-level cache, as those of a busy queue do.
const FLOWS: usize = 512;
/// As `fanq run` has it.
const BATCH: usize = 64;
const ROUNDS: usize = 15;
const PAYLOAD_MAX: u16 = 9000;
const PACKETS_MIN: usize = 100_000;
