//! The session's weight. Where the kernel groups threads by session (`kernel.sched_autogroup_enabled`, sched(7)), it
//! weighs groups first and threads within them after: against threads of other sessions, and of the kernel, workers at
//! niceness -5 weigh no more than at 0. A group's weight is that of one thread, and is divided by the CPUs on which it
//! runs.
//!
//! Invariant: only a session that fanq leads is changed, as a service manager or setsid(1) begins one for it: what is
//! started from a shell shares the shell's. A weight that somebody has set already stays.

use std::fs;
use std::io::{Error, ErrorKind};
use std::time::Duration;

/// Gives the session the weight with which each of so many workers goes before others as `nice` says. Says so if the
/// kernel refuses it; a `nice` of 0 and more asks for nothing.
pub(super) fn take_priority(nice: i8, workers: u16) {
    let leads = fs::read_to_string(STAT).is_ok_and(|stat| leads_its_session(&stat));
    if nice >= 0 || !leads || niceness() != Some(0) {
        return;
    }
    let wanted = group_nice(nice, workers);
    if let Err(error) = set(wanted) {
        eprintln!(
            "warning: the kernel refuses niceness {wanted} to this session ({AUTOGROUP}: {error}): workers go before \
             other threads of it, and not before the kernel's"
        );
    }
}

/// From the line of proc_pid_stat(5): the process, its name in parentheses, state, parent, group, session. In a process
/// namespace a session that began outside is 0 (getsid(2) says so, too).
fn leads_its_session(stat: &str) -> bool {
    let process = stat.split(' ').next();
    let behind_name = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    process.is_some() && behind_name.split(' ').nth(3) == process
}

/// The session's niceness; none if the kernel groups nothing by sessions.
fn niceness() -> Option<i8> {
    let text = fs::read_to_string(AUTOGROUP).ok()?;
    // `/autogroup-25 nice 0`
    text.rsplit_once("nice ")?.1.trim().parse().ok()
}

fn set(nice: i8) -> Result<(), Error> {
    for _ in 0..TRIES {
        match fs::write(AUTOGROUP, nice.to_string()) {
            // Without CAP_SYS_ADMIN the kernel takes one of these in 100 ms, of all processes together.
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(RETRY_AFTER),
            result => return result,
        }
    }
    Err(ErrorKind::WouldBlock.into())
}

/// The niceness of a group that weighs as much as so many threads of this niceness.
fn group_nice(nice: i8, threads: u16) -> i8 {
    let more = f64::from(threads.max(1)).ln() / STEP.ln();
    #[expect(clippy::cast_possible_truncation, reason = "at most 20 and 50")]
    let group = (f64::from(nice) - more.round()).max(-20.0) as i8;
    group
}

const STAT: &str = "/proc/self/stat";
const AUTOGROUP: &str = "/proc/self/autogroup";

/// How many times as much a thread weighs as one whose niceness is higher by one (`kernel/sched/core.c`:
/// `sched_prio_to_weight`).
const STEP: f64 = 1.25;

const TRIES: u32 = 4;
const RETRY_AFTER: Duration = Duration::from_millis(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leads_a_session_has_its_number() {
        for (stat, leads) in [
            ("12 (fanq) S 1 12 12 0 -1", true),
            ("12 (a) 12 12) R 1 12 12 0", true),
            ("12 (fanq) S 1 12 7 0 -1", false),
            ("12 (fanq) S 0 0 0 0 -1", false),
            ("12 (fanq", false),
            ("", false),
        ] {
            assert_eq!(leads_its_session(stat), leads, "{stat}");
        }
    }

    /// Weights as in `sched_prio_to_weight`: 0 has 1,024, -5 has 3,121, -8 6,100, -11 11,916, -17 46,273, -20 88,761.
    #[test]
    fn a_group_weighs_as_much_as_its_threads() {
        for (threads, group) in [(0, -5), (1, -5), (2, -8), (4, -11), (16, -17), (64, -20)] {
            assert_eq!(group_nice(-5, threads), group, "{threads} threads");
        }
        assert_eq!(group_nice(-20, 1), -20);
        assert_eq!(group_nice(-1, u16::MAX), -20);
    }
}
