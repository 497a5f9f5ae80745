//! An accepted packet is marked and comes by its chain again, where the mark lets it pass the queue rule: so the rules
//! below the queue rule see it, which accept would skip.
//!
//! `fanq rules install --hook forward --queues 0-3 --fanout --repeat-mark 0x1`, then run this with `0-3`.

use fanq::{Engine, Inspector, Packet, Verdict};

/// What the rules know an inspected packet by. The other bits of its mark stay as they are.
const MARK: u32 = 0x1;
const MASK: u32 = 0x1;

struct RepeatMarked;

impl Inspector for RepeatMarked {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let mark = packet.mark();
        if mark & MASK == MARK {
            // The rules do not know the mark. To repeat once more would never end.
            return Verdict::ACCEPT;
        }
        Verdict::REPEAT.with_mark(mark & !MASK | MARK)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let queues = std::env::args().nth(1).unwrap_or("0".to_owned()).parse()?;
    let mut engine = Engine::builder().queues(queues).start(|_worker| RepeatMarked)?;
    engine.wait(None)?;
    engine.shutdown(std::time::Duration::from_secs(1));
    Ok(())
}
