//! A small assembler for BPF: instructions as method calls, jumps to labels.
//!
//! Invariant: what it assembles is what was asked for, in order; every jump's label is placed, or assembling
//! panics (programs are fixed text of ours, not input). It checks nothing else: the kernel's verifier does. The
//! encoding is that of `Documentation/bpf/standardization/instruction-set.rst`.

/// One `struct bpf_insn`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Instruction {
    code: u8,
    /// Destination in the low four bits, source in the high ones.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A register. `R1` to `R5` carry arguments and are lost in a call, `R0` its result; `R6` to `R9` are kept, `R10` is
/// the frame pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Register {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// Width of a memory access.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Width {
    Half = 0x08,
    Word = 0x00,
    Double = 0x18,
}

/// When a jump is taken; unsigned.
#[derive(Debug, Clone, Copy)]
pub(crate) enum When {
    Greater = 0x20,
    GreaterOrEqual = 0x30,
    NotEqual = 0x50,
    Less = 0xa0,
}

/// A place to jump to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label(usize);

/// The program so far.
#[derive(Debug, Default)]
pub(crate) struct Assembler {
    instructions: Vec<Instruction>,
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    /// A label that is not placed yet.
    pub(crate) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Places a label here.
    pub(crate) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.instructions.len());
    }

    /// `to = from`
    pub(crate) fn copy(&mut self, to: Register, from: Register) {
        self.emit(ALU64 | MOV | BY_REGISTER, to, from, 0, 0);
    }

    /// `to = value`
    pub(crate) fn set(&mut self, to: Register, value: i32) {
        self.emit(ALU64 | MOV, to, Register::R0, 0, value);
    }

    /// `to += from`
    pub(crate) fn add(&mut self, to: Register, from: Register) {
        self.emit(ALU64 | ADD | BY_REGISTER, to, from, 0, 0);
    }

    /// `to += value`
    pub(crate) fn add_value(&mut self, to: Register, value: i32) {
        self.emit(ALU64 | ADD, to, Register::R0, 0, value);
    }

    /// `to *= value`
    pub(crate) fn multiply(&mut self, to: Register, value: i32) {
        self.emit(ALU64 | MULTIPLY, to, Register::R0, 0, value);
    }

    /// `to &= mask`; the mask is not negative.
    pub(crate) fn mask(&mut self, to: Register, mask: i32) {
        self.emit(ALU64 | AND, to, Register::R0, 0, mask);
    }

    /// `to <<= bits`
    pub(crate) fn shift_left(&mut self, to: Register, bits: i32) {
        self.emit(ALU64 | SHIFT_LEFT, to, Register::R0, 0, bits);
    }

    /// Turns the low `bits` from or to network order and clears those above.
    pub(crate) fn network_order(&mut self, register: Register, bits: i32) {
        self.emit(ALU32 | END | BY_REGISTER, register, Register::R0, 0, bits);
    }

    /// `to = *(base + offset)`, without sign.
    pub(crate) fn load(&mut self, width: Width, to: Register, base: Register, offset: i16) {
        self.emit(LOAD | MEMORY | width as u8, to, base, offset, 0);
    }

    /// `*(base + offset) = from`
    pub(crate) fn store(&mut self, width: Width, base: Register, offset: i16, from: Register) {
        self.emit(STORE | MEMORY | width as u8, base, from, offset, 0);
    }

    /// `*(base + offset) += from`, for many at once.
    pub(crate) fn add_atomically(&mut self, base: Register, offset: i16, from: Register) {
        self.emit(STORE | ATOMIC | Width::Double as u8, base, from, offset, i32::from(ADD));
    }

    /// `R0 = *(base + offset)`; if that was the `R0` of before, `from` is stored there.
    pub(crate) fn compare_and_store(&mut self, base: Register, offset: i16, from: Register) {
        self.emit(STORE | ATOMIC | Width::Double as u8, base, from, offset, COMPARE_AND_STORE);
    }

    /// `to` = the address of a one-element array's value.
    pub(crate) fn load_map(&mut self, to: Register, map_fd: i32) {
        let number = to as u8 | MAP_VALUE << 4;
        let first = Instruction {
            code: LOAD_DOUBLE_IMMEDIATE,
            registers: number,
            offset: 0,
            immediate: map_fd,
        };
        let second = Instruction { code: 0, registers: 0, offset: 0, immediate: 0 };
        self.instructions.extend([first, second]);
    }

    /// Jumps.
    pub(crate) fn jump(&mut self, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.emit(JUMP, Register::R0, Register::R0, 0, 0);
    }

    /// Jumps if `left` compares so with `right`.
    pub(crate) fn jump_if(&mut self, left: Register, when: When, right: Register, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.emit(JUMP | when as u8 | BY_REGISTER, left, right, 0, 0);
    }

    /// Jumps if `left` compares so with a value.
    pub(crate) fn jump_if_value(&mut self, left: Register, when: When, value: i32, label: Label) {
        self.jumps.push((self.instructions.len(), label));
        self.emit(JUMP | when as u8, left, Register::R0, 0, value);
    }

    /// Calls a helper of the kernel.
    pub(crate) fn call(&mut self, function: i32) {
        self.emit(JUMP | CALL, Register::R0, Register::R0, 0, function);
    }

    /// Returns `value`.
    pub(crate) fn give_back(&mut self, value: i32) {
        self.set(Register::R0, value);
        self.give_back_result();
    }

    /// Returns what the last call returned.
    pub(crate) fn give_back_result(&mut self) {
        self.emit(JUMP | EXIT, Register::R0, Register::R0, 0, 0);
    }

    /// The program, its jumps resolved.
    ///
    /// # Panics
    /// If a label that is jumped to was not placed, or is too far away.
    pub(crate) fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let place = self.labels[label.0].expect("every label that is jumped to is placed");
            let distance = isize::try_from(place).expect("programs are short")
                - isize::try_from(at).expect("programs are short")
                - 1;
            self.instructions[at].offset = i16::try_from(distance).expect("programs are short");
        }
        self.instructions
    }

    fn emit(&mut self, code: u8, to: Register, from: Register, offset: i16, immediate: i32) {
        let registers = to as u8 | (from as u8) << 4;
        self.instructions.push(Instruction { code, registers, offset, immediate });
    }
}

const _: () = assert!(size_of::<Instruction>() == 8);

const LOAD_DOUBLE_IMMEDIATE: u8 = 0x18;
const LOAD: u8 = 0x01;
const STORE: u8 = 0x03;
const ALU32: u8 = 0x04;
const JUMP: u8 = 0x05;
const ALU64: u8 = 0x07;

const MEMORY: u8 = 0x60;
const ATOMIC: u8 = 0xc0;
/// The operand is a register; for `END`, to network order.
const BY_REGISTER: u8 = 0x08;

const ADD: u8 = 0x00;
const MULTIPLY: u8 = 0x20;
const AND: u8 = 0x50;
const SHIFT_LEFT: u8 = 0x60;
const MOV: u8 = 0xb0;
const END: u8 = 0xd0;
const CALL: u8 = 0x80;
const EXIT: u8 = 0x90;

/// `BPF_CMPXCHG`
const COMPARE_AND_STORE: i32 = 0xf1;
/// `BPF_PSEUDO_MAP_VALUE`
const MAP_VALUE: u8 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_have_the_kernels_encoding() {
        let mut program = Assembler::default();
        let end = program.label();
        program.load(Width::Word, Register::R2, Register::R1, 4);
        program.jump_if_value(Register::R2, When::Less, 7, end);
        program.network_order(Register::R2, 16);
        program.load_map(Register::R3, 5);
        program.compare_and_store(Register::R3, 8, Register::R2);
        program.place(end);
        program.give_back(2);
        let bytes = |i: &Instruction| (i.code, i.registers, i.offset, i.immediate);
        let all: Vec<_> = program.finish().iter().map(bytes).collect();
        // As clang and bpftool show them.
        let wanted = [
            (0x61, 0x12, 4, 0),
            (0xa5, 0x02, 4, 7),
            (0xdc, 0x02, 0, 16),
            (0x18, 0x23, 0, 5),
            (0x00, 0x00, 0, 0),
            (0xdb, 0x23, 8, 0xf1),
            (0xb7, 0x00, 0, 2),
            (0x95, 0x00, 0, 0),
        ];
        assert_eq!(all, wanted);
    }
}
