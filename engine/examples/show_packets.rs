//! Shows what the kernel says about each queued packet, one line each, and lets it pass.
//!
//!     iptables -A INPUT -p icmp -j NFQUEUE --queue-num 0
//!     show_packets 0 conntrack uid-gid

use fanq::{Engine, Inspector, Packet, QueueFlag, Verdict};

struct Show;

impl Inspector for Show {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let mut line = format!("id={} hook={:?}", packet.id().0, packet.hook());
        line += &shown("mark", Some(packet.mark()));
        line += &shown("protocol", Some(packet.protocol()));
        line += &shown("length", Some((packet.captured_length(), packet.length())));
        line += &shown("skb", Some(packet.skb_info()));
        line += &shown("indev", packet.indev());
        line += &shown("outdev", packet.outdev());
        line += &shown("physindev", packet.physical_indev());
        line += &shown("hardware", packet.hardware_address());
        line += &shown("link", packet.link_header());
        line += &shown("vlan", packet.vlan());
        line += &shown("time", packet.time());
        line += &shown("priority", packet.priority());
        line += &shown("uid", packet.uid());
        line += &shown("gid", packet.gid());
        line += &shown("classid", packet.cgroup_classid());
        line += &shown("secctx", packet.security_context().map(String::from_utf8_lossy));
        if let Some(connection) = packet.conntrack() {
            line += &shown("state", connection.state());
            line += &shown("original", connection.original().map(|ends| ends.to_string()));
            line += &shown("ctid", connection.id());
            line += &shown("status", connection.status());
            line += &shown("timeout", connection.timeout());
            line += &shown("ctmark", connection.mark());
            line += &shown("labels", connection.labels());
            line += &shown("tcp", connection.tcp_state());
        }
        println!("{line}");
        Verdict::ACCEPT
    }
}

fn shown<T: std::fmt::Debug>(name: &str, value: Option<T>) -> String {
    value.map_or_else(String::new, |value| format!(" {name}={value:?}"))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let queues = words.next().ok_or("write: show_packets QUEUES [FLAG]...")?.parse()?;
    let mut builder = Engine::builder().queues(queues);
    for word in words {
        let flag = QueueFlag::ALL.into_iter().find(|flag| flag.name() == word);
        builder = builder.flag(flag.ok_or(format!("{word} is no flag"))?, true);
    }
    let mut engine = builder.start(|_worker| Show)?;
    eprintln!("ready: flags {}", engine.granted_flags());
    Ok(engine.wait(None).map(drop)?)
}
