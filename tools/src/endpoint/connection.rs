//! One connection: where it stands, and until when it may stand there.
//!
//! Invariant: a step never blocks. What is received beyond one request waits for that one's answer, so a client that
//! asks without reading is answered no further.

use std::io;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use super::{Answer, Bounds, Refusal, Reply, Service, Stream};

/// A client.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    state: State,
    /// Received and not yet answered.
    received: Vec<u8>,
    /// When its time is over.
    pub(super) deadline: Instant,
}

#[derive(Debug)]
enum State {
    Reading,
    /// Until another thread has the answer; whether it stays then.
    Waiting(Receiver<Vec<u8>>, bool),
    Writing {
        answer: Vec<u8>,
        written: usize,
        stay: bool,
    },
    /// All is said: what still comes is read and thrown away, since closing a socket with unread bytes would take
    /// the answer back.
    Closing,
}

/// What a poll is to look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    Read,
    Write,
    Nothing,
}

impl Connection {
    pub(super) fn new(stream: Stream, now: Instant, bounds: &Bounds) -> Self {
        let deadline = now + bounds.request_time;
        Self { stream, state: State::Reading, received: Vec::new(), deadline }
    }

    pub(super) fn interest(&self) -> Interest {
        match &self.state {
            State::Reading | State::Closing => Interest::Read,
            State::Writing { .. } => Interest::Write,
            State::Waiting(..) => Interest::Nothing,
        }
    }

    /// Who goes first where there are too many, 0 before 1: one with which all is over (so those who are refused never
    /// push out others), one that has asked nothing, one that waits for its answer.
    pub(super) fn claim(&self) -> u8 {
        match self.state {
            State::Closing => 0,
            State::Reading => 1,
            State::Waiting(..) | State::Writing { .. } => 2,
        }
    }

    /// Sets out to say this and end.
    pub(super) fn dismiss(&mut self, words: Vec<u8>, now: Instant, bounds: &Bounds) {
        self.write(words, false, now, bounds);
    }

    /// Goes on as far as that is possible without waiting. False when the connection is over.
    pub(super) fn step(
        &mut self,
        service: &mut impl Service,
        now: Instant,
        bounds: &Bounds,
    ) -> bool {
        if now >= self.deadline && !self.time_is_over(service, now, bounds) {
            return false;
        }
        // Bounded, so that a client that never ends does not keep the others waiting.
        for _ in 0..STEPS_MAX {
            let outcome = match &self.state {
                State::Reading => self.read_on(service, now, bounds),
                State::Waiting(..) => Ok(self.take_answer(service, now, bounds)),
                State::Writing { .. } => self.write_on(now, bounds),
                State::Closing => self.discard(),
            };
            match outcome {
                Ok(true) => {}
                Ok(false) => return true,
                Err(_over) => return false,
            }
        }
        true
    }

    /// Whether it can go on without anything coming in.
    pub(super) fn is_ready(&self, service: &impl Service) -> bool {
        matches!(self.state, State::Reading) && service.request_end(&self.received).is_some()
    }

    /// Takes the answer that another thread makes. False: it is not there yet.
    fn take_answer(&mut self, service: &impl Service, now: Instant, bounds: &Bounds) -> bool {
        let State::Waiting(answer, stay) = &self.state else { return true };
        let (answer, stay) = match answer.try_recv() {
            Ok(answer) => (answer, *stay),
            Err(TryRecvError::Empty) => return false,
            Err(TryRecvError::Disconnected) => (service.refusal(Refusal::Gone), false),
        };
        self.write(answer, stay, now, bounds);
        true
    }

    /// What happens at the deadline. False: nothing more.
    fn time_is_over(&mut self, service: &impl Service, now: Instant, bounds: &Bounds) -> bool {
        match &self.state {
            State::Reading if !self.received.is_empty() => {
                self.dismiss(service.refusal(Refusal::TooSlow), now, bounds);
                true
            }
            // Its answer is under way, and whoever makes it is sure to send or to vanish.
            State::Waiting(..) => true,
            _ => false,
        }
    }

    /// Reads, and has a whole request answered. Ok(false): there is nothing to read for now.
    fn read_on(
        &mut self,
        service: &mut impl Service,
        now: Instant,
        bounds: &Bounds,
    ) -> io::Result<bool> {
        if let Some(end) = service.request_end(&self.received) {
            if end > bounds.request_bytes {
                self.dismiss(service.refusal(Refusal::TooLong), now, bounds);
                return Ok(true);
            }
            let request: Vec<u8> = self.received.drain(..end).collect();
            let Answer { reply, stay } = service.answer(&request);
            match reply {
                Reply::Now(answer) => self.write(answer, stay, now, bounds),
                Reply::Later(answer) => self.state = State::Waiting(answer, stay),
            }
            return Ok(true);
        }
        if self.received.len() >= bounds.request_bytes {
            self.dismiss(service.refusal(Refusal::TooLong), now, bounds);
            return Ok(true);
        }
        let mut part = [0; PART_BYTES];
        let began = self.received.is_empty();
        let Some(read) = some_bytes(self.stream.read(&mut part))? else { return Ok(false) };
        self.received.extend_from_slice(&part[..read]);
        if began {
            self.deadline = now + bounds.request_time;
        }
        Ok(true)
    }

    fn write(&mut self, answer: Vec<u8>, stay: bool, now: Instant, bounds: &Bounds) {
        self.deadline = now + bounds.answer_time;
        self.state = State::Writing { answer, written: 0, stay };
    }

    fn write_on(&mut self, now: Instant, bounds: &Bounds) -> io::Result<bool> {
        let State::Writing { answer, written, stay } = &mut self.state else { return Ok(true) };
        if *written < answer.len() {
            let Some(wrote) = some_bytes(self.stream.write(&answer[*written..]))? else {
                return Ok(false);
            };
            *written += wrote;
            return Ok(true);
        }
        if *stay {
            self.deadline = now + bounds.idle_time;
            self.state = State::Reading;
        } else {
            self.stream.finish();
            self.deadline = now + CLOSING_TIME;
            self.state = State::Closing;
        }
        Ok(true)
    }

    fn discard(&mut self) -> io::Result<bool> {
        Ok(some_bytes(self.stream.read(&mut [0; PART_BYTES]))?.is_some())
    }
}

/// How many bytes went; None if none can for now; an error if none ever will.
fn some_bytes(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
}

const PART_BYTES: usize = 4096;

/// A request takes three: read, answer, write.
const STEPS_MAX: usize = 64;

/// How long a client has to take the last bytes and close.
const CLOSING_TIME: Duration = Duration::from_secs(1);
