//! Room under the limits that many clients share: `per_hub` and `total`.
//!
//! ```text
//! room/total   (a, 37) (b, 12) (c, 51)       permits that each living instance holds; their sum never exceeds the limit
//! a's own      used 30, spare 7              taken in a batch, so that most connects touch nothing that others write
//! ```
//!
//! Far from the limit permits are taken in batches; near it one by one, and what is spare is given back at the next end or tick.
//! So a connection is never one too many, and is refused while there is room only if another instance gives its spare permits
//! back within a second. The permits of a dead instance go with it.

use super::instances::Instances;
use super::{LedgerFailure, TRIES, numbers};
use crate::clock::Seconds;
use crate::small_map::SmallMap;
use crate::store::{Store, Version};

/// The most permits that are taken at once: enough that a hundred connects cost three writes.
const BATCH: i64 = 32;
/// An instance takes at most this part of its share of the room at once.
const PART: i64 = 8;
/// Keys for hubs. Hubs whose names hash to the same key share it; each of its records names its hub.
const KEYS: u32 = 256;

/// Which limit the room is under.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Scope {
    /// Of all hubs together.
    Total,
    /// Of the hub with this label.
    Hub(String),
}

/// The permits that this instance holds and does not use.
#[derive(Debug, Default)]
pub(super) struct Rooms(SmallMap<Scope, Spare>);

#[derive(Clone, Copy, Debug, Default)]
struct Spare {
    permits: i64,
    /// Whether the last look found the limit far away.
    far: bool,
}

/// How a permit is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ceiling {
    /// None is given beyond this, of which `elsewhere` connections are not in the permits.
    AtMost {
        /// The limit.
        limit: u32,
        /// Connections of instances that hold no permits, because their configuration has no such limit.
        elsewhere: i64,
    },
    /// It is given in any case: to exempt clients, and in shadow mode.
    Any,
}

impl Rooms {
    /// Takes a permit. False when there is no room.
    pub(super) fn take(
        &mut self,
        scope: &Scope,
        ceiling: Ceiling,
        instances: &mut Instances,
        now: Seconds,
        store: &dyn Store,
    ) -> Result<bool, LedgerFailure> {
        if let Some(spare) = self.0.get_mut(scope).filter(|spare| spare.permits > 0) {
            spare.permits = spare.permits.saturating_sub(1);
            return Ok(true);
        }
        let mut spare = self.0.get(scope).copied().unwrap_or_default();
        for _ in 0..TRIES {
            let (mut permits, version) = load(scope, instances, now, store);
            let (batch, far) = match ceiling {
                Ceiling::Any => (1, spare.far),
                Ceiling::AtMost { limit, elsewhere } => {
                    let room = i64::from(limit).saturating_sub(held(&permits, scope)).saturating_sub(elsewhere);
                    if room < 1 {
                        spare.far = false;
                        self.0.insert(scope.clone(), spare);
                        return Ok(false);
                    }
                    let share = PART.saturating_mul(i64::try_from(instances.alive()).unwrap_or(i64::MAX));
                    let batch = room.checked_div(share).unwrap_or(1).clamp(1, BATCH);
                    (batch, batch > 1)
                }
            };
            add(&mut permits, scope, instances.own().get(), batch);
            if store.swap(&scope.key(), &encode(&permits), version).is_ok() {
                self.0.insert(scope.clone(), Spare { permits: batch.saturating_sub(1), far });
                return Ok(true);
            }
        }
        Err(LedgerFailure)
    }

    /// Whether a permit would be given. None is taken.
    pub(super) fn has_room(
        &self,
        scope: &Scope,
        limit: u32,
        elsewhere: i64,
        instances: &mut Instances,
        now: Seconds,
        store: &dyn Store,
    ) -> bool {
        if self.0.get(scope).is_some_and(|spare| spare.permits > 0) {
            return true;
        }
        let (permits, _) = load(scope, instances, now, store);
        held(&permits, scope).saturating_add(elsewhere) < i64::from(limit)
    }

    /// Gives a permit back.
    pub(super) fn release(&mut self, scope: &Scope, instances: &mut Instances, now: Seconds, store: &dyn Store) {
        if let Some(spare) = self.0.get_mut(scope) {
            spare.permits = spare.permits.saturating_add(1);
        } else {
            self.0.insert(scope.clone(), Spare { permits: 1, far: false });
        }
        let spare = self.0.get(scope).copied().unwrap_or_default();
        if !spare.far || spare.permits > BATCH {
            self.give_back(scope, instances, now, store);
        }
    }

    /// Gives back all that is spare. Call every second.
    pub(super) fn settle(&mut self, instances: &mut Instances, now: Seconds, store: &dyn Store) {
        let scopes: Vec<Scope> = self.0.keys().cloned().collect();
        scopes.iter().for_each(|scope| self.give_back(scope, instances, now, store));
        self.0.retain(|_, spare| spare.permits != 0);
    }

    /// Begins anew under another name: what was held under the old one is gone.
    pub(super) fn restart(&mut self) {
        self.0.clear();
    }

    /// What meets too many conflicts stays spare until the next tick.
    fn give_back(&mut self, scope: &Scope, instances: &mut Instances, now: Seconds, store: &dyn Store) {
        let Some(spare) = self.0.get_mut(scope).filter(|spare| spare.permits != 0) else { return };
        for _ in 0..TRIES {
            let (mut permits, version) = load(scope, instances, now, store);
            add(&mut permits, scope, instances.own().get(), spare.permits.saturating_neg());
            if store.swap(&scope.key(), &encode(&permits), version).is_ok() {
                spare.permits = 0;
                return;
            }
        }
    }
}

impl Scope {
    fn key(&self) -> String {
        match self {
            Self::Total => "envoy-signalr/1/room/total".to_owned(),
            Self::Hub(name) => {
                let hash = name.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
                format!("envoy-signalr/1/room/{}", hash % KEYS)
            }
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Total => "",
            Self::Hub(name) => name,
        }
    }
}

/// The permits that an instance holds.
struct Permits {
    instance: u32,
    held: i64,
    scope: Scope,
}

/// The permits that all instances hold in `scope`. A key of hubs may carry others, too.
fn held(permits: &[Permits], scope: &Scope) -> i64 {
    permits.iter().filter(|one| one.scope == *scope).map(|one| one.held).sum()
}

fn add(permits: &mut Vec<Permits>, scope: &Scope, instance: u32, by: i64) {
    match permits.iter_mut().find(|one| one.instance == instance && one.scope == *scope) {
        Some(own) => own.held = own.held.saturating_add(by),
        None => permits.push(Permits { instance, held: by, scope: scope.clone() }),
    }
    permits.retain(|one| one.held != 0);
}

/// Those of living instances.
fn load(scope: &Scope, instances: &mut Instances, now: Seconds, store: &dyn Store) -> (Vec<Permits>, Version) {
    let Some((bytes, version)) = store.load(&scope.key()) else { return (Vec::new(), Version::ABSENT) };
    let mut permits = decode(&bytes, *scope == Scope::Total);
    permits.retain(|one| instances.is_alive(one.instance, now, store));
    (permits, version)
}

fn encode(permits: &[Permits]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for one in permits {
        bytes.extend(one.instance.to_be_bytes());
        bytes.extend(one.held.to_be_bytes());
        numbers::put(&mut bytes, one.scope.name().as_bytes());
    }
    bytes
}

fn decode(mut bytes: &[u8], is_total: bool) -> Vec<Permits> {
    let mut permits = Vec::new();
    while let Some((one, rest)) = decode_one(bytes, is_total) {
        permits.push(one);
        bytes = rest;
    }
    permits
}

fn decode_one(bytes: &[u8], is_total: bool) -> Option<(Permits, &[u8])> {
    let (instance, bytes) = bytes.split_first_chunk()?;
    let (held, bytes) = bytes.split_first_chunk()?;
    let (label, rest) = numbers::take(bytes)?;
    let scope = if is_total { Scope::Total } else { Scope::Hub(label.as_str().to_owned()) };
    Some((Permits { instance: u32::from_be_bytes(*instance), held: i64::from_be_bytes(*held), scope }, rest))
}
