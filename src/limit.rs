//! Who may connect: concurrent connections per client, per hub and in total, and rates, exact across worker threads.
//!
//! The truth lives in Envoy's shared data, in two places. [`slots`] hold one entry per connection, next to those of the
//! same client, so that admitting one is a single compare-and-swap. [`counts`] add them up by hub and transport, and tell
//! which instances (one per worker thread and configuration) are alive: what a dead one held is dropped, because a VM that
//! traps never says that its connections ended.
//!
//! One connection is one logical SignalR connection. A WebSocket or an event stream is held by its stream; a long-polling
//! session by its polls, and for a while after each; the same id coming back replaces, and never adds.

mod attempt;
mod client;
mod counts;
mod lease;
mod rate;
mod recovery;
mod rejection;
mod slots;
mod upstreams;

use std::collections::BTreeMap;

use crate::clock::{Millis, Seconds};
use crate::http::Head;
use crate::hub::HubLabel;
use crate::settings::{Limits, Mode, OnError, Rate};
use crate::signalr::Transport;
use crate::store::{Secret, Store};

pub use client::{ClientKey, Peer};
pub use lease::{End, Lease, LedgerFailure, Opening, Session, Verdict};
pub use recovery::Present;
pub use rejection::{Limit, Rejection, reject};
pub use upstreams::{Upstream, Upstreams};

use attempt::{Attempt, changes};
use counts::{Change, Counts};
use lease::{ConnectionKey, Sharding};
use rate::{Ask, Bucket};
use slots::{Entry, Slot};

/// One VM's plugin instance. Never 0, which stands for long-polling sessions between two polls.
pub type InstanceId = std::num::NonZeroU32;

/// Holds of one id that count as one connection: the present socket, and those that broke off and were not noticed yet.
/// Any more count as connections of their own, or an `id` of some other application could stand for any number of sockets.
const MOST_HOLDS: usize = 4;

/// Attempts at a compare-and-swap. With 16 worker threads that all write at once, some thread succeeds in every round.
const TRIES: u8 = 32;

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
    next_hold: u32,
    /// Open WebSockets by pod.
    pub upstreams: Upstreams,
}

impl Limiter {
    /// An instance with nothing held. `instance` is random, so that a VM that starts anew is a stranger to its past.
    pub fn new(instance: InstanceId, secret: Secret) -> Self {
        Self {
            instance,
            secret,
            held: BTreeMap::new(),
            unfinished: Vec::new(),
            owed: Vec::new(),
            next_hold: 1,
            upstreams: Upstreams::default(),
        }
    }

    /// The key of the client that sent a request; `None` if it has none and is to be refused for that.
    pub fn client(&self, limits: &Limits, head: &Head, peer: &Peer) -> Option<ClientKey> {
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
            && !rate::ask(Ask::Take, Bucket::Negotiate, *rate, client, now, store)?
        {
            return Ok(Verdict::Over(Limit::NegotiateRate));
        }
        let mut counts = None;
        if let Some(limit) = limits.per_client {
            let attempt = Attempt::start(Slot::of(client.0), limits, now.seconds(), store);
            if attempt.has_all(client, limit) {
                return Ok(Verdict::Over(Limit::PerClient));
            }
            counts = Some(attempt.counts);
        }
        // A connect that is refused makes clients fall back to a worse transport, and stay there; a negotiate does not.
        if let Some(rate) = &limits.connect_rate
            && !rate::ask(Ask::Look, Bucket::Connect, *rate, client, now, store)?
        {
            return Ok(Verdict::Over(Limit::ConnectRate));
        }
        if limits.per_hub.is_none() && limits.total.is_none() {
            return Ok(Verdict::Within);
        }
        let counts = counts.unwrap_or_else(|| Counts::load(store));
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
        self.revive(now.seconds(), store)?;
        let mut lease = self.lease(limits, opening);
        let is_old = opening.issued.is_some_and(|issued| lease::is_older_than_unused(issued, now.seconds()));
        // Asked once, however often the rest is tried.
        let (mut rate_left, mut over_rate) = (limits.connect_rate, None);
        for _ in 0..TRIES {
            let slot = lease.sharding.slot(lease.client, lease.connection);
            let mut attempt = Attempt::start(slot, limits, now.seconds(), store);
            let holds = attempt.holds(lease.connection);
            if holds >= MOST_HOLDS {
                lease.connection = self.connection_without_id(lease.hold);
                continue;
            }
            let is_there = holds > 0 || attempt.remembers(lease.connection);
            lease.is_new = !is_there && !is_old;
            if let Some(rate) = rate_left.take_if(|_| !is_there)
                && !self.pays(rate, &mut lease, now, store)?
            {
                over_rate = Some(Limit::ConnectRate);
            }
            let over = attempt.over(&lease, limits, over_rate);
            let enforced = limits.mode == Mode::Enforce;
            if let (Some(limit), true) = (over, enforced) {
                return Ok((Verdict::Over(limit), None));
            }
            let changes = attempt.add(&lease, self.instance);
            if attempt.entries.len() > slots::MOST_ENTRIES {
                return Err(LedgerFailure);
            }
            let ceiling = (enforced && holds == 0).then_some((limits, &lease.hub));
            if let Err(full) = counts::apply(&changes, self.instance, ceiling, now.seconds(), store)? {
                return Ok((Verdict::Over(full.into()), None));
            }
            if slots::write(slot, &attempt.entries, attempt.version, store) {
                self.held.insert(lease.hold, lease.clone());
                return Ok((over.map_or(Verdict::Within, Verdict::Over), Some(lease)));
            }
            // Somebody wrote the slot in between: take the numbers back and look again.
            self.settle(changes.iter().map(Change::reversed).collect(), now.seconds(), store);
        }
        Err(LedgerFailure)
    }

    /// Whether the connect rate lets a connection in that is not there. An id whose age shows that it was connected before takes
    /// no token: a resume that is refused would be the connection's end.
    fn pays(&self, rate: Rate, lease: &mut Lease, now: Millis, store: &dyn Store) -> Result<bool, LedgerFailure> {
        let (ask, bucket) = if lease.is_new { (Ask::Take, Bucket::Connect) } else { (Ask::Look, Bucket::Trust) };
        lease.on_trust = (!lease.is_new).then_some(rate);
        rate::ask(ask, bucket, rate, lease.client, now, store)
    }

    /// The hub did not take the connection. Call before its end.
    pub fn refused(&self, lease: &Lease, now: Millis, store: &dyn Store) {
        if let Some(rate) = lease.on_trust {
            // It cannot be refused any more, and without the charge one old id would be a way round the rate.
            let take = |bucket| rate::ask(Ask::Take, bucket, rate, lease.client, now, store);
            let _ = take(Bucket::Connect).is_ok_and(|taken| taken || take(Bucket::Trust).unwrap_or(false));
        }
    }

    /// Ends a hold. An end that meets too many conflicts is made up for at the next tick.
    pub fn end(&mut self, lease: Lease, end: End, now: Seconds, store: &dyn Store) {
        let revived = self.revive(now, store);
        self.held.remove(&lease.hold);
        if revived.and_then(|()| self.try_end(&lease, end, now, store)).is_err() {
            self.unfinished.push((lease, end));
        }
    }

    /// The long-polling session `id` of a hub, as the client that sent a request may end it.
    pub fn session(&self, limits: &Limits, head: &Head, peer: &Peer, id: &[u8], hub: &HubLabel) -> Option<Session> {
        let (connection, client) = (self.connection(id), self.client(limits, head, peer)?);
        let sharding = Sharding::of(limits);
        let slot = sharding.slot(client, connection);
        let client = (sharding == Sharding::ByClient).then_some(client);
        Some(Session { slot, connection, hub: hub.clone(), client })
    }

    /// The hub has ended this long-polling session.
    pub fn delete(&mut self, session: &Session, now: Seconds, store: &dyn Store) {
        let hub = session.hub.hash();
        let of_session = |entry: &Entry| {
            entry.connection == session.connection
                && entry.transport == Transport::LongPolling
                && entry.hub == hub
                && session.client.is_none_or(|client| entry.client == client)
        };
        // What fails is swept when nobody polls it any more.
        let _ = self.revive(now, store).and_then(|()| {
            self.edit(session.slot, |entries, _| entries.retain(|entry| !of_session(entry)), now, store)
        });
    }

    fn lease(&mut self, limits: &Limits, opening: &Opening<'_>) -> Lease {
        let hold = self.next_hold;
        self.next_hold = self.next_hold.wrapping_add(1).max(1);
        let connection = match opening.id {
            Some(id) => self.connection(id),
            None => self.connection_without_id(hold),
        };
        let Opening { client, transport, hub, issued, .. } = *opening;
        let (hub, sharding) = (hub.clone(), Sharding::of(limits));
        Lease { hold, client, connection, transport, hub, sharding, is_new: true, issued, on_trust: None }
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
            let stays = match end {
                End::BetweenPolls => !taken_over,
                End::Resumable => !taken_over && lease.is_young(now),
                End::Over => false,
            };
            match entries.get_mut(place) {
                Some(entry) if stays => {
                    entry.owner = 0;
                    entry.seen = now;
                    slots::bound_memories(entries);
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
