//! Both ends of the traffic in a test's namespace. A thread cannot go there without unsafe code, so a second process
//! of this same program does: the one test in here, called by its name with a role in the environment.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::namespace::Namespace;

/// Plays a role in the namespace, and returns what it said.
pub(crate) fn play(space: &Namespace, role: &str) -> String {
    let program = std::env::current_exe().unwrap();
    let role_word = format!("{ROLE}={role}");
    let words = [
        "env",
        &role_word,
        program.to_str().unwrap(),
        "--exact",
        "ends::in_the_namespace",
        "--nocapture",
    ];
    let done = space.run(&words);
    assert_eq!(done.code, 0, "{role}: {} {}", done.out, done.err);
    let said = done.out.lines().filter_map(|line| line.strip_prefix("said: "));
    said.collect::<Vec<_>>().join("\n")
}

#[test]
fn in_the_namespace() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<_> = role.split(' ').collect();
    // The line begun by the test's own name ends here.
    println!();
    match words[..] {
        ["transfer", connections, bytes] => {
            let (connections, bytes) = (connections.parse().unwrap(), bytes.parse().unwrap());
            (0..connections).for_each(|_| transfer(bytes));
        }
        ["knock", address] => knock(address.parse().unwrap()),
        ["datagrams", count] => datagrams(count.parse().unwrap()),
        _ => panic!("no role {role:?}"),
    }
}

/// One connection that carries so many bytes.
fn transfer(bytes: usize) {
    let listener = TcpListener::bind(("127.0.0.1", PORT)).unwrap();
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut received = Vec::new();
        stream.read_to_end(&mut received).unwrap();
        received
    });
    let mut stream = TcpStream::connect(("127.0.0.1", PORT)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let sent: Vec<u8> = (0..=250).cycle().take(bytes).collect();
    stream.write_all(&sent).unwrap();
    drop(stream);
    println!("said: {}", if receiver.join().unwrap() == sent { "whole" } else { "damaged" });
}

/// Asks a port where somebody listens, by TCP and by UDP.
fn knock(address: IpAddr) {
    let to = SocketAddr::new(address, PORT);
    let (_listener, _receiver) = (TcpListener::bind(to).unwrap(), UdpSocket::bind(to).unwrap());
    say("tcp", TcpStream::connect_timeout(&to, PATIENCE).map(drop));
    let socket = UdpSocket::bind((address, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send(b"anybody?").unwrap();
    say("udp", socket.recv(&mut [0; 16]).map(drop));
}

fn say(what: &str, result: std::io::Result<()>) {
    let kind = result.map_or_else(|error| format!("{:?}", error.kind()), |()| "fine".to_owned());
    println!("said: {what} {kind}");
}

/// Sends so many, and says how many arrived.
fn datagrams(count: u32) {
    let receiver = UdpSocket::bind(("127.0.0.1", PORT)).unwrap();
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..count {
        sender.send_to(b"x", ("127.0.0.1", PORT)).unwrap();
    }
    let mut arrived = 0;
    loop {
        // As long as it takes while some are missing that may yet come; a moment for what would be too many.
        let wait = if (1..count).contains(&arrived) { PATIENCE } else { Duration::from_secs(1) };
        receiver.set_read_timeout(Some(wait)).unwrap();
        match receiver.recv(&mut [0; 16]) {
            Ok(_) => arrived += 1,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                break;
            }
            Err(error) => panic!("receiving: {error}"),
        }
    }
    println!("said: {arrived} of {count}");
}

const ROLE: &str = "FANQ_TEST_ROLE";
const PORT: u16 = 9000;
const PATIENCE: Duration = Duration::from_secs(20);
