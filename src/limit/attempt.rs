//! What one look at a slot allows, and what a change of the slot changes in the numbers.

use std::collections::BTreeSet;

use super::counts::{Change, Counts, Full};
use super::lease::{ConnectionKey, Lease};
use super::slots::{self, Entry, Slot};
use super::{ClientKey, InstanceId, Limit};
use crate::clock::Seconds;
use crate::hub::HubLabel;
use crate::settings::{Limits, Mode};
use crate::store::{Store, Version};

/// One look at a slot, to admit a connection or to tell whether one would fit: what it holds once the dead are out.
pub(super) struct Attempt {
    now: Seconds,
    pub(super) counts: Counts,
    before: Vec<Entry>,
    pub(super) entries: Vec<Entry>,
    pub(super) version: Version,
}

impl Attempt {
    pub(super) fn start(slot: Slot, limits: &Limits, now: Seconds, store: &dyn Store) -> Self {
        let (before, version) = slots::load(slot, store);
        // After the slot: an instance that begins in between writes the slot anew, and whoever takes it for dead fails.
        let counts = Counts::load(store);
        let lives = |entry: &&Entry| entry.lives(&counts, limits.long_polling_idle, now);
        let entries = before.iter().filter(lives).cloned().collect();
        Self { now, counts, before, entries, version }
    }

    /// How many sockets and polls this connection already has.
    pub(super) fn holds(&self, connection: ConnectionKey) -> usize {
        self.entries.iter().filter(|entry| entry.connection == connection && !entry.is_memory()).count()
    }

    /// Whether the id was connected a moment ago.
    pub(super) fn remembers(&self, connection: ConnectionKey) -> bool {
        self.entries.iter().any(|entry| entry.connection == connection && entry.is_memory())
    }

    /// The first limit that the connection is over. The common ones only in shadow mode: else
    /// [`apply`](super::counts::apply) asks them in the same breath as it counts.
    pub(super) fn over(&self, lease: &Lease, limits: &Limits, over_rate: Option<Limit>) -> Option<Limit> {
        let has_place = self.connections_of(lease.client).contains(&lease.connection);
        let per_client = limits.per_client.filter(|limit| !has_place && self.has_all(lease.client, *limit));
        let full = || match limits.mode {
            Mode::Shadow if self.holds(lease.connection) == 0 => {
                self.counts.full(limits, &lease.hub, self.now).map(Limit::from)
            }
            Mode::Shadow | Mode::Enforce => None,
        };
        per_client.map(|_| Limit::PerClient).or(over_rate).or_else(full)
    }

    /// Whether the client has as many connections as it may have.
    pub(super) fn has_all(&self, client: ClientKey, limit: u32) -> bool {
        self.connections_of(client).len() >= usize::try_from(limit).unwrap_or(usize::MAX)
    }

    /// The client's connections, each once however many holds it has.
    fn connections_of(&self, client: ClientKey) -> BTreeSet<ConnectionKey> {
        let own = self.entries.iter().filter(|entry| entry.client == client && !entry.is_memory());
        own.map(|entry| entry.connection).collect()
    }

    /// Adds the connection, and tells what changes.
    pub(super) fn add(&mut self, lease: &Lease, instance: InstanceId) -> Vec<Change> {
        // A session between two polls goes on; anything else of the same id may still be there.
        self.entries.retain(|entry| entry.connection != lease.connection || entry.owner != 0);
        self.entries.push(Entry::of(lease, instance, self.now));
        changes(&self.before, &self.entries, Some(&lease.hub), &self.counts, self.now)
    }
}

/// What changes in the numbers when a slot changes. `label` is of the hub that a new entry is for.
pub(super) fn changes(
    before: &[Entry],
    after: &[Entry],
    label: Option<&HubLabel>,
    counts: &Counts,
    now: Seconds,
) -> Vec<Change> {
    let (old, new) = (slots::standing(before), slots::standing(after));
    // The numbers of the dead went with their beats.
    let gone = old.iter().filter(|(key, entry)| new.get(*key) != Some(*entry) && entry.is_counted(counts, now));
    let come = new.iter().filter(|(key, entry)| old.get(*key) != Some(*entry));
    let label = |entry: &Entry| label.filter(|label| label.hash() == entry.hub);
    gone.map(|(_, entry)| Change::minus((*entry).clone()))
        .chain(come.map(|(_, entry)| Change::plus((*entry).clone(), label(entry))))
        .collect()
}

impl From<Full> for Limit {
    fn from(full: Full) -> Self {
        match full {
            Full::Hub => Self::PerHub,
            Full::Total => Self::Total,
        }
    }
}
