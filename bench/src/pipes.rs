//! What happens when whoever this program writes to has ended.
//!
//! Invariant: a reader of the output that goes away, as `head` does, ends this program without a word, as it ends
//! others; a program that was started from here and does not read its input is an error like any other.

use std::io::{self, Write};
use std::process::ChildStdin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::SIGPIPE;

/// Whether a pipe without a reader ends this program; there once somebody asked for it.
static ENDS: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From now on a pipe without a reader ends this program. Rust's way, a panic at the next print, is none.
pub(crate) fn end_with_the_reader() -> io::Result<()> {
    let ends = ENDS.get_or_init(|| Arc::new(AtomicBool::new(true)));
    signal_hook::flag::register_conditional_default(SIGPIPE, Arc::clone(ends)).map(drop)
}

/// Writes all of it to a program that was started, and closes its input.
///
/// # Errors
///
/// [`io::ErrorKind::BrokenPipe`] if the program ended, or closed its input, before it had read all.
pub(crate) fn write_to_program(mut stdin: ChildStdin, bytes: &[u8]) -> io::Result<()> {
    let ends = ENDS.get();
    if let Some(ends) = ends {
        ends.store(false, Ordering::SeqCst);
    }
    let written = stdin.write_all(bytes);
    if let Some(ends) = ends {
        ends.store(true, Ordering::SeqCst);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_program_that_ended_before_it_read_is_an_error_and_not_the_end() {
        end_with_the_reader().expect("a handler");
        let mut child = Command::new("true").stdin(Stdio::piped()).spawn().expect("`true`");
        let stdin = child.stdin.take().expect("its input");
        child.wait().expect("its end");
        let error = write_to_program(stdin, b"a word").expect_err("nobody reads it");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
