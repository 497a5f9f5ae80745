//! Goal: what the kernel knows about a packet reaches the inspector, and the queue has the flags that were asked for
//! or says which not. Method: packets whose mark, priority, owner and times are known, since the test made them; each
//! flag is tried on a queue of its own first, so that the expectation is this kernel's own word.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use fanq::nfq::{Hook, Message, QueueRequest, decode};
use fanq::{
    ConfigFlags, CopyRange, Engine, EngineBuilder, FlagWish, Inspector, Packet, QueueError,
    QueueFlag, StartError, StartWarning, Verdict,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use crate::lab::{Lab, Sink};
use crate::{ACCEPT, LIMIT, queue_is_bound};

/// What a packet showed.
#[derive(Debug)]
struct Seen {
    hook: Hook,
    mark: u32,
    priority: Option<u32>,
    owner: (Option<u32>, Option<u32>),
    devices: (Option<u32>, Option<u32>),
    lengths: (u32, u32),
    original_length: Option<u32>,
    arrived: Option<u64>,
}

struct Watch(Sender<Seen>);

impl Inspector for Watch {
    fn inspect(&mut self, packet: &mut Packet<'_>) -> Verdict {
        let seen = Seen {
            hook: packet.hook(),
            mark: packet.mark(),
            priority: packet.priority(),
            owner: (packet.uid(), packet.gid()),
            devices: (packet.indev(), packet.outdev()),
            lengths: (packet.captured_length(), packet.length()),
            original_length: packet.original_length(),
            arrived: packet.time().map(|time| time.seconds),
        };
        self.0.send(seen).unwrap();
        Verdict::ACCEPT
    }
}

fn watch(builder: EngineBuilder) -> (Engine, Receiver<Seen>) {
    let (sender, seen) = channel();
    let engine = builder.start(move |_| Watch(sender.clone())).unwrap();
    (engine, seen)
}

/// Runs Python with a socket `s`: std has no socket options.
fn with_socket(script: &str) -> Child {
    let script = format!("import socket, sys\ns = socket.socket(2, 2)\n{script}");
    Command::new("python3").args(["-c", &script]).stdin(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_local_packet_shows_its_mark_priority_owner_and_device() {
    let lab = Lab::at_output(30);
    let builder = Engine::builder().queues(lab.range()).copy_range(CopyRange::Bytes(60));
    let (_engine, seen) = watch(builder.uid_gid(FlagWish::Required));
    let (mark, priority, port) = (0x77, 5, lab.port());
    let mut sender = with_socket(&format!(
        "s.setsockopt(1, socket.SO_MARK, {mark}); s.setsockopt(1, socket.SO_PRIORITY, {priority})\n\
         s.sendto(b'x' * 100, ('127.0.0.1', {port})); sys.stdin.read()"
    ));
    let packet = seen.recv_timeout(LIMIT).unwrap();
    drop(sender.stdin.take());
    assert!(sender.wait().unwrap().success());
    assert_eq!((packet.hook, packet.mark, packet.priority), (Hook::Output, mark, Some(priority)));
    assert_eq!(packet.owner, (Some(outer_id("uid_map")), Some(outer_id("gid_map"))));
    assert_eq!(packet.devices, (None, Some(LOOPBACK)));
    assert_eq!((packet.lengths, packet.original_length), ((60, 128), Some(128)));
}

#[test]
fn a_packet_that_came_in_shows_its_device_and_no_owner_that_was_not_asked_for() {
    let lab = Lab::new(31, "INPUT");
    let (_engine, seen) = watch(Engine::builder().queues(lab.range()));
    let sink = Sink::new(&lab);
    lab.send(1, 100);
    let packet = seen.recv_timeout(LIMIT).unwrap();
    assert_eq!(sink.received(1), 1);
    assert_eq!((packet.hook, packet.mark, packet.owner), (Hook::Input, 0, (None, None)));
    assert_eq!(packet.devices, (Some(LOOPBACK), None));
    assert_eq!((packet.lengths, packet.original_length), ((128, 128), None));
}

#[test]
fn packets_have_a_time_while_a_socket_asks_for_it() {
    let lab = Lab::new(32, "INPUT");
    let (_engine, seen) = watch(Engine::builder().queues(lab.range()));
    let mut asking = with_socket("s.setsockopt(1, 29, 1); sys.stdin.read()"); // SO_TIMESTAMP
    // The kernel turns timestamps on a moment later, so packets go until one has a time.
    let deadline = Instant::now() + LIMIT;
    let time = loop {
        lab.send(1, 64);
        if let Some(time) = seen.recv_timeout(LIMIT).unwrap().arrived {
            break time;
        }
        assert!(Instant::now() < deadline, "no packet had a time");
    };
    asking.stdin.take().unwrap().flush().unwrap();
    assert!(asking.wait().unwrap().success());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    assert!(time.abs_diff(now.as_secs()) < 3600, "{time} is not about now");
}

/// Whether a bind with this flag alone is taken; by the bare codec, on a queue that nobody else uses.
fn kernel_takes(flag: QueueFlag) -> bool {
    let mut socket = Socket::new(NETLINK_NETFILTER).unwrap();
    socket.bind(&SocketAddr::new(0, 0)).unwrap();
    let mut buffer = [0; QueueRequest::BYTES_MAX];
    let flags = ConfigFlags::NONE.with(flag);
    let length = QueueRequest::bind(49, CopyRange::Meta, 1, flags).encode(&mut buffer);
    socket.send(&buffer[..length], 0).unwrap();
    let (answer, _) = socket.recv_from_full().unwrap();
    match decode(&answer).unwrap() {
        (Message::Reply(reply), _) if reply.errno == 0 => true,
        (Message::Reply(reply), _) if reply.errno == libc::EOPNOTSUPP => false,
        other => panic!("{flag}: {other:?}"),
    }
}

/// In one test, one flag after the other: the queues are the same ones.
#[test]
fn each_flag_is_granted_or_named_and_what_is_required_stops_the_start() {
    for flag in QueueFlag::ALL {
        let takes = kernel_takes(flag);
        println!("this kernel {} {flag}", if takes { "takes" } else { "refuses" });
        let builder = || Engine::builder().queues("46-48".parse().unwrap());

        // UID_GID, which every kernel that this runs on takes, must survive the other's refusal.
        let other = if flag == QueueFlag::UidGid { QueueFlag::FailOpen } else { QueueFlag::UidGid };
        let engine =
            builder().flag(other, true).flag(flag, FlagWish::Wanted).start(ACCEPT).unwrap();
        let expected = ConfigFlags::NONE.with(other);
        let expected = if takes { expected.with(flag) } else { expected };
        assert_eq!(engine.granted_flags(), expected);
        let warned = engine.warnings().contains(&StartWarning::FlagRefused { flag });
        assert_eq!(warned, !takes, "{:?}", engine.warnings());
        drop(engine);

        match builder().flag(flag, FlagWish::Required).start(ACCEPT) {
            Ok(engine) => assert!(takes && engine.granted_flags().contains(flag)),
            Err(StartError::Queue(error @ QueueError::FlagsRefused { queue: 46, flags })) => {
                assert!(!takes && flags == ConfigFlags::NONE.with(flag), "{error}");
                let text = error.to_string();
                for part in [flag.name(), flag.needs(), &format!("--{flag}=wanted")] {
                    assert!(text.contains(part), "{text}");
                }
            }
            Err(other) => panic!("{flag}: {other}"),
        }
        assert!((46..=49).all(|queue| !queue_is_bound(queue)), "{flag}: something stayed bound");
    }
}

/// Root's id here, as the kernel shows it to everyone: in the first user namespace.
fn outer_id(map: &str) -> u32 {
    let map = std::fs::read_to_string(format!("/proc/self/{map}")).unwrap();
    map.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The loopback is the first device of each namespace.
const LOOPBACK: u32 = 1;
