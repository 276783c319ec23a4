//! MessagePack's framing: a length in groups of 7 bits, lowest first; then an array whose first element is the type.
//!
//! Everything behind the type is passed over by arithmetic.

use super::Kind;

/// A message that goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packed {
    step: Step,
    /// While the length is read, its low bits; then bytes of the message still to come.
    left: u64,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Length {
        /// 0, 7, 14, 21 or 28
        shift: u32,
    },
    Array,
    /// 0 < missing <= 4 bytes of the array's length
    ArrayLength {
        missing: u8,
    },
    Type,
    Rest(Kind),
}

/// No message begins like this.
#[derive(Debug)]
pub(super) struct Malformed;

impl Default for Packed {
    fn default() -> Self {
        Self { step: Step::Length { shift: 0 }, left: 0 }
    }
}

impl Packed {
    /// Whether the next byte begins a message.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self.step, Step::Length { shift: 0 })
    }

    /// Reads to the end of the message or of `bytes`. Once a message is complete, the next may follow.
    pub(super) fn feed<'a>(&mut self, bytes: &'a [u8]) -> Result<(Option<Kind>, &'a [u8]), Malformed> {
        let mut rest = bytes;
        while let Some((byte, after)) = rest.split_first() {
            if let Step::Rest(_) = self.step {
                let most = usize::try_from(self.left).unwrap_or(usize::MAX);
                let passed = most.min(rest.len());
                rest = rest.get(passed..).unwrap_or_default();
                self.left = self.left.saturating_sub(u64::try_from(passed).unwrap_or(u64::MAX));
            } else {
                rest = after;
                self.step = self.read(*byte)?;
            }
            if let (Step::Rest(kind), 0) = (self.step, self.left) {
                *self = Self::default();
                return Ok((Some(kind), rest));
            }
        }
        Ok((None, rest))
    }

    /// What comes behind `byte`.
    fn read(&mut self, byte: u8) -> Result<Step, Malformed> {
        if let Step::Length { shift } = self.step {
            return self.read_length(byte, shift);
        }
        self.left = self.left.saturating_sub(1);
        let next = match (self.step, byte) {
            (Step::Array, 0x91..=0x9f) => Step::Type,
            (Step::Array, 0xdc) => Step::ArrayLength { missing: 2 },
            (Step::Array, 0xdd) => Step::ArrayLength { missing: 4 },
            (Step::ArrayLength { missing: 1 }, _) => Step::Type,
            (Step::ArrayLength { missing }, _) => Step::ArrayLength { missing: missing.saturating_sub(1) },
            // A small integer is its own byte; other numbers and no numbers are greater.
            (Step::Type, number) => return Ok(Step::Rest(Kind::of(number))),
            (Step::Array | Step::Length { .. } | Step::Rest(_), _) => return Err(Malformed),
        };
        if self.left == 0 { Err(Malformed) } else { Ok(next) }
    }

    fn read_length(&mut self, byte: u8, shift: u32) -> Result<Step, Malformed> {
        const MORE: u8 = 0x80;
        /// Lengths have 31 bits: so much of them is in the fifth byte.
        const MOST_OF_FIFTH: u8 = 0x07;
        if shift == 28 && byte > MOST_OF_FIFTH {
            return Err(Malformed);
        }
        self.left |= u64::from(byte & !MORE).checked_shl(shift).unwrap_or_default();
        match (byte & MORE, self.left) {
            (0, 0) => Err(Malformed),
            (0, _) => Ok(Step::Array),
            _ => Ok(Step::Length { shift: shift.saturating_add(7) }),
        }
    }
}
