//! One frame header: gathered byte by byte, then held to RFC 6455 section 5.2.

use super::{Coding, Direction, Violation};

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// More of the data message that has begun.
    Continuation,
    /// Begins a data message of text. SignalR's Java client sends JSON as binary, its JavaScript client a MessagePack
    /// handshake as text: the kind says nothing about the protocol within.
    Text,
    /// Begins a data message of bytes.
    Binary,
    /// This side closes.
    Close,
    /// Asks for a sign of life.
    Ping,
    /// Gives one.
    Pong,
}

/// The bytes of a header that have come so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Header {
    /// 0 <= seen < end, or = end when complete
    seen: u8,
    first: u8,
    second: u8,
    length: u64,
    key: u32,
}

/// A header that a frame may have; where the frame stands among others is not its business.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub(super) opcode: Opcode,
    pub(super) is_final: bool,
    pub(super) coding: Coding,
    pub(super) length: u64,
    /// All zero without a mask, which then changes nothing.
    pub(super) key: [u8; 4],
}

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2_OR_3: u8 = 0x30;
const OPCODE: u8 = 0x0f;
const MASK: u8 = 0x80;
const SHORT_LENGTH: u8 = 0x7f;
/// Says that the length follows in two bytes; also the first length that needs them.
const TWO_BYTES: u8 = 126;
/// Says that the length follows in eight bytes.
const EIGHT_BYTES: u8 = 127;
const LONGEST_CONTROL: u64 = 125;

impl Header {
    /// Takes the next byte; whether it was the last one.
    pub(super) fn push(&mut self, byte: u8) -> bool {
        match self.seen {
            0 => self.first = byte,
            1 => {
                self.second = byte;
                let short = byte & SHORT_LENGTH;
                self.length = if short < TWO_BYTES { u64::from(short) } else { 0 };
            }
            at if at < self.key_at() => self.length = (self.length << 8) | u64::from(byte),
            _ => self.key = (self.key << 8) | u32::from(byte),
        }
        self.seen = self.seen.saturating_add(1);
        self.seen >= 2 && self.seen == self.end()
    }

    fn key_at(&self) -> u8 {
        match self.second & SHORT_LENGTH {
            TWO_BYTES => 4,
            EIGHT_BYTES => 10,
            _ => 2,
        }
    }

    fn is_masked(&self) -> bool {
        self.second & MASK != 0
    }

    fn end(&self) -> u8 {
        self.key_at().saturating_add(if self.is_masked() { 4 } else { 0 })
    }

    /// Reads the complete header of a frame that goes in `direction`.
    pub(super) fn parse(&self, direction: Direction) -> Result<Frame, Violation> {
        if self.first & RSV2_OR_3 != 0 {
            return Err(Violation::ReservedBit);
        }
        let opcode = match self.first & OPCODE {
            0x0 => Opcode::Continuation,
            0x1 => Opcode::Text,
            0x2 => Opcode::Binary,
            0x8 => Opcode::Close,
            0x9 => Opcode::Ping,
            0xa => Opcode::Pong,
            _ => return Err(Violation::ReservedOpcode),
        };
        match (direction, self.is_masked()) {
            (Direction::Received, true) | (Direction::Sent, false) => {}
            (Direction::Received, false) => return Err(Violation::Unmasked),
            (Direction::Sent, true) => return Err(Violation::Masked),
        }
        let coding = if self.first & RSV1 == 0 { Coding::Plain } else { Coding::Compressed };
        let is_final = self.first & FIN != 0;
        let frame = Frame { opcode, is_final, coding, length: self.length()?, key: self.key.to_be_bytes() };
        frame.check()?;
        Ok(frame)
    }

    fn length(&self) -> Result<u64, Violation> {
        let (least, most) = match self.second & SHORT_LENGTH {
            TWO_BYTES => (u64::from(TWO_BYTES), u64::MAX),
            EIGHT_BYTES => (0x1_0000, u64::MAX >> 1),
            _ => (0, u64::MAX),
        };
        match self.length {
            length if length < least => Err(Violation::LengthNotMinimal),
            length if length > most => Err(Violation::LengthTooLarge),
            length => Ok(length),
        }
    }
}

impl Frame {
    fn check(&self) -> Result<(), Violation> {
        match (self.opcode, self.coding) {
            (Opcode::Text | Opcode::Binary, _) | (Opcode::Continuation, Coding::Plain) => Ok(()),
            (_, Coding::Compressed) => Err(Violation::ReservedBit),
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) if !self.is_final => Err(Violation::ControlFragmented),
            (Opcode::Close | Opcode::Ping | Opcode::Pong, _) if self.length > LONGEST_CONTROL => {
                Err(Violation::ControlTooLong)
            }
            (Opcode::Close, _) if self.length == 1 => Err(Violation::CloseTruncated),
            (Opcode::Close | Opcode::Ping | Opcode::Pong, Coding::Plain) => Ok(()),
        }
    }
}
