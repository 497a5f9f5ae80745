//! Peers with bad manners, on either side of the door: refused in words, and nothing changes.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::{Site, Traffic, number};
use crate::space::{Fanq, PATIENCE};

pub(super) const ASK: u16 = 1;
pub(super) const OFFER: u16 = 2;
pub(super) const SOCKETS: u16 = 3;
pub(super) const TAKE: u16 = 4;

pub(super) fn message(version: u16, kind: u16, body: &str) -> Vec<u8> {
    let mut bytes = b"fanq".to_vec();
    bytes.extend(version.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend(body.as_bytes());
    bytes
}

pub(super) fn ask() -> Vec<u8> {
    message(1, ASK, r#"{"program":"test"}"#)
}

pub(super) fn send_with(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(250))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    // The other side may be gone already.
    let _ = sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL);
}

/// What the other side has to say until it hangs up.
pub(super) fn heard(mut stream: UnixStream) -> String {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

pub(super) fn open_descriptors(fanq: &Fanq) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", fanq.child.id())).unwrap().count()
}

/// Reads one message's header and body.
pub(super) fn next_message(stream: &mut UnixStream) -> (u16, Vec<u8>) {
    let mut header = [0; 12];
    stream.read_exact(&mut header).unwrap();
    let length = u32::from_be_bytes(header[8..12].try_into().unwrap());
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).unwrap();
    (u16::from_be_bytes([header[6], header[7]]), body)
}

#[test]
fn whoever_asks_badly_is_refused_and_the_process_carries_on() {
    let Some(site) = Site::new() else { return };
    let mut fanq = site.space.start(&[], &site.request(""));
    fanq.await_ready();
    let traffic = Traffic::start(&site, "500");
    let descriptors = open_descriptors(&fanq);
    let connect = || UnixStream::connect(site.path("door")).unwrap();

    let asks_wrongly: [(&[u8], &str); 6] = [
        (b"GET / HTTP/1.1\r\n\r\n", "does not begin with `fanq`"),
        (&message(7, ASK, "{}"), "speaks version 7 of the handover, this one version 1"),
        (&message(1, ASK, "{"), "cannot be read"),
        (&message(1, 77, ""), "unknown kind 77"),
        (&message(1, TAKE, ""), "Take came, not what asks for queues"),
        (b"fanq\0\x01\0\x01\xff\xff\xff\xff", "at most 16777216 are taken"),
    ];
    for (bytes, reason) in asks_wrongly {
        let mut stream = connect();
        stream.write_all(bytes).unwrap();
        let answer = heard(stream);
        assert!(answer.contains(reason), "no {reason:?} in {answer:?}");
        fanq.await_line("the queues stay here");
    }
    // Cut anywhere, and gone.
    let cuts = [0, 1, 11, 12, 20];
    for cut in cuts {
        connect().write_all(&ask()[..cut]).unwrap();
        fanq.await_line("the other process is gone");
    }
    // Gone, or talking nonsense, instead of taking what was offered.
    for instead in [Vec::new(), ask(), message(2, TAKE, "")] {
        let mut stream = connect();
        stream.write_all(&ask()).unwrap();
        assert_eq!(next_message(&mut stream).0, OFFER);
        stream.write_all(&instead).unwrap();
        drop(stream);
        fanq.await_line("the queues stay here");
    }
    // Descriptors where none belong, also more than there is room for.
    let null = std::fs::File::open("/dev/null").unwrap();
    for count in [1, 60, 250] {
        let stream = connect();
        send_with(&stream, &ask(), &vec![null.as_fd(); count]);
        assert!(heard(stream).contains("descriptors"));
        fanq.await_line("the queues stay here");
    }
    // Silent, while others wait.
    let silent = connect();
    fanq.await_line("did not answer in time");
    drop(silent);

    assert_eq!(open_descriptors(&fanq), descriptors, "descriptors leak");
    let mut next = site.space.start(&[], &site.request(""));
    next.await_ready();
    assert_eq!(fanq.end().code, Some(0));
    let arrived = traffic.stop();
    assert_eq!(number(&arrived, "received"), number(&arrived, "sent"));
    let totals = next.stop("TERM").json()["totals"].clone();
    assert_eq!(number(&totals, "packets"), number(&arrived, "sent"));
}

#[test]
fn whoever_takes_and_does_not_serve_loses_the_queues_again() {
    let Some(site) = Site::new() else { return };
    let mut fanq = site.space.start(&[], &site.request("--on-orphan accept"));
    fanq.await_ready();
    let traffic = Traffic::start(&site, "500");
    for instead in [None, Some(ask())] {
        let mut stream = UnixStream::connect(site.path("door")).unwrap();
        stream.write_all(&ask()).unwrap();
        assert_eq!(next_message(&mut stream).0, OFFER);
        assert_eq!(next_message(&mut stream).0, SOCKETS);
        stream.write_all(&message(1, TAKE, "")).unwrap();
        if let Some(bytes) = instead {
            next_message(&mut stream);
            stream.write_all(&bytes).unwrap();
        }
        drop(stream);
        fanq.await_line("they are served here again");
        fanq.await_ready();
    }
    let mut next = site.space.start(&[], &site.request(""));
    next.await_ready();
    let ended = fanq.end();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let arrived = traffic.stop();
    let sent = number(&arrived, "sent");
    assert_eq!((number(&arrived, "received"), number(&arrived, "duplicates")), (sent, 0));
    let totals = next.stop("TERM").json()["totals"].clone();
    assert_eq!(number(&totals, "packets"), sent, "the account is one, over all of that");
}

#[test]
fn queues_are_taken_back_with_the_rules_in_force_whatever_is_in_the_file() {
    let Some(site) = Site::new() else { return };
    let rules = site.path("rules.toml");
    std::fs::write(&rules, "[[rule]]\nname = 'all'\naction = 'accept'\n").unwrap();
    let mut fanq = site.space.start(&[], &site.request(&format!("--policy {rules}")));
    fanq.await_ready();
    site.send(3);
    std::fs::write(&rules, "nonsense").unwrap();
    for _ in 0..2 {
        let mut stream = UnixStream::connect(site.path("door")).unwrap();
        stream.write_all(&ask()).unwrap();
        assert_eq!(next_message(&mut stream).0, OFFER);
        assert_eq!(next_message(&mut stream).0, SOCKETS);
        stream.write_all(&message(1, TAKE, "")).unwrap();
        drop(stream);
        fanq.await_line("they are served here again");
        fanq.await_ready();
        site.send(2);
    }
    let account = fanq.stop("TERM").json();
    assert_eq!(number(&account["totals"], "packets"), 7);
    assert_eq!(number(&account["policy"]["rules"][0], "packets"), 7, "{}", account["policy"]);
}

#[test]
fn other_users_get_nothing() {
    let Some(site) = Site::new() else { return };
    let mut fanq = site.space.start(&[], &site.request(""));
    fanq.await_ready();
    let door = site.path("door");
    let mode = || std::fs::metadata(&door).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    std::fs::set_permissions(site.folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let request = site.request("--nice 0");
    let copied = site.path("fanq");
    std::fs::copy(env!("CARGO_BIN_EXE_fanq"), &copied).unwrap();
    let as_nobody = || {
        let words: Vec<_> = request.split(' ').collect();
        let words = [&nobody[..], &[&copied, "run"], &words].concat();
        Fanq::new(site.space.command(&words).spawn().unwrap()).end()
    };
    // By the file's mode, and without it by the kernel's word on who connects.
    as_nobody().assert_refused(1, &["Permission denied"], &request);
    std::fs::set_permissions(&door, PermissionsExt::from_mode(0o777)).unwrap();
    as_nobody().assert_refused(
        1,
        &["refused: process", "of user 65534; queues of user 0"],
        &request,
    );
    fanq.await_line("the queues stay here: process");
    site.send(2);
    assert_eq!(number(&fanq.stop("TERM").json()["totals"], "packets"), 2);
}

/// Answers one `fanq run` with these messages, and returns how it ended. The last is sent with the descriptors.
fn answer(site: &Site, messages: &[Vec<u8>], descriptors: &[BorrowedFd<'_>], part: &str) {
    let door = site.path("door");
    let _ = std::fs::remove_file(&door);
    let listener = UnixListener::bind(&door).unwrap();
    let fanq = site.space.start(&[], &site.request(""));
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(next_message(&mut stream).0, ASK);
    for (index, bytes) in messages.iter().enumerate() {
        if index + 1 == messages.len() && !descriptors.is_empty() {
            send_with(&stream, bytes, descriptors);
        } else {
            // It may have hung up.
            let _ = stream.write_all(bytes);
        }
    }
    if !part.contains("in time") {
        std::thread::sleep(Duration::from_millis(50));
        let _ = stream.shutdown(std::net::Shutdown::Write);
    }
    let ended = fanq.end();
    ended.assert_refused(1, &[part], part);
    assert!(site.space.bound().is_empty(), "{part}");
}

#[test]
fn whoever_offers_what_he_does_not_have_is_refused_and_nothing_is_bound() {
    let Some(site) = Site::new() else { return };
    let offer = |queues: &str| {
        let body = format!(
            r#"{{"program":"test","queues":{queues},"settings":"none","release_ms_max":100}}"#
        );
        message(1, OFFER, &body)
    };
    let sockets = |queues: &str| message(1, SOCKETS, &format!(r#"{{"queues":{queues}}}"#));
    let null = std::fs::File::open("/dev/null").unwrap();
    let (stream, _other) = UnixStream::pair().unwrap();
    let all = format!("[{}]", (0..2000).map(|n| n.to_string()).collect::<Vec<_>>().join(","));

    answer(&site, &[message(3, OFFER, "{}")], &[], "speaks version 3 of the handover");
    answer(&site, &[message(3, 0, "no time")], &[], "the other process refused: no time");
    answer(&site, &[b"nonsense, all of it".to_vec()], &[], "does not begin with `fanq`");
    answer(&site, &[offer("[8,9]")[..30].to_vec()], &[], "the other process is gone");
    answer(&site, &[offer("[]")], &[], "0 queues are offered");
    answer(&site, &[offer(&all)], &[], "2000 queues are offered");
    answer(&site, &[offer("[8,9]"), sockets("[8,9]")], &[], "0 descriptors came");
    let (file, unix) = (null.as_fd(), stream.as_fd());
    answer(&site, &[offer("[8,9]"), sockets("[8,9]")], &[file], "1 descriptors came");
    answer(&site, &[offer("[8,9]"), sockets("[9,8]")], &[file, file], "not one for each");
    answer(&site, &[offer("[8,9]"), sockets("[8,9]")], &[file, file], "is no netlink socket");
    answer(&site, &[offer("[8,9]"), sockets("[8,9]")], &[unix, unix], "is no netlink socket");
    answer(&site, &[offer("[8,9]"), sockets("[8,9]")], &[file; 200], "descriptors came");
    answer(&site, &[message(1, TAKE, "")], &[], "Take came, not an offer");
    answer(&site, &[offer("[8,9]")], &[], "the other process is gone");
    answer(&site, &[], &[], "did not answer in time");
}
