//! How many connections each hub has by each transport, and which instances live.
//!
//! One small entry in shared data, rows of text: `i INSTANCE BEAT` and `c INSTANCE TRANSPORT COUNT HUB`. An instance's rows
//! go with it when its beat is stale. Long-polling sessions outlive the polls that hold them, so they are instance 0's.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use super::slots::Entry;
use super::{InstanceId, LedgerFailure, TRIES};
use crate::clock::Seconds;
use crate::hub::HubLabel;
use crate::settings::Limits;
use crate::signalr::Transport;
use crate::store::{Store, Version};

const KEY: &str = "envoy-signalr/counts";
/// An instance beats every second; one that missed five is dead, or its thread is stuck and will register again.
const STALE: Duration = Duration::from_secs(5);

/// Which limit has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    Hub,
    Total,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    instance: u32,
    transport: Transport,
    hub: HubLabel,
}

/// The numbers, as they were when loaded.
#[derive(Debug, Default)]
pub(super) struct Counts {
    beats: BTreeMap<u32, Seconds>,
    rows: BTreeMap<Row, u32>,
}

/// One more or one fewer.
#[derive(Clone, Debug)]
pub(super) struct Change {
    entry: Entry,
    more: bool,
    label: Option<HubLabel>,
}

impl Change {
    /// One more; `label` in full, for a row that may not exist yet.
    pub(super) fn plus(entry: Entry, label: Option<&HubLabel>) -> Self {
        Self { entry, more: true, label: label.cloned() }
    }

    /// One fewer.
    pub(super) fn minus(entry: Entry) -> Self {
        Self { entry, more: false, label: None }
    }

    pub(super) fn reversed(&self) -> Self {
        Self { more: !self.more, ..self.clone() }
    }

    /// Whether the row is this instance's.
    pub(super) fn is_of(&self, instance: InstanceId) -> bool {
        self.instance() == instance.get()
    }

    /// The instance whose row it is.
    fn instance(&self) -> u32 {
        match self.entry.transport {
            Transport::LongPolling => 0,
            Transport::WebSockets | Transport::ServerSentEvents => self.entry.owner,
        }
    }
}

impl Counts {
    pub(super) fn load(store: &dyn Store) -> Self {
        Self::load_versioned(store).0
    }

    pub(super) fn is_alive(&self, instance: u32, now: Seconds) -> bool {
        self.beats.get(&instance).is_some_and(|beat| now.is_within(STALE, *beat))
    }

    /// Whether this is the lowest living instance: the one that sweeps.
    pub(super) fn is_first(&self, instance: InstanceId, now: Seconds) -> bool {
        self.beats.keys().find(|id| self.is_alive(**id, now)) == Some(&instance.get())
    }

    /// Which limit has no room for one more, by what living instances hold.
    pub(super) fn full(&self, limits: &Limits, hub: &HubLabel, now: Seconds) -> Option<Full> {
        let sum = |of_hub: Option<&HubLabel>| -> u64 {
            let rows = self.rows.iter().filter(|(row, _)| of_hub.is_none_or(|hub| row.hub == *hub));
            rows.filter(|(row, _)| row.instance == 0 || self.is_alive(row.instance, now))
                .map(|(_, count)| u64::from(*count))
                .sum()
        };
        if limits.per_hub.is_some_and(|limit| sum(Some(hub)) >= u64::from(limit)) {
            return Some(Full::Hub);
        }
        limits.total.is_some_and(|limit| sum(None) >= u64::from(limit)).then_some(Full::Total)
    }

    pub(super) fn by_hub(&self) -> Vec<(HubLabel, Transport, u64)> {
        let mut sums: BTreeMap<(HubLabel, Transport), u64> = BTreeMap::new();
        for (row, count) in &self.rows {
            let sum = sums.entry((row.hub.clone(), row.transport)).or_default();
            *sum = sum.saturating_add(u64::from(*count));
        }
        sums.into_iter().map(|((hub, transport), sum)| (hub, transport, sum)).collect()
    }

    fn load_versioned(store: &dyn Store) -> (Self, Version) {
        let Some((bytes, version)) = store.load(KEY) else { return (Self::default(), Version::ABSENT) };
        let mut counts = Self::default();
        for line in str::from_utf8(&bytes).unwrap_or_default().lines() {
            // A line that does not parse was not written by this version: leave it out.
            let _ = counts.read(line);
        }
        (counts, version)
    }

    fn read(&mut self, line: &str) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        let (instance, rest) = rest.split_once(' ')?;
        let instance = instance.parse().ok()?;
        if kind == "i" {
            self.beats.insert(instance, Seconds::from_bytes(rest.parse::<u32>().ok()?.to_be_bytes()));
            return Some(());
        }
        let (transport, rest) = rest.split_once(' ')?;
        let (count, hub) = rest.split_once(' ')?;
        let transport = Transport::from_code(transport.parse().ok()?)?;
        self.rows.insert(Row { instance, transport, hub: HubLabel::restored(hub) }, count.parse().ok()?);
        Some(())
    }

    fn write(&self) -> String {
        let mut text = String::new();
        for (instance, beat) in &self.beats {
            let _ = writeln!(text, "i {instance} {}", u32::from_be_bytes(beat.to_bytes()));
        }
        for (Row { instance, transport, hub }, count) in &self.rows {
            let _ = writeln!(text, "c {instance} {} {count} {}", transport.code(), hub.as_str());
        }
        text
    }

    fn change(&mut self, change: &Change) {
        let (instance, hub) = (change.instance(), change.entry.hub);
        let found = self.rows.iter_mut().find(|(row, _)| {
            row.instance == instance && row.transport == change.entry.transport && row.hub.hash() == hub
        });
        match (found, &change.label) {
            (Some((_, count)), _) if change.more => *count = count.saturating_add(1),
            (Some((_, count)), _) => *count = count.saturating_sub(1),
            (None, Some(label)) if change.more => {
                self.rows.insert(Row { instance, transport: change.entry.transport, hub: label.clone() }, 1);
            }
            // The row went with its instance, and what it counted with it.
            (None, _) => {}
        }
    }

    fn drop_dead(&mut self, now: Seconds) {
        let dead: Vec<u32> = self.beats.keys().copied().filter(|instance| !self.is_alive(*instance, now)).collect();
        for instance in dead {
            self.beats.remove(&instance);
        }
        let beats = &self.beats;
        // A row at zero stays as long as its instance: the gauge needs to be told.
        self.rows.retain(|row, _| row.instance == 0 || beats.contains_key(&row.instance));
    }
}

/// Beats for `instance` and applies `changes` at once, unless `ceiling` has no room. Tells which limit was full before.
///
/// # Errors
/// Outer: too many conflicts. Inner: the limit that has no room, and nothing was changed.
pub(super) fn apply(
    changes: &[Change],
    instance: InstanceId,
    ceiling: Option<(&Limits, &HubLabel)>,
    now: Seconds,
    store: &dyn Store,
) -> Result<Result<(), Full>, LedgerFailure> {
    for _ in 0..TRIES {
        let (mut counts, version) = Counts::load_versioned(store);
        // In this order: an instance that was taken for dead begins anew, see `Limiter::revive`.
        counts.drop_dead(now);
        counts.beats.insert(instance.get(), now);
        if let Some(full) = ceiling.and_then(|(limits, hub)| counts.full(limits, hub, now)) {
            return Ok(Err(full));
        }
        for change in changes {
            counts.change(change);
        }
        if store.swap(KEY, counts.write().as_bytes(), version).is_ok() {
            return Ok(Ok(()));
        }
    }
    Err(LedgerFailure)
}
