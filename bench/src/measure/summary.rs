//! The findings of a document as plain text.

use crate::result::{Document, Estimate};

/// Prints them; nothing where there are none.
pub(crate) fn print(document: &Document) {
    let findings = &document.findings;
    for rate in &findings.rates {
        let upper = rate.upper_pps.map_or("-".to_owned(), |upper| format!("{upper:.0}"));
        let loss = rate.loss_allowed * 100.0;
        println!("{:<24} at most {loss} % lost: {:>9.0}/s, not {upper}/s", rate.target, rate.pps);
    }
    for delay in &findings.latencies {
        let all: Vec<_> = delay
            .percentiles
            .iter()
            .map(|percentile| format!("{} %: {:.1}", percentile.percent, percentile.us))
            .collect();
        println!(
            "{:<24} delay at {}, us: {} (lost {:.2} %)",
            delay.target,
            delay.load,
            all.join(", "),
            delay.lost_share * 100.0
        );
    }
    for curve in &findings.curves {
        for point in &curve.points {
            let late = if point.valid { "" } else { " (void)" };
            println!(
                "{:<24} {:>4.0} % of {:.0}/s: offered {:.0}/s, delivered {:.0}/s, lost {:.2} %{late}",
                curve.target,
                point.share * 100.0,
                curve.reference_pps,
                point.offered_pps,
                point.delivered_pps,
                point.lost_share * 100.0
            );
        }
    }
    for cpu in &findings.cpu {
        let ratio = cpu
            .ratio_to_first
            .map_or(String::new(), |ratio| format!(", {} of the first", show(ratio, 2)));
        let batch = cpu
            .packets_per_receive
            .map_or(String::new(), |size| format!(", {size:.1} packets a receive"));
        println!(
            "{:<24} CPU us a packet: {}{ratio}{batch}, lost {:.1} %",
            cpu.target,
            show(cpu.us_per_packet, 3),
            cpu.lost_share * 100.0
        );
    }
    for tcp in &findings.tcp {
        println!("{:<24} one TCP connection, Gbit/s: {}", tcp.target, show(tcp.gbit_per_s, 2));
    }
    for short in &findings.connections {
        println!(
            "{:<24} short TCP connections a second: {}",
            short.target,
            show(short.per_second, 0)
        );
    }
    let void = document.trials.iter().filter(|trial| trial.void.is_some()).count();
    let rested: f64 = document.trials.iter().filter_map(|trial| trial.rested_seconds).sum();
    println!(
        "{} trials, {void} of them void; the host took {:.2} % of the CPU time{}",
        document.trials.len(),
        document.machine.stolen_share * 100.0,
        if rested > 0.0 { format!(", rested for {rested:.0} s") } else { String::new() }
    );
}

fn show(estimate: Estimate, digits: usize) -> String {
    let Estimate { median, low, high, .. } = estimate;
    format!("{median:.digits$} ({low:.digits$} to {high:.digits$})")
}
