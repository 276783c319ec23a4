//! One WebSocket under observation: both directions' frames, who says goodbye first, and what is counted of it.

mod traffic;

use std::rc::Rc;

use crate::clock::Millis;
use crate::frame::{Close, Direction, Event, Meter, Tally};
use crate::lifecycle::{ClosedBy, Ending, code_label};
use crate::limit::Upstream;
use crate::messages::{self, Handshake, Kind, Protocol};
use crate::metrics::{Count, HubLabel};
use crate::settings::Detail;

pub use traffic::Traffic;

use traffic::HubTraffic;

/// One direction under observation.
#[derive(Debug)]
struct Observed {
    frames: Meter,
    /// Absent where messages are not to be read.
    messages: Option<messages::Meter>,
}

impl Observed {
    fn new(direction: Direction, detail: Detail) -> Self {
        let messages = (detail >= Detail::Messages).then(|| messages::Meter::new(direction));
        Self { frames: Meter::new(direction), messages }
    }

    fn handshake(&self) -> Option<Handshake> {
        self.messages.as_ref().map(messages::Meter::handshake)
    }
}

/// Milliseconds of silence after which Microsoft's clients give a hub up, unless told otherwise. Hubs ping every 15 s.
const SERVER_TIMEOUT: u64 = 30_000;

/// A WebSocket from its request to its end.
#[derive(Debug)]
pub struct Socket {
    hub: HubLabel,
    /// The pod it is counted for.
    pub upstream: Option<Upstream>,
    asked: Millis,
    opened: Option<Millis>,
    traffic: Rc<HubTraffic>,
    /// Received and sent; absent where no frame is to be touched.
    observed: Option<(Observed, Observed)>,
    protocol: Protocol,
    /// When the hub last sent something before any goodbye, to the second.
    heard: Millis,
    /// Who said goodbye first, in a Close frame or in SignalR's own words.
    goodbye: Option<Direction>,
    /// What it carried itself, for the access log: messages and bytes.
    received: (u64, u64),
    sent: (u64, u64),
    /// The first Close frame.
    close: Option<Close>,
}

impl Socket {
    /// A WebSocket that was asked for at `asked`.
    pub fn new(hub: HubLabel, asked: Millis, detail: Detail, traffic: &mut Traffic) -> Self {
        let observe = |direction| Observed::new(direction, detail);
        let observed = (detail >= Detail::Frames).then(|| (observe(Direction::Received), observe(Direction::Sent)));
        let traffic = traffic.of(&hub, asked);
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
            received: (0, 0),
            sent: (0, 0),
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

    /// How many of the next `most` bytes need not be shown to [`Socket::pass`]: payload that is only counted.
    pub fn pass_unseen(&mut self, direction: Direction, most: usize) -> usize {
        let Some((received, sent)) = &mut self.observed else { return 0 };
        let Observed { frames, messages } = match direction {
            Direction::Received => received,
            Direction::Sent => sent,
        };
        if messages.is_some() {
            return 0;
        }
        let unseen = frames.pass_unseen(most);
        let tally = frames.take_tally();
        self.carry(direction, &tally);
        unseen
    }

    /// Bytes go by.
    pub fn pass(&mut self, direction: Direction, chunk: &[u8]) -> Option<Count> {
        let (received, sent) = self.observed.as_mut()?;
        let Observed { frames, messages } = match direction {
            Direction::Received => received,
            Direction::Sent => sent,
        };
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
        let tally = frames.take_tally();
        if let Some(messages) = messages {
            let types = messages.take_tally();
            self.traffic.of(direction).add_types(&types, tally.compressed);
            closes |= types.of(Kind::Close) > 0;
        }
        self.carry(direction, &tally);
        if closes {
            self.goodbye.get_or_insert(direction);
        }
        broken.then(|| Count::WebSocketError { hub: self.hub.clone(), kind: "protocol" })
    }

    /// Adds up what has gone by.
    fn carry(&mut self, direction: Direction, tally: &Tally) {
        let own = match direction {
            Direction::Received => &mut self.received,
            Direction::Sent => {
                // The answer to a client's goodbye tells nothing of the silence before it.
                if self.goodbye.is_none() {
                    self.heard = self.traffic.now();
                }
                &mut self.sent
            }
        };
        own.0 = own.0.saturating_add(tally.messages);
        own.1 = own.1.saturating_add(tally.payload_bytes);
        self.traffic.of(direction).add(tally);
    }

    /// What the access log is to show of an open WebSocket that ended.
    pub fn log_fields(&self, ending: &Ending) -> Vec<(&'static str, String)> {
        if self.opened.is_none() {
            return Vec::new();
        }
        let mut fields = vec![("signalr_closed_by", ending.closed_by(self.goodbye).label().to_owned())];
        if self.meters() {
            fields.extend([
                ("signalr_close_code", code_label(self.close).to_owned()),
                ("signalr_messages_received", self.received.0.to_string()),
                ("signalr_bytes_received", self.received.1.to_string()),
                ("signalr_messages_sent", self.sent.0.to_string()),
                ("signalr_bytes_sent", self.sent.1.to_string()),
            ]);
        }
        fields
    }

    /// It is over.
    pub fn finish(self, ending: &Ending, now: Millis) -> Vec<Count> {
        let Self { hub, opened, observed, heard, goodbye, close, .. } = self;
        let Some(opened) = opened else { return vec![Count::WebSocketHandshakeFailed { hub, status: None }] };
        let by = ending.closed_by(goodbye);
        let milliseconds = now.since(opened);
        let mut counts = vec![
            Count::WebSocketClosed { hub: hub.clone(), by, close },
            Count::WebSocketDuration { hub: hub.clone(), milliseconds },
        ];
        // Without meters a goodbye goes unseen.
        let Some((received, sent)) = observed else { return counts };
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
