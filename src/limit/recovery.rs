//! What is made up for: changes that met too many conflicts, what the dead left behind, and an instance that was taken for
//! dead and is not.

use std::collections::BTreeMap;
use std::time::Duration;

use super::counts::{self, Change, Counts};
use super::lease::Lease;
use super::slots::{self, Entry, Slot};
use super::upstreams::Upstream;
use super::{LedgerFailure, Limiter, TRIES};
use crate::clock::Seconds;
use crate::hub::HubLabel;
use crate::signalr::Transport;
use crate::store::Store;

/// What all worker threads hold at present.
#[derive(Debug, Default)]
pub struct Present {
    /// Connections by hub and transport.
    pub connections: Vec<(HubLabel, Transport, u64)>,
    /// Open WebSockets by pod.
    pub upstreams: BTreeMap<Upstream, u64>,
}

impl Limiter {
    /// Shows that this instance lives, makes up for what failed, and drops what the dead left behind. Call every second.
    pub fn tick(&mut self, idle: Duration, now: Seconds, store: &dyn Store) -> Present {
        // A beat alone would tell that all is well.
        if self.revive(now, store).is_ok() {
            self.make_up(now, store);
            self.sweep(idle, now, store);
        }
        let counts = Counts::load(store);
        let upstreams = self.upstreams.publish(self.instance, &counts, now, store);
        Present { connections: counts.by_hub(), upstreams }
    }

    /// Shows that this instance lives, and tries again what failed.
    fn make_up(&mut self, now: Seconds, store: &dyn Store) {
        let owed = std::mem::take(&mut self.owed);
        // Also without anything owed, for the beat.
        if counts::apply(&owed, self.instance, None, now, store).is_err() {
            self.owed = owed;
        }
        for (lease, end) in std::mem::take(&mut self.unfinished) {
            self.end(lease, end, now, store);
        }
    }

    /// Drops what the dead left behind, if that falls to this instance.
    fn sweep(&mut self, idle: Duration, now: Seconds, store: &dyn Store) {
        if !Counts::load(store).is_first(self.instance, now) {
            return;
        }
        let drop_dead = |entries: &mut Vec<Entry>, counts: &Counts| {
            entries.retain(|entry| entry.lives(counts, idle, now));
        };
        for slot in Slot::share_of(now) {
            // What meets too many conflicts waits for the next time round.
            let _ = self.edit(slot, drop_dead, now, store);
        }
    }

    /// Applies changes whose entries are written already: now, or at a later tick.
    pub(super) fn settle(&mut self, changes: Vec<Change>, now: Seconds, store: &dyn Store) {
        if !changes.is_empty() && counts::apply(&changes, self.instance, None, now, store).is_err() {
            self.owed.extend(changes);
        }
    }

    /// If the others may have taken this instance for dead, because its thread was busy or the clock was set, its numbers
    /// go and its entries may be gone: puts them back. Before anything that beats: a beat hides that there is something to put
    /// back.
    ///
    /// # Errors
    /// [`LedgerFailure`]; then nothing is changed, and the caller must not beat, either.
    pub(super) fn revive(&mut self, now: Seconds, store: &dyn Store) -> Result<(), LedgerFailure> {
        if Counts::load(store).is_alive(self.instance.get(), now) {
            return Ok(());
        }
        // Only whether there was room could be told, and nothing is asked for.
        let _ = counts::apply(&[], self.instance, None, now, store)?;
        // What is owed to rows that are gone is owed no more.
        self.owed.retain(|change| !change.is_of(self.instance));
        let unfinished = self.unfinished.iter().map(|(lease, _)| lease);
        let changes: Vec<_> =
            self.held.values().chain(unfinished).filter_map(|lease| self.put_back(lease, now, store)).collect();
        self.settle(changes, now, store);
        Ok(())
    }

    /// Writes a lease's slot anew, even if its entry is there: whoever is about to drop it for dead must look again.
    fn put_back(&self, lease: &Lease, now: Seconds, store: &dyn Store) -> Option<Change> {
        let slot = lease.sharding.slot(lease.client, lease.connection);
        for _ in 0..TRIES {
            let (mut entries, version) = slots::load(slot, store);
            let found = entries.iter().any(|entry| entry.is_of(lease, self.instance));
            if !found {
                // Before those that took over from it.
                entries.insert(0, Entry::of(lease, self.instance, now));
            }
            if slots::write(slot, &entries, version, store) {
                let stands = slots::standing(&entries)
                    .get(&lease.connection)
                    .is_some_and(|entry| entry.is_of(lease, self.instance));
                // A session's number is nobody's, and is gone only if its entry was swept.
                let uncounted = stands && !(found && lease.transport == Transport::LongPolling);
                return uncounted.then(|| Change::plus(Entry::of(lease, self.instance, now), Some(&lease.hub)));
            }
        }
        None
    }
}
