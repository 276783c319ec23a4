//! One WebSocket under observation: both directions' frames, who says goodbye first, and what is counted of it.

mod traffic;

use std::rc::Rc;

use crate::clock::Millis;
use crate::frame::{Close, Direction, Event, FrameMeter, FrameTally, PerDirection};
use crate::hub::HubLabel;
use crate::ledger::Upstream;
use crate::lifecycle::{ClosedBy, Ending, Goodbye, code_label};
use crate::messages::{Handshake, MessageKind, MessageMeter, Protocol};
use crate::metrics::Count;
use crate::settings::Detail;

pub use traffic::Traffic;

use traffic::Carried;

/// One direction under observation.
#[derive(Debug)]
struct Observed {
    frames: FrameMeter,
    /// Absent where messages are not to be read.
    messages: Option<MessageMeter>,
    /// For the access log: complete messages, and their payload in bytes.
    carried_messages: u64,
    carried_bytes: u64,
}

impl Observed {
    fn new(direction: Direction, detail: Detail) -> Self {
        let messages = (detail >= Detail::Messages).then(|| MessageMeter::new(direction));
        Self { frames: FrameMeter::new(direction), messages, carried_messages: 0, carried_bytes: 0 }
    }

    /// What the frames carried since the last call.
    fn take_tally(&mut self) -> FrameTally {
        let tally = self.frames.take_tally();
        self.carried_messages = self.carried_messages.saturating_add(tally.messages);
        self.carried_bytes = self.carried_bytes.saturating_add(tally.payload_bytes);
        tally
    }

    fn handshake(&self) -> Option<Handshake> {
        self.messages.as_ref().map(MessageMeter::handshake)
    }
}

/// Milliseconds of silence after which Microsoft's clients give a hub up by default. Hubs ping every 15 s.
const SERVER_TIMEOUT: u64 = 30_000;

/// A WebSocket from its request to its end.
#[derive(Debug)]
pub struct Socket {
    hub: HubLabel,
    /// The pod it is counted for.
    pub upstream: Option<Upstream>,
    asked: Millis,
    opened: Option<Millis>,
    traffic: Rc<PerDirection<Carried>>,
    /// Absent where no frame is to be touched.
    observed: Option<PerDirection<Observed>>,
    protocol: Protocol,
    /// When the hub last sent something before any goodbye, to the second.
    heard: Millis,
    /// Who said goodbye first, in a Close frame or in SignalR's own words.
    goodbye: Option<Direction>,
    /// The first Close frame.
    close: Option<Close>,
}

impl Socket {
    /// A WebSocket that was asked for at `asked`.
    pub fn new(hub: HubLabel, asked: Millis, detail: Detail, traffic: &mut Traffic) -> Self {
        let observe = |direction| Observed::new(direction, detail);
        let observed = (detail >= Detail::Frames).then(|| PerDirection::new(observe));
        let traffic = traffic.of(&hub);
        let protocol = Protocol::default();
        Self {
            hub,
            upstream: None,
            asked,
            opened: None,
            traffic,
            observed,
            protocol,
            heard: asked,
            goodbye: None,
            close: None,
        }
    }

    /// Its hub.
    pub fn hub(&self) -> &HubLabel {
        &self.hub
    }

    /// Whether it wants to see what goes by.
    pub fn meters(&self) -> bool {
        self.observed.is_some()
    }

    /// The hub answered: open with 101, or not at all.
    pub fn on_answer(&mut self, status: u16, now: Millis) -> Vec<Count> {
        let hub = self.hub.clone();
        if status != 101 {
            return vec![Count::WebSocketHandshakeFailed { hub, status: Some(status) }];
        }
        self.opened = Some(now);
        let milliseconds = now.since(self.asked);
        vec![Count::WebSocketOpened(hub.clone()), Count::WebSocketHandshake { hub, milliseconds }]
    }

    /// How many of the next `most` bytes need not be shown to [`Socket::pass`]: payload that is only counted. `now` may be a
    /// second old.
    pub fn pass_unseen(&mut self, direction: Direction, most: usize, now: Millis) -> usize {
        let observed = self.observed.as_mut().map(|observed| observed.of_mut(direction));
        let Some(observed) = observed.filter(|observed| observed.messages.is_none()) else { return 0 };
        let unseen = observed.frames.pass_unseen(most);
        let tally = observed.take_tally();
        self.carry(direction, &tally, now);
        unseen
    }

    /// Reads bytes that go by. `now` may be a second old.
    pub fn pass(&mut self, direction: Direction, chunk: &[u8], now: Millis) -> Option<Count> {
        let observed = self.observed.as_mut()?.of_mut(direction);
        let Observed { frames, messages, .. } = observed;
        let (protocol, first_close, mut broken) = (&mut self.protocol, &mut self.close, false);
        let mut closes = false;
        frames.feed(chunk, |event| {
            if let Some(messages) = messages {
                messages.observe(&event, protocol);
            }
            match event {
                Event::Close(close) => {
                    closes = true;
                    first_close.get_or_insert(close);
                }
                Event::Violation(_) => broken = true,
                Event::Frame { .. } | Event::MessageStart(_) | Event::Payload(_) | Event::MessageEnd => {}
            }
        });
        let tally = observed.take_tally();
        if let Some(messages) = &mut observed.messages {
            let types = messages.take_tally();
            self.traffic.of(direction).add_types(&types, tally.compressed);
            closes |= types.of(MessageKind::Close) > 0;
        }
        self.carry(direction, &tally, now);
        if closes {
            self.goodbye.get_or_insert(direction);
        }
        broken.then(|| Count::WebSocketError { hub: self.hub.clone(), kind: "protocol" })
    }

    /// Adds up what has gone by.
    fn carry(&mut self, direction: Direction, tally: &FrameTally, now: Millis) {
        // The answer to a client's goodbye says nothing of the silence before it.
        if direction == Direction::Sent && self.goodbye.is_none() {
            self.heard = now;
        }
        self.traffic.of(direction).add(tally);
    }

    /// What the access log is to show of an open WebSocket that ended.
    pub fn log_fields(&self, ending: &Ending) -> Vec<(&'static str, String)> {
        if self.opened.is_none() {
            return Vec::new();
        }
        let mut fields = vec![("signalr_closed_by", ending.closed_by(self.goodbye()).label().to_owned())];
        if let Some(PerDirection { received, sent }) = &self.observed {
            fields.extend([
                ("signalr_close_code", code_label(self.close).to_owned()),
                ("signalr_messages_received", received.carried_messages.to_string()),
                ("signalr_bytes_received", received.carried_bytes.to_string()),
                ("signalr_messages_sent", sent.carried_messages.to_string()),
                ("signalr_bytes_sent", sent.carried_bytes.to_string()),
            ]);
        }
        fields
    }

    fn goodbye(&self) -> Goodbye {
        match (&self.observed, self.goodbye) {
            (None, _) => Goodbye::Unseen,
            (Some(_), Some(direction)) => Goodbye::Of(direction),
            (Some(_), None) => Goodbye::Nobody,
        }
    }

    /// It is over.
    pub fn finish(self, ending: &Ending, now: Millis) -> Vec<Count> {
        let by = ending.closed_by(self.goodbye());
        let Self { hub, opened, observed, heard, close, .. } = self;
        let Some(opened) = opened else { return vec![Count::WebSocketHandshakeFailed { hub, status: None }] };
        let milliseconds = now.since(opened);
        let mut counts = vec![
            Count::WebSocketClosed { hub: hub.clone(), by, close },
            Count::WebSocketDuration { hub: hub.clone(), milliseconds },
        ];
        // Without meters a goodbye goes unseen.
        let Some(PerDirection { received, sent }) = observed else { return counts };
        let refused = match (received.handshake(), sent.handshake()) {
            // A hub that heard nothing for 15 s says so in the words of a refusal.
            (Some(Handshake::Pending), Some(Handshake::Rejected)) => Some("handshake_timeout"),
            (_, Some(Handshake::Rejected)) => Some("handshake_rejected"),
            _ => None,
        };
        let broken_off = matches!(by, ClosedBy::Client | ClosedBy::Server | ClosedBy::Unknown) && close.is_none();
        let gave_up = by == ClosedBy::Client && now.since(heard) >= SERVER_TIMEOUT;
        let kinds = [refused, broken_off.then_some("abnormal_closure"), gave_up.then_some("server_timeout")];
        let kinds = kinds.into_iter().flatten();
        counts.extend(kinds.map(|kind| Count::WebSocketError { hub: hub.clone(), kind }));
        counts
    }
}

#[cfg(test)]
mod tests;
