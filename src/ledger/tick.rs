//! What an instance does once a second: it publishes its numbers, reads those of the others, and drops what the dead left
//! behind. And what it does when it finds that the others took it for dead.

use std::collections::BTreeMap;

use super::instances::{Census, InstanceId, Pulse};
use super::lease::Lease;
use super::numbers::{self, Numbers};
use super::rooms::{Ceiling, Scope};
use super::slots::{self, Entry, Slot};
use super::tally::{self, Kind};
use super::upstreams::Upstream;
use super::{Ceilings, Ledger, LedgerFailure, TRIES, keyed_hash};
use crate::clock::Seconds;
use crate::hub::HubLabel;
use crate::signalr::Transport;
use crate::store::Store;

/// Seconds in which all slots are swept once. With the five until an instance is taken for dead: within ten.
const SWEEP: u16 = 4;

/// What all worker threads hold at present.
#[derive(Debug, Default)]
pub struct Present {
    /// Connections by hub and transport.
    pub connections: Vec<(HubLabel, Transport, u64)>,
    /// Open WebSockets by pod.
    pub upstreams: BTreeMap<Upstream, u64>,
}

impl Ledger {
    /// Shows that this instance lives, makes up for what failed, and drops what the dead left behind. Call every second.
    /// Returns what there is, unless the numbers could not be published.
    pub fn tick(&mut self, now: Seconds, store: &dyn Store) -> Option<Present> {
        self.wake(now, store).ok()?;
        for (lease, end) in std::mem::take(&mut self.unfinished) {
            if self.try_end(&lease, end, now, store).is_err() {
                self.unfinished.push((lease, end));
            }
        }
        self.tally.send_again(&mut self.instances, store);
        self.read_letters(now, store);
        self.rooms.settle(&mut self.instances, now, store);
        let own = Numbers {
            tracked: self.tracked,
            connections: self.tally.numbers().clone(),
            upstreams: self.upstreams.numbers().clone(),
        };
        let row = numbers::encode(own.tracked, &own.connections, &own.upstreams);
        let Census { rows, rank } = self.instances.publish(&row, now, store)?;
        let others: Vec<Numbers> = rows.iter().map(|row| numbers::decode(row)).collect();
        self.tally.published();
        self.elsewhere = elsewhere(&others);
        self.sweep(rank, now, store);
        Some(Present::sum(std::iter::once(&own).chain(&others)))
    }

    /// Makes sure that the others know this instance, and puts back what it holds if they took it for dead.
    ///
    /// # Errors
    /// [`LedgerFailure`]; then nothing is changed.
    pub(super) fn wake(&mut self, now: Seconds, store: &dyn Store) -> Result<(), LedgerFailure> {
        let secret = self.secret;
        let rename = |old: InstanceId| {
            let [a, b, c, d, ..] =
                keyed_hash(&secret, "instance", &[&old.get().to_be_bytes()[..], &now.to_bytes()].concat());
            InstanceId::new(u32::from_be_bytes([a, b, c, d])).unwrap_or(old)
        };
        let old = self.instances.own();
        if self.instances.pulse(now, store, rename)? == Pulse::Reborn {
            self.begin_anew(old, now, store);
        }
        Ok(())
    }

    /// Takes off what has ended elsewhere.
    fn read_letters(&mut self, now: Seconds, store: &dyn Store) {
        let Some(place) = self.instances.place() else { return };
        for (kind, many) in tally::receive(place, self.instances.own().get(), store) {
            self.tally.ended(&kind, many);
            (0..many).for_each(|_| self.leave_place(&kind.0, now, store));
        }
    }

    /// The others have dropped the numbers and may have dropped the entries of the instance `old`, which this one was.
    fn begin_anew(&mut self, old: InstanceId, now: Seconds, store: &dyn Store) {
        self.tally.restart();
        self.rooms.restart();
        let unfinished = self.unfinished.iter().map(|(lease, _)| lease);
        let leases: Vec<Lease> = self.held.values().chain(unfinished).cloned().collect();
        for lease in leases {
            if let Some(kind) = self.put_back(&lease, old, now, store) {
                self.count(kind, now, store);
            }
        }
    }

    /// Counts a connection that nobody counts any more. It is there, whether there is room or not.
    fn count(&mut self, kind: Kind, now: Seconds, store: &dyn Store) {
        for (_, scope, _) in self.scopes(&Ceilings::default(), &kind.0) {
            let _ = self.rooms.take(&scope, Ceiling::Any, &mut self.instances, now, store);
        }
        self.tally.begun(kind);
    }

    /// Writes a lease's entry under the new name. Returns its connection if this instance is now the one to count it.
    fn put_back(&mut self, lease: &Lease, old: InstanceId, now: Seconds, store: &dyn Store) -> Option<Kind> {
        let Some(slot) = lease.slot else { return Some((lease.hub.clone(), lease.transport)) };
        let own = self.instances.own().get();
        for _ in 0..TRIES {
            let (mut entries, version) = slots::load(slot, store);
            match entries.iter_mut().find(|entry| entry.is_of(lease, old.get())) {
                Some(entry) => entry.owner = own,
                // Before those that took over from it.
                None => entries.insert(0, Entry::of(lease, own, old.get())),
            }
            let mut same: Vec<_> =
                entries.iter_mut().filter(|entry| entry.connection == lease.connection && !entry.is_memory()).collect();
            let counter =
                same.iter().map(|entry| entry.counter).find(|counter| self.instances.is_alive(*counter, now, store));
            same.iter_mut().for_each(|entry| entry.counter = counter.unwrap_or(own));
            let kind = same.first().map(|entry| entry.kind());
            if slots::write(slot, &entries, version, store) {
                return kind.filter(|_| counter.is_none());
            }
        }
        None
    }

    /// Drops the entries of the dead and counts what the dead counted, in this instance's share of the slots of this second.
    fn sweep(&mut self, rank: usize, now: Seconds, store: &dyn Store) {
        let alive = self.instances.alive();
        let part = now.modulo(SWEEP);
        for slot in Slot::all().filter(|slot| slot.number() % SWEEP == part) {
            if usize::from(slot.number() / SWEEP).checked_rem(alive) == Some(rank) {
                self.sweep_slot(slot, now, store);
            }
        }
    }

    /// What meets too many conflicts waits for the next time round.
    fn sweep_slot(&mut self, slot: Slot, now: Seconds, store: &dyn Store) {
        let (before, version) = slots::load(slot, store);
        let mut after = before.clone();
        after.retain(|entry| self.lives(entry, now, store));
        let own = self.instances.own().get();
        let mut orphans = BTreeMap::new();
        for entry in after.iter_mut().filter(|entry| !entry.is_memory()) {
            if !self.instances.is_alive(entry.counter, now, store) {
                entry.counter = own;
                orphans.insert(entry.connection, entry.kind());
            }
        }
        let changed = after.len() < before.len() || !orphans.is_empty();
        if changed && slots::write(slot, &after, version, store) {
            self.follow(&before, &after, now, store);
            for kind in orphans.into_values() {
                self.count(kind, now, store);
            }
        }
    }
}

/// How many connections instances have that keep no permits for them.
fn elsewhere(others: &[Numbers]) -> BTreeMap<Scope, i64> {
    let mut sums = BTreeMap::new();
    for numbers in others {
        for ((hub, _), number) in &numbers.connections {
            let scopes = [
                (!numbers.tracked.per_hub).then(|| Scope::Hub(hub.as_str().to_owned())),
                (!numbers.tracked.total).then_some(Scope::Total),
            ];
            for scope in scopes.into_iter().flatten() {
                let sum: &mut i64 = sums.entry(scope).or_default();
                *sum = sum.saturating_add(i64::try_from(*number).unwrap_or(i64::MAX));
            }
        }
    }
    sums
}

fn add_all<K: Ord + Clone>(sums: &mut BTreeMap<K, u64>, numbers: &BTreeMap<K, u64>) {
    for (key, number) in numbers {
        let sum = sums.entry(key.clone()).or_default();
        *sum = sum.saturating_add(*number);
    }
}

impl Present {
    fn sum<'a>(all: impl Iterator<Item = &'a Numbers>) -> Self {
        let mut connections: BTreeMap<Kind, u64> = BTreeMap::new();
        let mut upstreams: BTreeMap<Upstream, u64> = BTreeMap::new();
        for numbers in all {
            add_all(&mut connections, &numbers.connections);
            add_all(&mut upstreams, &numbers.upstreams);
        }
        let connections = connections.into_iter().map(|((hub, transport), sum)| (hub, transport, sum)).collect();
        Self { connections, upstreams }
    }
}
