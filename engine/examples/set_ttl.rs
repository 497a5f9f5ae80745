//! Gives every packet the same TTL (in IPv6: hop limit), so that nobody behind can tell how far it has come.
//!
//! `fanq rules install --hook forward --queues 0-3 --fanout`, then run this with `0-3 64`.

use fanq::{Engine, Inspector, Packet, Verdict};

struct SetTtl(u8);

impl Inspector for SetTtl {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        // Refused (a truncated copy, lying lengths): the engine drops the packet, see `rewrite_refused`.
        let Ok(mut edit) = packet.edit() else { return Verdict::DROP };
        if let Some(mut ip) = edit.ipv4() {
            ip.set_ttl(self.0); // The header's checksum is updated, not computed anew (RFC 1624).
        } else if let Some(mut ip) = edit.ipv6() {
            ip.set_hop_limit(self.0);
        }
        Verdict::ACCEPT
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let queues = arguments.next().unwrap_or("0".to_owned()).parse()?;
    let ttl = arguments.next().unwrap_or("64".to_owned()).parse()?;
    Engine::builder().queues(queues).start(move |_worker| SetTtl(ttl))?.wait(None)?;
    Ok(())
}
