//! Descriptors that are not what they are said to be: of every other kind, too few, too many, one for two queues. Each
//! is refused on either side, and the process that serves goes on, under traffic, without keeping any.

use std::fs::File;
use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, Protocol, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketType,
    bind, recvmsg, socket,
};

use super::hostile::{
    ASK, OFFER, SOCKETS, TAKE, ask, heard, message, next_message, open_descriptors, send_with,
};
use super::{Site, Traffic, number};
use crate::space::{Fanq, PATIENCE};

const SERVING: u16 = 6;

/// What a descriptor may be that is no queue's, and what is said of it.
fn strangers(site: &Site) -> Vec<(&'static str, OwnedFd, &'static str)> {
    let of_netlink = |protocol: Option<Protocol>, port: Option<u32>| {
        let socket = socket(AddressFamily::NETLINK, SocketType::RAW, protocol).unwrap();
        if let Some(port) = port {
            bind(&socket, &SocketAddrNetlink::new(port, 0)).unwrap();
        }
        socket
    };
    let netfilter = Some(netlink::NETFILTER);
    let (reader, writer) = std::io::pipe().unwrap();
    let (connected, _) = UnixStream::pair().unwrap();
    let listening = UnixListener::bind(site.path("elsewhere")).unwrap();
    vec![
        ("a pipe to read from", reader.into(), NOT_NETFILTER),
        ("a pipe to write to", writer.into(), NOT_NETFILTER),
        ("a file", File::open(env!("CARGO_BIN_EXE_fanq")).unwrap().into(), NOT_NETFILTER),
        ("a folder", File::open("/").unwrap().into(), NOT_NETFILTER),
        ("a device", File::open("/dev/zero").unwrap().into(), NOT_NETFILTER),
        ("a namespace", File::open("/proc/self/ns/net").unwrap().into(), NOT_NETFILTER),
        ("a UDP socket", UdpSocket::bind("127.0.0.1:0").unwrap().into(), NOT_NETFILTER),
        ("a TCP listener", TcpListener::bind("127.0.0.1:0").unwrap().into(), NOT_NETFILTER),
        ("a unix stream", connected.into(), NOT_NETFILTER),
        ("a unix listener", listening.into(), NOT_NETFILTER),
        ("netlink to routes", of_netlink(None, None), NOT_NETFILTER),
        ("netlink to netfilter, nameless", of_netlink(netfilter, None), NOT_OWNER),
        ("netlink to netfilter", of_netlink(netfilter, Some(0)), NOT_OWNER),
        (
            "of the owner's port, in another namespace",
            of_netlink(netfilter, Some(owners_port(site))),
            NOT_OWNER,
        ),
    ]
}

/// The netlink port that queue 8 belongs to.
fn owners_port(site: &Site) -> u32 {
    let table = format!("/proc/{}/net/netfilter/nfnetlink_queue", site.space.id());
    let table = std::fs::read_to_string(table).unwrap();
    let mut rows = table.lines().map(|row| row.split_whitespace());
    let mut row = rows.find(|row| row.clone().next() == Some("8")).unwrap();
    row.nth(1).unwrap().parse().unwrap()
}

/// The real sockets of queues 8 and 9, from the process that serves, which is asked and then left.
fn real_sockets(site: &Site, fanq: &mut Fanq) -> Vec<OwnedFd> {
    let mut stream = UnixStream::connect(site.path("door")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&ask()).unwrap();
    let mut sockets = Vec::new();
    while sockets.len() < 2 {
        let mut bytes = [0; 1000];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        assert!(recvmsg(&stream, &mut parts, &mut control, flags).unwrap().bytes > 0);
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                sockets.extend(passed);
            }
        }
    }
    drop(stream);
    fanq.await_line("the queues stay here: the other process is gone");
    sockets
}

/// Offers these for the queues to a `fanq run`, in the place of who serves. It refuses, and binds nothing.
fn offered(site: &Site, what: &str, queues: &str, descriptors: &[BorrowedFd<'_>], reason: &str) {
    let door = site.path("false");
    let _ = std::fs::remove_file(&door);
    let listener = UnixListener::bind(&door).unwrap();
    let request = site.request("").replace(&site.path("door"), &door);
    let fanq = site.space.start(&[], &request);
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(next_message(&mut stream).0, ASK);
    let offer =
        format!(r#"{{"program":"test","queues":{queues},"settings":"none","release_ms_max":100}}"#);
    let sockets = message(1, SOCKETS, &format!(r#"{{"queues":{queues}}}"#));
    stream.write_all(&message(1, OFFER, &offer)).unwrap();
    if descriptors.is_empty() {
        stream.write_all(&sockets).unwrap();
    } else {
        send_with(&stream, &sockets, descriptors);
    }
    fanq.end().assert_refused(1, &[reason], what);
    assert_eq!(site.space.bound(), [8, 9], "{what}");
}

/// Comes with it to the door of who serves, where none belongs: with the question, and with the taking.
fn brought(site: &Site, fanq: &mut Fanq, what: &str, descriptor: BorrowedFd<'_>) {
    let stream = UnixStream::connect(site.path("door")).unwrap();
    send_with(&stream, &ask(), &[descriptor]);
    let answer = heard(stream);
    assert!(answer.contains("Ask came, not a message without descriptors"), "{what}: {answer}");
    fanq.await_line("the queues stay here: Ask came");
    let mut stream = UnixStream::connect(site.path("door")).unwrap();
    stream.write_all(&ask()).unwrap();
    assert_eq!((next_message(&mut stream).0, next_message(&mut stream).0), (OFFER, SOCKETS));
    send_with(&stream, &message(1, TAKE, ""), &[descriptor]);
    let answer = heard(stream);
    assert!(answer.contains("Take came, not a message without descriptors"), "{what}: {answer}");
    fanq.await_line("the queues stay here: Take came");
}

#[test]
fn a_descriptor_of_any_other_kind_is_refused_and_who_serves_goes_on() {
    let Some(site) = Site::new() else { return };
    let mut fanq = site.space.start(&[], &site.request(""));
    fanq.await_ready();
    let traffic = Traffic::start(&site, "500");
    let descriptors = open_descriptors(&fanq);
    for (what, stranger, reason) in strangers(&site) {
        let stranger = stranger.as_fd();
        offered(&site, what, "[8,9]", &[stranger, stranger], reason);
        brought(&site, &mut fanq, what, stranger);
    }
    assert_eq!(open_descriptors(&fanq), descriptors, "descriptors are left");
    goes_on(fanq, traffic);
}

#[test]
fn real_sockets_in_a_wrong_number_or_place_are_refused_and_who_serves_goes_on() {
    let Some(site) = Site::new() else { return };
    let mut fanq = site.space.start(&[], &site.request(""));
    fanq.await_ready();
    let traffic = Traffic::start(&site, "500");
    let descriptors = open_descriptors(&fanq);
    let sockets = real_sockets(&site, &mut fanq);
    let (eight, nine) = (sockets[0].as_fd(), sockets[1].as_fd());
    let pipe = std::io::pipe().unwrap().0;
    let cases: [(&str, &str, &[BorrowedFd<'_>], &str); 9] = [
        ("none", "[8,9]", &[], "0 descriptors came"),
        ("one", "[8,9]", &[eight], "1 descriptors came"),
        ("one too many", "[8,9]", &[eight, nine, nine], "3 descriptors came"),
        ("more than are taken", "[8,9]", &[eight; 65], "more than 64 descriptors came"),
        ("far more", "[8,9]", &[nine; 200], "more than 64 descriptors came"),
        ("one for two", "[8,9]", &[eight, eight], "given for queue 9 does not own it"),
        ("exchanged", "[8,9]", &[nine, eight], "given for queue 8 does not own it"),
        ("a real one first", "[8,9]", &[eight, pipe.as_fd()], "given for queue 9 is no netlink"),
        ("a queue twice", "[8,8]", &[eight, eight], "queue 8 is bound already and is not, or not"),
    ];
    for (what, queues, descriptors, reason) in cases {
        offered(&site, what, queues, descriptors, reason);
    }
    brought(&site, &mut fanq, "its own socket", eight);
    assert_eq!(open_descriptors(&fanq), descriptors, "descriptors are left");

    // After the queues were left, too: then they are taken back.
    let mut stream = UnixStream::connect(site.path("door")).unwrap();
    stream.write_all(&ask()).unwrap();
    assert_eq!((next_message(&mut stream).0, next_message(&mut stream).0), (OFFER, SOCKETS));
    stream.write_all(&message(1, TAKE, "")).unwrap();
    next_message(&mut stream);
    send_with(&stream, &message(1, SERVING, ""), &[eight]);
    fanq.await_line("they are served here again");
    fanq.await_ready();
    drop(sockets);
    goes_on(fanq, traffic);
}

/// Every packet up to now was inspected here, once, and the end is a good one.
fn goes_on(fanq: Fanq, traffic: Traffic) {
    let arrived = traffic.stop();
    let sent = number(&arrived, "sent");
    assert!(sent > 0);
    assert_eq!((number(&arrived, "received"), number(&arrived, "duplicates")), (sent, 0));
    let totals = fanq.stop("TERM").json()["totals"].clone();
    assert_eq!((number(&totals, "packets"), number(&totals, "id_gaps")), (sent, 0), "{totals}");
}

const NOT_NETFILTER: &str = "the descriptor given for queue 8 is no netlink socket to netfilter";
const NOT_OWNER: &str = "the descriptor given for queue 8 does not own it: it belongs to process";
