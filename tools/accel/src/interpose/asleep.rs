//! A thread that waits in the kernel for sockets of ours to be readable.
//!
//! Invariant: every socket is told as often that the thread is back as it was told that it sleeps, whatever becomes of
//! its descriptors meanwhile. No destructor: a thread that is cancelled counts for ever, and the socket is no longer
//! batched.

use std::ffi::c_int;

use super::{errno, fail, flush_held};
use crate::locked::Locked;
use crate::table::{self, Entry, Socket};

/// The sockets that the thread waits for.
pub(super) struct Asleep {
    sockets: [Option<&'static Locked<Socket>>; SOCKETS_MAX],
    count: usize,
}

impl Asleep {
    /// Sends what waits; from now on nobody else takes more from the sockets than was asked for. What lies in their
    /// rings already is to be looked for now.
    pub(super) fn begin(descriptors: impl Iterator<Item = c_int>) -> Self {
        let mut asleep = Self { sockets: [None; SOCKETS_MAX], count: 0 };
        for descriptor in descriptors {
            match table::entry(descriptor) {
                Some(Entry::Socket(socket)) => asleep.add(socket),
                Some(Entry::Epoll(epoll)) => {
                    if let Some(epoll) = epoll.lock() {
                        epoll.watched.iter().for_each(|watched| asleep.add(watched.socket));
                    }
                }
                None => {}
            }
        }
        asleep
    }

    fn add(&mut self, socket: &'static Locked<Socket>) {
        if let Some(place) = self.sockets.get_mut(self.count)
            && let Some(mut guard) = socket.lock()
        {
            flush_held(&mut guard);
            guard.threads.waiting += 1;
            *place = Some(socket);
            self.count += 1;
        }
    }

    /// The thread is back.
    pub(super) fn end(self) {
        let before = errno();
        for socket in self.sockets[..self.count].iter().flatten() {
            if let Some(mut guard) = socket.lock() {
                guard.threads.waiting = guard.threads.waiting.saturating_sub(1);
            }
        }
        fail(before);
    }
}

/// More sockets than these in one call are left to the kernel.
const SOCKETS_MAX: usize = 64;
