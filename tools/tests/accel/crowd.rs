//! Goal: threads, processes and signal handlers on one queue see under the library what they see without, lose nothing,
//! wait for nothing in vain, and no packet gets another's verdict. Method: `crowd.c`, one case at a time, with and
//! without.

use std::path::Path;
use std::sync::OnceLock;

use super::{built, same_with_and_without};

/// The output of one case.
fn is_the_same(case: &'static str) {
    static PROGRAM: OnceLock<String> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accel");
        let source = std::fs::read_to_string(folder.join("crowd.c")).expect("it is there");
        let include = format!("-I{}", folder.display());
        // Some systems' compilers turn it on by themselves.
        let flags = ["-pthread", "-U_FORTIFY_SOURCE", include.as_str()];
        let program = built("crowd", &flags, &source).expect("cc builds it");
        program.to_str().expect("the path is text").to_owned()
    });
    same_with_and_without(&[program, case]);
}

macro_rules! cases {
    ($($test:ident: $case:ident;)*) => {
        $(#[test] fn $test() { is_the_same(stringify!($case)); })*
    };
}

cases! {
    a_packet_that_a_child_has_gets_the_childs_verdict: prefork;
    threads_that_are_overrun_cover_no_packet_of_each_others: overrun;
    a_program_with_threads_may_fork_while_they_serve: forks;
    a_signal_handler_may_use_the_socket_at_any_moment: handlers;
    a_worker_that_arms_a_one_shot_again_wakes_the_dispatcher: one_shot;
    what_comes_while_a_daemon_is_set_up_is_the_daemons: background;
    a_thread_is_cancelled_under_load: cancellation;
    a_set_of_descriptors_may_be_longer_than_an_fd_set: large_sets;
    a_program_may_fork_while_it_ends: at_exit;
    an_overrun_is_told_once: overrun_is_told;
}
