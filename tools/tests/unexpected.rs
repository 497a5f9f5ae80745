//! Goal: packets that no one expects (fragments, IPv6 extension headers in every order, no payload, jumbo frames,
//! lengths that lie, unknown protocols) get their verdict under every policy and option that looks at packets: none is
//! lost, none is left over, nothing panics.
//!
//! Method: `engine/tests/unexpected/packets.py` sends some 3,400 frames into a pair of interfaces of a namespace; a
//! rule at PREROUTING queues them, where nothing but the IP header has been looked at. The rule's count, the account
//! of `fanq run` and a count behind the rule must agree to the packet.
//!
//! Needs root, `unshare`, `nsenter`, `setpriv`, `iptables`, `nft` and `python3`. Without root each test prints SKIPPED,
//! or fails if CI is set.

mod space;

use serde_json::Value;
use space::Space;

const PACKETS: &str = include_str!("../../engine/tests/unexpected/packets.py");
/// The kernel itself refuses some of those that are sent.
const QUEUED_MIN: u64 = 3000;

/// A namespace with the rules; marks stand for what `fanq rules` would make of them.
fn scene() -> Option<Space> {
    let space = Space::new()?;
    space.shell(
        "mount -t tmpfs tmpfs /run
         ip link add a0 mtu 65535 type veth peer name a1 mtu 65535 address 02:00:00:00:00:02
         for device in a0 a1; do ip link set $device addrgenmode none; ip link set $device up; done
         for program in iptables ip6tables; do
             $program -t mangle -A PREROUTING -i a1 -m mark --mark 0x10/0x30 -j DROP
             $program -t mangle -A PREROUTING -i a1 -m mark --mark 0x20/0x30 -j ACCEPT
             $program -t mangle -A PREROUTING -i a1 -m mark --mark 0x40/0x40 -j ACCEPT
             $program -t mangle -A PREROUTING -i a1 -j NFQUEUE --queue-num 8
         done
         nft 'add table inet behind; add chain inet behind p { type filter hook prerouting priority 10; }
              add rule inet behind p iif a1 counter'",
    );
    Some(space)
}

/// What a shell command in the namespace prints, as a number.
fn count(space: &Space, script: &str) -> u64 {
    let output = space.command(&["bash", "-c", script]).output().expect("bash runs");
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    said.parse()
        .unwrap_or_else(|_| panic!("{script}: {said} {}", String::from_utf8_lossy(&output.stderr)))
}

const AT_RULE: &str =
    "for program in iptables ip6tables; do $program -t mangle -nvxL PREROUTING; done |
                       awk '/NFQUEUE/ { sum += $1 } END { print sum }'";
const BEHIND: &str = "nft list table inet behind | grep -o 'packets [0-9]*' | cut -d ' ' -f 2";

/// Sends all of them through `fanq run` with these options; the account, packets at the rule, and packets behind it.
fn pass(options: &str) -> Option<(Value, u64, u64)> {
    let space = scene()?;
    let mut other = space.start(&[], "--queues 9 --placement none");
    other.await_ready();
    let request = format!("--queues 8 --placement none --summary json {options}");
    let mut fanq = space.start(&[], &request);
    fanq.await_ready();
    let mut sender =
        space.command(&["timeout", "60", "python3", "-c", PACKETS, "a0", "02:00:00:00:00:02"]);
    let output = sender.output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ended = fanq.stop("TERM");
    assert!(!ended.stderr.contains("panicked"), "{options}: {}", ended.stderr);
    let at_rule = count(&space, AT_RULE);
    let ended_other = other.stop("TERM");
    assert!(!ended_other.stderr.contains("panicked"), "{options}: {}", ended_other.stderr);
    let behind = count(&space, BEHIND);
    assert!(at_rule > QUEUED_MIN, "{options}: {at_rule} came to the rule");
    Some((ended.json(), at_rule, behind))
}

/// Holds the account to the counts. Rejected packets went round, and were dropped by the rule for their mark.
fn balance(options: &str, (account, at_rule, behind): (Value, u64, u64)) -> Value {
    let totals = &account["totals"];
    let number = |key: &str| totals[key].as_u64().unwrap_or_else(|| panic!("no {key} in {totals}"));
    assert_eq!(number("packets") + number("shed"), at_rule, "{options}: {totals}");
    for fault in [
        "id_gaps",
        "flushed",
        "undecodable",
        "malformed",
        "verdict_errors",
        "overdue",
        "unanswered",
    ] {
        assert_eq!(number(fault), 0, "{options}: {fault} in {totals}");
    }
    let answered = ["accepted", "dropped", "repeated", "requeued"].map(number).iter().sum::<u64>();
    assert_eq!(answered, number("packets"), "{options}: {totals}");
    let rejected = account["policy"]["rules"].as_array().map_or(0, |rules| {
        let rejecting = rules.iter().filter(|rule| rule["name"] == "refused");
        rejecting.map(|rule| rule["packets"].as_u64().unwrap_or(0)).sum()
    });
    let judged = number("accepted") + number("repeated") + number("requeued") - rejected;
    // What is shed here is accepted.
    assert_eq!(behind, judged + number("shed"), "{options}: {account}");
    account
}

#[test]
fn whatever_comes_gets_its_verdict_whatever_the_options() {
    for options in [
        "--policy accept",
        "--policy drop",
        "--policy drop:30",
        "--policy accept --work-ns 20000 --nice 0",
        "--inspect-threads 3",
        "--inspect-threads 2 --work-ns 20000",
        "--copy-range 60",
        "--copy-range meta",
        "--gso --uid-gid=wanted --conntrack=wanted --fail-open",
        "--mode repeat:0x40/0x40",
        "--mode route:9",
        "--bypass-after 2 --bypass-mark 0x20/0x30",
        "--bypass-after 1 --bypass-mark 0x20/0x30 --inspect-threads 2",
        "--on-overload accept --overload-depth 500 --copy-under-load 64",
    ] {
        let Some(passed) = pass(options) else { return };
        let account = balance(options, passed);
        let totals = &account["totals"];
        match options {
            "--policy drop" => assert_eq!(totals["dropped"], totals["packets"], "{totals}"),
            "--mode route:9" => assert_eq!(totals["requeued"], totals["packets"], "{totals}"),
            _ => {}
        }
    }
}

/// Every condition and every action, over packets that mostly do not have what is asked for.
const RULES: &str = "
    reject-mark = '0x10/0x30'
    bypass-mark = '0x20/0x30'
    [[rule]]
    name = 'words'
    pattern = [{ text = 'question' }, { text = 'STION', ignore-case = true }]
    action = 'drop'
    [[rule]]
    name = 'often'
    protocol = 'icmp'
    limit = { per = 'source', count = 2, seconds = 3600 }
    action = 'drop'
    [[rule]]
    name = 'refused'
    protocol = 'tcp'
    destination-port = [80, '8000-9000']
    source = '10.99.0.0/16'
    action = 'reject'
    [[rule]]
    name = 'past'
    protocol = 'udp'
    destination = 'fd99::/64'
    action = 'bypass'
    [[rule]]
    name = 'unknown'
    protocol = 200
    in-interface = 'a1'
    action = 'mark'
    mark = '0x100/0x100'
    [[rule]]
    name = 'here'
    direction = 'prerouting'
    action = 'log'
";

#[test]
fn whatever_comes_gets_its_verdict_by_a_rules_file() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let (rules, eve) = (folder.path().join("rules.toml"), folder.path().join("eve.json"));
    for (default, threads) in [("accept", 0), ("drop", 0), ("accept", 2)] {
        std::fs::write(&rules, format!("default = '{default}'\n{RULES}"))
            .expect("it can be written");
        let options = format!(
            "--policy {} --eve {} --inspect-threads {threads}",
            rules.display(),
            eve.display()
        );
        let Some(passed) = pass(&options) else { return };
        let account = balance(&format!("{default}, {threads} threads"), passed);
        let rules = account["policy"]["rules"].as_array().expect("there are rules");
        for rule in rules {
            assert!(rule["packets"].as_u64() > Some(0), "{rule} in {account}");
        }
        let lines = std::fs::read_to_string(&eve).expect("there is a log");
        assert!(lines.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
        std::fs::remove_file(&eve).expect("it can be removed");
    }
}
