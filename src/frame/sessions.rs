//! WebSockets between real clients and real hubs, for tests. See tests/fixtures/websocket/README.md.

use super::Direction::{self, Received, Sent};

/// One direction of a recorded WebSocket.
pub(crate) struct Session {
    pub(crate) name: &'static str,
    pub(crate) direction: Direction,
    pub(crate) bytes: &'static [u8],
}

macro_rules! session {
    ($name:literal, $direction:ident, $file:literal) => {
        Session {
            name: $name,
            direction: $direction,
            bytes: include_bytes!(concat!("../../tests/fixtures/websocket/", $file)),
        }
    };
}

/// Every recording; of each the client's side first, because it says which protocol the server will speak.
pub(crate) const ALL: [Session; 8] = [
    session!("json", Received, "json.received.bin"),
    session!("json", Sent, "json.sent.bin"),
    session!("messagepack", Received, "messagepack.received.bin"),
    session!("messagepack", Sent, "messagepack.sent.bin"),
    session!("aborted", Received, "aborted.received.bin"),
    session!("aborted", Sent, "aborted.sent.bin"),
    session!("rejected", Received, "rejected.received.bin"),
    session!("rejected", Sent, "rejected.sent.bin"),
];
