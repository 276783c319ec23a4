//! Who may connect: concurrent connections per client, per hub and in total, and rates, exact across worker threads.
//!
//! The truth lives in Envoy's shared data, in two places. [`slots`] hold one entry per connection, next to those of the
//! same client, so that admitting one is a single compare-and-swap. [`counts`] add them up by hub and transport, and tell
//! which instances (one per worker thread and configuration) are alive: what a dead one held is dropped, because a VM that
//! traps never says that its connections ended.
//!
//! One connection is one logical SignalR connection. A WebSocket or an event stream is held by its stream; a long-polling
//! session by its polls, and for a while after each; the same id coming back replaces, and never adds.

mod client;
mod counts;
mod rate;
mod rejection;
mod slots;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::{Millis, Seconds};
use crate::metrics::HubLabel;
use crate::settings::{Limits, Mode, OnError};
use crate::signalr::Transport;
use crate::store::{Secret, Store};

pub use client::{ClientKey, Peer};
pub use rejection::{Limit, Rejection, reject};

use counts::{Change, Counts, Full};
use slots::{Entry, Slot};

/// One VM's plugin instance. Never 0, which stands for long-polling sessions between two polls.
pub type InstanceId = std::num::NonZeroU32;

/// Attempts at a compare-and-swap. With 16 worker threads that all write at once, some thread succeeds in every round.
const TRIES: u8 = 32;

/// A connection id as the ledger knows it: 64 bits of a keyed hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionKey([u8; 8]);

/// What one worker thread holds.
#[derive(Debug)]
pub struct Limiter {
    instance: InstanceId,
    secret: Secret,
    /// Everything admitted here and not ended, by the number of its hold.
    held: BTreeMap<u32, Lease>,
    /// Ends that met too many conflicts: tried again at the next tick.
    unfinished: Vec<(Lease, End, Seconds)>,
    next_hold: u32,
}

/// A connection admitted here. Give it back with [`Limiter::end`].
#[must_use = "a lease that is not ended counts until its instance dies"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    hold: u32,
    client: ClientKey,
    connection: ConnectionKey,
    transport: Transport,
    hub: HubLabel,
    sharding: Sharding,
}

/// Which slot a connection stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sharding {
    /// That of its client, so that one slot has all of them.
    ByClient,
    /// That of its id: without a limit per client, thousands behind one address should not share a slot.
    ByConnection,
}

impl Sharding {
    fn of(limits: &Limits) -> Self {
        if limits.per_client.is_some() { Self::ByClient } else { Self::ByConnection }
    }

    fn slot(self, client: ClientKey, connection: ConnectionKey) -> Slot {
        match self {
            Self::ByClient => Slot::of(client.0),
            Self::ByConnection => Slot::of(connection.0),
        }
    }
}

/// A connection that wants in.
#[derive(Debug)]
pub struct Opening<'a> {
    /// Whose it is.
    pub client: ClientKey,
    /// Its id; `None` for a WebSocket that skipped negotiation.
    pub id: Option<&'a [u8]>,
    /// How it connects.
    pub transport: Transport,
    /// Where.
    pub hub: &'a HubLabel,
}

/// How a hold ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The connection is over.
    Over,
    /// A poll is over, and the next one may come.
    BetweenPolls,
}

/// What was decided about a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Within every limit.
    Within,
    /// Over this one. It passes all the same in shadow mode.
    Over(Limit),
}

/// The ledger could not be read or written in [`TRIES`] attempts.
#[derive(Debug, PartialEq, Eq)]
pub struct LedgerFailure;

impl Limiter {
    /// An instance with nothing held. `instance` is random, so that a VM that starts anew is a stranger to its past.
    pub fn new(instance: InstanceId, secret: Secret) -> Self {
        Self { instance, secret, held: BTreeMap::new(), unfinished: Vec::new(), next_hold: 1 }
    }

    /// The key of the client that sent a request.
    pub fn client(&self, limits: &Limits, head: &crate::http::Head, peer: &Peer) -> ClientKey {
        client::key(&limits.client, head, peer, &self.secret)
    }

    /// Whether a client may negotiate: its rate, and whether a connection more would fit.
    ///
    /// # Errors
    /// [`LedgerFailure`].
    pub fn negotiate(
        &self,
        limits: &Limits,
        client: ClientKey,
        hub: &HubLabel,
        now: Millis,
        store: &dyn Store,
    ) -> Result<Verdict, LedgerFailure> {
        if let Some(rate) = &limits.negotiate_rate
            && !rate::take(rate::Kind::Negotiate, *rate, client, now, store)?
        {
            return Ok(Verdict::Over(Limit::NegotiateRate));
        }
        let counts = Counts::load(store);
        if let Some(limit) = limits.per_client {
            let entries = slots::load(Slot::of(client.0), store).0;
            let alive = entries.iter().filter(|entry| entry.lives(&counts, limits.long_polling_idle, now.seconds()));
            if alive.filter(|entry| entry.client == client).count() >= usize::try_from(limit).unwrap_or(usize::MAX) {
                return Ok(Verdict::Over(Limit::PerClient));
            }
        }
        Ok(counts.full(limits, hub, now.seconds()).map_or(Verdict::Within, |full| Verdict::Over(full.into())))
    }

    /// Admits a connection, or tells which limit it is over. In shadow mode it is admitted all the same.
    ///
    /// # Errors
    /// [`LedgerFailure`]; then nothing is held.
    pub fn connect(
        &mut self,
        limits: &Limits,
        opening: &Opening<'_>,
        now: Millis,
        store: &dyn Store,
    ) -> Result<(Verdict, Option<Lease>), LedgerFailure> {
        let lease = self.lease(limits, opening);
        let slot = lease.sharding.slot(lease.client, lease.connection);
        let mut rate_left = limits.connect_rate;
        for _ in 0..TRIES {
            let mut attempt = Attempt::start(&lease, slot, limits, now.seconds(), store);
            if let Some(rate) = rate_left.take_if(|_| attempt.replaced.is_none())
                && !rate::take(rate::Kind::Connect, rate, lease.client, now, store)?
            {
                attempt.over.get_or_insert(Limit::ConnectRate);
            }
            let enforced = limits.mode == Mode::Enforce;
            if !enforced && attempt.replaced.is_none() {
                let full = Counts::load(store).full(limits, &lease.hub, now.seconds());
                attempt.over = attempt.over.or(full.map(Limit::from));
            }
            if let (Some(limit), true) = (attempt.over, enforced) {
                return Ok((Verdict::Over(limit), None));
            }
            let changes = attempt.changes(self.instance);
            let ceiling = (enforced && attempt.replaced.is_none()).then_some((limits, &lease.hub));
            match counts::apply(&changes, self.instance, ceiling, now.seconds(), store)? {
                Ok(()) => {}
                Err(full) => return Ok((Verdict::Over(full.into()), None)),
            }
            if attempt.write(self.instance, store) {
                self.held.insert(lease.hold, lease.clone());
                return Ok((attempt.over.map_or(Verdict::Within, Verdict::Over), Some(lease)));
            }
            // Somebody wrote the slot in between: take the numbers back and look again.
            let back: Vec<_> = changes.iter().map(Change::reversed).collect();
            let _ = counts::apply(&back, self.instance, None, now.seconds(), store)?;
        }
        Err(LedgerFailure)
    }

    /// Ends a hold. An end that meets too many conflicts is made up for at the next tick.
    pub fn end(&mut self, lease: Lease, end: End, now: Seconds, store: &dyn Store) {
        self.held.remove(&lease.hold);
        if self.try_end(&lease, end, now, store).is_err() {
            self.unfinished.push((lease, end, now));
        }
    }

    /// The client or the hub ended this connection, whoever holds it.
    pub fn delete(&mut self, limits: &Limits, client: ClientKey, id: &[u8], now: Seconds, store: &dyn Store) {
        let connection = self.connection(id);
        let slot = Sharding::of(limits).slot(client, connection);
        let _ = self.remove(slot, |entry| entry.connection == connection, now, store);
    }

    /// Shows that this instance lives, makes up for what failed, and drops what the dead left behind. Call every second.
    /// Returns the number of connections by hub and transport.
    pub fn tick(&mut self, idle: Duration, now: Seconds, store: &dyn Store) -> Vec<(HubLabel, Transport, u64)> {
        let known = Counts::load(store).knows(self.instance);
        let beat = counts::apply(&[], self.instance, None, now, store);
        if beat.is_ok() && !known {
            self.register_again(now, store);
        }
        for (lease, end, at) in std::mem::take(&mut self.unfinished) {
            self.end(lease, end, at, store);
        }
        let counts = Counts::load(store);
        if counts.is_first(self.instance, now) {
            for slot in Slot::share_of(now) {
                let _ = self.remove(slot, |entry| !entry.lives(&counts, idle, now), now, store);
            }
        }
        counts.by_hub()
    }

    fn lease(&mut self, limits: &Limits, opening: &Opening<'_>) -> Lease {
        let hold = self.next_hold;
        self.next_hold = self.next_hold.wrapping_add(1).max(1);
        let connection = match opening.id {
            Some(id) => self.connection(id),
            // Nobody else has this pair.
            None => ConnectionKey((u64::from(self.instance.get()) << 32 | u64::from(hold)).to_be_bytes()),
        };
        let Opening { client, transport, hub, .. } = *opening;
        Lease { hold, client, connection, transport, hub: hub.clone(), sharding: Sharding::of(limits) }
    }

    fn connection(&self, id: &[u8]) -> ConnectionKey {
        ConnectionKey(client::keyed_hash(&self.secret, "id", id))
    }

    fn try_end(&self, lease: &Lease, end: End, now: Seconds, store: &dyn Store) -> Result<(), LedgerFailure> {
        let slot = lease.sharding.slot(lease.client, lease.connection);
        let ours = |entry: &Entry| {
            entry.connection == lease.connection && entry.hold == lease.hold && entry.owner == self.instance.get()
        };
        if end == End::Over {
            return self.remove(slot, ours, now, store);
        }
        for _ in 0..TRIES {
            let (mut entries, version) = slots::load(slot, store);
            let Some(entry) = entries.iter_mut().find(|entry| ours(entry)) else { return Ok(()) };
            entry.owner = 0;
            entry.seen = now;
            if slots::write(slot, &entries, version, store) {
                return Ok(());
            }
        }
        Err(LedgerFailure)
    }

    /// Removes the entries that `gone` names, and their numbers.
    fn remove(
        &self,
        slot: Slot,
        gone: impl Fn(&Entry) -> bool,
        now: Seconds,
        store: &dyn Store,
    ) -> Result<(), LedgerFailure> {
        for _ in 0..TRIES {
            let (mut entries, version) = slots::load(slot, store);
            let removed: Vec<Entry> = entries.extract_if(.., |entry| gone(entry)).collect();
            if removed.is_empty() {
                return Ok(());
            }
            if slots::write(slot, &entries, version, store) {
                let changes: Vec<_> = removed.into_iter().map(Change::minus).collect();
                return counts::apply(&changes, self.instance, None, now, store).map(|_| ());
            }
        }
        Err(LedgerFailure)
    }

    /// The others took this instance for dead while its thread was busy, and dropped what it held: put it back.
    fn register_again(&self, now: Seconds, store: &dyn Store) {
        for lease in self.held.values() {
            let slot = lease.sharding.slot(lease.client, lease.connection);
            for _ in 0..TRIES {
                let (mut entries, version) = slots::load(slot, store);
                if entries.iter().any(|entry| entry.connection == lease.connection) {
                    break;
                }
                let entry = Entry::of(lease, self.instance, now);
                let change = Change::plus(entry.clone(), &lease.hub);
                entries.push(entry);
                if slots::write(slot, &entries, version, store) {
                    let _ = counts::apply(&[change], self.instance, None, now, store);
                    break;
                }
            }
        }
    }
}

/// One try to admit a connection: what its slot holds, and what will change.
struct Attempt<'a> {
    lease: &'a Lease,
    slot: Slot,
    now: Seconds,
    entries: Vec<Entry>,
    version: crate::store::Version,
    /// Entries of the dead, which leave with this write.
    dropped: Vec<Entry>,
    /// The entry of the same id, which this one replaces.
    replaced: Option<Entry>,
    over: Option<Limit>,
}

impl<'a> Attempt<'a> {
    fn start(lease: &'a Lease, slot: Slot, limits: &Limits, now: Seconds, store: &dyn Store) -> Self {
        let counts = Counts::load(store);
        let (mut entries, version) = slots::load(slot, store);
        let dropped = entries.extract_if(.., |entry| !entry.lives(&counts, limits.long_polling_idle, now)).collect();
        let replaced = entries.extract_if(.., |entry| entry.connection == lease.connection).next();
        let others = entries.iter().filter(|entry| entry.client == lease.client).count();
        let full = limits.per_client.is_some_and(|limit| others >= usize::try_from(limit).unwrap_or(usize::MAX));
        let over = (full && replaced.is_none()).then_some(Limit::PerClient);
        Self { lease, slot, now, entries, version, dropped, replaced, over }
    }

    fn changes(&self, instance: InstanceId) -> Vec<Change> {
        let entry = Entry::of(self.lease, instance, self.now);
        let gone = self.dropped.iter().chain(&self.replaced).cloned().map(Change::minus);
        gone.chain([Change::plus(entry, &self.lease.hub)]).collect()
    }

    fn write(&mut self, instance: InstanceId, store: &dyn Store) -> bool {
        self.entries.push(Entry::of(self.lease, instance, self.now));
        slots::write(self.slot, &self.entries, self.version, store)
    }
}

impl From<Full> for Limit {
    fn from(full: Full) -> Self {
        match full {
            Full::Hub => Self::PerHub,
            Full::Total => Self::Total,
        }
    }
}

/// Whether a request passes although the ledger failed.
pub fn passes_without_ledger(limits: &Limits) -> bool {
    match limits.on_error {
        OnError::Allow => true,
        OnError::Deny => false,
    }
}

#[cfg(test)]
mod tests;
