//! Which processes receive on a socket that several have since a fork.
//!
//! Invariant: who receives has entered before, in memory that forks share. So whoever finds an id missing learns if
//! another process may have it: that process entered before the kernel gave it the datagram. Nobody ever leaves, as
//! what was received may be answered long after. It deliberately takes no lock.

use std::sync::atomic::{AtomicU32, Ordering};

/// Those of one socket.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Readers {
    /// There was no fork since queues were bound: this process alone.
    This,
    /// In the shared word: `NOBODY` since the fork, the one `process` that has entered, or `SEVERAL`.
    Noted { word: &'static AtomicU32, process: u32 },
    /// There was no memory to note them in.
    Unknown,
}

impl Readers {
    /// The socket is about to be another process's too. `word` gives a word of shared memory that holds 0.
    pub(crate) fn share(
        &mut self,
        process: u32,
        word: impl FnOnce() -> Option<&'static AtomicU32>,
    ) {
        if matches!(self, Self::This) {
            *self = word().map_or(Self::Unknown, |word| Self::Noted { word, process });
        }
    }

    /// In a child, which is this process.
    pub(crate) fn forked(&mut self, process: u32) {
        *self = match *self {
            Self::Noted { word, .. } => Self::Noted { word, process },
            Self::This | Self::Unknown => Self::Unknown,
        };
    }

    /// This process is about to receive.
    #[inline]
    pub(crate) fn enter(self) {
        if let Self::Noted { word, process } = self {
            // Sequentially consistent, as the swaps below: two that enter at once do not both find nobody. What they
            // receive is ordered behind it by the lock of the kernel's queue.
            let known = word.load(Ordering::SeqCst);
            if known != process && known != SEVERAL {
                note(word, process);
            }
        }
    }

    /// Whether another process may have received since the fork.
    #[inline]
    pub(crate) fn others(self) -> bool {
        match self {
            Self::This => false,
            Self::Noted { word, process } => {
                let known = word.load(Ordering::SeqCst);
                known != NOBODY && known != process
            }
            Self::Unknown => true,
        }
    }
}

#[cold]
fn note(word: &AtomicU32, process: u32) {
    let first = word.compare_exchange(NOBODY, process, Ordering::SeqCst, Ordering::SeqCst);
    if first.is_err_and(|known| known != process) {
        word.store(SEVERAL, Ordering::SeqCst);
    }
}

/// Gives a word of this memory that nobody has, of which the first counts those given. No process has those again: who
/// received on a socket is not forgotten when it is closed here, as it may be open elsewhere.
pub(crate) fn word_of(memory: &[AtomicU32]) -> Option<&AtomicU32> {
    let (given, words) = memory.split_first()?;
    let place = given.fetch_add(1, Ordering::Relaxed);
    words.get(usize::try_from(place).ok()?)
}

const NOBODY: u32 = 0;
/// No process: those are positive (`pid_t`).
const SEVERAL: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn word() -> &'static AtomicU32 {
        Box::leak(Box::new(AtomicU32::new(0)))
    }

    #[test]
    fn a_process_alone_has_no_others_until_another_has_received() {
        let (word, mut parent) = (word(), Readers::This);
        assert!(!parent.others());
        parent.share(10, || Some(word));
        let mut child = parent;
        child.forked(11);
        parent.enter();
        assert!(!parent.others() && child.others());
        child.enter();
        assert!(parent.others() && child.others());
        parent.enter();
        assert!(parent.others() && child.others(), "it is never forgotten");
    }

    #[test]
    fn a_child_that_serves_alone_has_no_others() {
        let (word, mut parent) = (word(), Readers::This);
        parent.share(10, || Some(word));
        let mut child = parent;
        child.forked(11);
        child.enter();
        assert!(!child.others() && parent.others());
        child.share(11, || panic!("it has one"));
        let mut grandchild = child;
        grandchild.forked(12);
        assert!(grandchild.others());
    }

    #[test]
    fn without_shared_memory_there_may_always_be_others() {
        let mut readers = Readers::This;
        readers.share(10, || None);
        readers.enter();
        assert!(readers.others());
    }

    #[test]
    fn words_are_given_once_and_then_no_more() {
        let memory = [const { AtomicU32::new(0) }; 3];
        let (first, second) = (word_of(&memory).unwrap(), word_of(&memory).unwrap());
        assert!(!std::ptr::eq(first, second) && word_of(&memory).is_none());
    }
}
