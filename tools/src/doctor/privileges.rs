//! Rights and buffers: what this process may do, and how much the kernel lets a socket hold.
//!
//! Invariant: judges the process that asks, which stands for the engine that its user would start.

use super::finding::{Finding, Topic};
use super::view::View;
use crate::machine::{CAP_NET_ADMIN, CAP_SYS_PTRACE, Fact};

#[cfg(test)]
pub(super) const TOPICS: [Topic; 3] = [NET_ADMIN, USER_NAMESPACE, RMEM_MAX];

pub(super) fn check(view: &View<'_>) -> Vec<Finding> {
    vec![net_admin(view), user_namespace(view), rmem_max(view)]
}

const NET_ADMIN: Topic = Topic {
    id: "privileges-net-admin",
    why: "rules, queues and every single verdict need CAP_NET_ADMIN",
};

fn net_admin(view: &View<'_>) -> Finding {
    let privileges = &view.machine.privileges;
    let root = privileges.user.known() == Some(&0);
    match privileges.has(CAP_NET_ADMIN) {
        Some(true) if privileges.has(CAP_SYS_PTRACE) == Some(false) => {
            NET_ADMIN.ok("CAP_NET_ADMIN; other users' processes cannot be looked into")
        }
        Some(true) => NET_ADMIN.ok("CAP_NET_ADMIN"),
        Some(false) if root => NET_ADMIN
            .fail("this is root without CAP_NET_ADMIN: no queue can be served from here")
            .mend("docker run --cap-add NET_ADMIN ...   # or what starts this container has for it")
            .mend("systemctl edit SERVICE   # AmbientCapabilities=CAP_NET_ADMIN, and the bounding set"),
        Some(false) => NET_ADMIN
            .unseen("this is not root: rules and other users' programs are not seen")
            .mend("sudo fanq doctor"),
        None => NET_ADMIN
            .unseen("what this process may do is not known")
            .seen_all(privileges.effective.why_unseen().map(str::to_owned)),
    }
}

const USER_NAMESPACE: Topic = Topic {
    id: "privileges-user-namespace",
    why: "only the first user namespace may have buffers above net.core.rmem_max",
};

fn user_namespace(view: &View<'_>) -> Finding {
    match &view.machine.privileges.first_user_namespace {
        Fact::Known(true) => USER_NAMESPACE.ok("the machine's first"),
        Fact::Known(false) => USER_NAMESPACE
            .ok("not the first: buffers end at twice rmem_max, iptables-legacy does not work"),
        Fact::Unseen(why) => USER_NAMESPACE.unseen("which one this is, is not known").seen(why),
    }
}

const RMEM_MAX: Topic =
    Topic { id: "buffers-rmem-max", why: "packets that a queue's buffer has no room for are lost" };

fn rmem_max(view: &View<'_>) -> Finding {
    let Some(limit) = view.machine.sysctl("net.core.rmem_max") else {
        let why = view.machine.sysctls.get("net.core.rmem_max").and_then(Fact::why_unseen);
        return RMEM_MAX.unseen("rmem_max is not known").seen_all(why.map(str::to_owned));
    };
    let first = view.machine.privileges.first_user_namespace.known() != Some(&false);
    let fit = |bytes: u64| (bytes / SMALL_PACKET_BYTES, bytes / LARGE_PACKET_BYTES);
    let (small, large) = fit(2 * limit);
    let fits = format!("2 x {limit} bytes hold {small} small packets or {large} of 1,500 bytes");
    // What every queue of fanq's usual length needs for small packets.
    if first || small >= QUEUE_LENGTH {
        let title = if first {
            format!("fanq may go above it ({limit} bytes)")
        } else {
            format!("{limit} bytes")
        };
        return RMEM_MAX.ok(title).seen(fits);
    }
    RMEM_MAX
        .warn(format!("the {limit} bytes of rmem_max are too few for a queue of {QUEUE_LENGTH}"))
        .seen(fits)
        .mend(format!("sysctl -w net.core.rmem_max={WANTED_BYTES}   # in the first namespace"))
}

/// What a message of up to 92 bytes of packet is charged, and one of up to 1,500 (docs/NFQUEUE.md, section 5).
const SMALL_PACKET_BYTES: u64 = 832;
const LARGE_PACKET_BYTES: u64 = 2304;
/// `fanq run --queue-maxlen`, its default.
const QUEUE_LENGTH: u64 = 16_384;
/// `fanq run --rcvbuf`, its default.
const WANTED_BYTES: u64 = 64 << 20;
