//! What all WebSockets of a worker thread carry, added up per hub in memory and handed to Envoy once a second: a call per
//! chunk would cost more than the chunk.

use std::cell::Cell;
use std::rc::Rc;

use crate::frame::{Direction, FrameTally, PerDirection};
use crate::hub::HubLabel;
use crate::messages::{MessageKind, MessageTally};
use crate::metrics::{Count, MessageType, TrafficUnit};
use crate::small_map::SmallMap;

/// What one hub's WebSockets carried since it was last handed over.
#[derive(Debug, Default)]
pub(super) struct Carried {
    messages: Cell<u64>,
    bytes: Cell<u64>,
    compressed: Cell<u64>,
    /// SignalR's own messages, in the order of [`MessageKind::ALL`].
    by_type: [Cell<u64>; MessageKind::ALL.len()],
}

impl Carried {
    /// Adds WebSocket's messages.
    pub(super) fn add(&self, frames: &FrameTally) {
        add(&self.messages, frames.messages);
        add(&self.bytes, frames.payload_bytes);
    }

    /// Adds SignalR's messages, and WebSocket's that hide them.
    pub(super) fn add_types(&self, types: &MessageTally, compressed: u64) {
        add(&self.compressed, compressed);
        for (cell, (_, amount)) in self.by_type.iter().zip(types.iter()) {
            add(cell, amount);
        }
    }

    fn take(&self, hub: &HubLabel, direction: Direction) -> impl Iterator<Item = Count> {
        let traffic = [(TrafficUnit::Messages, &self.messages), (TrafficUnit::Bytes, &self.bytes)]
            .map(|(unit, cell)| Count::WebSocketTraffic { hub: hub.clone(), direction, unit, amount: cell.take() });
        let types = MessageKind::ALL.into_iter().map(MessageType::Read).zip(&self.by_type);
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

/// The traffic of all WebSockets of a worker thread, by hub. Bounded as hub labels are.
#[derive(Debug, Default)]
pub struct Traffic(SmallMap<HubLabel, Rc<PerDirection<Carried>>>);

impl Traffic {
    /// Where a WebSocket of this hub adds what it carries.
    pub(super) fn of(&mut self, hub: &HubLabel) -> Rc<PerDirection<Carried>> {
        if let Some(traffic) = self.0.get(hub) {
            return traffic.clone();
        }
        let traffic = Rc::<PerDirection<Carried>>::default();
        self.0.insert(hub.clone(), traffic.clone());
        traffic
    }

    /// What was carried since the last call.
    pub fn take(&self) -> Vec<Count> {
        let both = |(hub, traffic): (&HubLabel, &Rc<PerDirection<Carried>>)| {
            Direction::ALL
                .into_iter()
                .flat_map(|direction| traffic.of(direction).take(hub, direction))
                .collect::<Vec<_>>()
        };
        self.0.iter().flat_map(both).collect()
    }
}
