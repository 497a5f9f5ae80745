//! The connection between two processes: whole messages, with descriptors beside them, within a time.
//!
//! Invariant: descriptors that come with a bad message, or where none belong, are closed; none is passed on to a child
//! (`MSG_CMSG_CLOEXEC`). All that is sent and received up to the deadline counts against it, so a peer that sends
//! byte after byte gains nothing.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::sockopt::socket_peercred;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use super::message::{Header, Message, MessageError};

/// One end of the connection.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    deadline: Instant,
}

/// Why a conversation ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    #[error("the other process is gone")]
    Gone,
    #[error("the other process did not answer in time")]
    TimedOut,
    #[error("the other process refused: {0}")]
    Refused(String),
    #[error(transparent)]
    Message(#[from] MessageError),
    #[error("{0}")]
    Unexpected(String),
    #[error("the connection to the other process: {0}")]
    Io(#[from] io::Error),
}

impl Channel {
    /// Everything must be done within `patience`.
    pub(super) fn new(stream: UnixStream, patience: Duration) -> Self {
        Self { stream, deadline: Instant::now() + patience }
    }

    /// What comes from now on must be done within `patience`.
    pub(super) fn be_patient(&mut self, patience: Duration) {
        self.deadline = Instant::now() + patience;
    }

    /// Refuses a peer that is neither of this process's user nor root. The ids are the kernel's word, from when the
    /// peer connected or began to listen.
    pub(super) fn check_peer(&self) -> Result<u32, ChannelError> {
        let peer = socket_peercred(&self.stream).map_err(io::Error::from)?;
        let (theirs, ours) = (peer.uid, rustix::process::geteuid());
        if theirs != ours && !theirs.is_root() {
            return Err(ChannelError::Unexpected(format!(
                "process {} is of user {}; queues of user {} go only to the same user or root",
                peer.pid.as_raw_nonzero(),
                theirs.as_raw(),
                ours.as_raw(),
            )));
        }
        Ok(peer.pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Sends; to a peer that has hung up, nothing, but then its last word is the error.
    pub(super) fn send(&mut self, message: &Message) -> Result<(), ChannelError> {
        match self.send_with(message, &[]) {
            Err(ChannelError::Gone) => Err(match self.receive() {
                Err(refused @ ChannelError::Refused(_)) => refused,
                _ => ChannelError::Gone,
            }),
            result => result,
        }
    }

    /// Sends a message with descriptors beside it, [`DESCRIPTORS_MAX`] at most.
    pub(super) fn send_with(
        &mut self,
        message: &Message,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ChannelError> {
        let bytes = message.encode();
        let mut sent = 0;
        while sent < bytes.len() {
            self.stream.set_write_timeout(Some(self.left()?))?;
            let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
            let mut control = SendAncillaryBuffer::new(&mut space);
            // They go with the first byte.
            if sent == 0 && !descriptors.is_empty() {
                let pushed = control.push(SendAncillaryMessage::ScmRights(descriptors));
                assert!(pushed, "a message has room for {DESCRIPTORS_MAX} descriptors");
            }
            let part = [IoSlice::new(&bytes[sent..])];
            sent += match sendmsg(&self.stream, &part, &mut control, SendFlags::NOSIGNAL) {
                Ok(count) => count,
                Err(error) => check_passing(error.into())?,
            };
        }
        Ok(())
    }

    /// Says why, as far as the other side still listens.
    pub(super) fn refuse(mut self, reason: &ChannelError) {
        self.be_patient(PARTING);
        let _ = self.send(&Message::Refused(reason.to_string()));
    }

    /// The next message that is no refusal, without descriptors.
    pub(super) fn receive(&mut self) -> Result<Message, ChannelError> {
        match self.receive_with()? {
            (message, descriptors) if descriptors.is_empty() => Ok(message),
            (message, _) => Err(unexpected(&message, "a message without descriptors")),
        }
    }

    /// The next message that is no refusal, with the descriptors beside it.
    pub(super) fn receive_with(&mut self) -> Result<(Message, Vec<OwnedFd>), ChannelError> {
        let mut descriptors = Vec::new();
        let mut header = [0; Header::BYTES];
        self.fill(&mut header, &mut descriptors)?;
        let header = Header::decode(header)?;
        let mut body = vec![0; header.length];
        self.fill(&mut body, &mut descriptors)?;
        match Message::decode(header, &body)? {
            Message::Refused(reason) => Err(ChannelError::Refused(reason)),
            message => Ok((message, descriptors)),
        }
    }

    fn fill(
        &mut self,
        buffer: &mut [u8],
        descriptors: &mut Vec<OwnedFd>,
    ) -> Result<(), ChannelError> {
        let mut filled = 0;
        while filled < buffer.len() {
            self.stream.set_read_timeout(Some(self.left()?))?;
            let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut part = [IoSliceMut::new(&mut buffer[filled..])];
            let flags = RecvFlags::CMSG_CLOEXEC;
            let result = recvmsg(&self.stream, &mut part, &mut control, flags);
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(passed) = message {
                    descriptors.extend(passed);
                }
            }
            match result {
                Ok(received) if received.bytes == 0 => return Err(ChannelError::Gone),
                Ok(received) => {
                    let cut = received.flags.contains(ReturnFlags::CTRUNC);
                    if cut || descriptors.len() > DESCRIPTORS_MAX {
                        return Err(ChannelError::Unexpected(format!(
                            "more than {DESCRIPTORS_MAX} descriptors came with one message"
                        )));
                    }
                    filled += received.bytes;
                }
                Err(error) => {
                    check_passing(error.into())?;
                }
            }
        }
        Ok(())
    }

    fn left(&self) -> Result<Duration, ChannelError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        // Less than what a socket's timeout can say is nothing.
        if left < Duration::from_millis(1) { Err(ChannelError::TimedOut) } else { Ok(left) }
    }
}

/// A message that does not belong here.
pub(super) fn unexpected(message: &Message, wanted: &str) -> ChannelError {
    let mut came = format!("{message:?}");
    came.truncate(came.find(['(', '{', ' ']).unwrap_or(came.len()));
    ChannelError::Unexpected(format!("{came} came, not {wanted}"))
}

/// Nothing was sent or received, and it may be tried again.
fn check_passing(error: io::Error) -> Result<usize, ChannelError> {
    match error.kind() {
        // The socket's timeout; whether all of the time is over is looked at before the next call.
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => Ok(0),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Err(ChannelError::Gone),
        _ => Err(error.into()),
    }
}

/// With one message; the kernel takes 253 (`SCM_MAX_FD`).
pub(super) const DESCRIPTORS_MAX: usize = 64;

/// Room for one more, so that one too many is seen.
const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX + 1));

/// A refusal is sent to whoever reads it at once.
const PARTING: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::handover::message::{Ask, Sockets};

    const SOON: Duration = Duration::from_millis(100);

    fn pair(patience: Duration) -> (Channel, Channel) {
        let (one, other) = UnixStream::pair().unwrap();
        (Channel::new(one, patience), Channel::new(other, patience))
    }

    fn open_descriptors() -> usize {
        std::fs::read_dir("/proc/thread-self/fd").unwrap().count()
    }

    #[test]
    fn descriptors_come_beside_their_message() {
        let (mut one, mut other) = pair(Duration::from_secs(5));
        let file = std::fs::File::open("/dev/null").unwrap();
        let message = Message::Sockets(Sockets { queues: vec![1, 2] });
        one.send_with(&message, &[file.as_fd(), file.as_fd()]).unwrap();
        one.send(&Message::Take).unwrap();
        let (came, descriptors) = other.receive_with().unwrap();
        assert_eq!((came, descriptors.len()), (message, 2));
        assert_eq!(other.receive().unwrap(), Message::Take);
    }

    #[test]
    fn what_does_not_belong_there_is_an_error() {
        let (mut one, mut other) = pair(Duration::from_secs(5));
        let file = std::fs::File::open("/dev/null").unwrap();
        one.send_with(&Message::Take, &[file.as_fd()]).unwrap();
        let error = other.receive().unwrap_err().to_string();
        assert_eq!(error, "Take came, not a message without descriptors");
        one.send_with(&Message::Take, &[file.as_fd(); DESCRIPTORS_MAX + 1][..DESCRIPTORS_MAX])
            .unwrap();
        assert_eq!(other.receive_with().unwrap().1.len(), DESCRIPTORS_MAX);
    }

    #[test]
    fn half_a_message_and_silence_end_in_time_and_in_words() {
        let ask = Message::Ask(Ask { program: "0".to_owned() }).encode();
        for cut in 0..ask.len() {
            let (one, mut other) = pair(SOON);
            std::io::Write::write_all(&mut &one.stream, &ask[..cut]).unwrap();
            drop(one);
            assert!(matches!(other.receive(), Err(ChannelError::Gone)), "cut to {cut}");
        }
        let (_one, mut other) = pair(SOON);
        assert!(matches!(other.receive(), Err(ChannelError::TimedOut)));
    }

    #[test]
    fn a_peer_that_never_reads_ends_in_time() {
        let (mut one, _other) = pair(SOON);
        let long = Message::Refused("x".repeat(4 << 20));
        assert!(matches!(one.send(&long), Err(ChannelError::TimedOut)));
    }

    #[test]
    fn whoever_speaks_to_one_who_refused_and_left_hears_why() {
        let (one, mut other) = pair(Duration::from_secs(5));
        one.refuse(&ChannelError::TimedOut);
        let error = other.send(&Message::Take).unwrap_err();
        assert!(matches!(error, ChannelError::Refused(_)), "{error}");
    }

    #[test]
    fn a_refusal_is_an_error_with_its_words() {
        let (one, mut other) = pair(Duration::from_secs(5));
        one.refuse(&ChannelError::Gone);
        match other.receive() {
            Err(ChannelError::Refused(reason)) => assert_eq!(reason, "the other process is gone"),
            result => panic!("{result:?}"),
        }
    }

    #[test]
    fn descriptors_of_bad_messages_are_closed() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let before = open_descriptors();
        for _ in 0..50 {
            let (one, mut other) = pair(Duration::from_secs(5));
            let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let fds = [file.as_fd(); 3];
            assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
            let bytes = [IoSlice::new(b"nothing of ours")];
            sendmsg(&one.stream, &bytes, &mut control, SendFlags::NOSIGNAL).unwrap();
            assert!(matches!(other.receive(), Err(ChannelError::Message(MessageError::NotOurs))));
        }
        // Tests that run beside this one have descriptors too, but not so many.
        assert!(open_descriptors() < before + 100);
    }
}
