//! System calls: a list for each role, enforced by seccomp (seccomp(2)). What is not on it fails with EPERM.
//!
//! Invariant: no list has what starts a program, looks into another process, changes who one is or what the machine is,
//! or makes memory executable. Workers' lists are what a turn takes. A list is compiled before any thread needs it; to
//! put it on costs one call.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::Role;

/// The compiled lists.
pub(super) struct Lists {
    worker: BpfProgram,
    watchdog: BpfProgram,
    log: BpfProgram,
    signals: BpfProgram,
    main: BpfProgram,
}

impl Lists {
    /// Compiles them for this machine; `lanes` if workers start threads.
    pub(super) fn compile(lanes: bool) -> Result<Self, String> {
        let of_worker =
            if lanes { [ALL, WORKER, THREADS].concat() } else { [ALL, WORKER].concat() };
        Ok(Self {
            worker: compile(&of_worker)?,
            watchdog: compile(&[ALL, WORKER, WATCHDOG].concat())?,
            log: compile(&[ALL, LOG].concat())?,
            signals: compile(&[ALL, SIGNALS].concat())?,
            main: compile(&[ALL, WORKER, LOG, SIGNALS, THREADS, MAIN].concat())?,
        })
    }

    /// Puts the role's list on the calling thread, and on those that it starts.
    pub(super) fn apply(&self, role: Role) -> Result<(), String> {
        let list = match role {
            Role::Worker | Role::Lane => &self.worker,
            Role::Watchdog => &self.watchdog,
            Role::Log => &self.log,
            Role::Signals => &self.signals,
            Role::Main | Role::Answers => &self.main,
        };
        seccompiler::apply_filter(list).map_err(|error| error.to_string())
    }
}

fn compile(list: &[libc::c_long]) -> Result<BpfProgram, String> {
    let machine = TargetArch::try_from(std::env::consts::ARCH).map_err(|_| {
        format!("there is no list for machines of the kind {}", std::env::consts::ARCH)
    })?;
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in list {
        rules.insert(*call, conditions(*call)?);
    }
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, refused, SeccompAction::Allow, machine);
    filter.and_then(BpfProgram::try_from).map_err(|error| error.to_string())
}

/// What arguments a call may have: any of these; anything if there are none.
fn conditions(call: libc::c_long) -> Result<Vec<SeccompRule>, String> {
    let one_of = |argument: u8, values: &[u64]| -> Result<Vec<SeccompRule>, String> {
        values.iter().map(|value| rule(argument, SeccompCmpOp::Eq, *value)).collect()
    };
    let not_executable =
        || Ok(vec![rule(2, SeccompCmpOp::MaskedEq(u64::from(libc::PROT_EXEC.unsigned_abs())), 0)?]);
    match call {
        libc::SYS_mmap | libc::SYS_mprotect => not_executable(),
        libc::SYS_socket => one_of(0, &FAMILIES),
        libc::SYS_ioctl => one_of(1, &IOCTLS),
        _ => Ok(Vec::new()),
    }
}

fn rule(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, String> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(|error| error.to_string())
}

/// Memory, time, locks, output to what is open, and the end. Also what a signal's handler does, which may run on any
/// thread, the one that waits for signals among them: it sends a byte to that thread's socket.
const ALL: &[libc::c_long] = &[
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_madvise,
    libc::SYS_membarrier,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_ppoll,
    libc::SYS_read,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_write,
    libc::SYS_writev,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
];

/// Packets, verdicts, the kernel's row of the queue.
const WORKER: &[libc::c_long] = &[
    libc::SYS_epoll_pwait,
    libc::SYS_pread64,
    libc::SYS_recvfrom,
    libc::SYS_recvmmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
];

/// Putting a worker back on its CPU.
const WATCHDOG: &[libc::c_long] = &[libc::SYS_sched_setaffinity];

/// Lines to a file or a socket, names of interfaces.
const LOG: &[libc::c_long] = &[
    libc::SYS_connect,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_getsockopt,
    libc::SYS_ioctl,
    libc::SYS_lseek,
    libc::SYS_openat,
    libc::SYS_sendmsg,
    libc::SYS_setsockopt,
    libc::SYS_socket,
    libc::SYS_statx,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
];

const SIGNALS: &[libc::c_long] = &[libc::SYS_recvfrom, libc::SYS_recvmsg];

/// Starting a thread and placing it.
const THREADS: &[libc::c_long] = &[
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_landlock_add_rule,
    libc::SYS_landlock_create_ruleset,
    libc::SYS_landlock_restrict_self,
    libc::SYS_openat,
    libc::SYS_prctl,
    libc::SYS_sched_getattr,
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setattr,
    libc::SYS_seccomp,
];

/// Reading rules, answering questions by sockets, ending all.
const MAIN: &[libc::c_long] = &[
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_eventfd2,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_getegid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getpeername,
    libc::SYS_getppid,
    libc::SYS_getrusage,
    libc::SYS_getsockname,
    libc::SYS_getuid,
    libc::SYS_listen,
    libc::SYS_newfstatat,
    libc::SYS_pipe2,
    libc::SYS_prlimit64,
    libc::SYS_pwrite64,
    libc::SYS_readlinkat,
    libc::SYS_readv,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
    libc::SYS_sysinfo,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_umask,
    libc::SYS_uname,
    libc::SYS_unlinkat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
];

/// Netlink for queues, the others for names of interfaces, logs, and whoever asks for statistics.
const FAMILIES: [u64; 4] = [
    libc::AF_NETLINK.unsigned_abs() as u64,
    libc::AF_UNIX.unsigned_abs() as u64,
    libc::AF_INET.unsigned_abs() as u64,
    libc::AF_INET6.unsigned_abs() as u64,
];

/// Names of interfaces (netdevice(7)), whether output is a terminal, and sockets that do not wait.
const IOCTLS: [u64; 6] = [
    libc::SIOCGIFNAME,
    libc::SIOCGIFINDEX,
    libc::TCGETS,
    libc::TIOCGWINSZ,
    libc::FIONBIO,
    libc::FIOCLEX,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// What nobody who serves queues has a use for, and who broke in would have.
    const NEVER: [libc::c_long; 20] = [
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_ptrace,
        libc::SYS_process_vm_readv,
        libc::SYS_process_vm_writev,
        libc::SYS_pidfd_getfd,
        libc::SYS_mount,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_kexec_load,
        libc::SYS_setuid,
        libc::SYS_setresuid,
        libc::SYS_keyctl,
        libc::SYS_io_uring_setup,
        libc::SYS_userfaultfd,
        libc::SYS_reboot,
    ];

    #[test]
    fn no_list_has_what_none_needs() {
        for list in [ALL, WORKER, WATCHDOG, LOG, SIGNALS, THREADS, MAIN] {
            assert!(!NEVER.iter().any(|call| list.contains(call)));
        }
        for list in [ALL, WORKER] {
            for call in [libc::SYS_openat, libc::SYS_socket, libc::SYS_clone3, libc::SYS_connect] {
                assert!(!list.contains(&call), "a worker without threads has {call}");
            }
        }
        for lanes in [false, true] {
            assert!(Lists::compile(lanes).is_ok());
        }
    }
}
