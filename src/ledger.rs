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
mod journal;
mod lease;
mod numbers;
mod rooms;
mod slots;
mod tally;
mod tick;
mod upstreams;
mod watch;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::clock::Seconds;
use crate::hub::HubLabel;
use crate::signalr::Transport;
use crate::small_map::SmallMap;
use crate::store::{Conflict, Secret, Store};

pub use instances::InstanceId;
pub use journal::{Event, Member};
pub use lease::{End, Lease, LedgerFailure, Opening, Session};
pub use numbers::{Reach, Tracked};
pub use tick::Present;
pub use upstreams::{Upstream, Upstreams};

use instances::Instances;
use lease::ConnectionKey;
use rooms::{Ceiling, Rooms, Scope};
use slots::{Change, Counted, Draft, Entry, Page, Slot, Standing};
use tally::{Series, Tally};
use watch::Watch;

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
    elsewhere: SmallMap<Scope, i64>,
    /// Everything admitted here and not ended, by the number of its hold.
    held: HashMap<u32, Lease>,
    /// Ends that met too many conflicts: tried again at the next tick.
    unfinished: Vec<(Lease, End)>,
    /// Slots to look through.
    watch: Watch,
    /// What became of connections that the instances count, where somebody reads it: [`Ledger::keep_journal`].
    journal: Option<Vec<Event>>,
    /// Whether this instance reaches the Redis through which limits are shared, if they are.
    pub redis: Option<Reach>,
    /// How far the sweep of all slots has come.
    swept: u32,
    next_number: u32,
    /// Open WebSockets by pod.
    pub upstreams: Upstreams,
}

/// On which terms connections are admitted, in plain numbers. A limit that is `None` does not exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Connections of one client.
    pub per_client: Option<u32>,
    /// Connections of one hub.
    pub per_hub: Option<u32>,
    /// All connections.
    pub total: Option<u32>,
    /// Whether a connection over a limit is refused. Otherwise it is admitted, and the limit is reported.
    pub enforced: bool,
    /// How long a long-polling session may go without a poll.
    pub idle: Duration,
    /// Whether a connection is asked about elsewhere, too, until [`Ledger::confirm`] says that it has begun.
    pub asks: bool,
}

/// A limit that was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// [`Terms::per_client`].
    PerClient,
    /// [`Terms::per_hub`].
    PerHub,
    /// [`Terms::total`].
    Total,
}

/// The outcome of an admission.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// The connection is admitted. If a limit was reached, it is here, and was not enforced.
    Admitted(Lease, Option<Reached>),
    /// The connection is refused, because this limit is reached.
    Refused(Reached),
    /// Somebody else wrote in between: look again.
    Conflict,
}

/// What is known of a connection before it is admitted.
pub struct Look {
    connection: ConnectionKey,
    /// Where its entries are. `None` for a connection that nobody can ask for again: it gets no entry.
    page: Option<Page>,
    /// What the connection is counted as, and by which instance, if it is counted.
    counted: Option<(u32, Series)>,
    /// Whether the connection is there, or was a moment ago.
    pub is_there: bool,
    /// Whether the connection has begun.
    has_begun: bool,
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
            elsewhere: SmallMap::default(),
            held: HashMap::new(),
            unfinished: Vec::new(),
            watch: Watch::default(),
            journal: None,
            redis: None,
            swept: 0,
            next_number: 1,
            upstreams: Upstreams::default(),
        }
    }

    /// The first limit that has no room for one more connection of a client at a hub. Takes nothing.
    pub fn full(
        &mut self,
        terms: &Terms,
        client: [u8; 8],
        hub: &HubLabel,
        now: Seconds,
        store: &dyn Store,
    ) -> Option<Reached> {
        if let Some(limit) = terms.per_client {
            let page = Page::load(Slot::of(client), store);
            if self.has_all(&page, client, None, limit, now, store) {
                return Some(Reached::PerClient);
            }
        }
        for (scope, reached) in self.scopes(hub) {
            let Some(limit) = terms.limit(reached) else { continue };
            let elsewhere = self.elsewhere(&scope);
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
    pub fn look(
        &mut self,
        opening: &Opening<'_>,
        terms: &Terms,
        now: Seconds,
        store: &dyn Store,
    ) -> Result<Look, LedgerFailure> {
        self.wake(now, store)?;
        let is_old = opening.issued.is_some_and(|issued| lease::is_older_than_unused(issued, now));
        let mut look = Look {
            connection: ConnectionKey([0; 8]),
            page: None,
            counted: None,
            is_there: false,
            has_begun: false,
            is_old,
        };
        look.connection = match opening.id {
            Some(id) => self.connection(id),
            None => {
                let connection = self.connection_without_id();
                if terms.per_client.is_none() {
                    return Ok(Look { connection, ..look });
                }
                connection
            }
        };
        loop {
            let page = Page::load(terms.slot(opening.client, look.connection), store);
            let mut holds = 0_usize;
            for entry in page.entries().filter(|entry| entry.connection == look.connection) {
                let lives = self.lives(&entry, now, store);
                look.is_there |= lives;
                look.has_begun |= lives && matches!(entry.standing, Standing::Held | Standing::Idle { .. });
                if !entry.is_memory() {
                    holds = holds.saturating_add(usize::from(lives));
                    // Also by an entry whose holder has died: its counter may live.
                    if self.instances.is_alive(entry.counter, now, store) {
                        look.counted = Some((entry.counter, entry.series()));
                        look.is_there = true;
                    }
                }
            }
            if holds < MOST_HOLDS {
                return Ok(Look { page: Some(page), ..look });
            }
            look = Look {
                connection: self.connection_without_id(),
                counted: None,
                is_there: false,
                has_begun: false,
                ..look
            };
        }
    }

    /// Admits a connection after a look, or finds the limit that it is over.
    ///
    /// # Errors
    /// [`LedgerFailure`]; then nothing is held.
    pub fn admit(
        &mut self,
        look: &Look,
        opening: &Opening<'_>,
        terms: &Terms,
        now: Seconds,
        store: &dyn Store,
    ) -> Result<Admission, LedgerFailure> {
        let mut reached = None;
        if let (Some(limit), Some(page)) = (terms.per_client, &look.page)
            && self.has_all(page, opening.client, Some(look.connection), limit, now, store)
        {
            reached = Some(Reached::PerClient);
            if terms.enforced {
                return Ok(Admission::Refused(Reached::PerClient));
            }
        }
        let is_counted = look.counted.is_some();
        if !is_counted && let Some(full) = self.take_place(terms, opening.hub, now, store)? {
            if terms.enforced {
                return Ok(Admission::Refused(full));
            }
            reached = reached.or(Some(full));
        }
        let lease = self.lease(look, opening, terms);
        if let Some(page) = &look.page {
            let draft = self.draft_with(page, look, &lease, now, store);
            let written = match draft.fits() {
                true => draft.write(store).map_err(|_: Conflict| Ok(Admission::Conflict)),
                false => Err(Err(LedgerFailure)),
            };
            if look.counted.as_ref().is_some_and(|(counter, _)| *counter != self.instances.own().get()) {
                self.watch.add(page.slot(), now.plus(tick::RECHECK));
            }
            match written {
                Ok(ended) => ended.into_iter().for_each(|ended| self.uncount(ended, now, store)),
                Err(outcome) => {
                    if !is_counted {
                        self.leave_place(opening.hub, now, store);
                    }
                    return outcome;
                }
            }
        }
        if !is_counted {
            self.tally.begun(lease.series());
        }
        self.held.insert(lease.hold, lease.clone());
        Ok(Admission::Admitted(lease, reached))
    }

    /// The hub has taken the connection of a hold: another request with its id need not ask any more.
    pub fn confirm(&mut self, lease: &Lease, now: Seconds, store: &dyn Store) {
        // The lease as it stands: an instance that began anew has given it another number.
        let Some(lease) = self.held.get_mut(&lease.hold) else { return };
        let (asked, lease) = (std::mem::take(&mut lease.asks), lease.clone());
        let (Some(slot), true, own) = (lease.slot, asked, self.instance()) else { return };
        // What fails is asked about once more.
        let _ = self.edit(slot, now, store, |_, page| {
            page.draft(|entry| match entry.is_of(&lease, own) {
                true => Change::To(Entry { standing: Standing::Held, ..entry.clone() }),
                false => Change::Keep,
            })
        });
    }

    /// Ends a hold. An end that meets too many conflicts is made up for at the next tick.
    pub fn end(&mut self, lease: Lease, end: End, now: Seconds, store: &dyn Store) {
        let awake = self.wake(now, store);
        // The lease as it stands: an instance that began anew has given it another number.
        let Some(lease) = self.held.remove(&lease.hold) else { return };
        if awake.and_then(|()| self.try_end(&lease, end, now, store)).is_err() {
            self.unfinished.push((lease, end));
        }
        // An end makes one slot due at most, so what is due never grows faster than it is looked through.
        self.look_through_due(2, now, store);
    }

    /// The long-polling session `id` of a hub, as `client` may end it.
    pub fn session(&self, terms: &Terms, client: [u8; 8], id: &[u8], hub: &HubLabel) -> Session {
        let connection = self.connection(id);
        let client_only = terms.per_client.map(|_| client);
        Session { slot: terms.slot(client, connection), connection, hub: hub.clone(), client: client_only }
    }

    /// The hub has ended this long-polling session.
    pub fn delete(&mut self, session: &Session, now: Seconds, store: &dyn Store) {
        let of_session = |entry: &Entry<'_>| {
            entry.connection == session.connection
                && entry.transport == Transport::LongPolling
                && entry.hub == session.hub.as_bytes()
                && session.client.is_none_or(|client| entry.client == client)
        };
        // What fails is swept when nobody polls it any more.
        let _ = self.wake(now, store).and_then(|()| {
            self.edit(session.slot, now, store, |_, page| {
                page.draft(|entry| if of_session(entry) { Change::Drop } else { Change::Keep })
            })
        });
    }

    fn lease(&mut self, look: &Look, opening: &Opening<'_>, terms: &Terms) -> Lease {
        let hold = self.number();
        let Opening { client, transport, hub, issued, .. } = *opening;
        let is_new = !look.is_there && !look.is_old;
        let slot = look.page.as_ref().map(Page::slot);
        Lease {
            hold,
            client,
            connection: look.connection,
            slot,
            transport,
            hub: hub.clone(),
            counter: look.counted.as_ref().map_or(self.instance(), |(counter, _)| *counter),
            begins: look.counted.is_none(),
            asks: terms.asks && !look.has_begun,
            is_new,
            is_old: look.is_old,
            issued,
            idle: terms.idle,
        }
    }

    /// The page with an entry for a new hold.
    fn draft_with<'a>(
        &mut self,
        page: &'a Page,
        look: &Look,
        lease: &Lease,
        now: Seconds,
        store: &dyn Store,
    ) -> Draft<'a> {
        let own = self.instances.own().get();
        let mut entry = Entry::of(lease, own, own);
        if let Some((counter, Series { hub, transport })) = &look.counted {
            entry = Entry { counter: *counter, hub: hub.as_bytes(), transport: *transport, ..entry };
        }
        let mut draft = page.draft(|other| {
            if other.connection != entry.connection {
                if other.is_over(now) { Change::Drop } else { Change::Keep }
            } else if matches!(other.standing, Standing::Held | Standing::Asking) && self.lives(other, now, store) {
                Change::To(Entry { counter: entry.counter, ..other.clone() })
            } else {
                // A session between two polls goes on in this hold, and a memory has served.
                Change::Drop
            }
        });
        draft.push(&entry);
        draft
    }

    /// A number that no hold of this instance has.
    fn number(&mut self) -> u32 {
        let number = self.next_number;
        self.next_number = number.wrapping_add(1).max(1);
        number
    }

    fn connection(&self, id: &[u8]) -> ConnectionKey {
        ConnectionKey(keyed_hash(&self.secret, "id", id))
    }

    /// Nobody else has this pair. Hashed, or one slot would get all of an instance's.
    fn connection_without_id(&mut self) -> ConnectionKey {
        let number = self.number();
        let pair = (u64::from(self.instances.own().get()) << 32 | u64::from(number)).to_be_bytes();
        ConnectionKey(keyed_hash(&self.secret, "hold", &pair))
    }

    fn try_end(&mut self, lease: &Lease, end: End, now: Seconds, store: &dyn Store) -> Result<(), LedgerFailure> {
        let own = self.instances.own().get();
        let Some(slot) = lease.slot else {
            let member = lease.member();
            self.uncount(
                Counted { counter: own, is_remembered: false, member, transport: lease.transport },
                now,
                store,
            );
            return Ok(());
        };
        let stays = match end {
            End::BetweenPolls => {
                Some(Standing::Idle { since: now, wait: u16::try_from(lease.idle.as_secs()).unwrap_or(u16::MAX) })
            }
            End::Resumable => lease.is_young(now).then_some(Standing::Memory(now)),
            End::Over => None,
        };
        let mut watch = None;
        self.edit(slot, now, store, |_, page| {
            // A hold that took the connection over decides what becomes of it.
            let last = page.entries().filter(|entry| entry.connection == lease.connection).last();
            let is_last = last.as_ref().is_some_and(|last| last.is_of(lease, own));
            watch = match stays {
                Some(Standing::Idle { .. }) if is_last => Some(lease.idle),
                _ => last.filter(|last| !is_last && last.counter == own).map(|_| tick::RECHECK),
            };
            let stays = stays.filter(|_| is_last);
            let is_memory = matches!(stays, Some(Standing::Memory(_)));
            let mut forget = if is_memory { slots::memories_beyond_bound(page) } else { 0 };
            page.draft(|entry| match stays {
                Some(standing) if entry.is_of(lease, own) => Change::To(Entry { standing, ..entry.clone() }),
                None if entry.is_of(lease, own) => Change::Drop,
                _ if forget > 0 && entry.is_memory() => {
                    forget = forget.saturating_sub(1);
                    Change::Drop
                }
                _ => Change::Keep,
            })
        })?;
        if let Some(after) = watch {
            self.watch.add(slot, now.plus(after));
        }
        Ok(())
    }

    /// Changes a slot, and the numbers with it.
    fn edit(
        &mut self,
        slot: Slot,
        now: Seconds,
        store: &dyn Store,
        mut edit: impl for<'a> FnMut(&mut Self, &'a Page) -> Draft<'a>,
    ) -> Result<(), LedgerFailure> {
        for _ in 0..TRIES {
            let page = Page::load(slot, store);
            if let Ok(ended) = edit(self, &page).write(store) {
                ended.into_iter().for_each(|ended| self.uncount(ended, now, store));
                return Ok(());
            }
        }
        Err(LedgerFailure)
    }

    /// Takes a connection that has ended out of the numbers.
    fn uncount(&mut self, ended: Counted, now: Seconds, store: &dyn Store) {
        let (counter, series) = (ended.counter, ended.series());
        if counter == self.instances.own().get() {
            self.tally.ended(&series, 1);
            self.leave_place(&series.hub, now, store);
        } else if !self.instances.is_gone(counter) {
            self.tally.ended_elsewhere(series, counter, &mut self.instances, store);
        }
        let Counted { member, is_remembered, .. } = ended;
        self.note(|| Event::Ended { counter, member, is_remembered });
    }

    /// Whether a client has as many connections as it may have, without the one that asks. Each counts once, however many
    /// holds it has.
    fn has_all(
        &mut self,
        page: &Page,
        client: [u8; 8],
        asking: Option<ConnectionKey>,
        limit: u32,
        now: Seconds,
        store: &dyn Store,
    ) -> bool {
        let own = page.entries().filter(|entry| entry.client == client && !entry.is_memory());
        let living = own.filter(|entry| self.lives(entry, now, store));
        let mut connections = HashSet::new();
        connections.extend(living.map(|entry| entry.connection));
        asking.is_none_or(|asking| !connections.contains(&asking))
            && connections.len() >= usize::try_from(limit).unwrap_or(usize::MAX)
    }

    /// Whether its holder lives, its next poll may still come, or its id is still worth remembering.
    fn lives(&mut self, entry: &Entry<'_>, now: Seconds, store: &dyn Store) -> bool {
        match entry.standing {
            Standing::Held | Standing::Asking => self.instances.is_alive(entry.owner, now, store),
            Standing::Idle { .. } | Standing::Memory(_) => !entry.is_over(now),
        }
    }

    fn take_place(
        &mut self,
        terms: &Terms,
        hub: &HubLabel,
        now: Seconds,
        store: &dyn Store,
    ) -> Result<Option<Reached>, LedgerFailure> {
        let mut reached = None;
        let mut taken: Vec<Scope> = Vec::new();
        for (scope, which) in self.scopes(hub) {
            let elsewhere = self.elsewhere(&scope);
            let ceiling = terms.limit(which).map_or(Ceiling::Any, |limit| Ceiling::AtMost { limit, elsewhere });
            if !self.rooms.take(&scope, ceiling, &mut self.instances, now, store)? {
                reached = reached.or(Some(which));
                if terms.enforced {
                    taken.iter().for_each(|scope| self.rooms.release(scope, &mut self.instances, now, store));
                    return Ok(reached);
                }
                self.rooms.take(&scope, Ceiling::Any, &mut self.instances, now, store)?;
            }
            taken.push(scope);
        }
        Ok(reached)
    }

    /// Connections in `scope` of instances that keep no permits for it, as of the last tick.
    fn elsewhere(&self, scope: &Scope) -> i64 {
        self.elsewhere.get(scope).copied().unwrap_or(0)
    }

    fn leave_place(&mut self, hub: &HubLabel, now: Seconds, store: &dyn Store) {
        for (scope, _) in self.scopes(hub) {
            self.rooms.release(&scope, &mut self.instances, now, store);
        }
    }

    /// What this instance keeps permits for, and the limit that each is for.
    fn scopes(&self, hub: &HubLabel) -> impl Iterator<Item = (Scope, Reached)> + use<> {
        let hub = self.tracked.per_hub.then(|| (Scope::Hub(hub.as_str().to_owned()), Reached::PerHub));
        let total = self.tracked.total.then_some((Scope::Total, Reached::Total));
        hub.into_iter().chain(total)
    }
}

impl Terms {
    fn limit(&self, which: Reached) -> Option<u32> {
        match which {
            Reached::PerClient => self.per_client,
            Reached::PerHub => self.per_hub,
            Reached::Total => self.total,
        }
    }

    /// Where a connection's entries are. With a limit per client one slot has all entries of a client; without, thousands of
    /// connections behind one address do not share a slot.
    fn slot(&self, client: [u8; 8], connection: ConnectionKey) -> Slot {
        Slot::of(if self.per_client.is_some() { client } else { connection.0 })
    }
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
        Page::load(Slot::of(client), store).entries().count()
    }

    /// Whether a connection has the slot of a client.
    pub(crate) fn share_slot(&self, id: &[u8], client: [u8; 8]) -> bool {
        Slot::of(self.connection(id).0) == Slot::of(client)
    }
}

#[cfg(test)]
mod tests;
