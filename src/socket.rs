//! One WebSocket under observation: both directions' frames, who says goodbye first, and what is counted of it.
//!
//! Traffic is added up per hub in memory, for all WebSockets of a worker thread, and handed to Envoy once a second: a call
//! per chunk would cost more than the chunk.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::clock::Millis;
use crate::frame::{Close, Direction, Event, Meter, Tally};
use crate::lifecycle::{ClosedBy, Ending, code_label};
use crate::limit::Upstream;
use crate::messages::{self, Handshake, Kind, Protocol};
use crate::metrics::{Count, HubLabel, MessageType, TrafficUnit};
use crate::settings::Detail;

/// What one hub's WebSockets carried since it was last handed over.
#[derive(Debug, Default)]
struct Carried {
    messages: Cell<u64>,
    bytes: Cell<u64>,
    compressed: Cell<u64>,
    /// SignalR's own messages, in the order of [`Kind::ALL`].
    by_type: [Cell<u64>; Kind::ALL.len()],
}

impl Carried {
    fn take(&self, hub: &HubLabel, direction: Direction) -> impl Iterator<Item = Count> {
        let traffic = [(TrafficUnit::Messages, &self.messages), (TrafficUnit::Bytes, &self.bytes)]
            .map(|(unit, cell)| Count::WebSocketTraffic { hub: hub.clone(), direction, unit, amount: cell.take() });
        let types = Kind::ALL.into_iter().map(MessageType::Read).zip(&self.by_type);
        let types = types.chain([(MessageType::Compressed, &self.compressed)]).map(|(message, cell)| Count::Message {
            hub: hub.clone(),
            direction,
            message,
            amount: cell.take(),
        });
        // Most are zero, and naming a metric makes it exist.
        traffic.into_iter().chain(types.collect::<Vec<_>>()).filter(|count| !count.is_nothing())
    }
}

fn add(cell: &Cell<u64>, amount: u64) {
    cell.set(cell.get().saturating_add(amount));
}

/// Both directions of one hub.
#[derive(Debug, Default)]
struct HubTraffic {
    received: Carried,
    sent: Carried,
    /// The time, up to a second ago: asking for it at every chunk would cost more than the chunk.
    now: Cell<Millis>,
}

impl HubTraffic {
    fn of(&self, direction: Direction) -> &Carried {
        match direction {
            Direction::Received => &self.received,
            Direction::Sent => &self.sent,
        }
    }
}

/// The traffic of all WebSockets of a worker thread, by hub. Bounded as hub labels are.
#[derive(Debug, Default)]
pub struct Traffic(BTreeMap<HubLabel, Rc<HubTraffic>>);

impl Traffic {
    /// Tells the time. Call every second.
    pub fn tick(&self, now: Millis) {
        self.0.values().for_each(|traffic| traffic.now.set(now));
    }

    /// What was carried since the last call.
    pub fn take(&self) -> Vec<Count> {
        let both = |(hub, traffic): (&HubLabel, &Rc<HubTraffic>)| {
            [Direction::Received, Direction::Sent]
                .into_iter()
                .flat_map(|direction| traffic.of(direction).take(hub, direction))
                .collect::<Vec<_>>()
        };
        self.0.iter().flat_map(both).collect()
    }
}

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
        let traffic = traffic.0.entry(hub.clone()).or_default().clone();
        traffic.now.set(asked);
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
        self.carry(direction, tally);
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
            let (types, carried) = (messages.take_tally(), self.traffic.of(direction));
            add(&carried.compressed, tally.compressed);
            for (cell, (_, amount)) in carried.by_type.iter().zip(types.iter()) {
                add(cell, amount);
            }
            closes |= types.of(Kind::Close) > 0;
        }
        self.carry(direction, tally);
        if closes {
            self.goodbye.get_or_insert(direction);
        }
        broken.then(|| Count::WebSocketError { hub: self.hub.clone(), kind: "protocol" })
    }

    /// Adds up what has gone by.
    fn carry(&mut self, direction: Direction, tally: Tally) {
        let own = match direction {
            Direction::Received => &mut self.received,
            Direction::Sent => {
                // The answer to a client's goodbye tells nothing of the silence before it.
                if self.goodbye.is_none() {
                    self.heard = self.traffic.now.get();
                }
                &mut self.sent
            }
        };
        own.0 = own.0.saturating_add(tally.messages);
        own.1 = own.1.saturating_add(tally.payload_bytes);
        let carried = self.traffic.of(direction);
        add(&carried.messages, tally.messages);
        add(&carried.bytes, tally.payload_bytes);
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
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn frame(opcode: u8, text: &str) -> Vec<u8> {
        [&[0x80 | opcode, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
    }

    /// A client's frame with a mask of zeros.
    fn masked(text: &str) -> Vec<u8> {
        [&[0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0], text.as_bytes()].concat()
    }

    fn at(milliseconds: u64) -> Millis {
        Millis::since_epoch(std::time::Duration::from_millis(milliseconds))
    }

    fn told(counts: &[Count]) -> Vec<String> {
        let line = |count: &Count| format!("{} {:?}", count.stat().replace("signalr_hub=.=/chat;.;", ""), count.kind());
        counts.iter().map(line).collect()
    }

    #[test]
    fn signalr_messages_are_counted_by_type() {
        let mut traffic = Traffic::default();
        let mut socket = Socket::new(HubLabel::learned(b"/chat"), at(0), Detail::Messages, &mut traffic);
        let _ = socket.on_answer(101, at(5));
        for (direction, bytes) in [
            (Direction::Received, masked("{\"protocol\":\"json\",\"version\":1}\u{1e}")),
            (Direction::Sent, frame(1, "{}\u{1e}{\"type\":6}\u{1e}")),
            (Direction::Received, masked("{\"arguments\":[],\"target\":\"x\",\"type\":1}\u{1e}")),
            (Direction::Sent, frame(1, "{\"type\":7}\u{1e}")),
            (Direction::Received, [0x88, 0x80, 0, 0, 0, 0].to_vec()),
        ] {
            assert_eq!(socket.pass(direction, &bytes), None);
        }
        let types = |direction, kind| {
            format!("signalr_direction=.={direction};.;signalr_type=.={kind};.;signalr_gateway_messages_total Add(1)")
        };
        let traffic = told(&traffic.take());
        for expected in [types("received", "invocation"), types("sent", "ping"), types("sent", "close")] {
            assert!(traffic.contains(&expected), "{expected} is not in {traffic:?}");
        }
        assert_eq!(traffic.len(), 3 + 4, "and messages and bytes of either direction: {traffic:?}");
        // The hub said goodbye in SignalR's words, and the client's Close frame only followed.
        assert_eq!(
            told(&socket.finish(&Ending::default(), at(1_005))),
            [
                "signalr_closed_by=.=server;.;signalr_code=.=1005;.;websocket_connections_closed_total Add(1)",
                "websocket_connection_duration_milliseconds Observe(1000)"
            ]
        );
    }

    #[test]
    fn what_passes_unseen_is_counted_though_nothing_follows() {
        let mut traffic = Traffic::default();
        let mut socket = Socket::new(HubLabel::learned(b"/chat"), at(0), Detail::Frames, &mut traffic);
        assert_eq!(socket.pass(Direction::Sent, &[0x82, 5]), None);
        assert_eq!(socket.pass_unseen(Direction::Sent, 3), 3);
        let counted = |unit| format!("signalr_direction=.=sent;.;websocket_{unit}_total");
        assert_eq!(told(&traffic.take()), [format!("{} Add(3)", counted("bytes"))]);
        assert_eq!(socket.pass_unseen(Direction::Sent, 2), 2);
        let expected = [format!("{} Add(1)", counted("messages")), format!("{} Add(2)", counted("bytes"))];
        assert_eq!(told(&traffic.take()), expected);
    }

    #[test]
    fn a_refused_handshake_has_its_name() {
        let asked = masked("{\"protocol\":\"x\",\"version\":1}\u{1e}");
        let compressed = [&[0xc1], &asked[1..]].concat();
        for (asked, kind) in
            [(asked, "handshake_rejected"), (compressed, "handshake_rejected"), (Vec::new(), "handshake_timeout")]
        {
            let mut traffic = Traffic::default();
            let mut socket = Socket::new(HubLabel::learned(b"/chat"), at(0), Detail::Messages, &mut traffic);
            let _ = socket.on_answer(101, at(5));
            socket.pass(Direction::Received, &asked);
            socket.pass(Direction::Sent, &frame(1, "{\"error\":\"no\"}\u{1e}"));
            socket.pass(Direction::Sent, &frame(8, ""));
            let told = told(&socket.finish(&Ending::default(), at(10)));
            assert_eq!(told.last().unwrap(), &format!("signalr_kind=.={kind};.;websocket_errors_total Add(1)"));
        }
    }

    #[test]
    fn a_client_that_gives_a_silent_hub_up_is_told_from_one_that_leaves() {
        for (name, pings_until, by, expected) in [
            ("silent", 2_000, Direction::Received, true),
            ("silent, but the hub ends it", 2_000, Direction::Sent, false),
            ("alive", 15_000, Direction::Received, false),
        ] {
            let mut traffic = Traffic::default();
            let mut socket = Socket::new(HubLabel::learned(b"/chat"), at(0), Detail::Frames, &mut traffic);
            let _ = socket.on_answer(101, at(5));
            for now in (0..=32).map(|seconds| seconds * 1_000) {
                traffic.tick(at(now));
                if now <= pings_until {
                    socket.pass(Direction::Sent, &frame(9, ""));
                }
            }
            let goodbyes = [(Direction::Sent, frame(8, "")), (Direction::Received, vec![0x88, 0x80, 0, 0, 0, 0])];
            for (direction, goodbye) in goodbyes.iter().cycle().skip_while(|(first, _)| *first != by).take(2) {
                socket.pass(*direction, goodbye);
            }
            let told = told(&socket.finish(&Ending::default(), at(32_500)));
            let timeout = "signalr_kind=.=server_timeout;.;websocket_errors_total Add(1)".to_owned();
            assert_eq!(told.contains(&timeout), expected, "{name}: {told:?}");
        }
    }

    #[test]
    fn without_detail_no_byte_is_looked_at() {
        let mut traffic = Traffic::default();
        let mut socket = Socket::new(HubLabel::learned(b"/chat"), at(0), Detail::Connections, &mut traffic);
        let _ = socket.on_answer(101, at(5));
        assert!(!socket.meters());
        assert_eq!(socket.pass(Direction::Sent, &frame(8, "")), None);
        assert_eq!(traffic.take(), []);
        let told = told(&socket.finish(&Ending { flags: 64, details: Vec::new() }, at(10)));
        assert_eq!(
            told[0],
            "signalr_closed_by=.=server;.;signalr_code=.=none;.;websocket_connections_closed_total Add(1)"
        );
        assert_eq!(told.len(), 2, "no goodbye was seen, but none was looked for");
    }
}
