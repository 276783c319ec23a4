//! How many connections there are, by hub and transport, in numbers that nobody else writes.
//!
//! One instance counts a connection, from its first connect to its end: its *counter*, which stands in the entries of the
//! connection. Polls and resumes may be held by others, and change no number. When a connection ends elsewhere, its counter gets
//! a letter and takes it off a second later:
//!
//! ```text
//!                                               a's number   letters to a
//! a opens a session                             1
//! b answers the session's next poll             1            the counter is still a
//! the session's DELETE reaches c                1            −1
//! a reads its letters                           0
//! ```
//!
//! A letter to an instance that has died is void, as its number is. What a dead instance counted and another one still holds
//! is counted anew by the next that sees it.

use super::instances::Instances;
use super::numbers;
use super::{LedgerFailure, TRIES};
use crate::hub::HubLabel;
use crate::signalr::Transport;
use crate::small_map::SmallMap;
use crate::store::{Store, Version};

/// What one number is kept for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series {
    pub(super) hub: HubLabel,
    pub(super) transport: Transport,
}

/// The numbers of one instance.
#[derive(Debug, Default)]
pub(super) struct Tally {
    own: SmallMap<Series, u64>,
    /// Letters that met too many conflicts: the instance that each is for, and what the connection that has ended was counted as.
    unsent: Vec<(u32, Series)>,
}

impl Tally {
    /// A connection that this instance counts has begun.
    pub(super) fn begun(&mut self, series: Series) {
        self.own.update(&series, |number| *number = number.saturating_add(1));
    }

    /// So many have ended.
    pub(super) fn ended(&mut self, series: &Series, many: u32) {
        let left = self.own.get(series).copied().unwrap_or(0).saturating_sub(many.into());
        self.own.insert(series.clone(), left);
    }

    /// Drops what is at zero, which has been published: what began and ended within a second has its gauge, too.
    pub(super) fn published(&mut self) {
        self.own.retain(|_, number| *number > 0);
    }

    /// A connection has ended that `counter` counts.
    pub(super) fn ended_elsewhere(
        &mut self,
        series: Series,
        counter: u32,
        instances: &mut Instances,
        store: &dyn Store,
    ) {
        if send(counter, &series, instances, store).is_err() {
            self.unsent.push((counter, series));
        }
    }

    /// Sends what could not be sent before.
    pub(super) fn send_again(&mut self, instances: &mut Instances, store: &dyn Store) {
        self.unsent.retain(|(counter, series)| send(*counter, series, instances, store).is_err());
    }

    /// Begins anew: everything is counted again.
    pub(super) fn restart(&mut self) {
        self.own.clear();
    }

    /// What this instance publishes.
    pub(super) fn numbers(&self) -> &SmallMap<Series, u64> {
        &self.own
    }
}

/// Adds one ended connection to the letters of an instance, unless it is dead.
fn send(to: u32, series: &Series, instances: &mut Instances, store: &dyn Store) -> Result<(), LedgerFailure> {
    let Some(place) = instances.place_of(to, store) else { return Ok(()) };
    for _ in 0..TRIES {
        let (mut letters, version) = load(place, to, store);
        letters.update(series, |number| *number = number.saturating_add(1));
        if store.swap(&key(place), &encode(to, &letters), version).is_ok() {
            return Ok(());
        }
    }
    Err(LedgerFailure)
}

/// Takes the letters of the instance at a place: what has ended elsewhere, and how often.
pub(super) fn receive(place: usize, own: u32, store: &dyn Store) -> SmallMap<Series, u32> {
    for _ in 0..TRIES {
        let (letters, version) = load(place, own, store);
        if letters.is_empty() || store.swap(&key(place), &encode(own, &SmallMap::default()), version).is_ok() {
            return letters;
        }
    }
    SmallMap::default()
}

fn key(place: usize) -> String {
    format!("envoy-signalr/1/letters/{place}")
}

/// The letters at a place, if they are for the instance `to`: those of one that had the place before are void.
pub(super) fn load(place: usize, to: u32, store: &dyn Store) -> (SmallMap<Series, u32>, Version) {
    let Some((bytes, version)) = store.load(&key(place)) else { return (SmallMap::default(), Version::ABSENT) };
    let mut letters = SmallMap::default();
    let mut rest = bytes.strip_prefix(&to.to_be_bytes()).unwrap_or_default();
    while let Some((series, many, after)) = read(rest) {
        letters.insert(series, many);
        rest = after;
    }
    (letters, version)
}

fn encode(to: u32, letters: &SmallMap<Series, u32>) -> Vec<u8> {
    let mut bytes = to.to_be_bytes().to_vec();
    for (Series { hub, transport }, many) in letters.iter() {
        bytes.push(transport.code());
        bytes.extend(many.to_be_bytes());
        numbers::put(&mut bytes, hub.as_bytes());
    }
    bytes
}

fn read(bytes: &[u8]) -> Option<(Series, u32, &[u8])> {
    let (transport, bytes) = bytes.split_first()?;
    let (many, bytes) = bytes.split_first_chunk()?;
    let (hub, rest) = numbers::take(bytes)?;
    Some((Series { hub, transport: Transport::from_code(*transport)? }, u32::from_be_bytes(*many), rest))
}
