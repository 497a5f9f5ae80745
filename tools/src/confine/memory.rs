//! Memory that is not swapped out: a page fault that waits for a disk is a packet that waits for it.
//!
//! Invariant: it is locked only where no later allocation can fail for it: a limit that would be reached some day makes
//! `mmap` fail (mlockall(2), `MCL_FUTURE`). Pages are locked as they are touched (`MCL_ONFAULT`), so none is used that
//! was not used before.

use rustix::io::Errno;
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

pub(super) fn lock() -> Result<(), Errno> {
    let limit = getrlimit(Resource::Memlock);
    if limit.current.is_some() {
        setrlimit(Resource::Memlock, Rlimit { current: None, maximum: None })?;
    }
    mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)
}
