//! One WebSocket under observation: both directions' frames, who says goodbye first, and what is counted of it.
//!
//! Traffic is added up per hub in memory, for all WebSockets of a worker thread, and handed to Envoy once a second: a call
//! per chunk would cost more than the chunk.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::clock::Millis;
use crate::frame::{Close, Direction, Event, Meter};
use crate::lifecycle::{ClosedBy, Ending};
use crate::metrics::{Count, HubLabel, TrafficUnit};
use crate::settings::Detail;

/// What one hub's WebSockets carried since it was last handed over.
#[derive(Debug, Default)]
struct Carried {
    messages: Cell<u64>,
    bytes: Cell<u64>,
}

/// Both directions of one hub.
#[derive(Debug, Default)]
struct HubTraffic {
    received: Carried,
    sent: Carried,
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
    /// What was carried since the last call.
    pub fn take(&self) -> Vec<Count> {
        let mut counts = Vec::new();
        for (hub, traffic) in &self.0 {
            for direction in [Direction::Received, Direction::Sent] {
                let carried = traffic.of(direction);
                for (unit, amount) in
                    [(TrafficUnit::Messages, carried.messages.take()), (TrafficUnit::Bytes, carried.bytes.take())]
                {
                    if amount > 0 {
                        counts.push(Count::WebSocketTraffic { hub: hub.clone(), direction, unit, amount });
                    }
                }
            }
        }
        counts
    }
}

/// A WebSocket from its request to its end.
#[derive(Debug)]
pub struct Socket {
    hub: HubLabel,
    asked: Millis,
    opened: Option<Millis>,
    traffic: Rc<HubTraffic>,
    /// Received and sent; absent where no frame is to be touched.
    meters: Option<(Meter, Meter)>,
    first_close: Option<(Direction, Close)>,
}

impl Socket {
    /// A WebSocket that was asked for at `asked`.
    pub fn new(hub: HubLabel, asked: Millis, detail: Detail, traffic: &mut Traffic) -> Self {
        let meters = (detail >= Detail::Frames).then(|| (Meter::new(Direction::Received), Meter::new(Direction::Sent)));
        let traffic = traffic.0.entry(hub.clone()).or_default().clone();
        Self { hub, asked, opened: None, traffic, meters, first_close: None }
    }

    /// Whether it wants to see what goes by.
    pub fn meters(&self) -> bool {
        self.meters.is_some()
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

    /// Bytes go by.
    pub fn pass(&mut self, direction: Direction, chunk: &[u8]) -> Option<Count> {
        let (received, sent) = self.meters.as_mut()?;
        let meter = match direction {
            Direction::Received => received,
            Direction::Sent => sent,
        };
        let (first_close, mut broken) = (&mut self.first_close, false);
        meter.feed(chunk, |event| match event {
            Event::Close(close) => {
                first_close.get_or_insert((direction, close));
            }
            Event::Violation(_) => broken = true,
            Event::Frame { .. } | Event::MessageStart(_) | Event::Payload(_) | Event::MessageEnd => {}
        });
        let tally = meter.take_tally();
        let carried = self.traffic.of(direction);
        carried.messages.set(carried.messages.get().saturating_add(tally.messages));
        carried.bytes.set(carried.bytes.get().saturating_add(tally.payload_bytes));
        broken.then(|| Count::WebSocketError { hub: self.hub.clone(), kind: "protocol" })
    }

    /// It is over.
    pub fn finish(self, ending: &Ending, now: Millis) -> Vec<Count> {
        let Self { hub, opened, meters, first_close, .. } = self;
        let Some(opened) = opened else { return vec![Count::WebSocketHandshakeFailed { hub, status: None }] };
        let by = ending.closed_by(first_close.map(|(direction, _)| direction));
        let milliseconds = now.since(opened);
        let mut counts = vec![
            Count::WebSocketClosed { hub: hub.clone(), by, close: first_close.map(|(_, close)| close) },
            Count::WebSocketDuration { hub: hub.clone(), milliseconds },
        ];
        // Without meters a goodbye goes unseen.
        if meters.is_some()
            && first_close.is_none()
            && matches!(by, ClosedBy::Client | ClosedBy::Server | ClosedBy::Unknown)
        {
            counts.push(Count::WebSocketError { hub, kind: "abnormal_closure" });
        }
        counts
    }
}
