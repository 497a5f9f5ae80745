//! The live view: the terminal, its keys, and signals.
//!
//! Invariant: the terminal is given back as it was, whatever ends the view: a key, a signal, an error, a panic; also
//! while it is stopped. Signals only wake the loop, which is the only place that touches the terminal.

use std::io::{BufWriter, Stdout, Write, stdin, stdout};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::{Position, Rect};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGWINCH};

use super::Looks;
use super::view::{Choices, draw};

/// Shows the queues until a key or a signal ends it, or so many refreshes were shown.
pub(super) fn run(
    looks: &mut Looks,
    mut choices: Choices,
    count: Option<u64>,
) -> anyhow::Result<()> {
    let signals = Signals::listen().context("installing the signal handlers")?;
    // Once before the terminal is touched: what cannot be read is said on a screen that stays.
    looks.look(true)?;
    let mut screen = Screen::enter().context("preparing the terminal")?;
    let mut shown = 0;
    let mut due = Instant::now() + choices.interval.min(FIRST_RATES);
    loop {
        screen.draw(looks, &mut choices).context("writing to the terminal")?;
        let event = signals.wait(due.saturating_duration_since(Instant::now()))?;
        if event.hung_up || signals.end.load(Ordering::SeqCst) {
            return Ok(());
        }
        if event.key {
            match keys(looks, &mut choices)? {
                Wish::End => return Ok(()),
                Wish::Stop => screen.stop()?,
                Wish::Sooner => due = due.min(Instant::now() + choices.interval),
                Wish::Nothing => {}
            }
        }
        if signals.stop.swap(false, Ordering::SeqCst) {
            screen.stop()?;
        }
        if signals.continued.swap(false, Ordering::SeqCst) {
            // Whoever had the terminal meanwhile may have left it in any state.
            screen.enter_again()?;
        }
        if Instant::now() >= due {
            // From now on, not from when it was due: after a stop nothing is made up for.
            due = Instant::now() + choices.interval;
            if !choices.paused {
                looks.look(false)?;
                shown += 1;
                if count.is_some_and(|count| shown >= count) {
                    screen.draw(looks, &mut choices).context("writing to the terminal")?;
                    return Ok(());
                }
            }
        }
    }
}

/// The time of day, as the header shows it.
pub(super) fn clock() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("{:02}:{:02}:{:02} UTC", now / 3600 % 24, now / 60 % 60, now % 60)
}

/// The terminal while it is ours; given back when dropped.
struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
}

impl Screen {
    fn enter() -> anyhow::Result<Self> {
        let earlier = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            earlier(panic);
        }));
        // From here on it is given back also if the next steps fail.
        let out = BufWriter::with_capacity(OUT_BYTES, stdout());
        let mut screen = Self { terminal: Terminal::new(CrosstermBackend::new(out))? };
        screen.enter_again()?;
        Ok(screen)
    }

    fn enter_again(&mut self) -> anyhow::Result<()> {
        // crossterm takes the present mode for the one to go back to only if it thinks itself outside.
        disable_raw_mode()?;
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen)?;
        self.terminal.hide_cursor()?;
        // Erases and forgets what was drawn. `clear` would ask the terminal for its cursor, and wait for an answer.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::from((Position::ORIGIN, size)))?;
        Ok(())
    }

    /// Stops the process as Ctrl-Z does, and comes back when it is continued.
    fn stop(&mut self) -> anyhow::Result<()> {
        give_back();
        signal_hook::low_level::emulate_default_handler(SIGTSTP).context("stopping")?;
        self.enter_again()
    }

    fn draw(&mut self, looks: &Looks, choices: &mut Choices) -> std::io::Result<()> {
        let clock = clock();
        self.terminal.draw(|frame| {
            let area = frame.area();
            draw(frame.buffer_mut(), area, &looks.board, choices, &clock);
        })?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Whatever fails here fails because the terminal has gone.
fn give_back() {
    let _ = disable_raw_mode();
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
    let _ = stdout().flush();
}

/// What a key asks of the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Nothing,
    End,
    Stop,
    /// The time between refreshes has become shorter.
    Sooner,
}

/// Takes all keys that wait.
fn keys(looks: &Looks, choices: &mut Choices) -> anyhow::Result<Wish> {
    let mut wish = Wish::Nothing;
    while event::poll(Duration::ZERO).context("reading the keyboard")? {
        let Event::Key(key) = event::read().context("reading the keyboard")? else { continue };
        if key.kind != KeyEventKind::Release {
            wish = take_key(key, looks, choices);
        }
        if matches!(wish, Wish::End | Wish::Stop) {
            break;
        }
    }
    Ok(wish)
}

fn take_key(key: KeyEvent, looks: &Looks, choices: &mut Choices) -> Wish {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c' | 'd') => Wish::End,
            KeyCode::Char('z') => Wish::Stop,
            _ => Wish::Nothing,
        };
    }
    if choices.help {
        choices.help = false;
        return if key.code == KeyCode::Char('q') { Wish::End } else { Wish::Nothing };
    }
    let page = isize::try_from(choices.page.max(1)).unwrap_or(isize::MAX);
    let board = &looks.board;
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return Wish::End,
        KeyCode::Char('p' | ' ') => choices.paused = !choices.paused,
        KeyCode::Char('?' | 'h') => choices.help = true,
        KeyCode::Char('s') => choices.sort = choices.sort.next(),
        KeyCode::Char('r') => choices.reverse = !choices.reverse,
        KeyCode::Up | KeyCode::Char('k') => choices.scroll(board, -1),
        KeyCode::Down | KeyCode::Char('j') => choices.scroll(board, 1),
        KeyCode::PageUp => choices.scroll(board, -page),
        KeyCode::PageDown => choices.scroll(board, page),
        KeyCode::Home => choices.offset = 0,
        KeyCode::End => choices.scroll(board, isize::MAX),
        KeyCode::Char('+' | '=') => choices.interval = stepped(choices.interval, true),
        KeyCode::Char('-') => {
            choices.interval = stepped(choices.interval, false);
            return Wish::Sooner;
        }
        _ => {}
    }
    Wish::Nothing
}

/// The next longer or shorter time between refreshes.
fn stepped(interval: Duration, longer: bool) -> Duration {
    let mut steps = INTERVALS_MS.into_iter().map(Duration::from_millis);
    let next = if longer {
        steps.find(|step| *step > interval)
    } else {
        steps.rfind(|step| *step < interval)
    };
    next.unwrap_or(interval)
}

/// Signals: each sets its flag, and all wake the loop by one socket.
struct Signals {
    end: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    continued: Arc<AtomicBool>,
    woken: UnixStream,
}

/// What has ended a wait, besides time and signals.
struct Woken {
    key: bool,
    hung_up: bool,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let (woken, waker) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        let flag = || Arc::new(AtomicBool::new(false));
        let signals = Self { end: flag(), stop: flag(), continued: flag(), woken };
        let winch = flag();
        for (signal, flag) in [
            (SIGINT, &signals.end),
            (SIGTERM, &signals.end),
            (SIGHUP, &signals.end),
            (SIGQUIT, &signals.end),
            (SIGTSTP, &signals.stop),
            (SIGCONT, &signals.continued),
            (SIGWINCH, &winch), // Every drawing looks at the size.
        ] {
            // The flag first: it is set when the loop wakes.
            signal_hook::flag::register(signal, Arc::clone(flag))?;
            signal_hook::low_level::pipe::register(signal, waker.try_clone()?)?;
        }
        Ok(signals)
    }

    fn wait(&self, limit: Duration) -> anyhow::Result<Woken> {
        let stdin = stdin();
        let mut fds = [
            PollFd::new(&stdin, PollFlags::IN),
            PollFd::from_borrowed_fd(self.woken.as_fd(), PollFlags::IN),
        ];
        let limit = Timespec::try_from(limit).context("the time to wait")?;
        match poll(&mut fds, Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("waiting for keys"),
        }
        let terminal = fds[0].revents();
        if fds[1].revents().contains(PollFlags::IN) {
            let mut taken = [0; 64];
            while std::io::Read::read(&mut &self.woken, &mut taken).is_ok_and(|read| read > 0) {}
        }
        let gone = PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL;
        Ok(Woken { key: terminal.contains(PollFlags::IN), hung_up: terminal.intersects(gone) })
    }
}

/// Until there are two samples there are no rates, so the second comes soon.
const FIRST_RATES: Duration = Duration::from_millis(250);

const INTERVALS_MS: [u64; 8] = [100, 200, 500, 1000, 2000, 5000, 10_000, 60_000];

/// A whole large screen in one write.
const OUT_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_steps_from_any_value_and_stays_within() {
        let ms = Duration::from_millis;
        assert_eq!(stepped(ms(1000), true), ms(2000));
        assert_eq!(stepped(ms(700), true), ms(1000));
        assert_eq!(stepped(ms(700), false), ms(500));
        assert_eq!(stepped(ms(100), false), ms(100));
        assert_eq!(stepped(ms(60_000), true), ms(60_000));
    }

    /// Goal: a panic leaves the terminal as it was, and its message on the usual screen. Method: this test program
    /// again, on a pseudo-terminal, with the test below.
    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        use rustix::termios::tcgetattr;
        use std::io::Read;

        let seat = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&seat).and_then(|()| unlockpt(&seat)).unwrap();
        let name = ptsname(&seat, Vec::new()).unwrap().into_string().unwrap();
        let line = std::fs::File::options().read(true).write(true).open(name).unwrap();
        let before = tcgetattr(&line).unwrap();
        let name = "top::terminal::tests::panics_on_a_terminal";
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--ignored", "--nocapture"]).env("RUST_BACKTRACE", "0");
        let end = || line.try_clone().unwrap();
        let status = command.stdin(end()).stdout(end()).stderr(end()).status().unwrap();
        assert!(!status.success());
        assert_eq!(tcgetattr(&line).unwrap().local_modes, before.local_modes);
        let mut written = vec![0; 65_536];
        let read = std::fs::File::from(seat).read(&mut written).unwrap();
        let written = String::from_utf8_lossy(&written[..read]).into_owned();
        let at =
            |part: &str| written.find(part).unwrap_or_else(|| panic!("no {part:?} in {written:?}"));
        assert!(at("\x1b[?1049h") < at("\x1b[?1049l"));
        assert!(at("\x1b[?1049l") < at("as the test above wishes"));
    }

    #[test]
    #[ignore = "run by the test above, on a terminal"]
    fn panics_on_a_terminal() {
        let _screen = Screen::enter().unwrap();
        panic!("as the test above wishes");
    }
}
