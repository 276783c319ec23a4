//! How a fuzz target takes its input apart.

/// The last bytes of the input choose; the others are the stream. Last, so that recorded streams can be inputs.
pub struct Input<'a> {
    /// Chooses directions, protocols and the like.
    pub choice: u8,
    /// The stream.
    pub stream: &'a [u8],
    random: u32,
}

impl<'a> Input<'a> {
    /// Splits `bytes`, if there are enough.
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        let (rest, seed) = bytes.split_last_chunk::<4>()?;
        let (choice, stream) = rest.split_last()?;
        // Xorshift stays at zero for ever.
        let random = u32::from_le_bytes(*seed).max(1);
        Some(Self { choice: *choice, stream, random })
    }

    /// The stream in pieces: short ones, long ones or both, as the input chooses.
    pub fn cut(&self) -> impl Iterator<Item = &'a [u8]> {
        let (mut rest, mut random) = (self.stream, self.random);
        let longest = [1, 3, 17, 300][random as usize % 4];
        std::iter::from_fn(move || {
            random ^= random << 13;
            random ^= random >> 17;
            random ^= random << 5;
            let length = rest.len().min(random as usize % (longest + 1));
            let piece = rest.split_off(..length)?;
            (!rest.is_empty() || !piece.is_empty()).then_some(piece)
        })
    }
}
