//! Which descriptor is what: one word for each number.
//!
//! Invariant: a descriptor that is none of ours costs one load and one branch, and takes no lock. An entry is taken
//! out before its descriptor is closed, so a number that the kernel gives out anew is never taken for the old one.
//! All places are there from the start: nothing is allocated, and a place that is looked at while it changes hands is
//! found to be of somebody else, since it knows its descriptors. It deliberately knows neither sockets nor system
//! calls.

use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};

use crate::epoll::Watched;
use crate::locked::{Guard, Locked};
use crate::served::{Serving, Threads};

/// By descriptor: 0 for none of ours, else 1 + the place in `SOCKETS`, or 1 + `SOCKETS` + the place in `EPOLLS`.
static ENTRIES: [AtomicU16; DESCRIPTORS_MAX] = [const { AtomicU16::new(0) }; DESCRIPTORS_MAX];
static SOCKETS: [Locked<Socket>; SOCKETS_MAX] = [const { Locked::new(Socket::FREE) }; SOCKETS_MAX];
static EPOLLS: [Locked<Epoll>; EPOLLS_MAX] =
    [const { Locked::new(Epoll { descriptors: Vec::new(), watched: Vec::new() }) }; EPOLLS_MAX];

/// A netfilter socket of the program.
#[derive(Debug)]
pub(crate) struct Socket {
    /// Every number that it has; empty where the place is free.
    pub(crate) descriptors: Vec<i32>,
    /// Once a queue was bound on it.
    pub(crate) serving: Option<Box<Serving>>,
    /// What this process's threads do with it, from before that on.
    pub(crate) threads: Threads,
}

impl Socket {
    const FREE: Self = Self { descriptors: Vec::new(), serving: None, threads: Threads::NONE };

    /// Its last descriptor is gone. Threads that are in the kernel for it come back to take themselves off.
    pub(crate) fn free(&mut self) {
        self.serving = None;
        self.threads.one_shot = false;
    }
}

/// An epoll that watches one of the sockets.
#[derive(Debug)]
pub(crate) struct Epoll {
    pub(crate) descriptors: Vec<i32>,
    pub(crate) watched: Vec<Watched>,
}

/// What a descriptor of ours is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Entry {
    Socket(&'static Locked<Socket>),
    Epoll(&'static Locked<Epoll>),
}

/// What the descriptor is, if it is one of ours.
#[inline]
pub(crate) fn entry(descriptor: i32) -> Option<Entry> {
    let entry = ENTRIES.get(usize::try_from(descriptor).ok()?)?.load(Ordering::Acquire);
    if entry == 0 { None } else { Some(known(entry)) }
}

/// The socket behind the descriptor, if it is one of ours.
#[inline]
pub(crate) fn socket(descriptor: i32) -> Option<&'static Locked<Socket>> {
    match entry(descriptor)? {
        Entry::Socket(socket) => Some(socket),
        Entry::Epoll(_) => None,
    }
}

fn known(entry: u16) -> Entry {
    let place = usize::from(entry) - 1;
    match SOCKETS.get(place) {
        Some(socket) => Entry::Socket(socket),
        None => Entry::Epoll(&EPOLLS[place - SOCKETS_MAX]),
    }
}

/// All sockets that have a descriptor.
pub(crate) fn sockets() -> impl Iterator<Item = &'static Locked<Socket>> {
    SOCKETS[..SOCKETS_USED.load(Ordering::Acquire)].iter()
}

/// All epolls that have one.
pub(crate) fn epolls() -> impl Iterator<Item = &'static Locked<Epoll>> {
    EPOLLS[..EPOLLS_USED.load(Ordering::Acquire)].iter()
}

/// Every descriptor of ours.
pub(crate) fn descriptors() -> Vec<i32> {
    let of_sockets = sockets().filter_map(Locked::lock).flat_map(|guard| guard.descriptors.clone());
    let of_epolls = epolls().filter_map(Locked::lock).flat_map(|guard| guard.descriptors.clone());
    of_sockets.chain(of_epolls).collect()
}

/// Every lock of this module, over a fork: the child begins with none held by a thread that it does not have.
#[derive(Debug, Default)]
pub(crate) struct Everything {
    pub(crate) sockets: Vec<Guard<'static, Socket>>,
    _epolls: Vec<Guard<'static, Epoll>>,
    _adding: Option<Guard<'static, ()>>,
}

impl Everything {
    pub(crate) const NOTHING: Self =
        Self { sockets: Vec::new(), _epolls: Vec::new(), _adding: None };

    /// Locks them in the order in which others take several: who adds takes a place's lock, and who looks at an epoll
    /// those of the sockets that it watches.
    pub(crate) fn lock() -> Self {
        let adding = ADDING.lock();
        let epolls = epolls().filter_map(Locked::lock).collect();
        let sockets = sockets().filter_map(Locked::lock).collect();
        Self { sockets, _epolls: epolls, _adding: adding }
    }
}

/// Held while a place is taken: over a fork, none is.
static ADDING: Locked<()> = Locked::new(());

/// How many places were ever used.
static SOCKETS_USED: AtomicUsize = AtomicUsize::new(0);
static EPOLLS_USED: AtomicUsize = AtomicUsize::new(0);

/// Takes a place for a new netfilter socket; false if there is none, or the number is too large.
pub(crate) fn add_socket(descriptor: i32) -> bool {
    add(&SOCKETS, &SOCKETS_USED, 1, descriptor, |socket| &mut socket.descriptors)
}

/// Takes a place for an epoll.
pub(crate) fn add_epoll(descriptor: i32) -> bool {
    let first = 1 + SOCKETS_MAX;
    add(&EPOLLS, &EPOLLS_USED, first, descriptor, |epoll| &mut epoll.descriptors)
}

fn add<T>(
    places: &'static [Locked<T>],
    used: &AtomicUsize,
    first: usize,
    descriptor: i32,
    descriptors: fn(&mut T) -> &mut Vec<i32>,
) -> bool {
    let Some(entry) = usize::try_from(descriptor).ok().and_then(|at| ENTRIES.get(at)) else {
        return false;
    };
    let _adding = ADDING.lock();
    for (place, locked) in places.iter().enumerate() {
        let Some(mut guard) = locked.lock() else { continue };
        let numbers = descriptors(&mut guard);
        if numbers.is_empty() {
            numbers.push(descriptor);
            used.fetch_max(place + 1, Ordering::AcqRel);
            let number = u16::try_from(first + place).unwrap_or(0);
            entry.store(number, Ordering::Release);
            return number != 0;
        }
    }
    false
}

/// `copy` is now the same as `original`, which is one of ours.
pub(crate) fn copied(original: i32, copy: i32) {
    let place = |descriptor| usize::try_from(descriptor).ok().and_then(|at| ENTRIES.get(at));
    let (Some(from), Some(to)) = (place(original), place(copy)) else { return };
    let entry = from.load(Ordering::Acquire);
    let added = match known(entry.max(1)) {
        _ if entry == 0 => false,
        Entry::Socket(socket) => add_number(socket, |socket| &mut socket.descriptors, copy),
        Entry::Epoll(epoll) => add_number(epoll, |epoll| &mut epoll.descriptors, copy),
    };
    if added {
        to.store(entry, Ordering::Release);
    }
}

fn add_number<T>(locked: &Locked<T>, descriptors: fn(&mut T) -> &mut Vec<i32>, copy: i32) -> bool {
    let Some(mut guard) = locked.lock() else { return false };
    descriptors(&mut guard).push(copy);
    true
}

/// Takes the descriptor out of the table: it is about to be closed, or was.
pub(crate) fn forget(descriptor: i32) {
    if let Some(entry) = usize::try_from(descriptor).ok().and_then(|at| ENTRIES.get(at)) {
        entry.store(0, Ordering::Release);
    }
}

/// Larger descriptors are passed by.
const DESCRIPTORS_MAX: usize = 65_536;

const SOCKETS_MAX: usize = 256;
const EPOLLS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that nothing else in this test program uses.
    #[test]
    fn a_descriptor_is_what_it_was_added_as_until_it_is_forgotten() {
        let (first, second) = (60_001, 60_002);
        assert!(socket(first).is_none() && entry(-1).is_none() && entry(70_000).is_none());
        assert!(add_socket(first) && !add_socket(70_000) && !add_socket(-1));
        copied(first, second);
        let (a, b) = (socket(first).unwrap(), socket(second).unwrap());
        assert!(a.is(b));
        assert_eq!(a.lock().unwrap().descriptors, [first, second]);
        forget(first);
        assert!(socket(first).is_none() && socket(second).is_some());
        assert!(add_epoll(60_003) && socket(60_003).is_none());
        assert!(matches!(entry(60_003), Some(Entry::Epoll(_))));
        copied(60_010, 60_011);
        assert!(entry(60_011).is_none(), "a copy of nothing is nothing");
    }
}
