//! Who is connected: every connection of one Envoy process, over all its worker threads.
//!
//! One connection is one logical SignalR connection. A WebSocket or an event stream is held by its stream; a long-polling
//! session by its polls, and for a while after each; the same id coming back replaces, and never adds.
//!
//! | what | where | written by |
//! |---|---|---|
//! | which instances live, and how many connections each counts | [`instances`], [`tally`] | each its own row, once a second |
//! | which connections a client has, and which ids are in use | [`slots`] | a connect and an end: one read and one write each |
//! | room under `per_hub` and `total` | [`rooms`] | far from the limit one connect in many, near it each |
//!
//! Nothing is counted twice and nothing is owed: an instance that dies takes what it counted with it.

mod instances;
mod lease;
mod numbers;
mod rooms;
mod slots;
mod tally;
mod tick;
mod upstreams;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::clock::Seconds;
use crate::hub::HubLabel;
use crate::signalr::Transport;
use crate::store::{Secret, Store, Version};

pub use instances::InstanceId;
pub use lease::{End, Lease, LedgerFailure, Opening, Session, Sharding};
pub use numbers::Tracked;
pub use tick::Present;
pub use upstreams::{Upstream, Upstreams};

use instances::Instances;
use lease::ConnectionKey;
use rooms::{Ceiling, Rooms, Scope};
use slots::{Entry, Slot, Standing};
use tally::Tally;

/// Holds of one id that count as one connection: the present socket, and those that broke off and were not noticed yet.
/// Any more count as connections of their own, or an `id` of some other application could stand for any number of sockets.
pub(crate) const MOST_HOLDS: usize = 4;

/// Attempts at a compare-and-swap. With 16 worker threads that all write at once, some thread succeeds in every round.
pub(crate) const TRIES: u8 = 32;

/// What one worker thread holds.
#[derive(Debug)]
pub struct Ledger {
    secret: Secret,
    tracked: Tracked,
    instances: Instances,
    tally: Tally,
    rooms: Rooms,
    /// Connections of instances that keep no permits, as of the last tick.
    elsewhere: BTreeMap<Scope, i64>,
    /// Everything admitted here and not ended, by the number of its hold.
    held: BTreeMap<u32, Lease>,
    /// Ends that met too many conflicts: tried again at the next tick.
    unfinished: Vec<(Lease, End)>,
    next_hold: u32,
    /// Open WebSockets by pod.
    pub upstreams: Upstreams,
}

/// How many connections there may be, in plain numbers. `None` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ceilings {
    /// Of one client.
    pub per_client: Option<u32>,
    /// Of one hub.
    pub per_hub: Option<u32>,
    /// Of all.
    pub total: Option<u32>,
}

/// A ceiling that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// [`Ceilings::per_client`].
    PerClient,
    /// [`Ceilings::per_hub`].
    PerHub,
    /// [`Ceilings::total`].
    Total,
}

/// What became of a connection that asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is in, and within every ceiling unless there is one here, which then was not enforced.
    Admitted(Lease, Option<Reached>),
    /// It is not, because of this ceiling.
    Refused(Reached),
    /// Somebody else wrote in between: look again.
    Conflict,
}

/// One look at what is there before a connection is admitted.
pub struct Look {
    slot: Option<Slot>,
    connection: ConnectionKey,
    entries: Vec<Entry>,
    before: Vec<Entry>,
    version: Version,
    /// What the connection is counted as, and by whom, if it is.
    counted: Option<(u32, (HubLabel, Transport))>,
    /// Whether the connection is there, or was a moment ago.
    pub is_there: bool,
    /// Whether its age shows that it was connected before, on this gateway or another.
    pub is_old: bool,
}

impl Ledger {
    /// An instance with nothing held. `instance` is random.
    pub fn new(instance: InstanceId, secret: Secret, tracked: Tracked) -> Self {
        Self {
            secret,
            tracked,
            instances: Instances::new(instance),
            tally: Tally::default(),
            rooms: Rooms::default(),
            elsewhere: BTreeMap::new(),
            held: BTreeMap::new(),
            unfinished: Vec::new(),
            next_hold: 1,
            upstreams: Upstreams::default(),
        }
    }

    /// Whether the client has as many connections as it may have.
    pub fn has_all(&mut self, client: [u8; 8], limit: u32, now: Seconds, store: &dyn Store) -> bool {
        let (entries, _) = slots::load(Slot::of(client), store);
        let mut living = entries;
        living.retain(|entry| self.lives(entry, now, store));
        connections_of(&living, client).len() >= usize::try_from(limit).unwrap_or(usize::MAX)
    }

    /// The first of these ceilings that has no room for one more.
    pub fn full(&mut self, ceilings: &Ceilings, hub: &HubLabel, now: Seconds, store: &dyn Store) -> Option<Reached> {
        let scopes = [
            (ceilings.per_hub, Scope::Hub(hub.as_str().to_owned()), Reached::PerHub),
            (ceilings.total, Scope::Total, Reached::Total),
        ];
        for (limit, scope, reached) in scopes {
            let Some(limit) = limit else { continue };
            let elsewhere = self.elsewhere.get(&scope).copied().unwrap_or(0);
            if !self.rooms.has_room(&scope, limit, elsewhere, &mut self.instances, now, store) {
                return Some(reached);
            }
        }
        None
    }

    /// Looks whether a connection is there.
    ///
    /// # Errors
    /// [`LedgerFailure`].
    pub fn look(&mut self, opening: &Opening<'_>, now: Seconds, store: &dyn Store) -> Result<Look, LedgerFailure> {
        self.wake(now, store)?;
        let is_old = opening.issued.is_some_and(|issued| lease::is_older_than_unused(issued, now));
        let (mut connection, has_id) = match opening.id {
            Some(id) => (self.connection(id), true),
            None => (self.connection_without_id(), false),
        };
        if !has_id && opening.sharding == Sharding::ByConnection {
            // Nobody will ask for it again.
            let (entries, before) = (Vec::new(), Vec::new());
            return Ok(Look {
                slot: None,
                connection,
                entries,
                before,
                version: Version::ABSENT,
                counted: None,
                is_there: false,
                is_old,
            });
        }
        loop {
            let slot = opening.sharding.slot(opening.client, connection);
            let (before, version) = slots::load(slot, store);
            let mut entries = before.clone();
            entries.retain(|entry| self.lives(entry, now, store));
            let own = || entries.iter().filter(|entry| entry.connection == connection);
            let holds = own().filter(|entry| !entry.is_memory()).count();
            if holds >= MOST_HOLDS {
                connection = self.connection_without_id();
                continue;
            }
            let is_there = own().next().is_some();
            // Also by an entry whose holder has died: its counter may live.
            let same = before.iter().filter(|entry| entry.connection == connection && !entry.is_memory());
            let counted = same.map(|entry| (entry.counter, entry.kind())).next_back();
            let counted = counted.filter(|(counter, _)| self.instances.is_alive(*counter, now, store));
            let is_there = is_there || counted.is_some();
            return Ok(Look { slot: Some(slot), connection, entries, before, version, counted, is_there, is_old });
        }
    }

    /// Admits a connection after a look, unless it is over a ceiling and `enforced`.
    ///
    /// # Errors
    /// [`LedgerFailure`]; then nothing is held.
    pub fn admit(
        &mut self,
        look: Look,
        opening: &Opening<'_>,
        ceilings: &Ceilings,
        enforced: bool,
        now: Seconds,
        store: &dyn Store,
    ) -> Result<Admission, LedgerFailure> {
        let over = ceilings.per_client.filter(|limit| look.has_all(opening.client, *limit));
        let mut reached = over.map(|_| Reached::PerClient);
        if let (Some(reached), true) = (reached, enforced) {
            return Ok(Admission::Refused(reached));
        }
        let is_counted = look.counted.is_some();
        if !is_counted && let Some(full) = self.take_place(ceilings, opening.hub, enforced, now, store)? {
            if enforced {
                return Ok(Admission::Refused(full));
            }
            reached = reached.or(Some(full));
        }
        let own = self.instances.own().get();
        let lease = self.lease(&look, opening);
        let Look { slot, connection, mut entries, version, counted, .. } = look;
        if let Some(slot) = slot {
            // A session between two polls goes on, and a memory has served; anything else of the same id may still be there.
            entries.retain(|entry| entry.connection != connection || entry.standing == Standing::Held);
            let mut entry = Entry::of(&lease, own, own);
            if let Some((counter, (hub, transport))) = counted {
                entry = Entry { counter, hub, transport, ..entry };
            }
            let counter = entry.counter;
            entries.iter_mut().filter(|other| other.connection == connection).for_each(|other| other.counter = counter);
            entries.push(entry);
            let fits = entries.len() <= slots::MOST_ENTRIES;
            if !fits || !slots::write(slot, &entries, version, store) {
                if !is_counted {
                    self.leave_place(opening.hub, now, store);
                }
                return if fits { Ok(Admission::Conflict) } else { Err(LedgerFailure) };
            }
            // Those that the look has left out are over.
            self.follow(&look.before, &entries, now, store);
        }
        if !is_counted {
            self.tally.begun((lease.hub.clone(), lease.transport));
        }
        self.held.insert(lease.hold, lease.clone());
        Ok(Admission::Admitted(lease, reached))
    }

    /// Ends a hold. An end that meets too many conflicts is made up for at the next tick.
    pub fn end(&mut self, lease: Lease, end: End, now: Seconds, store: &dyn Store) {
        let awake = self.wake(now, store);
        // The lease as it stands: an instance that began anew has given it another number.
        let Some(lease) = self.held.remove(&lease.hold) else { return };
        if awake.and_then(|()| self.try_end(&lease, end, now, store)).is_err() {
            self.unfinished.push((lease, end));
        }
    }

    /// The long-polling session `id` of a hub, as `client` may end it.
    pub fn session(&self, sharding: Sharding, client: [u8; 8], id: &[u8], hub: &HubLabel) -> Session {
        let connection = self.connection(id);
        let slot = sharding.slot(client, connection);
        let client = (sharding == Sharding::ByClient).then_some(client);
        Session { slot, connection, hub: hub.clone(), client }
    }

    /// The hub has ended this long-polling session.
    pub fn delete(&mut self, session: &Session, now: Seconds, store: &dyn Store) {
        let of_session = |entry: &Entry| {
            entry.connection == session.connection
                && entry.transport == Transport::LongPolling
                && entry.hub == session.hub
                && session.client.is_none_or(|client| entry.client == client)
        };
        // What fails is swept when nobody polls it any more.
        let _ = self
            .wake(now, store)
            .and_then(|()| self.edit(session.slot, |entries| entries.retain(|entry| !of_session(entry)), now, store));
    }

    fn lease(&mut self, look: &Look, opening: &Opening<'_>) -> Lease {
        let hold = self.next_hold;
        self.next_hold = self.next_hold.wrapping_add(1).max(1);
        let Opening { client, transport, hub, issued, idle, .. } = *opening;
        let is_new = !look.is_there && !look.is_old;
        let (connection, slot, hub) = (look.connection, look.slot, hub.clone());
        Lease { hold, client, connection, slot, transport, hub, is_new, issued, idle }
    }

    fn connection(&self, id: &[u8]) -> ConnectionKey {
        ConnectionKey(keyed_hash(&self.secret, "id", id))
    }

    /// Nobody else has this pair. Hashed, or one slot would get all of an instance's.
    fn connection_without_id(&mut self) -> ConnectionKey {
        self.next_hold = self.next_hold.wrapping_add(1).max(1);
        let pair = (u64::from(self.instances.own().get()) << 32 | u64::from(self.next_hold)).to_be_bytes();
        ConnectionKey(keyed_hash(&self.secret, "hold", &pair))
    }

    fn try_end(&mut self, lease: &Lease, end: End, now: Seconds, store: &dyn Store) -> Result<(), LedgerFailure> {
        let own = self.instances.own().get();
        let Some(slot) = lease.slot else {
            self.tally.ended(&(lease.hub.clone(), lease.transport), 1);
            self.leave_place(&lease.hub, now, store);
            return Ok(());
        };
        let let_go = |entries: &mut Vec<Entry>| {
            let Some(place) = entries.iter().position(|entry| entry.is_of(lease, own)) else { return };
            let later = entries.iter().skip(place.saturating_add(1));
            let taken_over = later.into_iter().any(|later| later.connection == lease.connection);
            let stays = match end {
                End::BetweenPolls => {
                    Some(Standing::Idle { since: now, wait: u16::try_from(lease.idle.as_secs()).unwrap_or(u16::MAX) })
                }
                End::Resumable => lease.is_young(now).then_some(Standing::Memory(now)),
                End::Over => None,
            };
            match (entries.get_mut(place), stays) {
                (Some(entry), Some(standing)) if !taken_over => {
                    entry.standing = standing;
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
        edit: impl Fn(&mut Vec<Entry>),
        now: Seconds,
        store: &dyn Store,
    ) -> Result<(), LedgerFailure> {
        for _ in 0..TRIES {
            let (before, version) = slots::load(slot, store);
            let mut after = before.clone();
            edit(&mut after);
            if after == before {
                return Ok(());
            }
            if slots::write(slot, &after, version, store) {
                self.follow(&before, &after, now, store);
                return Ok(());
            }
        }
        Err(LedgerFailure)
    }

    /// Takes the connections that a change of a slot has ended out of the numbers.
    fn follow(&mut self, before: &[Entry], after: &[Entry], now: Seconds, store: &dyn Store) {
        let (old, new) = (slots::connections(before), slots::connections(after));
        for (_, entry) in old.iter().filter(|(key, _)| !new.contains_key(*key)) {
            if entry.counter == self.instances.own().get() {
                self.tally.ended(&entry.kind(), 1);
                self.leave_place(&entry.hub, now, store);
            } else {
                self.tally.ended_elsewhere(entry.kind(), entry.counter, &mut self.instances, store);
            }
        }
    }

    /// Whether its holder lives, its next poll may still come, or its id is still worth remembering.
    fn lives(&mut self, entry: &Entry, now: Seconds, store: &dyn Store) -> bool {
        match entry.standing {
            Standing::Held => self.instances.is_alive(entry.owner, now, store),
            Standing::Idle { since, wait } => now.is_within(Duration::from_secs(wait.into()), since),
            Standing::Memory(since) => now.is_within(slots::UNUSED, since),
        }
    }

    fn take_place(
        &mut self,
        ceilings: &Ceilings,
        hub: &HubLabel,
        enforced: bool,
        now: Seconds,
        store: &dyn Store,
    ) -> Result<Option<Reached>, LedgerFailure> {
        let mut reached = None;
        let mut taken: Vec<Scope> = Vec::new();
        for (limit, scope, which) in self.scopes(ceilings, hub) {
            let elsewhere = self.elsewhere.get(&scope).copied().unwrap_or(0);
            let ceiling = limit.map_or(Ceiling::Any, |limit| Ceiling::AtMost { limit, elsewhere });
            if !self.rooms.take(&scope, ceiling, &mut self.instances, now, store)? {
                reached = reached.or(Some(which));
                if enforced {
                    taken.iter().for_each(|scope| self.rooms.release(scope, &mut self.instances, now, store));
                    return Ok(reached);
                }
                self.rooms.take(&scope, Ceiling::Any, &mut self.instances, now, store)?;
            }
            taken.push(scope);
        }
        Ok(reached)
    }

    fn leave_place(&mut self, hub: &HubLabel, now: Seconds, store: &dyn Store) {
        for (_, scope, _) in self.scopes(&Ceilings::default(), hub) {
            self.rooms.release(&scope, &mut self.instances, now, store);
        }
    }

    /// What permits are kept for.
    fn scopes(&self, ceilings: &Ceilings, hub: &HubLabel) -> Vec<(Option<u32>, Scope, Reached)> {
        let hub =
            self.tracked.per_hub.then(|| (ceilings.per_hub, Scope::Hub(hub.as_str().to_owned()), Reached::PerHub));
        let total = self.tracked.total.then_some((ceilings.total, Scope::Total, Reached::Total));
        hub.into_iter().chain(total).collect()
    }
}

impl Look {
    /// Whether the client has as many connections as it may have, not counting this one.
    pub fn has_all(&self, client: [u8; 8], limit: u32) -> bool {
        let connections = connections_of(&self.entries, client);
        !connections.contains(&self.connection) && connections.len() >= usize::try_from(limit).unwrap_or(usize::MAX)
    }
}

impl Sharding {
    fn slot(self, client: [u8; 8], connection: ConnectionKey) -> Slot {
        match self {
            Self::ByClient => Slot::of(client),
            Self::ByConnection => Slot::of(connection.0),
        }
    }
}

/// The client's connections, each once however many holds it has.
fn connections_of(entries: &[Entry], client: [u8; 8]) -> BTreeSet<ConnectionKey> {
    let own = entries.iter().filter(|entry| entry.client == client && !entry.is_memory());
    own.map(|entry| entry.connection).collect()
}

/// 64 bits of SHA-256 over a secret, a purpose and a value.
pub(crate) fn keyed_hash(secret: &Secret, purpose: &str, value: &[u8]) -> [u8; 8] {
    let digest = Sha256::new()
        .chain_update(secret.bytes())
        .chain_update(purpose)
        .chain_update([0])
        .chain_update(value)
        .finalize();
    digest.first_chunk().copied().unwrap_or_default()
}

/// What tests look at.
#[cfg(test)]
impl Ledger {
    /// What this instance would publish now, had it read its letters.
    pub(crate) fn counted(&self, store: &dyn Store) -> u64 {
        let letters = self.instances.place().map(|place| tally::load(place, self.instances.own().get(), store).0);
        let ended: u32 = letters.unwrap_or_default().values().sum();
        self.tally.numbers().values().sum::<u64>() - u64::from(ended)
    }

    /// Whether the others know this instance.
    pub(crate) fn is_listed(&self, store: &dyn Store) -> bool {
        self.instances.is_listed(store)
    }

    /// Everything that it holds.
    pub(crate) fn leases(&self) -> Vec<Lease> {
        self.held.values().cloned().collect()
    }

    /// How many entries are in the slot of a client.
    pub(crate) fn entries(client: [u8; 8], store: &dyn Store) -> usize {
        slots::load(Slot::of(client), store).0.len()
    }

    /// Whether a connection has the slot of a client.
    pub(crate) fn share_slot(&self, id: &[u8], client: [u8; 8]) -> bool {
        Slot::of(self.connection(id).0) == Slot::of(client)
    }
}

#[cfg(test)]
mod tests;
