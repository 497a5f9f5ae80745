//! Drops packets that contain one of the given words, and says which. One automaton looks for all of them at once; each
//! worker has it to itself.
//!
//! `fanq rules install --hook forward --queues 0-3 --fanout`, then run this with `0-3 cmd.exe /etc/passwd`.

use std::sync::mpsc::{SyncSender, sync_channel};

use aho_corasick::AhoCorasick;
use fanq::{Engine, Inspector, Packet, Verdict};

struct Signatures {
    automaton: AhoCorasick,
    /// Alerts for the thread that writes them: a worker never waits for a terminal.
    alerts: SyncSender<usize>,
}

impl Inspector for Signatures {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        match self.automaton.find(packet.payload()) {
            Some(found) => {
                // Full: the packet is dropped all the same, only its alert is lost.
                let _ = self.alerts.try_send(found.pattern().as_usize());
                Verdict::DROP
            }
            None => Verdict::ACCEPT,
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let queues = arguments.next().unwrap_or("0".to_owned()).parse()?;
    let words: Vec<String> = arguments.collect();
    let automaton = AhoCorasick::builder().ascii_case_insensitive(true).build(&words)?;
    let (alerts, written) = sync_channel(1024);
    let make = move |_worker| Signatures { automaton: automaton.clone(), alerts: alerts.clone() };
    let _engine = Engine::builder().queues(queues).start(make)?;
    for word in written {
        println!("dropped: {}", words[word]);
    }
    Ok(())
}
