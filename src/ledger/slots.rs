//! The connections, in a fixed number of slots: an entry for each socket, event stream and session. When an id comes back
//! before its old socket is known to be gone, it has two entries, and is counted once.
//!
//! Envoy's shared data cannot delete a key, so keys are few and their number fixed; an entry is found by hashing. Memory is
//! bounded by [`SLOTS`] keys plus some 40 bytes for each entry, and never more than [`MOST_ENTRIES`] a slot.

use std::collections::BTreeMap;
use std::time::Duration;

use super::lease::ConnectionKey;
use super::{Lease, numbers};
use crate::clock::Seconds;
use crate::hub::HubLabel;
use crate::signalr::Transport;
use crate::store::{Store, Version};

/// 1,024 slots hold 100,000 connections at some 100 entries each, 4 KB to copy for an admission.
pub(super) const SLOTS: u16 = 1_024;
/// More in a slot are refused. One client's may be half of it; 8,192 entries are 330 KB to copy for every admission. The tests'
/// own build can fill one.
pub(super) const MOST_ENTRIES: usize = if cfg!(feature = "trap") { 64 } else { 8_192 };
/// Ids in a slot that are remembered after their connection's end.
const MOST_MEMORIES: usize = 64;
/// A hub forgets an id that nobody has connected with after 15 s (`HttpConnectionManager`). So an id that is older, and that
/// the hub still knows, was connected before.
pub(super) const UNUSED: Duration = Duration::from_secs(15);

/// A place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u16);

impl Slot {
    pub(super) fn of(hash: [u8; 8]) -> Self {
        let [high, low, ..] = hash;
        Self(u16::from_be_bytes([high, low]) % SLOTS)
    }

    /// The slots with these numbers, of which there is one for each number below [`SLOTS`].
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..SLOTS).map(Self)
    }

    pub(super) fn number(self) -> u16 {
        self.0
    }

    fn key(self) -> String {
        format!("envoy-signalr/1/slot/{}", self.0)
    }
}

/// How an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// A socket, an event stream or a poll of its owner holds it.
    Held,
    /// A session between two polls. How long it may be is in the entry, because instances of different configurations see it.
    Idle {
        /// When the last poll ended.
        since: Seconds,
        /// How long it waits for the next, in seconds.
        wait: u16,
    },
    /// No connection any more: it says that its id was connected a moment ago, at this time.
    Memory(Seconds),
}

/// One hold of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) client: [u8; 8],
    pub(super) connection: ConnectionKey,
    /// The instance whose socket, stream or poll holds it, or did last.
    pub(super) owner: u32,
    /// The instance that counts its connection.
    pub(super) counter: u32,
    /// Which of that instance's holds: an older one must not end a newer one.
    pub(super) hold: u32,
    pub(super) standing: Standing,
    /// What its connection is counted as.
    pub(super) transport: Transport,
    pub(super) hub: HubLabel,
}

impl Entry {
    pub(super) fn of(lease: &Lease, owner: u32, counter: u32) -> Self {
        Self {
            client: lease.client,
            connection: lease.connection,
            owner,
            counter,
            hold: lease.hold,
            standing: Standing::Held,
            transport: lease.transport,
            hub: lease.hub.clone(),
        }
    }

    /// What its connection is counted as.
    pub(super) fn kind(&self) -> (HubLabel, Transport) {
        (self.hub.clone(), self.transport)
    }

    /// Whether it is a connection no more.
    pub(super) fn is_memory(&self) -> bool {
        matches!(self.standing, Standing::Memory(_))
    }

    /// Whether the lease is this entry's.
    pub(super) fn is_of(&self, lease: &Lease, owner: u32) -> bool {
        self.connection == lease.connection && self.hold == lease.hold && self.owner == owner
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        let (standing, since, wait) = match self.standing {
            Standing::Held => (0, [0; Seconds::LEN], 0),
            Standing::Idle { since, wait } => (1, since.to_bytes(), wait),
            Standing::Memory(since) => (2, since.to_bytes(), 0),
        };
        bytes.extend(self.client);
        bytes.extend(self.connection.0);
        bytes.extend(self.owner.to_be_bytes());
        bytes.extend(self.counter.to_be_bytes());
        bytes.extend(self.hold.to_be_bytes());
        bytes.extend([standing, self.transport.code()]);
        bytes.extend(since);
        bytes.extend(wait.to_be_bytes());
        numbers::put(bytes, self.hub.as_str());
    }

    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (client, bytes) = bytes.split_first_chunk()?;
        let (connection, bytes) = bytes.split_first_chunk()?;
        let (owner, bytes) = bytes.split_first_chunk()?;
        let (counter, bytes) = bytes.split_first_chunk()?;
        let (hold, bytes) = bytes.split_first_chunk()?;
        let ([standing, transport], bytes) = bytes.split_first_chunk()?;
        let (since, bytes) = bytes.split_first_chunk()?;
        let (wait, bytes) = bytes.split_first_chunk()?;
        let (hub, rest) = numbers::take(bytes)?;
        let since = Seconds::from_bytes(*since);
        let entry = Self {
            client: *client,
            connection: ConnectionKey(*connection),
            owner: u32::from_be_bytes(*owner),
            counter: u32::from_be_bytes(*counter),
            hold: u32::from_be_bytes(*hold),
            standing: match standing {
                0 => Standing::Held,
                1 => Standing::Idle { since, wait: u16::from_be_bytes(*wait) },
                _ => Standing::Memory(since),
            },
            transport: Transport::from_code(*transport)?,
            hub,
        };
        Some((entry, rest))
    }
}

/// Forgets the oldest memories beyond the bound: a client that comes and goes must not fill the slot for the others in it.
pub(super) fn bound_memories(entries: &mut Vec<Entry>) {
    let memories = entries.iter().filter(|entry| entry.is_memory()).count();
    let mut beyond = memories.saturating_sub(MOST_MEMORIES);
    entries.retain(|entry| {
        let forget = beyond > 0 && entry.is_memory();
        beyond = beyond.saturating_sub(usize::from(forget));
        !forget
    });
}

/// The connections, each with one of its entries: all of them name the same counter.
pub(super) fn connections(entries: &[Entry]) -> BTreeMap<ConnectionKey, &Entry> {
    entries.iter().filter(|entry| !entry.is_memory()).map(|entry| (entry.connection, entry)).collect()
}

pub(super) fn load(slot: Slot, store: &dyn Store) -> (Vec<Entry>, Version) {
    let Some((bytes, version)) = store.load(&slot.key()) else { return (Vec::new(), Version::ABSENT) };
    let (mut entries, mut rest) = (Vec::new(), bytes.as_slice());
    while let Some((entry, after)) = Entry::read(rest) {
        entries.push(entry);
        rest = after;
    }
    (entries, version)
}

/// False when somebody else wrote first.
pub(super) fn write(slot: Slot, entries: &[Entry], version: Version, store: &dyn Store) -> bool {
    let mut bytes = Vec::new();
    entries.iter().for_each(|entry| entry.write(&mut bytes));
    store.swap(&slot.key(), &bytes, version).is_ok()
}
