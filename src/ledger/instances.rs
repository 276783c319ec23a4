//! Which instances live. An instance is one VM's plugin: one for each worker thread and configuration.
//!
//! ```text
//! directory   place 0: a, joined    place 1: b, joined    place 2: free     changes only when instances come and go
//! row/0       a, beat, numbers                                              written by a alone, once a second
//! row/1       b, beat, numbers                                              written by b alone
//! ```
//!
//! Places are used again, because shared data has no delete. An instance that has neither joined nor beaten within [`STALE`] is
//! taken out of the directory by the first that sees it; its row then belongs to nobody, and what it counted goes with it. One
//! that was only stuck finds that its place is gone and begins anew under another name ([`Pulse::Reborn`]).

use std::num::NonZeroU32;
use std::time::Duration;

use super::{LedgerFailure, TRIES};
use crate::clock::Seconds;
use crate::small_map::SmallMap;
use crate::store::{Store, Version};

/// The name of an instance: random, so that a VM that starts anew is a stranger to its past.
pub type InstanceId = NonZeroU32;

const DIRECTORY: &str = "envoy-signalr/1/instances";
/// Worker threads times configurations that still have connections: 16 times as many as a machine of 32 cores has threads.
const PLACES: usize = 512;
/// An instance beats every second; one that missed five is dead, or its thread is stuck and it will begin anew.
const STALE: Duration = Duration::from_secs(5);
/// For so long after its last beat an instance is sure that nobody has taken it for dead.
const SURE: Duration = Duration::from_secs(3);
/// An instance and its beat, at the start of its row.
const HEAD: usize = 4 + Seconds::LEN;

/// What an instance knows of itself and of the others.
#[derive(Debug)]
pub(super) struct Instances {
    own: InstanceId,
    place: Option<usize>,
    beaten: Option<Seconds>,
    /// The others, with their beats, as they were read last.
    others: SmallMap<u32, Seconds>,
    /// Instances that were not in the directory when they were looked up, since the last tick: a sweep meets the same one in
    /// many entries.
    gone: SmallMap<u32, ()>,
}

/// How an instance finds itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pulse {
    /// Nobody has taken it for dead.
    Alive,
    /// It has a new name: what it held under the old one is no longer counted.
    Reborn,
}

impl Instances {
    pub(super) fn new(own: InstanceId) -> Self {
        Self { own, place: None, beaten: None, others: SmallMap::default(), gone: SmallMap::default() }
    }

    pub(super) fn own(&self) -> InstanceId {
        self.own
    }

    /// How many are alive, this one included, as far as it knows.
    pub(super) fn alive(&self) -> usize {
        self.others.len().saturating_add(1)
    }

    /// Makes sure that the others know this instance. Between two ticks the clock alone answers. `rename` gives a name that
    /// nobody has.
    pub(super) fn pulse(
        &mut self,
        now: Seconds,
        store: &dyn Store,
        rename: impl FnOnce(InstanceId) -> InstanceId,
    ) -> Result<Pulse, LedgerFailure> {
        if self.beaten.is_some_and(|beaten| now.is_within(SURE, beaten)) {
            return Ok(Pulse::Alive);
        }
        if self.place.is_some_and(|place| self.is_at(place, store)) {
            // Its numbers are a tick old, as between any two ticks.
            self.rewrite_beat(now, store);
            return Ok(Pulse::Alive);
        }
        let was_known = self.place.is_some();
        if was_known {
            self.own = rename(self.own);
        }
        self.claim(now, store)?;
        Ok(if was_known { Pulse::Reborn } else { Pulse::Alive })
    }

    /// Publishes `numbers`, and reads those of the others. The dead are taken out of the directory. `None` if this instance was.
    pub(super) fn publish(&mut self, numbers: &[u8], now: Seconds, store: &dyn Store) -> Option<Census> {
        let place = self.place?;
        if !self.is_at(place, store) || !write_row(place, self.own, now, numbers, store) {
            self.beaten = None;
            return None;
        }
        self.beaten = Some(now);
        let (directory, version) = load_directory(store);
        let mut others = SmallMap::default();
        let mut rows = Vec::new();
        let mut dead = Vec::new();
        for (at, member) in directory.iter().enumerate().filter(|(at, member)| *at != place && member.is_there()) {
            let row = member.row(at, store);
            let beat = member.beat(row.as_ref());
            if now.is_within(STALE, beat) {
                others.insert(member.id, beat);
                rows.extend(row.map(|row| row.numbers));
            } else {
                dead.push(at);
            }
        }
        if !dead.is_empty() {
            let living = directory
                .iter()
                .enumerate()
                .map(|(at, member)| if dead.contains(&at) { Member::NOBODY } else { *member });
            // On a conflict somebody else does it, or the next tick.
            let _ = store.swap(DIRECTORY, &encode(living), version);
        }
        let any_died = self.others.keys().any(|id| !others.contains_key(id));
        self.others = others;
        self.gone.clear();
        let before =
            directory.iter().take(place).enumerate().filter(|(at, member)| member.is_there() && !dead.contains(at));
        Some(Census { rows, any_died, rank: before.count() })
    }

    /// Whether an instance lives. One that is not known yet, or whose beat as read last has grown old, is looked up.
    pub(super) fn is_alive(&mut self, id: u32, now: Seconds, store: &dyn Store) -> bool {
        if id == self.own.get() || self.others.get(&id).is_some_and(|beat| now.is_within(STALE, *beat)) {
            return true;
        }
        if self.gone.contains_key(&id) {
            return false;
        }
        let directory = load_directory(store).0;
        let Some((place, member)) = directory.iter().enumerate().find(|(_, member)| member.id == id) else {
            self.gone.insert(id, ());
            return false;
        };
        let beat = member.beat(member.row(place, store).as_ref());
        let lives = now.is_within(STALE, beat);
        if lives {
            self.others.insert(id, beat);
        }
        lives
    }

    /// Whether an instance that was looked up since the last tick was not in the directory. It never comes back under its name.
    pub(super) fn is_gone(&self, id: u32) -> bool {
        self.gone.contains_key(&id)
    }

    /// Where this instance is in the directory.
    pub(super) fn place(&self) -> Option<usize> {
        self.place
    }

    /// Where another instance is in the directory now, if it is there.
    pub(super) fn place_of(&self, id: u32, store: &dyn Store) -> Option<usize> {
        load_directory(store).0.iter().position(|member| member.id == id)
    }

    /// Whether the others know this instance.
    #[cfg(test)]
    pub(super) fn is_listed(&self, store: &dyn Store) -> bool {
        self.place.is_some_and(|place| self.is_at(place, store))
    }

    /// Whether the directory has this instance at its place.
    fn is_at(&self, place: usize, store: &dyn Store) -> bool {
        load_directory(store).0.get(place).is_some_and(|member| member.id == self.own.get())
    }

    fn rewrite_beat(&mut self, now: Seconds, store: &dyn Store) {
        let Some(place) = self.place else { return };
        let numbers = load_row(place, store).map(|row| row.numbers).unwrap_or_default();
        if write_row(place, self.own, now, &numbers, store) {
            self.beaten = Some(now);
        }
    }

    /// Takes a free place.
    fn claim(&mut self, now: Seconds, store: &dyn Store) -> Result<(), LedgerFailure> {
        let own = Member { id: self.own.get(), joined: now };
        for _ in 0..TRIES {
            let (mut directory, version) = load_directory(store);
            let place = directory.iter().position(|member| !member.is_there()).unwrap_or(directory.len());
            match directory.get_mut(place) {
                Some(free) => *free = own,
                None if place < PLACES => directory.push(own),
                None => return Err(LedgerFailure),
            }
            if store.swap(DIRECTORY, &encode(directory.into_iter()), version).is_ok() {
                self.place = Some(place);
                self.beaten = Some(now);
                return Ok(());
            }
        }
        Err(LedgerFailure)
    }
}

/// Who has a place.
#[derive(Clone, Copy)]
struct Member {
    /// The instance; 0 where nobody is.
    id: u32,
    /// When it took the place: it may not have written its row yet.
    joined: Seconds,
}

impl Member {
    const NOBODY: Self = Self { id: 0, joined: Seconds::MIN };
    const LEN: usize = 4 + Seconds::LEN;

    fn is_there(&self) -> bool {
        self.id != 0
    }

    /// The row at `place`, if this instance wrote it.
    fn row(&self, place: usize, store: &dyn Store) -> Option<Row> {
        load_row(place, store).filter(|row| row.instance == self.id)
    }

    /// The latest sign of life: the beat in its row, or its joining.
    fn beat(&self, row: Option<&Row>) -> Seconds {
        row.map_or(self.joined, |row| row.beat.max(self.joined))
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (id, bytes) = bytes.split_first_chunk()?;
        let (joined, _) = bytes.split_first_chunk()?;
        Some(Self { id: u32::from_be_bytes(*id), joined: Seconds::from_bytes(*joined) })
    }
}

/// What a tick has found.
pub(super) struct Census {
    /// The numbers of the other living instances.
    pub(super) rows: Vec<Vec<u8>>,
    /// Whether an instance has died since the tick before.
    pub(super) any_died: bool,
    /// How many living instances have a place before this one.
    pub(super) rank: usize,
}

struct Row {
    instance: u32,
    beat: Seconds,
    numbers: Vec<u8>,
}

fn row_key(place: usize) -> String {
    format!("envoy-signalr/1/row/{place}")
}

fn load_row(place: usize, store: &dyn Store) -> Option<Row> {
    let (bytes, _) = store.load(&row_key(place))?;
    let (instance, rest) = bytes.split_first_chunk()?;
    let (beat, _) = rest.split_first_chunk()?;
    let numbers = bytes.get(HEAD..)?.to_vec();
    Some(Row { instance: u32::from_be_bytes(*instance), beat: Seconds::from_bytes(*beat), numbers })
}

/// False when somebody else wrote the row in between.
fn write_row(place: usize, own: InstanceId, now: Seconds, numbers: &[u8], store: &dyn Store) -> bool {
    let key = row_key(place);
    let version = store.load(&key).map_or(Version::ABSENT, |(_, version)| version);
    let row = [own.get().to_be_bytes().as_slice(), &now.to_bytes(), numbers].concat();
    store.swap(&key, &row, version).is_ok()
}

/// Who is at each place.
fn load_directory(store: &dyn Store) -> (Vec<Member>, Version) {
    match store.load(DIRECTORY) {
        Some((bytes, version)) => {
            (bytes.chunks_exact(Member::LEN).filter_map(Member::read).take(PLACES).collect(), version)
        }
        None => (Vec::new(), Version::ABSENT),
    }
}

fn encode(directory: impl Iterator<Item = Member>) -> Vec<u8> {
    let bytes = directory.flat_map(|member| [member.id.to_be_bytes(), member.joined.to_bytes()]);
    bytes.flatten().collect()
}
