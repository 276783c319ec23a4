//! Payload as it goes by, without its mask (RFC 6455 section 5.3).

use std::fmt;

/// A piece of a data message's payload. It costs nothing until it is read.
#[derive(Clone, Copy)]
pub struct Payload<'a> {
    masked: &'a [u8],
    key: [u8; 4],
}

/// Bytes unmasked at a time, on the stack. A multiple of the key's length, so that each round begins with the same key.
const ROUND: usize = 256;

impl<'a> Payload<'a> {
    /// `key` is turned so that its first byte belongs to the first of `masked`; without a mask it is zero.
    pub(super) fn new(masked: &'a [u8], key: [u8; 4]) -> Self {
        Self { masked, key }
    }

    /// Hands over the bytes in order: at once when there was no mask, else some hundred at a time.
    pub fn read(self, mut reader: impl FnMut(&[u8])) {
        if self.key == [0; 4] {
            return reader(self.masked);
        }
        for masked in self.masked.chunks(ROUND) {
            let mut room = [0; ROUND];
            let Some(plain) = room.get_mut(..masked.len()) else { return };
            plain.copy_from_slice(masked);
            // Whole words first: the compiler makes wide operations of this loop, not of one over a repeated key.
            let (words, tail) = plain.as_chunks_mut::<4>();
            for word in words {
                *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(self.key)).to_ne_bytes();
            }
            for (byte, key) in tail.iter_mut().zip(self.key) {
                *byte ^= key;
            }
            reader(plain);
        }
    }
}

/// Payload belongs into no log.
impl fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.masked.len())
    }
}
