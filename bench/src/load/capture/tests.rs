//! Goal: what a capture holds is read as it is, and what is broken is named. Method: files built byte by byte.

use super::*;

/// A pcap header (microseconds, little-endian) with this link type.
fn pcap(link: u32) -> Vec<u8> {
    let mut bytes = vec![0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0];
    bytes.extend([0; 8]);
    bytes.extend(65_535_u32.to_le_bytes());
    bytes.extend(link.to_le_bytes());
    bytes
}

fn with_record(mut file: Vec<u8>, at_us: u32, packet: &[u8], whole_bytes: usize) -> Vec<u8> {
    let numbers = [at_us / 1_000_000, at_us % 1_000_000];
    let lengths = [packet.len(), whole_bytes].map(|length| u32::try_from(length).unwrap());
    file.extend(numbers.iter().chain(&lengths).flat_map(|number| number.to_le_bytes()));
    file.extend(packet);
    file
}

fn frame(payload: usize) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2([1; 6], [2; 6])
        .ipv4([192, 0, 2, 1], [198, 51, 100, 7], 64)
        .udp(5, 6);
    let mut bytes = Vec::new();
    builder.write(&mut bytes, &vec![7; payload]).unwrap();
    bytes
}

fn read(file: &[u8]) -> anyhow::Result<Capture> {
    Capture::parse("my.pcap".to_owned(), file)
}

fn refusal(file: &[u8]) -> String {
    format!("{:#}", read(file).unwrap_err())
}

#[test]
fn frames_come_with_their_times_and_what_is_no_ip_is_left_out() {
    let (one, other) = (frame(20), frame(30));
    let mut arp = one.clone();
    arp[12..14].copy_from_slice(&[8, 6]);
    let mut file = with_record(pcap(1), 5_000_100, &one, one.len());
    file = with_record(file, 5_000_150, &arp, arp.len());
    file = with_record(file, 5_000_300, &other, other.len());
    file = with_record(file, 5_000_200, &one, one.len());
    let capture = read(&file).unwrap();
    let times: Vec<_> = capture.frames.iter().map(|frame| frame.at.as_micros()).collect();
    assert_eq!((times, capture.left_out), (vec![0, 200, 200], 1));
    assert_eq!(capture.frames[1].bytes, other);
    assert_eq!(capture.frames[0].talk, capture.frames[1].talk);
}

#[test]
fn bare_ip_gets_a_header() {
    let whole = frame(20);
    for link in [101, 228] {
        let packet = &whole[ETHERNET_BYTES..];
        let capture = read(&with_record(pcap(link), 0, packet, packet.len())).unwrap();
        assert_eq!(capture.frames[0].bytes[12..], whole[12..]);
    }
}

#[test]
fn both_directions_are_one_talk_and_others_are_not() {
    let mut back = frame(20);
    let (source, destination) = (back[26..30].to_vec(), back[30..34].to_vec());
    back[26..30].copy_from_slice(&destination);
    back[30..34].copy_from_slice(&source);
    let mut third = frame(20);
    third[33] ^= 1;
    assert_eq!(talk_of(&frame(9)), talk_of(&back));
    assert_ne!(talk_of(&frame(9)), talk_of(&third));
}

#[test]
fn pcapng_times_are_in_the_interfaces_own_units() {
    let mut file =
        block(0x0a0d_0d0a, &[&0x1a2b_3c4d_u32.to_le_bytes()[..], &[1, 0, 0, 0], &[255; 8]]);
    // Ethernet, no snap length, nanoseconds.
    let resolution: &[u8] = &[9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0];
    file.extend(block(1, &[&[1, 0, 0, 0, 0, 0, 0, 0], resolution]));
    file.extend(block(1, &[&[1, 0, 0, 0, 0, 0, 0, 0]]));
    // Two seconds apart, by nanoseconds and by the microseconds of an interface that says nothing.
    for (interface, at) in [(0_u32, 1_000_000_000_u64), (1, 3_000_000)] {
        file.extend(block(6, &[&packet_head(interface, at, &frame(20)), &frame(20), &[0; 2]]));
    }
    let capture = read(&file).unwrap();
    assert_eq!(capture.frames.len(), 2);
    assert_eq!(capture.span(), Duration::from_secs(2));
    let cut = &file[..file.len() - 9];
    assert!(refusal(cut).contains("behind record 1: the file ends"), "{}", refusal(cut));
}

fn packet_head(interface: u32, at: u64, frame: &[u8]) -> Vec<u8> {
    let length = u32::try_from(frame.len()).unwrap();
    let halves = [u32::try_from(at >> 32).unwrap(), u32::try_from(at & 0xffff_ffff).unwrap()];
    let numbers = [interface, halves[0], halves[1], length, length];
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn block(kind: u32, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let length = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
    [&kind.to_le_bytes()[..], &length, &body, &length].concat()
}

#[test]
fn what_is_broken_is_named_with_its_record() {
    let whole = frame(20);
    let two = with_record(with_record(pcap(1), 0, &whole, whole.len()), 1, &whole, whole.len());
    let cases = [
        (b"PK\x03\x04 and so on".to_vec(), "neither pcap nor pcapng"),
        (vec![1, 2], "too short"),
        (pcap(1)[..20].to_vec(), "its header: the file ends"),
        (pcap(1), "no IP packet"),
        (pcap(127), "link type 127"),
        (two[..two.len() - 1].to_vec(), "record 2: the file ends"),
        (with_record(pcap(1), 0, &whole, 1500), "record 1: only 62 of its 1500 bytes"),
        (with_record(two.clone(), 2, &frame(9001), 9043), "record 3: it has 9029 bytes"),
        (with_record(pcap(101), 0, &[0x50; 40], 40), "record 1: it is neither IPv4"),
    ];
    for (file, said) in cases {
        assert!(refusal(&file).contains(said), "{} lacks {said:?}", refusal(&file));
    }
    let mut endless = two;
    endless[24 + 8..24 + 12].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(refusal(&endless).contains("record 1"), "{}", refusal(&endless));
}

#[test]
fn no_bytes_make_it_panic() {
    let whole = frame(20);
    let file = with_record(with_record(pcap(1), 0, &whole, whole.len()), 1, &whole, whole.len());
    for cut in 0..file.len() {
        assert!(cut == 24 + 16 + whole.len() || read(&file[..cut]).is_err(), "{cut}");
    }
    for index in 0..file.len() {
        let mut other = file.clone();
        other[index] ^= 0xff;
        let _ = read(&other);
    }
}
