//! A look at every thread of this process, by the kernel's own word: whoever adds a thread and forgets to confine it is
//! told.

use std::fs;
use std::time::{Duration, Instant};

/// What threads other than the calling one have that they should not. Waits a moment for those that are still starting.
pub(super) fn unconfined(with_calls: bool, patience: Duration) -> Vec<String> {
    let patience = Instant::now() + patience;
    loop {
        let found = look(with_calls);
        if found.is_empty() || Instant::now() > patience {
            return found;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn look(with_calls: bool) -> Vec<String> {
    let own = rustix::thread::gettid().as_raw_nonzero().get().to_string();
    let Ok(tasks) = fs::read_dir("/proc/self/task") else {
        return vec!["threads: /proc/self/task cannot be read".to_owned()];
    };
    let others = tasks.filter_map(Result::ok).filter(|task| task.file_name() != own.as_str());
    let texts = others.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    texts.filter_map(|text| is_open(&text, with_calls)).collect()
}

/// What a thread's status (proc_pid_status(5)) says it still has.
fn is_open(status: &str, with_calls: bool) -> Option<String> {
    let field = |name: &str| {
        let line = status.lines().find(|line| line.split(':').next() == Some(name))?;
        Some(line.split_once(':')?.1.trim())
    };
    let number = |name: &str| u64::from_str_radix(field(name)?, 16).ok();
    let more = number("CapPrm").is_none_or(|held| held & !NET_ADMIN != 0);
    let open = match (field("NoNewPrivs"), field("Seccomp")) {
        _ if more => "capabilities",
        (Some("0"), _) => "new privileges",
        (_, Some("0")) if with_calls => "all system calls",
        _ => return None,
    };
    Some(format!("the thread {} has {open}", field("Name").unwrap_or("without a name")))
}

/// CAP_NET_ADMIN, include/uapi/linux/capability.h.
const NET_ADMIN: u64 = 1 << 12;

#[cfg(test)]
mod tests {
    use super::is_open;

    #[test]
    fn a_threads_status_tells_what_it_has() {
        let status = |held: &str, privileges: u8, seccomp: u8| {
            format!(
                "Name:\tfanq-3\nCapPrm:\t{held}\nNoNewPrivs:\t{privileges}\nSeccomp:\t{seccomp}\n"
            )
        };
        let sound = status("0000000000001000", 1, 2);
        assert_eq!(is_open(&sound, true), None);
        assert_eq!(is_open(&status("0000000000000000", 1, 2), true), None);
        for (status, part) in [
            (status("0000000000801000", 1, 2), "capabilities"),
            (status("0000000000001000", 0, 2), "new privileges"),
            (status("0000000000001000", 1, 0), "all system calls"),
        ] {
            let said = is_open(&status, true).unwrap();
            assert!(said.contains(part) && said.contains("fanq-3"), "{said}");
        }
        assert_eq!(is_open(&status("0", 1, 0), false), None, "where the kernel has no lists");
    }
}
