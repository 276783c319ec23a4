//! The two directions of a WebSocket.

/// Which way bytes go, as the server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client; every frame is masked.
    Received,
    /// To the client; no frame is masked.
    Sent,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Received, Self::Sent];
}

/// One for each direction.
#[derive(Debug, Default)]
pub struct PerDirection<T> {
    /// That of what clients send.
    pub received: T,
    /// That of what hubs send.
    pub sent: T,
}

impl<T> PerDirection<T> {
    /// Makes both.
    pub fn new(make: impl Fn(Direction) -> T) -> Self {
        Self { received: make(Direction::Received), sent: make(Direction::Sent) }
    }

    /// The one of a direction.
    pub fn of(&self, direction: Direction) -> &T {
        match direction {
            Direction::Received => &self.received,
            Direction::Sent => &self.sent,
        }
    }

    /// The same, to change it.
    pub fn of_mut(&mut self, direction: Direction) -> &mut T {
        match direction {
            Direction::Received => &mut self.received,
            Direction::Sent => &mut self.sent,
        }
    }
}
