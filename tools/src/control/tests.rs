//! Goal: requests are understood whole or refused with words, and sockets are found and replaced as they should.
//! Method: lines by hand; a service over a run that is made up; sockets in a folder of the test's.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::channel;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::client::Client;
use super::place::{ControlAddress, SocketFile, listed};
use super::protocol::{Request, VERSION, parse_answer};
use super::*;

/// Knows one setting, and ends a reload from another thread.
struct MadeUp;

impl Controlled for MadeUp {
    fn statistics(&self) -> Value {
        // As long as that of 1,024 queues, so that it does not fit a socket's buffer.
        json!({ "pid": 7, "filler": "x".repeat(2 << 20) })
    }

    fn settings(&self) -> Value {
        json!({ "copy-range": "full" })
    }

    fn set(&self, key: &str, value: &str) -> Result<String, String> {
        if key == "copy-range" { Ok(format!("{key} {value}")) } else { Err("unknown".to_owned()) }
    }

    fn reload(&self, tell: Box<dyn FnOnce(Result<String, String>) + Send>) {
        let (go, wait) = channel::<()>();
        std::thread::spawn(move || {
            let _ = wait.recv_timeout(Duration::from_millis(50));
            tell(Ok("read again".to_owned()));
        });
        drop(go);
    }
}

struct Served {
    folder: tempfile::TempDir,
    served: Option<ServedControl>,
}

impl Served {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = ControlPlace::File(folder.path().join("control"));
        let served = OpenControl::open(&place, false).unwrap().unwrap().serve(MadeUp).unwrap();
        Self { folder, served: Some(served) }
    }

    fn address(&self) -> ControlAddress {
        ControlAddress::File(self.folder.path().join("control"))
    }

    fn raw(&self) -> UnixStream {
        let stream = UnixStream::connect(self.folder.path().join("control")).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }
}

#[test]
fn a_request_is_its_line_and_a_line_is_its_request() {
    let set = Request::Set { key: "copy-range".to_owned(), value: "128".to_owned() };
    for request in [Request::Statistics, Request::Get, set, Request::Reload] {
        let line = request.line();
        assert!(line.ends_with('\n') && line.contains("\"version\":1"), "{line}");
        assert_eq!(Request::parse(line.as_bytes()), Ok(request));
    }
}

#[test]
fn what_is_no_request_is_refused_with_what_would_be_one() {
    for (line, part) in [
        ("", "no JSON"),
        ("statistics", "no JSON"),
        ("[1]", "a request has \"version\": 1"),
        (r#"{"request":"get"}"#, "a request has \"version\": 1"),
        (r#"{"version":2,"request":"get"}"#, "version 2 is not spoken here, but 1"),
        (r#"{"version":1}"#, "requests are statistics, get, set"),
        (r#"{"version":1,"request":"stop"}"#, "requests are statistics, get, set"),
        (r#"{"version":1,"request":"set","key":"copy-range"}"#, "value"),
        (r#"{"version":1,"request":"set","key":7,"value":"x"}"#, "string"),
    ] {
        let words = Request::parse(line.as_bytes()).unwrap_err();
        assert!(words.contains(part), "{line}: {words}");
    }
    assert_eq!(VERSION, 1, "docs/CONTROL.md says so");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..80_usize) {
        let set = Request::Set { key: "copy-range".to_owned(), value: "128".to_owned() }.line();
        for line in [bytes.clone(), [&set.as_bytes()[..cut.min(set.len())], &bytes].concat()] {
            let _ = Request::parse(&line);
            let _ = parse_answer(&line);
        }
        let table = String::from_utf8_lossy(&bytes).replace('a', " 00010000 0001 01 1 @fanq-");
        listed(&table);
    }
}

#[test]
fn all_requests_are_answered_on_one_connection() {
    let served = Served::new();
    let mut client = Client::connect(&served.address()).unwrap();
    assert_eq!(client.statistics().unwrap()["pid"], 7);
    let patience = Duration::from_secs(20);
    let set = |key: &str| Request::Set { key: key.to_owned(), value: "9".to_owned() };
    assert_eq!(client.ask(&set("copy-range"), patience).unwrap(), "copy-range 9");
    let refused = client.ask(&set("batch"), patience).unwrap_err().to_string();
    assert!(refused.ends_with("refuses: unknown"), "{refused}");
    assert_eq!(client.ask(&Request::Reload, patience).unwrap(), "read again");
    assert_eq!(client.ask(&Request::Get, patience).unwrap()["copy-range"], "full");
}

#[test]
fn bad_clients_are_told_and_keep_nobody_else_waiting() {
    let served = Served::new();
    // One that never reads what it asks for, over and over; one with half a line; one that has nothing to say.
    let mut deaf = served.raw();
    deaf.set_nonblocking(true).unwrap();
    for _ in 0..100 {
        let _ = deaf.write(Request::Statistics.line().as_bytes());
    }
    let mut half = served.raw();
    half.write_all(b"{\"version\":1,").unwrap();
    let _silent = served.raw();
    let mut long = served.raw();
    let _ = long.write_all(&[b'x'; 5000]);
    let mut words = String::new();
    BufReader::new(&long).read_line(&mut words).unwrap();
    assert!(words.contains("one line of at most 4096 bytes"), "{words}");
    assert_eq!((&long).read(&mut [0; 16]).unwrap(), 0, "and then it ends");

    // Many more than there are places for: the last one is heard.
    let crowd: Vec<_> = (0..200).map(|_| served.raw()).collect();
    let mut client = Client::connect(&served.address()).unwrap();
    assert_eq!(client.statistics().unwrap()["pid"], 7);
    drop(crowd);
}

#[test]
fn who_is_refused_pushes_out_nobody() {
    let served = Served::new();
    let mut client = Client::connect(&served.address()).unwrap();
    assert_eq!(client.statistics().unwrap()["pid"], 7);
    // More than there are places for, each of which is told that it is wrong.
    let crowd: Vec<_> = (0..100)
        .map(|_| {
            let mut stream = served.raw();
            let _ = stream.write_all(&[b'x'; 5000]);
            let mut words = String::new();
            BufReader::new(&stream).read_line(&mut words).unwrap();
            assert!(words.contains("error"), "{words}");
            stream
        })
        .collect();
    assert_eq!(client.statistics().unwrap()["pid"], 7, "on the same connection");
    drop(crowd);
}

#[test]
fn a_file_is_for_its_user_alone_and_goes_with_the_program() {
    let mut served = Served::new();
    let path = served.folder.path().join("control");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    served.served = None;
    assert!(!path.exists());
}

#[test]
fn a_living_socket_is_refused_a_stale_one_replaced_and_nothing_else_touched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("control");
    drop(UnixListener::bind(&path).unwrap());
    let (_listener, file) = SocketFile::bind(&path).unwrap();
    let words = SocketFile::bind(&path).unwrap_err().to_string();
    assert!(words.contains("another program serves there"), "{words}");

    // Another one's socket at the same path stays when this one goes.
    std::fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    drop(file);
    assert!(path.exists());

    let plain = folder.path().join("notes");
    std::fs::write(&plain, "mine").unwrap();
    let words = SocketFile::bind(&plain).unwrap_err().to_string();
    assert!(words.contains("something else than a socket"), "{words}");
    assert_eq!(std::fs::read_to_string(&plain).unwrap(), "mine");
}

#[test]
fn sockets_are_found_by_their_names_in_the_kernels_list() {
    let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
        0000000000000000: 00000002 00000000 00010000 0001 01 11 @fanq-902\n\
        0000000000000000: 00000003 00000000 00000000 0001 03 12 @fanq-902\n\
        0000000000000000: 00000002 00000000 00010000 0001 01 13 @fanq-31\n\
        0000000000000000: 00000003 00000000 00000000 0001 03 14 @fanq-77\n\
        0000000000000000: 00000002 00000000 00010000 0001 01 15 /run/fanq-5\n\
        0000000000000000: 00000002 00000000 00010000 0001 01 16 @fanq-x\n\
        0000000000000000: 00000002 00000000 00010000 0001 01 17 @fanq-8 9\n\
        0000000000000000: 00000002 00000000 00010000 0001 01 18\n";
    let pids: Vec<_> = listed(table).iter().map(|socket| socket.pid).collect();
    assert_eq!(pids, [31, 902]);
}
