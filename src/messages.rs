//! Counts SignalR's own messages in one direction of a WebSocket, by type (HubProtocol.md of ASP.NET Core).
//!
//! First comes the handshake, always JSON and 0x1E: the client names the protocol, the hub agrees with `{}` or says why
//! not. Then messages follow in that protocol, as one stream of bytes: a WebSocket message holds one or more, the hub's
//! `{}` may be one of them, and frames and chunks cut them anywhere. A WebSocket that resumes an earlier one (stateful
//! reconnect) has no handshake and begins with a Sequence message.
//!
//! No message is kept, whatever its length. What cannot be read is left uncounted, with the reason.

mod json;
mod message_pack;

use crate::frame::{Coding, Direction, Event};
use json::{Found, Record};
use message_pack::{Malformed, Packed};

/// A type of message. The numbers are those of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// 1: calls a method.
    Invocation,
    /// 2: one item of a stream.
    StreamItem,
    /// 3: the result of a call, or the end of a stream.
    Completion,
    /// 4: calls a method that answers with a stream.
    StreamInvocation,
    /// 5: wants no more of a stream.
    CancelInvocation,
    /// 6: a sign of life.
    Ping,
    /// 7: the connection is about to be closed.
    Close,
    /// 8: what has arrived need not be kept for a resend.
    Ack,
    /// 9: what follows is resent from here on.
    Sequence,
    /// No type, or one of a later protocol.
    Other,
}

impl MessageKind {
    /// Every type, in the order of their numbers.
    pub const ALL: [Self; 10] = [
        Self::Invocation,
        Self::StreamItem,
        Self::Completion,
        Self::StreamInvocation,
        Self::CancelInvocation,
        Self::Ping,
        Self::Close,
        Self::Ack,
        Self::Sequence,
        Self::Other,
    ];

    fn of(number: u8) -> Self {
        let at = usize::from(number).checked_sub(1);
        at.and_then(|at| Self::ALL.get(at)).copied().unwrap_or(Self::Other)
    }
}

/// How messages are written. One value per WebSocket: the client's direction learns it, both use it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// The client has not said it, or nobody could read it.
    #[default]
    Pending,
    /// `json`.
    Json,
    /// `messagepack`.
    MessagePack,
    /// `blazorpack`: MessagePack's framing, with Blazor's own values in it.
    BlazorPack,
    /// Another one.
    Unknown,
}

impl Protocol {
    /// The longest name in [`Protocol::named`].
    const LONGEST: usize = 11;

    /// ASP.NET Core finds a protocol whatever the case of its name.
    fn named(name: &[u8]) -> Self {
        let known =
            [(&b"json"[..], Self::Json), (b"messagepack", Self::MessagePack), (b"blazorpack", Self::BlazorPack)];
        let found = known.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map_or(Self::Unknown, |(_, protocol)| protocol)
    }
}

/// How this direction began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Nothing complete has been read yet.
    Pending,
    /// The client asked for a protocol, or the hub agreed.
    Done,
    /// The hub refused: it answered with an `error`.
    Rejected,
    /// There was none, because an earlier WebSocket is resumed.
    Resumed,
    /// It was compressed, so nobody knows.
    Compressed,
}

/// Why messages are no longer counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// A message was compressed where it mattered: the handshake, or the rest of a hub message.
    Compressed,
    /// The protocol is not one that is known here.
    Protocol,
    /// The bytes are not SignalR.
    Malformed,
}

/// Complete messages by type. Counts saturate; messages in compressed WebSocket messages are not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageTally([u64; MessageKind::ALL.len()]);

impl MessageTally {
    /// How many messages of this type went by.
    pub fn of(&self, kind: MessageKind) -> u64 {
        self.iter().find(|(other, _)| *other == kind).map_or(0, |(_, count)| count)
    }

    /// Every type with its count.
    pub fn iter(&self) -> impl Iterator<Item = (MessageKind, u64)> {
        MessageKind::ALL.into_iter().zip(self.0)
    }

    fn add(&mut self, kind: MessageKind) {
        for (other, count) in MessageKind::ALL.into_iter().zip(&mut self.0) {
            *count = count.saturating_add(u64::from(other == kind));
        }
    }
}

/// The meter of one direction.
#[derive(Debug)]
pub struct MessageMeter {
    direction: Direction,
    stage: Stage,
    /// How the WebSocket message that is going by is coded.
    coding: Coding,
    handshake: Handshake,
    tally: MessageTally,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    /// No byte yet.
    Start,
    /// The first record, most likely the handshake.
    First(Record),
    /// The handshake is over; which protocol follows is looked up when the next byte comes.
    Agreed,
    Json(Record),
    Packed(Packed),
    Lost(Unreadable),
}

impl MessageMeter {
    /// A meter for a WebSocket that has just been opened.
    pub fn new(direction: Direction) -> Self {
        let (stage, coding, handshake) = (Stage::Start, Coding::Plain, Handshake::Pending);
        Self { direction, stage, coding, handshake, tally: MessageTally::default() }
    }

    /// Takes what the direction's [`crate::frame::FrameMeter`] reports. Both directions get the same `protocol`.
    pub fn observe(&mut self, event: &Event<'_>, protocol: &mut Protocol) {
        match event {
            Event::MessageStart(coding) => {
                self.coding = *coding;
                if *coding == Coding::Compressed && !self.is_between_messages() {
                    if self.handshake == Handshake::Pending {
                        self.handshake = Handshake::Compressed;
                    }
                    self.stage = Stage::Lost(Unreadable::Compressed);
                }
            }
            Event::Payload(payload) if self.coding == Coding::Plain => payload.read(|bytes| self.feed(bytes, protocol)),
            Event::Payload(_) | Event::Frame { .. } | Event::MessageEnd | Event::Close(_) | Event::Violation(_) => {}
        }
    }

    /// Reads the next bytes of uncompressed payload.
    pub fn feed(&mut self, bytes: &[u8], protocol: &mut Protocol) {
        let mut rest = bytes;
        while !rest.is_empty() {
            (self.stage, rest) = match self.stage {
                Stage::Start => (self.begin(rest, protocol), rest),
                Stage::First(record) => self.read_first(record, rest, protocol),
                Stage::Agreed => (by_protocol(*protocol, rest), rest),
                Stage::Json(record) => self.read_json(record, rest),
                Stage::Packed(packed) => self.read_packed(packed, rest),
                Stage::Lost(_) => return,
            };
        }
    }

    /// What has gone by so far, or since [`MessageMeter::take_tally`].
    pub fn tally(&self) -> MessageTally {
        self.tally
    }

    /// The tally, which begins anew: for counters that move while the WebSocket is open.
    pub fn take_tally(&mut self) -> MessageTally {
        std::mem::take(&mut self.tally)
    }

    /// How this direction began.
    pub fn handshake(&self) -> Handshake {
        self.handshake
    }

    /// Why messages are no longer counted, if they are not.
    pub fn unreadable(&self) -> Option<Unreadable> {
        match self.stage {
            Stage::Lost(why) => Some(why),
            Stage::Start | Stage::First(_) | Stage::Agreed | Stage::Json(_) | Stage::Packed(_) => None,
        }
    }

    /// Whether a compressed WebSocket message may be left out. Clients and hubs put whole hub messages into it, as the
    /// clients demand, so that the next plain one begins with a whole one.
    fn is_between_messages(&self) -> bool {
        match self.stage {
            Stage::Start | Stage::First(_) => false,
            Stage::Json(record) => record.is_fresh(),
            Stage::Packed(packed) => packed.is_fresh(),
            Stage::Agreed | Stage::Lost(_) => true,
        }
    }

    /// A handshake begins with a brace. Else a WebSocket of MessagePack may be resumed.
    fn begin(&mut self, bytes: &[u8], protocol: &mut Protocol) -> Stage {
        if bytes.starts_with(b"{") {
            return Stage::First(Record::default());
        }
        self.resume(Protocol::MessagePack, protocol);
        Stage::Packed(Packed::default())
    }

    fn resume(&mut self, with: Protocol, protocol: &mut Protocol) {
        self.handshake = Handshake::Resumed;
        if *protocol == Protocol::Pending {
            *protocol = with;
        }
    }

    fn read_first<'a>(&mut self, mut record: Record, bytes: &'a [u8], protocol: &mut Protocol) -> (Stage, &'a [u8]) {
        let (found, rest) = record.feed(bytes);
        let Some(found) = found else { return (Stage::First(record), rest) };
        if let Some(kind) = found.kind {
            self.resume(Protocol::Json, protocol);
            self.tally.add(kind);
            return (Stage::Json(Record::default()), rest);
        }
        self.handshake = match self.direction {
            Direction::Received => {
                *protocol = found.protocol.unwrap_or(Protocol::Unknown);
                Handshake::Done
            }
            Direction::Sent if found.has_error => Handshake::Rejected,
            Direction::Sent => Handshake::Done,
        };
        (Stage::Agreed, rest)
    }

    fn read_json<'a>(&mut self, mut record: Record, bytes: &'a [u8]) -> (Stage, &'a [u8]) {
        let (found, rest) = record.feed(bytes);
        if let Some(Found { kind, .. }) = found {
            self.tally.add(kind.unwrap_or(MessageKind::Other));
        }
        (Stage::Json(record), rest)
    }

    fn read_packed<'a>(&mut self, mut packed: Packed, bytes: &'a [u8]) -> (Stage, &'a [u8]) {
        match packed.feed(bytes) {
            Ok((kind, rest)) => {
                if let Some(kind) = kind {
                    self.tally.add(kind);
                }
                (Stage::Packed(packed), rest)
            }
            Err(Malformed) => (Stage::Lost(Unreadable::Malformed), &[]),
        }
    }
}

fn by_protocol(protocol: Protocol, next: &[u8]) -> Stage {
    match protocol {
        Protocol::Json => Stage::Json(Record::default()),
        Protocol::MessagePack | Protocol::BlazorPack => Stage::Packed(Packed::default()),
        Protocol::Pending if next.starts_with(b"{") => Stage::Json(Record::default()),
        Protocol::Pending | Protocol::Unknown => Stage::Lost(Unreadable::Protocol),
    }
}

#[cfg(test)]
mod tests;
