//! When a process was started and what CPU time it has used, by `/proc/PID/stat` (proc_pid_stat(5)).
//!
//! Invariant: what is not known is none, never 0. Times are in the kernel's ticks, 10 ms as a rule.

use std::time::{Duration, SystemTime};

use fanq::CpuTime;

/// Of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessTimes {
    /// From the boot to its start.
    start: Duration,
    /// What it has used, all threads together.
    pub(crate) cpu: CpuTime,
    /// What those of its children have used that it has waited for.
    pub(crate) cpu_of_children: CpuTime,
}

impl ProcessTimes {
    /// Of the process with this id, or of `self`; none if it is gone, or hidden.
    pub(crate) fn of(process: &str) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        Self::parse(&stat, rustix::param::clock_ticks_per_second())
    }

    fn parse(stat: &str, hertz: u64) -> Option<Self> {
        // From field 3 on; the name, field 2, is in parentheses and may have anything in it.
        let fields: Vec<_> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let time = |field: usize| {
            let ticks: u64 = fields.get(field - 3)?.parse().ok()?;
            Some(Duration::from_millis(ticks.checked_mul(1000)?.checked_div(hertz)?))
        };
        Some(Self {
            start: time(22)?,
            cpu: CpuTime { user: time(14)?, system: time(15)? },
            cpu_of_children: CpuTime { user: time(16)?, system: time(17)? },
        })
    }

    /// When it was started.
    pub(crate) fn started(&self) -> Option<SystemTime> {
        let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
        let uptime: f64 = uptime.split_ascii_whitespace().next()?.parse().ok()?;
        let age = Duration::try_from_secs_f64(uptime).ok()?.checked_sub(self.start)?;
        SystemTime::now().checked_sub(age)
    }
}

/// When this process was started; now, where that cannot be read.
pub(crate) fn process_start() -> SystemTime {
    let known = ProcessTimes::of("self").and_then(|times| times.started());
    known.unwrap_or_else(SystemTime::now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernels_is_read_whatever_the_process_calls_itself() {
        let line = "10587 (a) R 3) S 7214 7214 31820 0 -1 4194304 100 0 0 0 1500 500 30 40 20 0 1 0 3647058 3133440";
        let second = |hundredths: u64| Duration::from_millis(hundredths * 10);
        let expected = ProcessTimes {
            start: second(3_647_058),
            cpu: CpuTime { user: second(1500), system: second(500) },
            cpu_of_children: CpuTime { user: second(30), system: second(40) },
        };
        assert_eq!(ProcessTimes::parse(line, 100), Some(expected));
        for broken in ["", "1 (x", "1 (x) S 1 2", "1 (x) S a b c"] {
            assert_eq!(ProcessTimes::parse(broken, 100), None, "{broken}");
        }
        assert_eq!(ProcessTimes::parse(line, 0), None);
    }

    #[test]
    fn this_process_began_before_now() {
        let started = process_start();
        assert!(started <= SystemTime::now() && started > SystemTime::UNIX_EPOCH);
        assert!(ProcessTimes::of("self").is_some() && ProcessTimes::of("4194305").is_none());
    }
}
