//! The library that `fanq accel` loads under a program: it stands between the program and the C library's socket calls,
//! and gives NFQUEUE sockets batched receives and joined verdicts.
//!
//! ```text
//!   program           recv        recv  send        recv  send  ...      recv    send
//!   this library       |          ring  join        ring  join           ring    join, ring empty
//!   kernel          recvmmsg                                                     one send
//! ```
//!
//! Invariant: the program gets what it would get without this library, sooner; docs/ACCEL.md has the promises and
//! their limits. Whatever is no netfilter socket of the program's costs a load and a branch. `unsafe` is in `interpose`
//! alone: exported functions, the C library's own ones behind them, system calls. It deliberately prints nothing but
//! what it cannot do, once.

#[cfg_attr(test, allow(dead_code, reason = "the tests are not interposed on"))]
mod counts;
mod epoll;
#[cfg(not(test))]
mod interpose;
#[cfg_attr(test, allow(dead_code, reason = "the tests are not interposed on"))]
mod locked;
#[cfg_attr(test, allow(dead_code, reason = "the tests are not interposed on"))]
mod queue;
#[cfg_attr(test, allow(dead_code, reason = "the tests are not interposed on"))]
mod readers;
#[cfg_attr(test, allow(dead_code, reason = "the tests are not interposed on"))]
mod ring;
#[cfg_attr(test, allow(dead_code, reason = "the tests are not interposed on"))]
mod served;
#[cfg_attr(test, allow(dead_code, reason = "the tests are not interposed on"))]
mod settings;
#[cfg_attr(test, allow(dead_code, reason = "the tests are not interposed on"))]
mod table;
