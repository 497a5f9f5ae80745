//! An accepted packet goes on behind the queue rule, as one that was never queued: the usual mode.
//!
//! `fanq rules install --hook forward --queues 0-3 --fanout`, then run this with `0-3`.

use fanq::{Engine, Inspector, Packet, Verdict};

struct DropTelnet;

impl Inspector for DropTelnet {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        match packet.payload() {
            // IPv4 without options, TCP, to port 23
            [0x45, _, _, _, _, _, _, _, _, 6, rest @ ..] if rest.get(12..14) == Some(&[0, 23]) => {
                Verdict::DROP
            }
            _ => Verdict::ACCEPT,
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let queues = std::env::args().nth(1).unwrap_or("0".to_owned()).parse()?;
    let mut engine = Engine::builder().queues(queues).start(|_worker| DropTelnet)?;
    engine.wait(None)?;
    engine.shutdown(std::time::Duration::from_secs(1));
    Ok(())
}
