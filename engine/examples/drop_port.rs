//! Drops what goes to one TCP or UDP port, and fragments, whose port only the first would tell.
//!
//! `fanq rules install --hook forward --queues 0-3 --fanout`, then run this with `0-3 23`.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use fanq::{Engine, Inspector, Packet, Verdict};

struct DropPort(u16);

impl Inspector for DropPort {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        // What cannot be parsed has no port that a receiver would listen at.
        let Ok(parsed) = SlicedPacket::from_ip(packet.payload()) else { return Verdict::DROP };
        let port = match &parsed.transport {
            Some(TransportSlice::Tcp(tcp)) => tcp.destination_port(),
            Some(TransportSlice::Udp(udp)) => udp.destination_port(),
            _ if is_fragment(parsed.net.as_ref()) => return Verdict::DROP,
            _ => return Verdict::ACCEPT,
        };
        if port == self.0 { Verdict::DROP } else { Verdict::ACCEPT }
    }
}

fn is_fragment(net: Option<&NetSlice<'_>>) -> bool {
    match net {
        Some(NetSlice::Ipv4(ip)) => ip.is_payload_fragmented(),
        Some(NetSlice::Ipv6(ip)) => ip.is_payload_fragmented(),
        _ => false,
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let queues = arguments.next().unwrap_or("0".to_owned()).parse()?;
    let port = arguments.next().unwrap_or("23".to_owned()).parse()?;
    let mut engine = Engine::builder().queues(queues).start(move |_worker| DropPort(port))?;
    engine.wait(None)?;
    engine.shutdown(std::time::Duration::from_secs(1));
    Ok(())
}
