//! Capabilities: all but one are given up, and those that an executed program could have as well.
//!
//! Invariant: sets only shrink. They belong to threads, so each thread does this for itself.

use rustix::io;
use rustix::thread::{self, CapabilitySet};

/// The thread, and those it starts, gain nothing by executing a program, whatever its owner and bits
/// (`PR_SET_NO_NEW_PRIVS`, prctl(2)). Landlock and seccomp ask for this.
pub(super) fn no_new_privileges() -> io::Result<()> {
    thread::set_no_new_privs(true)
}

/// Empties the sets that an executed program would take from: bounding, ambient, inheritable.
pub(super) fn nothing_to_inherit() -> io::Result<()> {
    thread::clear_ambient_capability_set()?;
    let sets = thread::capabilities(None)?;
    let own = thread::CapabilitySets { inheritable: CapabilitySet::empty(), ..sets };
    thread::set_capabilities(None, own)?;
    if !sets.effective.contains(CapabilitySet::SETPCAP) {
        // Only with that can the bounding set be emptied; without it, it stands for nothing that is held.
        return Ok(());
    }
    for capability in CapabilitySet::all().iter() {
        match thread::remove_capability_from_bounding_set(capability) {
            // A capability that this kernel does not know.
            Ok(()) | Err(io::Errno::INVAL) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Leaves the calling thread with CAP_NET_ADMIN, if it has it and is to keep it, or with nothing.
pub(super) fn keep_net_admin(keeps: bool) -> io::Result<()> {
    let kept = if keeps { CapabilitySet::NET_ADMIN } else { CapabilitySet::empty() };
    keep(kept)
}

/// Leaves the calling thread with those of these that it has.
pub(super) fn keep(kept: CapabilitySet) -> io::Result<()> {
    let permitted = thread::capabilities(None)?.permitted & kept;
    let sets = thread::CapabilitySets {
        effective: permitted,
        permitted,
        inheritable: CapabilitySet::empty(),
    };
    thread::set_capabilities(None, sets)
}

/// Has the calling thread use a capability that it holds, or not.
pub(super) fn use_it(capability: CapabilitySet, uses: bool) -> io::Result<()> {
    let sets = thread::capabilities(None)?;
    let effective = if uses {
        sets.effective | (capability & sets.permitted)
    } else {
        sets.effective - capability
    };
    thread::set_capabilities(None, thread::CapabilitySets { effective, ..sets })
}
