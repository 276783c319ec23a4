//! What became of the connections that the instances count, for somebody who keeps them elsewhere as well: the limits that
//! gateways share.

use super::slots::{Page, Slot};
use super::{Lease, Ledger};
use crate::hub::HubLabel;
use crate::store::Store;

/// A connection that is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id, hashed.
    pub connection: [u8; 8],
    /// Whose it is.
    pub client: [u8; 8],
    /// Where.
    pub hub: HubLabel,
    /// Where its entries are. `None` for one that has none, and is held by its counter.
    pub(super) slot: Option<Slot>,
}

/// Something that happened to connections.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// This instance counts a connection from now on that another one counted before.
    Adopted(Member),
    /// A connection has ended.
    Ended {
        /// The instance that counted it.
        counter: u32,
        /// The connection.
        member: Member,
        /// Whether it may be resumed with the same id.
        is_remembered: bool,
    },
    /// This instance has a new name. It counts nothing but what it adopts from now on.
    Reborn,
}

impl Ledger {
    /// Writes down from now on what [`Ledger::take_events`] returns.
    pub fn keep_journal(&mut self) {
        self.journal.get_or_insert_default();
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.journal.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(super) fn note(&mut self, event: impl FnOnce() -> Event) {
        if let Some(journal) = &mut self.journal {
            journal.push(event());
        }
    }

    /// The name of this instance.
    pub fn instance(&self) -> u32 {
        self.instances.own().get()
    }

    /// Its place among the instances, which it has from its first connection or tick. No two that live have the same.
    pub fn place(&self) -> Option<usize> {
        self.instances.place()
    }

    /// Whether this instance still counts a connection.
    pub fn counts(&self, member: &Member, store: &dyn Store) -> bool {
        let own = self.instance();
        let of_member = |lease: &Lease| lease.connection.0 == member.connection;
        match member.slot {
            None => self.held.values().any(of_member),
            Some(slot) => Page::load(slot, store)
                .entries()
                .any(|entry| entry.connection.0 == member.connection && entry.counter == own && !entry.is_memory()),
        }
    }
}
