//! An accepted packet goes to another queue, to the next program in a row of inspectors.
//!
//! `fanq rules install --hook forward --queues 0`, then run this with `0`, and another program on queue 10.

use fanq::{Engine, Inspector, Packet, Verdict};

/// Every queue of ours has one of its own behind it: 0 leads to 10, 1 to 11.
const NEXT: u16 = 10;

struct RouteOn {
    queue: u16,
}

impl Inspector for RouteOn {
    fn inspect(&mut self, _packet: &mut Packet<'_>) -> Verdict {
        // While nobody listens there the packet is accepted. Without `bypassing` it would be dropped.
        Verdict::queue(self.queue).bypassing()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let queues = std::env::args().nth(1).unwrap_or("0".to_owned()).parse()?;
    let mut engine = Engine::builder()
        .queues(queues)
        .start(|worker| RouteOn { queue: worker.queue.wrapping_add(NEXT) })?;
    engine.wait(None)?;
    engine.shutdown(std::time::Duration::from_secs(1));
    Ok(())
}
