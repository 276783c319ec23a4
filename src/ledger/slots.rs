//! The connections, in a fixed number of slots. An entry is one hold of a connection: a socket, an event stream or a session of
//! polls. When an id comes back before its old socket is known to be gone, it has two entries and is counted once.
//!
//! ```text
//! slot/17    client  connection  owner  counter  hold  standing          hub
//!            c1      k1          a      a        12    held              /chat
//!            c1      k2          b      a        3     idle since 9:00   /chat     b answered its last poll, a counts it
//!            c7      k9          b      b        4     memory of 9:01    /news     ended; a resume with this id is not new
//! ```
//!
//! Envoy's shared data cannot delete a key, so the keys are few and their number is fixed; hashing finds an entry. A reader
//! borrows entries from the bytes it has loaded, and a writer copies those that it does not change. Memory is bounded by
//! [`SLOTS`] keys plus some 40 bytes for each entry, and by [`MOST_ENTRIES`] entries a slot.

use std::collections::HashMap;
use std::time::Duration;

use super::lease::ConnectionKey;
use super::tally::Series;
use super::{Lease, Member, numbers};
use crate::clock::Seconds;
use crate::hub::HubLabel;
use crate::signalr::Transport;
use crate::store::{Conflict, Store, Version};

/// One for each value of a hash's first two bytes: 100,000 connections have 1.5 entries a slot, 70 bytes to copy for an admission.
pub(super) const SLOTS: u32 = 65_536;
/// More in a slot are refused. One client's may be half of it; 8,192 entries are 330 KB to copy for every admission. The tests'
/// own build can fill one.
pub(super) const MOST_ENTRIES: usize = if cfg!(feature = "trap") { 64 } else { 8_192 };
/// Ids in a slot that are remembered after their connection's end.
const MOST_MEMORIES: usize = 64;
/// A hub forgets an id that nobody has connected with after 15 s (`HttpConnectionManager`). So an id that is older, and that
/// the hub still knows, was connected before.
pub(super) const UNUSED: Duration = Duration::from_secs(15);

/// A place in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Slot(u16);

impl Slot {
    pub(super) fn of(hash: [u8; 8]) -> Self {
        let [high, low, ..] = hash;
        Self(u16::from_be_bytes([high, low]))
    }

    /// The slot with this number. There is one for each number below [`SLOTS`].
    pub(super) fn numbered(number: u32) -> Option<Self> {
        u16::try_from(number).ok().map(Self)
    }

    /// At most 22 bytes, which Envoy's C++ library (libc++) keeps in the string itself, so that a look-up reads no memory elsewhere.
    fn key(self) -> String {
        format!("signalr/2/slot/{}", self.0)
    }
}

/// Bytes of an entry before its hub.
const HEAD: usize = 8 + 8 + 4 + 4 + 4 + 2 + Seconds::LEN + 2;

/// How an entry stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// A socket, an event stream or a poll of its owner holds it.
    Held,
    /// The same, and whether it may is still asked elsewhere: another request with its id has to ask, too.
    Asking,
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
pub(super) struct Entry<'a> {
    pub(super) client: [u8; 8],
    pub(super) connection: ConnectionKey,
    /// The instance whose socket, stream or poll holds it, or did last.
    pub(super) owner: u32,
    /// The instance that counts its connection. All entries of a connection name the same.
    pub(super) counter: u32,
    /// Which of that instance's holds: an older one must not end a newer one.
    pub(super) hold: u32,
    pub(super) standing: Standing,
    /// What its connection is counted as.
    pub(super) transport: Transport,
    pub(super) hub: &'a [u8],
}

impl<'a> Entry<'a> {
    /// The entry of a lease.
    pub(super) fn of(lease: &'a Lease, owner: u32, counter: u32) -> Self {
        Self {
            client: lease.client,
            connection: lease.connection,
            owner,
            counter,
            hold: lease.hold,
            standing: if lease.asks { Standing::Asking } else { Standing::Held },
            transport: lease.transport,
            hub: lease.hub.as_bytes(),
        }
    }

    /// What its connection is counted as.
    pub(super) fn series(&self) -> Series {
        Series { hub: HubLabel::restored(self.hub), transport: self.transport }
    }

    /// Its connection, counted by an instance.
    pub(super) fn counted_by(&self, counter: u32, slot: Slot) -> Counted {
        let Series { hub, transport } = self.series();
        let (client, connection, slot) = (self.client, self.connection.0, Some(slot));
        Counted { counter, is_remembered: false, member: Member { connection, client, hub, slot }, transport }
    }

    /// Whether its connection has ended, and only its id is remembered.
    pub(super) fn is_memory(&self) -> bool {
        matches!(self.standing, Standing::Memory(_))
    }

    /// Whether it stands for nothing any more: its next poll has not come in time, or its id need not be remembered.
    pub(super) fn is_over(&self, now: Seconds) -> bool {
        match self.standing {
            Standing::Held | Standing::Asking => false,
            Standing::Idle { since, wait } => !now.is_within(Duration::from_secs(wait.into()), since),
            Standing::Memory(since) => !now.is_within(UNUSED, since),
        }
    }

    /// Whether this is the entry of a lease.
    pub(super) fn is_of(&self, lease: &Lease, owner: u32) -> bool {
        self.connection == lease.connection && self.hold == lease.hold && self.owner == owner
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        let (standing, since, wait) = match self.standing {
            Standing::Held => (0, [0; Seconds::LEN], 0),
            Standing::Idle { since, wait } => (1, since.to_bytes(), wait),
            Standing::Memory(since) => (2, since.to_bytes(), 0),
            Standing::Asking => (3, [0; Seconds::LEN], 0),
        };
        bytes.extend(self.client);
        bytes.extend(self.connection.0);
        bytes.extend(self.owner.to_be_bytes());
        bytes.extend(self.counter.to_be_bytes());
        bytes.extend(self.hold.to_be_bytes());
        bytes.extend([standing, self.transport.code()]);
        bytes.extend(since);
        bytes.extend(wait.to_be_bytes());
        numbers::put(bytes, self.hub);
    }

    /// The entry at the start of `bytes`, and what follows.
    #[inline]
    fn read(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        // One check of the length, so that the compiler drops those of the fields.
        let (head, rest) = bytes.split_first_chunk::<HEAD>()?;
        let (hub, rest) = numbers::take_bytes(rest)?;
        let (client, head) = head.split_first_chunk()?;
        let (connection, head) = head.split_first_chunk()?;
        let (owner, head) = head.split_first_chunk()?;
        let (counter, head) = head.split_first_chunk()?;
        let (hold, head) = head.split_first_chunk()?;
        let ([standing, transport], head) = head.split_first_chunk()?;
        let (since, head) = head.split_first_chunk()?;
        let (wait, _) = head.split_first_chunk()?;
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
                3 => Standing::Asking,
                _ => Standing::Memory(since),
            },
            transport: Transport::from_code(*transport)?,
            hub,
        };
        Some((entry, rest))
    }
}

/// What a slot holds, as it was loaded.
pub(super) struct Page {
    slot: Slot,
    bytes: Vec<u8>,
    version: Version,
}

/// What becomes of an entry.
pub(super) enum Change<'a> {
    Keep,
    Drop,
    To(Entry<'a>),
}

/// A page with changes, to be written in its place.
pub(super) struct Draft<'a> {
    page: &'a Page,
    /// How many bytes of the page come before the first change.
    same: usize,
    /// The page from its start, once there is a change.
    bytes: Option<Vec<u8>>,
    entries: usize,
    /// Entries that were a connection's and are no more.
    left: Vec<Entry<'a>>,
}

/// A connection as it is counted.
pub(super) struct Counted {
    /// The instance that counts it.
    pub(super) counter: u32,
    /// Whether its id is remembered after its end.
    pub(super) is_remembered: bool,
    pub(super) member: Member,
    pub(super) transport: Transport,
}

impl Counted {
    /// What it is counted as.
    pub(super) fn series(&self) -> Series {
        Series { hub: self.member.hub.clone(), transport: self.transport }
    }
}

impl Page {
    pub(super) fn load(slot: Slot, store: &dyn Store) -> Self {
        let (bytes, version) = store.load(&slot.key()).unwrap_or((Vec::new(), Version::ABSENT));
        Self { slot, bytes, version }
    }

    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.spans().map(|(entry, _)| entry)
    }

    /// Each entry with its bytes.
    fn spans(&self) -> impl Iterator<Item = (Entry<'_>, &[u8])> {
        let mut left = self.bytes.as_slice();
        std::iter::from_fn(move || {
            let (entry, rest) = Entry::read(left)?;
            let span = left.get(..left.len().saturating_sub(rest.len()))?;
            left = rest;
            Some((entry, span))
        })
    }

    /// The page with a change to each entry.
    pub(super) fn draft<'a>(&'a self, mut change: impl FnMut(&Entry<'a>) -> Change<'a>) -> Draft<'a> {
        let mut draft = Draft { page: self, same: 0, bytes: None, entries: 0, left: Vec::new() };
        for (entry, span) in self.spans() {
            let changed = match change(&entry) {
                Change::Keep => {
                    draft.keep(span);
                    continue;
                }
                Change::Drop => None,
                Change::To(changed) => Some(changed),
            };
            draft.bytes();
            let is_connection = changed.as_ref().is_some_and(|changed| !changed.is_memory());
            if let Some(changed) = changed {
                draft.push(&changed);
            }
            if !is_connection && !entry.is_memory() {
                draft.left.push(entry);
            }
        }
        draft
    }
}

impl Draft<'_> {
    pub(super) fn push(&mut self, entry: &Entry<'_>) {
        entry.write(self.bytes());
        self.entries = self.entries.saturating_add(1);
    }

    fn keep(&mut self, span: &[u8]) {
        match &mut self.bytes {
            Some(bytes) => bytes.extend_from_slice(span),
            None => self.same = self.same.saturating_add(span.len()),
        }
        self.entries = self.entries.saturating_add(1);
    }

    fn bytes(&mut self) -> &mut Vec<u8> {
        let Self { page, same, bytes, .. } = self;
        bytes.get_or_insert_with(|| {
            let mut bytes = Vec::with_capacity(page.bytes.len().saturating_add(ROOM));
            bytes.extend_from_slice(page.bytes.get(..*same).unwrap_or_default());
            bytes
        })
    }

    pub(super) fn fits(&self) -> bool {
        self.entries <= MOST_ENTRIES
    }

    /// Writes the page, if anything was changed. Returns the connections that this has ended.
    ///
    /// # Errors
    /// [`Conflict`] if somebody else wrote first.
    pub(super) fn write(self, store: &dyn Store) -> Result<Vec<Counted>, Conflict> {
        let Self { page, bytes: Some(bytes), left, .. } = self else { return Ok(Vec::new()) };
        store.swap(&page.slot.key(), &bytes, page.version)?;
        let mut ended = HashMap::new();
        if !left.is_empty() {
            for entry in left {
                ended.insert(entry.connection, entry.counted_by(entry.counter, page.slot));
            }
            let page = Page { slot: page.slot, bytes, version: page.version };
            for entry in page.entries() {
                if !entry.is_memory() {
                    ended.remove(&entry.connection);
                } else if let Some(ended) = ended.get_mut(&entry.connection) {
                    ended.is_remembered = true;
                }
            }
        }
        Ok(ended.into_values().collect())
    }
}

/// Room for one entry more.
const ROOM: usize = 128;

/// How many of these memories are too many, oldest first: a client that comes and goes must not fill the slot for others.
pub(super) fn memories_beyond_bound(page: &Page) -> usize {
    page.entries().filter(Entry::is_memory).count().saturating_add(1).saturating_sub(MOST_MEMORIES)
}
