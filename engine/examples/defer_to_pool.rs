//! Hands packets to a pool of threads that take their time. (For inspectors that fit the trait as they are,
//! `fanq::pipeline` does this with one line, and keeps each flow in order.)
//!
//! `fanq rules install --hook forward --queues 0-3 --fanout`, then run this with `0-3`.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use fanq::{DeferralConfig, Deferred, Engine, Inspector, Packet, Verdict};

const THREADS: usize = 4;

struct Defer(SyncSender<Deferred>);

impl Inspector for Defer {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        if let Ok(deferred) = packet.defer() {
            // A pool that is gone or full gives the handle back; dropping it answers with what follows.
            let _ = self.0.try_send(deferred);
        }
        // What the packet gets if no one answers within the deadline.
        Verdict::DROP
    }
}

fn decide(packets: &Mutex<Receiver<Deferred>>) {
    loop {
        let next = packets.lock().map(|packets| packets.recv());
        let Ok(Ok(deferred)) = next else { return };
        let quick = deferred.payload().len() < 1000;
        if !quick {
            std::thread::sleep(std::time::Duration::from_millis(1)); // A slow look at it.
        }
        deferred.answer(Verdict::ACCEPT);
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let queues = std::env::args().nth(1).unwrap_or("0".to_owned()).parse()?;
    let config = DeferralConfig::default();
    let (sender, packets) = sync_channel(config.outstanding_max);
    let packets = Arc::new(Mutex::new(packets));
    for _ in 0..THREADS {
        let packets = Arc::clone(&packets);
        std::thread::spawn(move || decide(&packets));
    }
    let make = move |_worker| Defer(sender.clone());
    let mut engine = Engine::builder().queues(queues).deferral(config).start(make)?;
    engine.wait(None)?;
    engine.shutdown(std::time::Duration::from_secs(1));
    Ok(())
}
