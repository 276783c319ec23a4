//! What an instance does once a second: it publishes its numbers, reads those of the others, and repairs what the dead left
//! behind. And what it does when it finds that the others took it for dead.
//!
//! The row of a dead instance is void, and so is what it counted. Three things are left to others:
//!
//! | left behind | repaired by | when |
//! |---|---|---|
//! | a connection that the dead counted and a living instance holds | its holder, which counts it from then on | the death is noticed |
//! | a connection that a living instance counts and the dead held | its counter, which stops counting it | as above |
//! | entries that nobody counts | the sweep of all slots; until then they take memory only | within nine minutes |
//!
//! For the first two, each instance watches the slots of the connections that it counts and does not hold, or holds and does not
//! count, and looks through them when an instance has died. The same watch ends long-polling sessions that wait too long, in ticks
//! and at the ends of others.

use std::collections::HashMap;
use std::time::Duration;

use super::instances::{Census, InstanceId, Pulse};
use super::lease::{ConnectionKey, Lease};
use super::numbers::{self, Numbers, Reach};
use super::rooms::{Ceiling, Scope};
use super::slots::{Change, Counted, Entry, Page, SLOTS, Slot, Standing};
use super::tally::{self, Series};
use super::upstreams::Upstream;
use super::{Event, Ledger, LedgerFailure, TRIES, keyed_hash};
use crate::clock::Seconds;
use crate::hub::HubLabel;
use crate::signalr::Transport;
use crate::small_map::SmallMap;
use crate::store::Store;

/// Slots that one instance looks through in a tick, at most. All slots take nine minutes of one instance, half a
/// minute of sixteen.
pub(super) const SWEEP: usize = 128;

/// How often a watched slot is looked through although nothing is known to have happened.
pub(super) const RECHECK: Duration = Duration::from_secs(60);

/// What all worker threads hold at present.
#[derive(Debug, Default)]
pub struct Present {
    /// Connections by hub and transport.
    pub connections: Vec<(HubLabel, Transport, u64)>,
    /// Open WebSockets by pod.
    pub upstreams: SmallMap<Upstream, u64>,
    /// Instances that share limits: how many reach Redis, and how many do not.
    pub redis: [u64; 2],
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
            redis: self.redis,
            connections: self.tally.numbers().clone(),
            upstreams: self.upstreams.numbers().clone(),
        };
        let row = numbers::encode(&own);
        let Census { rows, any_died, rank } = self.instances.publish(&row, now, store)?;
        let others: Vec<Numbers> = rows.iter().map(|row| numbers::decode(row)).collect();
        self.tally.published();
        self.elsewhere = elsewhere(&others);
        if any_died {
            self.watch.all_due(now);
        }
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
        for (series, many) in tally::receive(place, self.instances.own().get(), store) {
            self.tally.ended(&series, many);
            (0..many).for_each(|_| self.leave_place(&series.hub, now, store));
        }
    }

    /// The others have dropped the numbers and may have dropped the entries of the instance `old`, which this one was.
    fn begin_anew(&mut self, old: InstanceId, now: Seconds, store: &dyn Store) {
        self.note(|| Event::Reborn);
        self.tally.restart();
        self.rooms.restart();
        let unfinished = self.unfinished.iter().map(|(lease, _)| lease);
        let leases: Vec<Lease> = self.held.values().chain(unfinished).cloned().collect();
        for lease in leases {
            if let Some(counted) = self.put_back(&lease, old, now, store) {
                self.count(counted, now, store);
            }
        }
    }

    /// Counts a connection that nobody counts any more. It is there, whether there is room or not.
    fn count(&mut self, counted: Counted, now: Seconds, store: &dyn Store) {
        let series = counted.series();
        for (scope, _) in self.scopes(&series.hub) {
            let _ = self.rooms.take(&scope, Ceiling::Any, &mut self.instances, now, store);
        }
        self.tally.begun(series);
        self.note(|| Event::Adopted(counted.member));
    }

    /// Writes a lease's entry under the new name. Returns its connection if this instance is now the one to count it.
    fn put_back(&mut self, lease: &Lease, old: InstanceId, now: Seconds, store: &dyn Store) -> Option<Counted> {
        let own = self.instances.own().get();
        let of_lease =
            Counted { counter: own, is_remembered: false, member: lease.member(), transport: lease.transport };
        let Some(slot) = lease.slot else { return Some(of_lease) };
        for _ in 0..TRIES {
            let page = Page::load(slot, store);
            let of_connection = |entry: &Entry<'_>| entry.connection == lease.connection && !entry.is_memory();
            let mut counters = page.entries().filter(of_connection).map(|entry| entry.counter);
            let counter = counters.find(|counter| self.instances.is_alive(*counter, now, store));
            let counted = page.entries().find(of_connection).map(|entry| entry.counted_by(own, slot));
            let counted_by = counter.unwrap_or(own);
            let mut has_entry = false;
            let mut draft = page.draft(|entry| {
                let is_own = entry.is_of(lease, old.get());
                has_entry |= is_own;
                let owner = if is_own { own } else { entry.owner };
                if of_connection(entry) {
                    Change::To(Entry { owner, counter: counted_by, ..entry.clone() })
                } else {
                    Change::Keep
                }
            });
            if !has_entry {
                draft.push(&Entry::of(lease, own, counted_by));
            }
            if draft.write(store).is_ok() {
                self.watch.add(slot, now.plus(RECHECK));
                return counter.is_none().then(|| counted.unwrap_or(of_lease));
            }
        }
        None
    }

    /// Looks through a bounded number of slots: those that are due, and then this instance's share of all.
    fn sweep(&mut self, rank: usize, now: Seconds, store: &dyn Store) {
        let left = SWEEP.saturating_sub(self.look_through_due(SWEEP, now, store));
        let [alive, rank] = [self.instances.alive(), rank].map(|number| u32::try_from(number).unwrap_or(u32::MAX));
        for _ in 0..left {
            if let Some(slot) = Slot::numbered(self.swept.saturating_add(rank)) {
                self.sweep_slot(slot, now, store);
            }
            self.swept = self.swept.saturating_add(alive);
            if self.swept >= SLOTS {
                self.swept = 0;
                break;
            }
        }
    }

    /// Looks through slots that are due, so many at most. Returns how many there were.
    pub(super) fn look_through_due(&mut self, most: usize, now: Seconds, store: &dyn Store) -> usize {
        // First all, because one that meets conflicts is due again at once.
        let due: Vec<Slot> = std::iter::from_fn(|| self.watch.take_due(now)).take(most).collect();
        due.iter().for_each(|slot| self.sweep_slot(*slot, now, store));
        due.len()
    }

    /// Drops entries of the dead and of sessions that wait too long, and counts what this instance holds and the dead counted.
    fn sweep_slot(&mut self, slot: Slot, now: Seconds, store: &dyn Store) {
        let own = self.instances.own().get();
        let mut adopted: HashMap<ConnectionKey, Counted> = HashMap::new();
        let mut next: Option<Seconds> = None;
        let swept = self.edit(slot, now, store, |ledger, page| {
            adopted.clear();
            next = None;
            for entry in page.entries().filter(|entry| entry.owner == own && !entry.is_memory()) {
                if ledger.lives(&entry, now, store) && !ledger.instances.is_alive(entry.counter, now, store) {
                    adopted.insert(entry.connection, entry.counted_by(own, slot));
                }
            }
            page.draft(|entry| {
                if !ledger.lives(entry, now, store) {
                    return Change::Drop;
                }
                if entry.is_memory() {
                    return Change::Keep;
                }
                let is_adopted = adopted.contains_key(&entry.connection);
                let counter = if is_adopted { own } else { entry.counter };
                let due = match entry.standing {
                    Standing::Idle { since, wait } if entry.owner == own => {
                        Some(since.plus(Duration::from_secs(wait.into())))
                    }
                    _ => ((entry.owner == own) != (counter == own)).then(|| now.plus(RECHECK)),
                };
                next = next.into_iter().chain(due).min();
                if is_adopted { Change::To(Entry { counter, ..entry.clone() }) } else { Change::Keep }
            })
        });
        match swept {
            Ok(()) => adopted.into_values().for_each(|adopted| self.count(adopted, now, store)),
            // Too many conflicts: the next tick looks again.
            Err(LedgerFailure) => next = Some(now),
        }
        if let Some(next) = next {
            self.watch.add(slot, next);
        }
    }
}

/// How many connections instances have that keep no permits for them.
fn elsewhere(others: &[Numbers]) -> SmallMap<Scope, i64> {
    let mut sums = SmallMap::default();
    for numbers in others {
        for (Series { hub, .. }, number) in numbers.connections.iter() {
            let scopes = [
                (!numbers.tracked.per_hub).then(|| Scope::Hub(hub.as_str().to_owned())),
                (!numbers.tracked.total).then_some(Scope::Total),
            ];
            for scope in scopes.into_iter().flatten() {
                let number = i64::try_from(*number).unwrap_or(i64::MAX);
                sums.update(&scope, |sum: &mut i64| *sum = sum.saturating_add(number));
            }
        }
    }
    sums
}

fn add_all<K: Ord + Clone>(sums: &mut SmallMap<K, u64>, numbers: &SmallMap<K, u64>) {
    for (key, number) in numbers.iter() {
        sums.update(key, |sum| *sum = sum.saturating_add(*number));
    }
}

impl Present {
    fn sum<'a>(all: impl Iterator<Item = &'a Numbers>) -> Self {
        let mut connections: SmallMap<Series, u64> = SmallMap::default();
        let mut upstreams: SmallMap<Upstream, u64> = SmallMap::default();
        let mut redis = [0_u64; 2];
        for numbers in all {
            let [connected, away] = &mut redis;
            match numbers.redis {
                None => {}
                Some(Reach::Connected) => *connected = connected.saturating_add(1),
                Some(Reach::Away) => *away = away.saturating_add(1),
            }
            add_all(&mut connections, &numbers.connections);
            add_all(&mut upstreams, &numbers.upstreams);
        }
        let connections =
            connections.into_iter().map(|(Series { hub, transport }, sum)| (hub, transport, sum)).collect();
        Self { connections, upstreams, redis }
    }
}
