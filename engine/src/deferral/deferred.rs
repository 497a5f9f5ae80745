//! The handle of a deferred packet.
//!
//! Invariant: it answers once, by [`Deferred::answer`] or by being dropped, and from whatever thread; its memory
//! goes back to the worker either way. Nothing is copied but what is rewritten to another length.

use std::ops::Range;
use std::sync::Arc;

use super::Answers;
use crate::edits::{self, Edits, RewriteError};
use crate::nfq::{self, ConntrackEdit, Message, PacketId, PacketMessage, Verdict, VerdictCode};
use crate::sys::LentDatagram;

/// A packet whose verdict comes later, from whichever thread has this. Made by
/// [`Packet::defer`](crate::Packet::defer).
///
/// Dropping it, also by a panic, gives the packet the verdict that
/// [`Inspector::inspect`](crate::Inspector::inspect) returned when it was deferred.
#[derive(Debug)]
#[must_use = "dropping it answers the packet with the verdict that `inspect` returned"]
pub struct Deferred {
    /// Taken when it is answered.
    open: Option<Answer>,
    answers: Arc<Answers>,
}

/// What comes back to the worker.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) id: PacketId,
    /// The fallback, if none.
    pub(crate) verdict: Option<Verdict>,
    pub(crate) datagram: LentDatagram,
    pub(crate) rewritten: Rewritten,
    pub(crate) conntrack: ConntrackEdit,
    pub(crate) refused: Option<RewriteError>,
}

/// Where the packet's new bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rewritten {
    /// It has none.
    Not,
    /// In the datagram, where the old ones were.
    InPlace(Range<usize>),
    /// Here.
    Apart(Vec<u8>),
}

impl Answer {
    pub(crate) fn new(id: PacketId, datagram: LentDatagram) -> Self {
        Self {
            id,
            verdict: None,
            datagram,
            rewritten: Rewritten::Not,
            conntrack: ConntrackEdit::default(),
            refused: None,
        }
    }

    /// The packet's new bytes, if any.
    pub(crate) fn payload(&self) -> Option<&[u8]> {
        match &self.rewritten {
            Rewritten::Not => None,
            Rewritten::InPlace(range) => self.datagram.get(range.clone()),
            Rewritten::Apart(bytes) => Some(bytes),
        }
    }

    /// The same, to be written to.
    fn payload_mut(&mut self) -> Option<&mut [u8]> {
        match &mut self.rewritten {
            Rewritten::Not => None,
            Rewritten::InPlace(range) => {
                let range = range.clone();
                self.datagram.get_mut().and_then(|all| all.get_mut(range))
            }
            Rewritten::Apart(bytes) => Some(bytes),
        }
    }

    /// Fills in a checksum that came open and still is, or notes why the new bytes cannot go out: on the thread that
    /// answers, not on the worker's.
    pub(crate) fn settle(&mut self) {
        let passes = self.verdict.is_some_and(|verdict| verdict.code() != VerdictCode::Drop);
        if !passes || self.rewritten == Rewritten::Not || self.refused.is_some() {
            return;
        }
        if edits::is_open(&self.message())
            && let Some(bytes) = self.payload_mut()
        {
            self.refused = edits::close_checksum(bytes).err();
        }
    }

    /// What the kernel said about the packet.
    pub(crate) fn message(&self) -> PacketMessage<'_> {
        match nfq::decode(&self.datagram) {
            Ok((Message::Packet(message), _)) => message,
            // Only a message that was decoded is deferred, and rewriting leaves its frame alone.
            _ => unreachable!("a deferred datagram is a packet message"),
        }
    }

    /// Puts `bytes` in the packet's place: where the old ones lie if they fit and nobody else looks there.
    pub(crate) fn rewrite(&mut self, bytes: &[u8]) {
        let range = self.message().payload_range();
        let in_place = self.datagram.get_mut().and_then(|all| all.get_mut(range.clone()));
        match in_place {
            Some(place) if place.len() == bytes.len() => {
                place.copy_from_slice(bytes);
                self.rewritten = Rewritten::InPlace(range);
            }
            _ => self.rewritten = Rewritten::Apart(bytes.to_vec()),
        }
    }
}

impl Deferred {
    pub(crate) fn new(answer: Answer, answers: Arc<Answers>) -> Self {
        Self { open: Some(answer), answers }
    }

    fn answer_mut(&mut self) -> &mut Answer {
        self.open.as_mut().expect(OPEN)
    }

    fn answer_ref(&self) -> &Answer {
        self.open.as_ref().expect(OPEN)
    }

    /// The packet's id in its queue.
    pub fn id(&self) -> PacketId {
        self.answer_ref().id
    }

    /// What the kernel said about the packet, and its bytes as they came (or as they were rewritten in place).
    /// Decodes the message again: ask once.
    pub fn message(&self) -> PacketMessage<'_> {
        self.answer_ref().message()
    }

    /// The packet from its network header on, with what was rewritten so far.
    pub fn payload(&self) -> &[u8] {
        let answer = self.answer_ref();
        answer.payload().unwrap_or_else(|| answer.message().payload())
    }

    /// The packet's bytes, to be changed in place; see [`Packet::payload_mut`](crate::Packet::payload_mut).
    ///
    /// # Errors
    /// [`RewriteError`]. After one the packet's verdict is that of
    /// [`Inspector::rewrite_refused`](crate::Inspector::rewrite_refused).
    pub fn payload_mut(&mut self) -> Result<&mut [u8], RewriteError> {
        let answer = self.answer_mut();
        if answer.rewritten == Rewritten::Not {
            let message = answer.message();
            let (length, range) = (message.payload().len(), message.payload_range());
            let allowed = edits::check(&message, length);
            answer.refused = allowed.err().or(answer.refused);
            allowed?;
            answer.rewritten = match answer.datagram.get_mut() {
                Some(_) => Rewritten::InPlace(range),
                None => Rewritten::Apart(answer.message().payload().to_vec()),
            };
        }
        Ok(answer.payload_mut().expect("it was rewritten above, and an only owner stays one"))
    }

    /// Puts other bytes in the packet's place; see [`Packet::replace`](crate::Packet::replace).
    ///
    /// # Errors
    /// As [`payload_mut`](Self::payload_mut).
    pub fn replace(&mut self, bytes: &[u8]) -> Result<(), RewriteError> {
        let answer = self.answer_mut();
        let allowed = edits::check(&answer.message(), bytes.len());
        answer.refused = allowed.err().or(answer.refused);
        allowed?;
        answer.rewrite(bytes);
        Ok(())
    }

    /// What the verdict changes about the packet's connection.
    pub fn conntrack_mut(&mut self) -> &mut ConntrackEdit {
        &mut self.answer_mut().conntrack
    }

    /// Gives the packet its verdict. The worker sends it in its next turn. False if the engine has stopped, and the
    /// packet has its fallback already; that is counted ([`Stopped::late_answers`](crate::Stopped::late_answers)).
    pub fn answer(self, verdict: Verdict) -> bool {
        let answers = Arc::clone(&self.answers);
        answers.post(self.into_answer(Some(verdict)))
    }

    /// The answer, to be posted with others.
    pub(crate) fn into_answer(mut self, verdict: Option<Verdict>) -> Answer {
        let mut answer = self.open.take().expect(OPEN);
        answer.verdict = verdict;
        answer.settle();
        answer
    }

    /// The answer with what an inspector changed about the packet, beside its verdict. If that is refused, `refused`
    /// says what the packet gets; should it panic, nobody has answered.
    pub(crate) fn into_edited(
        mut self,
        verdict: Verdict,
        edits: &mut Edits,
        refused: impl FnOnce(RewriteError, Verdict) -> Verdict,
    ) -> Answer {
        let answer = self.answer_mut();
        answer.verdict = Some(verdict);
        edits.move_into(answer);
        answer.settle();
        if let Some(error) = answer.refused {
            answer.verdict = None;
            answer.verdict = Some(refused(error, verdict));
        }
        self.open.take().expect(OPEN)
    }

    pub(crate) fn answers(&self) -> &Arc<Answers> {
        &self.answers
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        if let Some(answer) = self.open.take() {
            self.answers.post(answer);
        }
    }
}

const OPEN: &str = "only `answer` and `drop` take it, and both consume the handle";
