//! MessagePack's framing: a length in groups of 7 bits, lowest first; then an array whose first element is the type.
//!
//! Everything behind the type is passed over by arithmetic.

use super::MessageKind;

/// A message that goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packed {
    expected: Expected,
    /// While the length is read, its low bits; then bytes of the message still to come.
    left: u64,
}

#[derive(Clone, Copy, Debug)]
enum Expected {
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
    Rest(MessageKind),
}

/// No message begins like this.
#[derive(Debug)]
pub(super) struct Malformed;

impl Default for Packed {
    fn default() -> Self {
        Self { expected: Expected::Length { shift: 0 }, left: 0 }
    }
}

impl Packed {
    /// Whether the next byte begins a message.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self.expected, Expected::Length { shift: 0 })
    }

    /// Reads to the end of the message or of `bytes`. Once a message is complete, the next may follow.
    pub(super) fn feed<'a>(&mut self, bytes: &'a [u8]) -> Result<(Option<MessageKind>, &'a [u8]), Malformed> {
        let mut rest = bytes;
        while let Some((byte, after)) = rest.split_first() {
            if let Expected::Rest(_) = self.expected {
                let most = usize::try_from(self.left).unwrap_or(usize::MAX);
                let passed = most.min(rest.len());
                rest = rest.get(passed..).unwrap_or_default();
                self.left = self.left.saturating_sub(u64::try_from(passed).unwrap_or(u64::MAX));
            } else {
                rest = after;
                self.expected = self.read(*byte)?;
            }
            if let (Expected::Rest(kind), 0) = (self.expected, self.left) {
                *self = Self::default();
                return Ok((Some(kind), rest));
            }
        }
        Ok((None, rest))
    }

    /// What comes behind `byte`.
    fn read(&mut self, byte: u8) -> Result<Expected, Malformed> {
        if let Expected::Length { shift } = self.expected {
            return self.read_length(byte, shift);
        }
        self.left = self.left.saturating_sub(1);
        let next = match (self.expected, byte) {
            (Expected::Array, 0x91..=0x9f) => Expected::Type,
            (Expected::Array, 0xdc) => Expected::ArrayLength { missing: 2 },
            (Expected::Array, 0xdd) => Expected::ArrayLength { missing: 4 },
            (Expected::ArrayLength { missing: 1 }, _) => Expected::Type,
            (Expected::ArrayLength { missing }, _) => Expected::ArrayLength { missing: missing.saturating_sub(1) },
            // A small integer is its own byte; other numbers and no numbers are greater.
            (Expected::Type, number) => return Ok(Expected::Rest(MessageKind::of(number))),
            (Expected::Array | Expected::Length { .. } | Expected::Rest(_), _) => return Err(Malformed),
        };
        if self.left == 0 { Err(Malformed) } else { Ok(next) }
    }

    fn read_length(&mut self, byte: u8, shift: u32) -> Result<Expected, Malformed> {
        const MORE: u8 = 0x80;
        /// Lengths have 31 bits: so much of them is in the fifth byte.
        const MOST_OF_FIFTH: u8 = 0x07;
        if shift == 28 && byte > MOST_OF_FIFTH {
            return Err(Malformed);
        }
        self.left |= u64::from(byte & !MORE).checked_shl(shift).unwrap_or_default();
        match (byte & MORE, self.left) {
            (0, 0) => Err(Malformed),
            (0, _) => Ok(Expected::Array),
            _ => Ok(Expected::Length { shift: shift.saturating_add(7) }),
        }
    }
}
