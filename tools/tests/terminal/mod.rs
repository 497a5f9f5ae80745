//! A pseudo-terminal with a program in it, and what its screen shows.
//!
//! Invariant: the program ends with the value, and every wait is bounded.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, Winsize, tcgetattr, tcsetwinsize};

/// A program on a terminal of its own.
pub(crate) struct OnTerminal {
    pub(crate) child: Child,
    /// The side where a person sits.
    seat: File,
    /// The program's side, kept open to look at its modes.
    line: File,
    modes: Termios,
    written: Arc<Mutex<Vec<u8>>>,
}

impl OnTerminal {
    /// Starts the command, as a session of its own with this as its terminal, which the caller sees to (`setsid
    /// --ctty`).
    pub(crate) fn start(mut command: Command, columns: u16, rows: u16) -> Self {
        let seat: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pty");
        grantpt(&seat).and_then(|()| unlockpt(&seat)).expect("it can be opened");
        let name = ptsname(&seat, Vec::new()).expect("it has a name");
        let name = name.into_string().expect("of letters");
        let open = || {
            let mut options = File::options();
            std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOCTTY);
            options.read(true).write(true).open(&name).expect("it opens")
        };
        let line = open();
        let modes = tcgetattr(&line).expect("it is a terminal");
        command.stdin(open()).stdout(open()).stderr(open());
        let seat = File::from(seat);
        resize(&seat, columns, rows);
        let child = command.spawn().expect("the command runs");
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut source, sink) = (seat.try_clone().expect("a descriptor"), Arc::clone(&written));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(read @ 1..) = source.read(&mut bytes) {
                sink.lock().expect("nobody panics with it").extend_from_slice(&bytes[..read]);
            }
        });
        Self { child, seat, line, modes, written }
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        resize(&self.seat, columns, rows);
    }

    pub(crate) fn press(&mut self, keys: &str) {
        self.seat.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    pub(crate) fn signal(&self, name: &str) {
        let script = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &script]).status().expect("sh runs").success());
    }

    pub(crate) fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().expect("as above")).into_owned()
    }

    /// Waits until the screen is so, and returns it.
    pub(crate) fn await_screen(&self, what: &str, is_so: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let screen = screen(&self.written());
            if is_so(&screen) {
                return screen;
            }
            assert!(Instant::now() < deadline, "never {what}; the screen:\n{screen}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether lines are edited and keys echoed by the terminal, as before.
    pub(crate) fn is_as_before(&self) -> bool {
        let now = tcgetattr(&self.line).expect("it is a terminal");
        let watched = LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG | LocalModes::IEXTEN;
        now.local_modes & watched == self.modes.local_modes & watched
            && now.input_modes == self.modes.input_modes
            && now.output_modes == self.modes.output_modes
    }

    /// The kernel's letter for what the program does: T is stopped.
    pub(crate) fn await_state(&self, state: char) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let path = format!("/proc/{}/stat", self.child.id());
            let line = std::fs::read_to_string(path).unwrap_or_default();
            if line.rsplit(") ").next().and_then(|tail| tail.chars().next()) == Some(state) {
                return;
            }
            assert!(Instant::now() < deadline, "never {state}: {line}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for its end, and returns its status.
    pub(crate) fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end:\n{}", screen(&self.written()));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its end is good, and the terminal as it was: modes, screen and cursor.
    pub(crate) fn assert_given_back(&mut self, after: &str) {
        assert_eq!(self.end(), Some(0), "after {after}: {}", self.written());
        assert!(self.is_as_before(), "after {after} the modes are others");
        let deadline = Instant::now() + PATIENCE;
        while !self.is_left() {
            assert!(Instant::now() < deadline, "after {after}: {:?}", self.written());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Whether the last that was said of screen and cursor is that they are the usual ones.
    pub(crate) fn is_left(&self) -> bool {
        let written = self.written();
        let last = |on: &str, off: &str| written.rfind(on) < written.rfind(off);
        last("\x1b[?1049h", "\x1b[?1049l") && last("\x1b[?25l", "\x1b[?25h")
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(seat: &File, columns: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(seat, size).expect("a terminal has a size");
}

/// What is to be seen once all this was written: cursor movements and erasing carried out, colours left out.
fn screen(written: &str) -> String {
    let mut cells = vec![vec![' '; COLUMNS]; ROWS];
    let (mut row, mut column) = (0, 0);
    let mut rest = written.chars();
    while let Some(c) = rest.next() {
        match c {
            '\x1b' => {
                if rest.next() != Some('[') {
                    continue;
                }
                let mut sequence = String::new();
                let end = rest.by_ref().find(|c| {
                    sequence.push(*c);
                    c.is_ascii_alphabetic()
                });
                let numbers = sequence.trim_end_matches(|c: char| c.is_ascii_alphabetic());
                let mut numbers = numbers.split(';').map(|n| n.parse::<usize>().unwrap_or(1));
                let mut number = || numbers.next().unwrap_or(1).max(1);
                match end {
                    Some('H') => (row, column) = (number() - 1, number() - 1),
                    Some('J') => cells.iter_mut().for_each(|row| row.fill(' ')),
                    _ => {}
                }
            }
            '\n' => row += 1,
            '\r' => column = 0,
            c => {
                if let Some(cell) = cells.get_mut(row).and_then(|row| row.get_mut(column)) {
                    *cell = c;
                }
                column += 1;
            }
        }
    }
    let lines = cells.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n").trim_end().to_owned()
}

const COLUMNS: usize = 300;
const ROWS: usize = 100;
const PATIENCE: Duration = Duration::from_secs(20);
