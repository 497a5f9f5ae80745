//! Lets every packet pass: the least that an inspector can be, and what the others begin with.
//!
//! `fanq rules install --hook forward --queues 0-3 --fanout`, then run this with `0-3`.

use std::time::Duration;

use fanq::{Engine, Event, Inspector, Packet, Verdict};

struct AcceptAll;

impl Inspector for AcceptAll {
    fn inspect(&mut self, _packet: &mut Packet<'_>) -> Verdict {
        Verdict::ACCEPT
    }

    /// What cannot be shown to `inspect` passes too; by default it is dropped.
    fn unseen(&mut self) -> Verdict {
        Verdict::ACCEPT
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let queues = std::env::args().nth(1).unwrap_or("0".to_owned()).parse()?;
    let mut engine = Engine::builder().queues(queues).start(|_worker| AcceptAll)?;
    for warning in engine.warnings() {
        eprintln!("warning: {warning}");
    }
    while engine.wait(Some(Duration::from_secs(1)))? == Event::TimedOut {
        let totals = engine.stats().totals();
        println!("{} packets, {} lost in sockets", totals.packets, totals.id_gaps);
    }
    engine.shutdown(Duration::from_secs(1));
    Ok(())
}
