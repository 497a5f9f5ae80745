//! The load's BPF program, instruction by instruction, and the maps' layout that it and [`super`] agree on.
//!
//! Invariant: it writes only within the frame that it was shown to have, and into its own maps.

use super::super::frame::{Offsets, Template};
use super::super::schedule::Schedule;
use crate::stamp::Stamp;
use crate::sys::{self, Assembler, Instruction, Register, When, Width};

/// What the program is assembled from.
#[derive(Debug)]
pub(super) struct ProgramText {
    pub(super) state: i32,
    pub(super) headers: i32,
    pub(super) slots: i32,
    pub(super) slot_mask: i32,
    pub(super) sent_at: i32,
    pub(super) sent_at_mask: i32,
    pub(super) offsets: Offsets,
    pub(super) paced: bool,
    /// The interface that frames leave by; none if they are received.
    pub(super) redirect_to: Option<i32>,
    pub(super) cuts: bool,
}

impl ProgramText {
    /// `R6` context, `R7` now, `R8` index, `R9` state; then `R3` slot, `R4` packet, `R1` due.
    pub(super) fn assemble(&self) -> Vec<Instruction> {
        use Register::{R0, R1, R2, R3, R4, R5, R6, R7, R8, R9};
        use Width::{Double, Word};
        let mut program = Assembler::default();
        let nothing_due = program.label();
        program.copy(R6, R1);
        program.load_map(R9, self.state);
        program.load(Double, R8, R9, STATE_SENT);
        program.load(Double, R2, R9, STATE_TOTAL);
        program.jump_if(R8, When::GreaterOrEqual, R2, nothing_due);
        program.call(sys::KTIME_GET_NS);
        program.copy(R7, R0);
        if self.paced {
            let begun = program.label();
            program.load(Double, R1, R9, STATE_DUE);
            program.jump_if_value(R1, When::NotEqual, 0, begun);
            program.copy(R1, R7);
            program.add_value(R1, LEAD_NS);
            program.store(Double, R9, STATE_START, R1);
            program.store(Double, R9, STATE_DUE, R1);
            program.place(begun);
            program.jump_if(R7, When::Less, R1, nothing_due);
        } else {
            program.copy(R1, R7);
        }

        program.load(Word, R4, R6, CONTEXT_DATA);
        program.load(Word, R5, R6, CONTEXT_DATA_END);
        program.copy(R2, R4);
        let end = self.offsets.stamp + Stamp::BYTES;
        program.add_value(R2, i32::try_from(end).expect("headers are short"));
        program.jump_if(R2, When::Greater, R5, nothing_due);

        program.copy(R2, R8);
        program.mask(R2, self.slot_mask);
        program.shift_left(R2, SLOT_BYTES.ilog2().cast_signed());
        program.load_map(R3, self.slots);
        program.add(R3, R2);
        if self.paced {
            program.load(Word, R2, R3, SLOT_GAP);
            program.add(R2, R1);
            program.store(Double, R9, STATE_DUE, R2);
        }
        program.copy(R2, R8);
        program.mask(R2, self.sent_at_mask);
        program.shift_left(R2, 3);
        program.load_map(R5, self.sent_at);
        program.add(R5, R2);
        program.store(Double, R5, 0, R7);
        program.copy(R2, R8);
        program.add_value(R2, 1);
        program.store(Double, R9, STATE_SENT, R2);

        self.write_packet(&mut program);
        self.hand_over(&mut program);
        program.place(nothing_due);
        program.give_back(sys::XDP_DROP);
        program.finish()
    }

    /// Ends the program with a frame that is due.
    fn hand_over(&self, program: &mut Assembler) {
        let Some(interface) = self.redirect_to else { return program.give_back(sys::XDP_PASS) };
        program.set(Register::R1, interface);
        program.set(Register::R2, 0);
        program.call(sys::REDIRECT);
        program.give_back_result();
    }

    fn write_packet(&self, program: &mut Assembler) {
        use Register::{R1, R2, R3, R4, R5, R6, R8};
        use Width::{Double, Half, Word};
        let at = self.offsets;
        let offset = |bytes: usize| i16::try_from(bytes).expect("headers are short");
        program.load_map(R5, self.headers);
        let end = at.stamp + Stamp::BYTES;
        let mut from = 0;
        while from < end {
            let (width, bytes) = match end - from {
                8.. => (Double, 8),
                4..8 => (Word, 4),
                _ => (Half, 2),
            };
            program.load(width, R2, R5, offset(from));
            program.store(width, R4, offset(from), R2);
            from += bytes;
        }
        let mut copy = |width, from, to| {
            program.load(width, R2, R3, from);
            program.store(width, R4, offset(to), R2);
        };
        copy(Word, SLOT_DESTINATION, at.destination);
        copy(Word, SLOT_FLOW, at.stamp + Stamp::FLOW);
        copy(Half, SLOT_IP_LENGTH, at.ip_length);
        copy(Half, SLOT_UDP_LENGTH, at.udp_length);
        if let Some(checksum) = at.ip_checksum {
            copy(Half, SLOT_IP_CHECKSUM, checksum);
        }
        program.copy(R2, R8);
        program.network_order(R2, 64);
        program.store(Double, R4, offset(at.stamp + Stamp::SEQUENCE), R2);
        program.network_order(R1, 64);
        program.store(Double, R4, offset(at.stamp + Stamp::SENT_NS), R1);
        if self.cuts {
            program.load(Word, R2, R3, SLOT_CUT);
            program.copy(R1, R6);
            program.call(sys::XDP_ADJUST_TAIL);
        }
    }
}

/// The schedule as the program reads it.
pub(super) fn encode_slots(template: &Template, schedule: &Schedule) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(schedule.slots().len() * SLOT_BYTES);
    for slot in schedule.slots() {
        let changes = template.changes(*slot);
        let longest = i32::try_from(template.bytes().len()).expect("frames are short");
        bytes.extend(slot.gap_ns.to_ne_bytes());
        bytes.extend(changes.destination);
        bytes.extend(changes.flow);
        bytes.extend(changes.ip_length);
        bytes.extend(changes.udp_length);
        bytes.extend(changes.ip_checksum);
        bytes.extend([0; 2]);
        bytes.extend((i32::from(changes.frame_bytes) - longest).to_ne_bytes());
        bytes.extend([0; 8]);
    }
    bytes
}

/// State: when the next packet is due, how many were sent, how many are to be, when the first was due.
const STATE_DUE: i16 = 0;
const STATE_SENT: i16 = 8;
const STATE_TOTAL: i16 = 16;
const STATE_START: i16 = 24;
pub(super) const STATE_BYTES: usize = 32;

/// From the run's beginning to its first packet.
const LEAD_NS: i32 = 2_000_000;

/// Slot, in the order of [`encode_slots`].
const SLOT_GAP: i16 = 0;
const SLOT_DESTINATION: i16 = 4;
const SLOT_FLOW: i16 = 8;
const SLOT_IP_LENGTH: i16 = 12;
const SLOT_UDP_LENGTH: i16 = 14;
const SLOT_IP_CHECKSUM: i16 = 16;
const SLOT_CUT: i16 = 20;
pub(super) const SLOT_BYTES: usize = 32;

/// Room for the longest headers and a stamp.
pub(super) const HEADER_BYTES_MAX: usize = 128;

/// `struct xdp_md`
const CONTEXT_DATA: i16 = 0;
const CONTEXT_DATA_END: i16 = 4;
