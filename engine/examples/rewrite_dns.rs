//! Rewrites DNS answers: every IPv4 address in them becomes 192.0.2.1, where a page may say why.
//!
//! `fanq rules install --hook forward --queues 0-3 --fanout --proto udp --sport 53`, then run this with `0-3`.

use fanq::wire::Transport;
use fanq::{Engine, Inspector, Packet, Verdict};

const TOLD: [u8; 4] = [192, 0, 2, 1];

struct RewriteDns;

impl Inspector for RewriteDns {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        // Refused (a truncated copy, lying lengths): the engine drops the packet, see `rewrite_refused`.
        let Ok(mut edit) = packet.edit() else { return Verdict::DROP };
        if edit.transport() == Some(Transport::Udp)
            && let Ok(message) = edit.l4_payload_mut()
        {
            tell(message);
        }
        Verdict::ACCEPT // The checksum was renewed when `edit` went out of scope.
    }
}

/// Overwrites the addresses in an answer (RFC 1035, section 4.1). `None` where it ends early.
fn tell(message: &mut [u8]) -> Option<()> {
    let number = |bytes: &[u8], at| bytes.get(at..at + 2).map(|n| u16::from_be_bytes([n[0], n[1]]));
    let (questions, answers) = (number(message, 4)?, number(message, 6)?);
    let mut at = 12;
    for _ in 0..questions {
        at = behind_name(message, at)? + 4;
    }
    for _ in 0..answers {
        let fixed = behind_name(message, at)?;
        let is_address = message.get(fixed..fixed + 4)? == [0, 1, 0, 1];
        let length = usize::from(number(message, fixed + 8)?);
        at = fixed + 10 + length;
        if is_address && length == TOLD.len() {
            message.get_mut(fixed + 10..at)?.copy_from_slice(&TOLD);
        }
    }
    Some(())
}

/// Where the name ends that begins at `at`: labels up to an empty one, or up to a pointer.
fn behind_name(message: &[u8], mut at: usize) -> Option<usize> {
    while let length @ 1..0xc0 = *message.get(at)? {
        at += 1 + usize::from(length);
    }
    Some(if message[at] == 0 { at + 1 } else { at + 2 })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let queues = std::env::args().nth(1).unwrap_or("0".to_owned()).parse()?;
    Engine::builder().queues(queues).start(|_worker| RewriteDns)?.wait(None)?;
    Ok(())
}
