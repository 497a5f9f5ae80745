//! Faults that only counters show, most of them between two looks.

use crate::faults::{Fault, TABLE};

pub(crate) const COUNTERS: &[Fault] = &[
    (
        "queue full now",
        |tree| tree.edit_later(TABLE, "65531     0", "65531    44"),
        &["counters-queue-full fail"],
        &[],
    ),
    (
        "queue was full",
        |tree| tree.edit(TABLE, "100002     0 2 65531     0", "100002     0 2 65531     9"),
        &["counters-queue-full warn"],
        &[],
    ),
    (
        "socket full now",
        |tree| tree.edit_later(TABLE, "65531     0     0", "65531     0    44"),
        &["counters-socket-full fail"],
        &[],
    ),
    (
        "socket full now, with fail-open",
        |tree| tree.edit_later("proc/net/netlink", "0 0 0 2 0 90002", "0 0 0 2 17 90002"),
        &["counters-socket-full fail"],
        &[],
    ),
    (
        "stuck",
        |tree| tree.edit(TABLE, "100002     0 2", "100002    12 2"),
        &["counters-answered fail"],
        &[],
    ),
    (
        "stuck, and its socket is full",
        |tree| {
            tree.edit(TABLE, "100002     0 2", "100002    12 2");
            let row = "100002    12 2 65531     0     0       50";
            tree.edit_later(TABLE, row, "100002    12 2 65531     0    30       80");
        },
        &["counters-answered fail", "counters-socket-full fail"],
        &[],
    ),
    (
        "stuck, and its socket is full, with fail-open",
        |tree| {
            tree.edit(TABLE, "100002     0 2", "100002    12 2");
            let row = "100002    12 2 65531     0     0       50";
            tree.edit_later(TABLE, row, "100002    12 2 65531     0     0       80");
            tree.edit_later("proc/net/netlink", "0 0 0 2 0 90002", "0 0 0 2 30 90002");
        },
        &["counters-answered fail", "counters-socket-full fail"],
        &[],
    ),
    (
        "slow, and its socket is full",
        |tree| {
            tree.edit(TABLE, "100002     0 2", "100002    12 2");
            let row = "100002    12 2 65531     0     0       50";
            tree.edit_later(TABLE, row, "100002    12 2 65531     0    29       80");
        },
        &["counters-socket-full fail"],
        &[],
    ),
    (
        "slow, but not stuck",
        |tree| {
            tree.edit(TABLE, "100002     0 2", "100002    12 2");
            let row = "100002    12 2 65531     0     0       50";
            tree.edit_later(TABLE, row, "100002    14 2 65531     0     0       60");
        },
        &[],
        &[],
    ),
    (
        "a backlog that overflows",
        |tree| {
            tree.edit_later("proc/net/softnet_stat", "000003e8 00000007", "000003e8 00000009");
        },
        &["counters-softnet-dropped fail"],
        &[],
    ),
    (
        "a budget that is too small",
        |tree| {
            tree.edit_later("proc/net/softnet_stat", "00000007 00000009", "00000007 00000010");
        },
        &["counters-softnet-squeezed warn"],
        &[],
    ),
    (
        "a ring that overflows",
        |tree| tree.write("later/sys/class/net/eth0/statistics/rx_missed_errors", "4\n"),
        &["counters-device-missed fail"],
        &[],
    ),
    (
        "connections nearly full",
        |tree| tree.write("proc/sys/net/netfilter/nf_conntrack_count", "230000\n"),
        &["counters-conntrack warn"],
        &[],
    ),
    (
        "connections full",
        |tree| tree.write("proc/sys/net/netfilter/nf_conntrack_count", "262144\n"),
        &["counters-conntrack fail"],
        &[],
    ),
];
