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
mod upstreams;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::clock::{Millis, Seconds};
use crate::metrics::HubLabel;
use crate::settings::{Limits, Mode, OnError};
use crate::signalr::Transport;
use crate::store::{Secret, Store};

pub use client::{ClientKey, Peer};
pub use rejection::{Limit, Rejection, reject};
pub use upstreams::{Upstream, Upstreams};

use counts::{Change, Counts, Full};
use slots::{Entry, Slot};

/// One VM's plugin instance. Never 0, which stands for long-polling sessions between two polls.
pub type InstanceId = std::num::NonZeroU32;

/// Holds of one id that count as one connection: the present socket, and those that broke off and were not noticed yet.
/// Any more count as connections of their own, or an `id` of some other application could stand for any number of sockets.
const MOST_HOLDS: usize = 4;

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
    unfinished: Vec<(Lease, End)>,
    /// Numbers that met too many conflicts, although their entries are written: the same.
    owed: Vec<Change>,
    /// What the last tick told, so that the next one tells what has come to nothing.
    told: BTreeSet<(HubLabel, Transport)>,
    next_hold: u32,
    /// Open WebSockets by pod.
    pub upstreams: Upstreams,
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
    is_new: bool,
}

impl Lease {
    /// Whether the connection was not there before: no next poll, and no reconnect.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// How it connects.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Where.
    pub fn hub(&self) -> &HubLabel {
        &self.hub
    }
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
        let (held, told) = (BTreeMap::new(), BTreeSet::new());
        Self {
            instance,
            secret,
            held,
            unfinished: Vec::new(),
            owed: Vec::new(),
            told,
            next_hold: 1,
            upstreams: Upstreams::default(),
        }
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
        if limits.per_client.is_none() && limits.per_hub.is_none() && limits.total.is_none() {
            return Ok(Verdict::Within);
        }
        let counts = Counts::load(store);
        if let Some(limit) = limits.per_client {
            let mut entries = slots::load(Slot::of(client.0), store).0;
            entries.retain(|entry| entry.lives(&counts, limits.long_polling_idle, now.seconds()));
            if connections_of(client, &entries).len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
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
        self.revive(now.seconds(), store);
        let mut lease = self.lease(limits, opening);
        let mut rate_left = limits.connect_rate;
        for _ in 0..TRIES {
            let slot = lease.sharding.slot(lease.client, lease.connection);
            let mut attempt = Attempt::start(slot, limits, now.seconds(), store);
            if attempt.holds(lease.connection) >= MOST_HOLDS {
                lease.connection = self.connection_without_id(lease.hold);
                continue;
            }
            let is_new = attempt.holds(lease.connection) == 0;
            let mut over = attempt.over(&lease, limits);
            if let Some(rate) = rate_left.take_if(|_| is_new)
                && !rate::take(rate::Kind::Connect, rate, lease.client, now, store)?
            {
                over.get_or_insert(Limit::ConnectRate);
            }
            let enforced = limits.mode == Mode::Enforce;
            if !enforced && is_new {
                over = over.or(attempt.counts.full(limits, &lease.hub, now.seconds()).map(Limit::from));
            }
            if let (Some(limit), true) = (over, enforced) {
                return Ok((Verdict::Over(limit), None));
            }
            let changes = attempt.add(&lease, self.instance);
            let ceiling = (enforced && is_new).then_some((limits, &lease.hub));
            if let Err(full) = counts::apply(&changes, self.instance, ceiling, now.seconds(), store)? {
                return Ok((Verdict::Over(full.into()), None));
            }
            if slots::write(slot, &attempt.entries, attempt.version, store) {
                lease.is_new = is_new;
                self.held.insert(lease.hold, lease.clone());
                return Ok((over.map_or(Verdict::Within, Verdict::Over), Some(lease)));
            }
            // Somebody wrote the slot in between: take the numbers back and look again.
            self.settle(changes.iter().map(Change::reversed).collect(), now.seconds(), store);
        }
        Err(LedgerFailure)
    }

    /// Ends a hold. An end that meets too many conflicts is made up for at the next tick.
    pub fn end(&mut self, lease: Lease, end: End, now: Seconds, store: &dyn Store) {
        self.revive(now, store);
        self.held.remove(&lease.hold);
        if self.try_end(&lease, end, now, store).is_err() {
            self.unfinished.push((lease, end));
        }
    }

    /// The hub ended this long-polling session, whoever holds it.
    pub fn delete(&mut self, limits: &Limits, client: ClientKey, id: &[u8], now: Seconds, store: &dyn Store) {
        let connection = self.connection(id);
        let slot = Sharding::of(limits).slot(client, connection);
        let of_session = |entry: &Entry| entry.connection == connection && entry.transport == Transport::LongPolling;
        let _ = self.edit(slot, |entries, _| entries.retain(|entry| !of_session(entry)), now, store);
    }

    /// Shows that this instance lives, makes up for what failed, and drops what the dead left behind. Call every second.
    /// Returns the number of connections by hub and transport.
    pub fn tick(&mut self, idle: Duration, now: Seconds, store: &dyn Store) -> Vec<(HubLabel, Transport, u64)> {
        self.revive(now, store);
        let owed = std::mem::take(&mut self.owed);
        // Also without anything owed, for the beat.
        if counts::apply(&owed, self.instance, None, now, store).is_err() {
            self.owed = owed;
        }
        for (lease, end) in std::mem::take(&mut self.unfinished) {
            self.end(lease, end, now, store);
        }
        if Counts::load(store).is_first(self.instance, now) {
            for slot in Slot::share_of(now) {
                let drop_dead = |entries: &mut Vec<Entry>, counts: &Counts| {
                    entries.retain(|entry| entry.lives(counts, idle, now));
                };
                let _ = self.edit(slot, drop_dead, now, store);
            }
        }
        let mut numbers = Counts::load(store).by_hub();
        let named: BTreeSet<_> = numbers.iter().map(|(hub, transport, _)| (hub.clone(), *transport)).collect();
        // A row goes with the instance that it belongs to, but what was told of it stays until told anew.
        numbers.extend(self.told.difference(&named).map(|(hub, transport)| (hub.clone(), *transport, 0)));
        self.told = named;
        numbers
    }

    /// Publishes the open WebSockets by pod, and returns those of all worker threads. Call after [`Limiter::tick`].
    pub fn publish_upstreams(&self, now: Seconds, store: &dyn Store) -> BTreeMap<Upstream, u64> {
        self.upstreams.publish(self.instance, &Counts::load(store), now, store)
    }

    fn lease(&mut self, limits: &Limits, opening: &Opening<'_>) -> Lease {
        let hold = self.next_hold;
        self.next_hold = self.next_hold.wrapping_add(1).max(1);
        let connection = match opening.id {
            Some(id) => self.connection(id),
            None => self.connection_without_id(hold),
        };
        let Opening { client, transport, hub, .. } = *opening;
        Lease { hold, client, connection, transport, hub: hub.clone(), sharding: Sharding::of(limits), is_new: true }
    }

    fn connection(&self, id: &[u8]) -> ConnectionKey {
        ConnectionKey(client::keyed_hash(&self.secret, "id", id))
    }

    /// Nobody else has this pair. Hashed, or one slot would get all of an instance's.
    fn connection_without_id(&self, hold: u32) -> ConnectionKey {
        let pair = (u64::from(self.instance.get()) << 32 | u64::from(hold)).to_be_bytes();
        ConnectionKey(client::keyed_hash(&self.secret, "hold", &pair))
    }

    fn try_end(&mut self, lease: &Lease, end: End, now: Seconds, store: &dyn Store) -> Result<(), LedgerFailure> {
        let instance = self.instance;
        let slot = lease.sharding.slot(lease.client, lease.connection);
        let let_go = |entries: &mut Vec<Entry>, _: &Counts| {
            let Some(place) = entries.iter().position(|entry| entry.is_of(lease, instance)) else { return };
            let taken_over =
                entries.iter().skip(place.saturating_add(1)).any(|later| later.connection == lease.connection);
            match entries.get_mut(place) {
                Some(entry) if end == End::BetweenPolls && !taken_over => {
                    entry.owner = 0;
                    entry.seen = now;
                }
                _ => drop(entries.remove(place)),
            }
        };
        self.edit(slot, let_go, now, store)
    }

    /// Changes a slot, and the numbers with it.
    fn edit(
        &mut self,
        slot: Slot,
        edit: impl Fn(&mut Vec<Entry>, &Counts),
        now: Seconds,
        store: &dyn Store,
    ) -> Result<(), LedgerFailure> {
        for _ in 0..TRIES {
            let (before, version) = slots::load(slot, store);
            if before.is_empty() {
                return Ok(());
            }
            let counts = Counts::load(store);
            let mut after = before.clone();
            edit(&mut after, &counts);
            if after == before {
                return Ok(());
            }
            if slots::write(slot, &after, version, store) {
                self.settle(changes(&before, &after, None, &counts, now), now, store);
                return Ok(());
            }
        }
        Err(LedgerFailure)
    }

    /// Applies changes whose entries are written already: now, or at a later tick.
    fn settle(&mut self, changes: Vec<Change>, now: Seconds, store: &dyn Store) {
        if !changes.is_empty() && counts::apply(&changes, self.instance, None, now, store).is_err() {
            self.owed.extend(changes);
        }
    }

    /// If the others may have taken this instance for dead, because its thread was busy or the clock was set, its numbers
    /// go and its entries may be gone: puts them back.
    fn revive(&mut self, now: Seconds, store: &dyn Store) {
        let alive = Counts::load(store).is_alive(self.instance.get(), now);
        if alive || counts::apply(&[], self.instance, None, now, store).is_err() {
            return;
        }
        // What is owed to rows that are gone is owed no more.
        self.owed.retain(|change| !change.is_of(self.instance));
        let unfinished = self.unfinished.iter().map(|(lease, _)| lease);
        let changes: Vec<_> =
            self.held.values().chain(unfinished).filter_map(|lease| self.put_back(lease, now, store)).collect();
        self.settle(changes, now, store);
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

/// One try to admit a connection: what its slot holds once the dead are out.
struct Attempt {
    now: Seconds,
    counts: Counts,
    before: Vec<Entry>,
    entries: Vec<Entry>,
    version: crate::store::Version,
}

impl Attempt {
    fn start(slot: Slot, limits: &Limits, now: Seconds, store: &dyn Store) -> Self {
        let counts = Counts::load(store);
        let (before, version) = slots::load(slot, store);
        let lives = |entry: &&Entry| entry.lives(&counts, limits.long_polling_idle, now);
        let entries = before.iter().filter(lives).cloned().collect();
        Self { now, counts, before, entries, version }
    }

    /// How many sockets and polls this connection already has.
    fn holds(&self, connection: ConnectionKey) -> usize {
        self.entries.iter().filter(|entry| entry.connection == connection).count()
    }

    fn over(&self, lease: &Lease, limits: &Limits) -> Option<Limit> {
        let limit = usize::try_from(limits.per_client?).unwrap_or(usize::MAX);
        let connections = connections_of(lease.client, &self.entries);
        (!connections.contains(&lease.connection) && connections.len() >= limit).then_some(Limit::PerClient)
    }

    /// Adds the connection, and tells what changes.
    fn add(&mut self, lease: &Lease, instance: InstanceId) -> Vec<Change> {
        // A session between two polls goes on; anything else of the same id may still be there.
        self.entries.retain(|entry| entry.connection != lease.connection || entry.owner != 0);
        self.entries.push(Entry::of(lease, instance, self.now));
        changes(&self.before, &self.entries, Some(&lease.hub), &self.counts, self.now)
    }
}

/// The client's connections, each once however many holds it has.
fn connections_of(client: ClientKey, entries: &[Entry]) -> BTreeSet<ConnectionKey> {
    entries.iter().filter(|entry| entry.client == client).map(|entry| entry.connection).collect()
}

/// What changes in the numbers when a slot changes. `label` is of the hub that a new entry is for.
fn changes(before: &[Entry], after: &[Entry], label: Option<&HubLabel>, counts: &Counts, now: Seconds) -> Vec<Change> {
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

/// Whether a request passes although the ledger failed.
pub fn passes_without_ledger(limits: &Limits) -> bool {
    match limits.on_error {
        OnError::Allow => true,
        OnError::Deny => false,
    }
}

#[cfg(test)]
mod tests;
