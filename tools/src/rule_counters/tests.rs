//! Goal: rules are read as the kernel tells them, and what is broken or not known is never a number.

use super::*;

fn attr(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap();
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    let name = attr(EXPRESSION_NAME, format!("{name}\0").as_bytes());
    // With the bit that says so: it holds attributes.
    attr(1, &[name, attr(EXPRESSION_DATA | 0x8000, &data.concat())].concat())
}

fn counter(packets: u64) -> Vec<u8> {
    expression("counter", &[attr(1, &[0; 8]), attr(COUNTER_PACKETS, &packets.to_be_bytes())])
}

fn queue(number: u16, total: u16) -> Vec<u8> {
    let of = |kind, number: u16| attr(kind, &number.to_be_bytes());
    expression("queue", &[of(QUEUE_NUMBER, number), of(QUEUE_TOTAL, total), of(3, 2)])
}

fn target(name: &str, number: u16, total: u16) -> Vec<u8> {
    let info = [number.to_ne_bytes(), total.to_ne_bytes(), [1, 0]].concat();
    let name = attr(TARGET_NAME, format!("{name}\0").as_bytes());
    expression("target", &[name, attr(2, &3_u32.to_be_bytes()), attr(TARGET_INFO, &info)])
}

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).unwrap();
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend([kind.to_ne_bytes(), [2, 0]].concat());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

fn rule(expressions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![2, 0, 0, 0];
    body.extend(attr(1, b"filter\0"));
    body.extend(attr(2, b"INPUT\0"));
    body.extend(attr(RULE_EXPRESSIONS | 0x8000, &expressions.concat()));
    message(NEW_RULE, &body)
}

/// What rules say about queues 4 to 7.
fn read(rules: &[Vec<u8>]) -> Option<u64> {
    let mut tally = Tally::default();
    let queues = QueueRange::new(4, 7).unwrap();
    let datagram = [rules.concat(), message(DONE, &[0; 4])].concat();
    assert_eq!(tally.take(&datagram, queues), Ok(Heard::All));
    tally.packets()
}

#[test]
fn rules_of_both_kinds_are_added_up_and_those_of_other_queues_left_out() {
    assert_eq!(read(&[rule(&[counter(10), queue(4, 4)])]), Some(10));
    let rules = [
        rule(&[counter(10), queue(4, 1)]),
        rule(&[expression("meta", &[]), counter(5), target("NFQUEUE", 6, 2)]),
        rule(&[counter(1000), queue(0, 4)]),
        rule(&[counter(1000), target("NFQUEUE", 8, 1)]),
        rule(&[counter(1000), target("LOG", 6, 2)]),
        rule(&[counter(1000)]),
        rule(&[]),
    ];
    assert_eq!(read(&rules), Some(15));
}

#[test]
fn what_is_not_known_is_no_number() {
    assert_eq!(read(&[]), None, "no rule leads here");
    let sure = rule(&[counter(10), queue(4, 4)]);
    for unsure in [
        rule(&[queue(5, 1)]),
        rule(&[counter(5), queue(0, 6)]),
        rule(&[counter(5), queue(7, 2)]),
        rule(&[counter(5), expression("queue", &[attr(4, &1_u32.to_be_bytes())])]),
        rule(&[queue(5, 1), counter(5)]),
        rule(&[target("NFQUEUE", 5, 1)]),
    ] {
        assert_eq!(read(&[sure.clone(), unsure.clone()]), None, "{unsure:?}");
    }
}

#[test]
fn no_cut_and_no_changed_byte_makes_it_panic_or_guess_beyond_the_end() {
    let whole = [rule(&[counter(10), queue(4, 4)]), message(DONE, &[0; 4])].concat();
    let queues = QueueRange::new(4, 7).unwrap();
    for end in 0..whole.len() {
        let heard = Tally::default().take(&whole[..end], queues);
        assert_ne!(heard, Ok(Heard::All), "cut at {end}");
    }
    for place in 0..whole.len() {
        for byte in [0, 1, 4, 0x7f, 0x80, 0xff] {
            let mut broken = whole.clone();
            broken[place] = byte;
            let _ = Tally::default().take(&broken, queues);
        }
    }
}

#[test]
fn an_error_or_a_change_meanwhile_is_no_answer() {
    let queues = QueueRange::new(4, 7).unwrap();
    let mut overtaken = rule(&[counter(10), queue(4, 4)]);
    overtaken[6] |= 0x10;
    for datagram in [overtaken, message(2, &(-1_i32).to_ne_bytes())] {
        assert_eq!(Tally::default().take(&datagram, queues), Err(Broken));
    }
}
