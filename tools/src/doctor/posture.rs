//! The crash posture: what becomes of packets when the program that reads the queues is missing, slow, killed or stuck.
//!
//! Invariant: says what follows from the rules and settings that were seen (docs/NFQUEUE.md, sections 3 and 4). Whether
//! a queue is fail-open the kernel does not tell; of fanq's own queues it is read from the program's command line.

use fanq::FlagWish;
use serde::Serialize;

use super::view::View;
use crate::machine::{Process, QueueRule};

/// One way to fail, and what becomes of packets then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Case {
    /// `no-listener`, `queue-full`, `socket-full`, `engine-killed`, `engine-stuck`.
    #[serde(rename = "case")]
    pub(super) name: &'static str,
    /// `dropped`, `pass unseen`, ...
    pub(super) packets: String,
    pub(super) because: String,
}

/// All five; none where nothing is queued.
pub(super) fn cases(view: &View<'_>) -> Vec<Case> {
    let rules: Vec<_> = view.rules().collect();
    if rules.is_empty() {
        return Vec::new();
    }
    let alone = no_listener(&rules);
    let full = fail_open(view);
    let case =
        |name, packets: &str, because: String| Case { name, packets: packets.to_owned(), because };
    let (full_queue, full_socket) = match full {
        Some(true) => (
            case("queue-full", "pass unseen", "fail-open is set; nothing counts them".to_owned()),
            case(
                "socket-full",
                "pass unseen",
                "fail-open is set; ids have gaps, the socket's drops count".to_owned(),
            ),
        ),
        Some(false) => (
            case(
                "queue-full",
                "dropped",
                "fail-open is not set; queue_dropped counts, bypass is no help".to_owned(),
            ),
            case(
                "socket-full",
                "dropped",
                "fail-open is not set; user_dropped counts, bypass is no help".to_owned(),
            ),
        ),
        None => {
            let words =
                "whether fail-open is set cannot be seen from outside: with it, they pass unseen";
            (
                case("queue-full", "dropped, or pass", words.to_owned()),
                case("socket-full", "dropped, or pass", words.to_owned()),
            )
        }
    };
    let killed = if second_holder(view) {
        case(
            "engine-killed",
            "kept, and wait",
            "another process holds the socket: what waits stays, until that answers it".to_owned(),
        )
    } else {
        case(
            "engine-killed",
            &format!("lost, then {}", alone.packets),
            "what waits in the queue is dropped; then as without a listener".to_owned(),
        )
    };
    let stuck = case(
        "engine-stuck",
        &format!("wait, then {}", full_queue.packets),
        "the kernel has no limit of time: they wait until the queue or the socket is full"
            .to_owned(),
    );
    vec![alone, full_queue, full_socket, killed, stuck]
}

fn no_listener(rules: &[&QueueRule]) -> Case {
    let bypassing = rules.iter().filter(|rule| rule.bypass).count();
    let (packets, because) = match bypassing {
        0 => ("dropped", "no rule has bypass"),
        all if all == rules.len() => {
            ("pass unseen", "bypass is in the rule: on to the next chain of the hook")
        }
        _ => ("dropped, or pass", "some rules have bypass, others have not"),
    };
    Case { name: "no-listener", packets: packets.to_owned(), because: because.to_owned() }
}

/// Whether the queues are fail-open, as far as it can be known.
fn fail_open(view: &View<'_>) -> Option<bool> {
    let mut rows = view.bound().peekable();
    rows.peek()?;
    let known: Option<Vec<bool>> = rows
        .map(|row| view.machine.queues.servers(row.port_id).first().and_then(fail_open_of))
        .collect();
    let known = known?;
    let first = *known.first()?;
    known.iter().all(|one| *one == first).then_some(first)
}

/// Of a `fanq run` whose settings all stand on its command line.
fn fail_open_of(process: &Process) -> Option<bool> {
    let [_, run, options @ ..] = process.command.as_slice() else { return None };
    if process.name != "fanq" || run != "run" {
        return None;
    }
    for option in options {
        if option == "--fail-open" {
            return Some(true);
        }
        if let Some(wish) = option.strip_prefix("--fail-open=") {
            return wish.parse().ok().map(|wish: FlagWish| wish != FlagWish::Off);
        }
    }
    let from_file = options.iter().any(|option| option.starts_with("--config"));
    (!from_file).then_some(false)
}

fn second_holder(view: &View<'_>) -> bool {
    let mut rows = view.bound().peekable();
    rows.peek().is_some() && rows.all(|row| view.machine.queues.holders(row.port_id).len() > 1)
}
