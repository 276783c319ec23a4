//! The connections, in a fixed number of slots: an entry for each socket, event stream and session. When an id comes back
//! before its old socket is known to be gone, it has two entries; the later one stands for it, and is counted.
//!
//! Envoy's shared data cannot delete a key, so keys are few and their number fixed; an entry is found by hashing. Memory is
//! bounded by [`SLOTS`] keys plus [`Entry::LEN`] bytes for each entry, and never more than [`MOST_ENTRIES`] a slot.

use std::collections::BTreeMap;
use std::time::Duration;

use super::counts::Counts;
use super::{ClientKey, ConnectionKey, InstanceId, Lease};
use crate::clock::Seconds;
use crate::signalr::Transport;
use crate::store::{Store, Version};

/// 1,024 slots hold 100,000 connections at some 100 entries each, 3.3 KB to copy for an admission.
const SLOTS: u16 = 1_024;
/// More in a slot are refused. One client's may be half of it; 8,192 entries are 270 KB to copy for every admission.
/// The tests' own build can fill one.
pub(super) const MOST_ENTRIES: usize = if cfg!(feature = "trap") { 64 } else { 8_192 };
/// Ids in a slot that are remembered after their connection's end.
const MOST_MEMORIES: usize = 64;
/// A hub forgets an id that nobody has connected with after 15 s (`HttpConnectionManager`). So an id that is older, and that
/// the hub still knows, was connected before.
pub(super) const UNUSED: Duration = Duration::from_secs(15);
/// Seconds in which a sweep passes over every slot. With the five until an instance is taken for dead: within ten.
const SWEEP: u16 = 4;

/// A place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot(u16);

impl Slot {
    pub(super) fn of(hash: [u8; 8]) -> Self {
        let [high, low, ..] = hash;
        Self(u16::from_be_bytes([high, low]) % SLOTS)
    }

    /// The slots that are swept in this second.
    pub(super) fn share_of(now: Seconds) -> impl Iterator<Item = Self> {
        let part = now.modulo(SWEEP);
        (0..SLOTS).filter(move |slot| slot % SWEEP == part).map(Self)
    }

    fn key(self) -> String {
        format!("envoy-signalr/slot/{}", self.0)
    }
}

/// One hold of a connection: a socket, an event stream, a poll, or the time between two polls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) client: ClientKey,
    pub(super) connection: ConnectionKey,
    /// The instance whose stream or poll holds it; 0 between two polls.
    pub(super) owner: u32,
    /// Which of that instance's holds: an older one must not end a newer one.
    pub(super) hold: u32,
    /// When it was last taken or let go.
    pub(super) seen: Seconds,
    /// Hash of the hub's label, which [`Counts`] has in full.
    pub(super) hub: u32,
    pub(super) transport: Transport,
}

impl Entry {
    const LEN: usize = 8 + 8 + 4 + 4 + Seconds::LEN + 4 + 1;

    pub(super) fn of(lease: &Lease, owner: InstanceId, now: Seconds) -> Self {
        Self {
            client: lease.client,
            connection: lease.connection,
            owner: owner.get(),
            hold: lease.hold,
            seen: now,
            hub: lease.hub.hash(),
            transport: lease.transport,
        }
    }

    /// Whether its holder lives, its next poll may still come, or its id is still worth remembering.
    pub(super) fn lives(&self, counts: &Counts, idle: Duration, now: Seconds) -> bool {
        match self.owner {
            0 if self.is_memory() => now.is_within(UNUSED, self.seen),
            0 => now.is_within(idle, self.seen),
            owner => counts.is_alive(owner, now),
        }
    }

    /// Whether it is no connection any more: it says that its id was connected a moment ago, so that a resume is none of a new one.
    pub(super) fn is_memory(&self) -> bool {
        self.owner == 0 && self.transport != Transport::LongPolling
    }

    /// Whether the lease is this entry's.
    pub(super) fn is_of(&self, lease: &Lease, instance: InstanceId) -> bool {
        self.connection == lease.connection && self.hold == lease.hold && self.owner == instance.get()
    }

    /// Whether the row that it was counted in is still there.
    pub(super) fn is_counted(&self, counts: &Counts, now: Seconds) -> bool {
        self.owner == 0 || self.transport == Transport::LongPolling || counts.is_alive(self.owner, now)
    }

    fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        let fields: [&[u8]; 7] = [
            &self.client.0,
            &self.connection.0,
            &self.owner.to_be_bytes(),
            &self.hold.to_be_bytes(),
            &self.seen.to_bytes(),
            &self.hub.to_be_bytes(),
            &[self.transport.code()],
        ];
        for (to, from) in bytes.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (client, bytes) = bytes.split_first_chunk()?;
        let (connection, bytes) = bytes.split_first_chunk()?;
        let (owner, bytes) = bytes.split_first_chunk()?;
        let (hold, bytes) = bytes.split_first_chunk()?;
        let (seen, bytes) = bytes.split_first_chunk()?;
        let (hub, bytes) = bytes.split_first_chunk()?;
        Some(Self {
            client: ClientKey(*client),
            connection: ConnectionKey(*connection),
            owner: u32::from_be_bytes(*owner),
            hold: u32::from_be_bytes(*hold),
            seen: Seconds::from_bytes(*seen),
            hub: u32::from_be_bytes(*hub),
            transport: Transport::from_code(*bytes.first()?)?,
        })
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

/// The entry that stands for each connection: the latest.
pub(super) fn standing(entries: &[Entry]) -> BTreeMap<ConnectionKey, &Entry> {
    entries.iter().filter(|entry| !entry.is_memory()).map(|entry| (entry.connection, entry)).collect()
}

pub(super) fn load(slot: Slot, store: &dyn Store) -> (Vec<Entry>, Version) {
    match store.load(&slot.key()) {
        Some((bytes, version)) => (bytes.chunks_exact(Entry::LEN).filter_map(Entry::from_bytes).collect(), version),
        None => (Vec::new(), Version::ABSENT),
    }
}

/// False when somebody else wrote first.
pub(super) fn write(slot: Slot, entries: &[Entry], version: Version, store: &dyn Store) -> bool {
    let bytes: Vec<u8> = entries.iter().flat_map(Entry::to_bytes).collect();
    store.swap(&slot.key(), &bytes, version).is_ok()
}
