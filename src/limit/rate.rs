//! Token buckets per client, shared by all worker threads: the generic cell rate algorithm (ITU-T I.371), whose whole
//! state is one time, until which everything earned is spent.
//!
//! A bucket whose time has passed is full, and that is what an absent one is, too: so idle clients cost nothing.

use super::ClientKey;
use crate::clock::{AHEAD, Millis};
use crate::ledger::{LedgerFailure, TRIES};
use crate::settings::Rate;
use crate::store::{Store, Version};

/// 1,024 slots of at most 256 buckets of 17 bytes: 4.5 MB, 262,144 clients in the middle of a burst.
const SLOTS: u16 = 1_024;
const MOST_BUCKETS: usize = 256;

/// Which of a client's buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bucket {
    /// A token is a negotiate.
    Negotiate,
    /// A token is a new connection.
    Connect,
    /// A token is an id that passed without one because of its age, and that the hub did not know.
    Trust,
}

impl Bucket {
    fn code(self) -> u8 {
        match self {
            Self::Negotiate => b'n',
            Self::Connect => b'c',
            Self::Trust => b't',
        }
    }
}

/// How full a bucket is that is not full.
struct Level {
    client: [u8; 8],
    bucket: u8,
    /// When it will be full, in microseconds since the Unix epoch.
    full_at: u64,
}

impl Level {
    const LEN: usize = 8 + 1 + 8;

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (client, bytes) = bytes.split_first_chunk()?;
        let (bucket, bytes) = bytes.split_first()?;
        Some(Self { client: *client, bucket: *bucket, full_at: u64::from_be_bytes(bytes.try_into().ok()?) })
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        self.client.into_iter().chain([self.bucket]).chain(self.full_at.to_be_bytes())
    }
}

/// What a bucket is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Whether there is a token. None is taken.
    Look,
    /// A token.
    Take,
}

/// Asks a client's bucket. False when it has no token.
///
/// # Errors
/// Too many conflicts.
pub(super) fn ask(
    ask: Ask,
    bucket: Bucket,
    rate: Rate,
    client: ClientKey,
    now: Millis,
    store: &dyn Store,
) -> Result<bool, LedgerFailure> {
    let [high, low, ..] = client.0;
    let key = format!("envoy-signalr/rate/{}", u16::from_be_bytes([high, low]) % SLOTS);
    let now = now.micros();
    let ahead = u64::try_from(AHEAD.as_micros()).unwrap_or(u64::MAX);
    let capacity = rate.interval.saturating_mul(u64::from(rate.burst));
    for _ in 0..TRIES {
        let loaded = store.load(&key);
        let version = loaded.as_ref().map_or(Version::ABSENT, |(_, version)| *version);
        let bytes = loaded.map(|(bytes, _)| bytes).unwrap_or_default();
        let mut levels: Vec<_> = bytes.chunks_exact(Level::LEN).filter_map(Level::from_bytes).collect();
        levels.retain(|level| level.full_at > now);
        let is_own = |level: &Level| level.client == client.0 && level.bucket == bucket.code();
        let own = levels.extract_if(.., |level| is_own(level)).next();
        // What is beyond any burst was spent before the clock was set back, or under another configuration.
        let fullest = now.saturating_add(capacity).saturating_add(ahead);
        let spent_until = own.filter(|own| own.full_at <= fullest).map_or(now, |own| own.full_at);
        let full_at = spent_until.saturating_add(rate.interval);
        let has_token = full_at.saturating_sub(now) <= capacity;
        if !has_token || ask == Ask::Look {
            return Ok(has_token);
        }
        if levels.len() >= MOST_BUCKETS {
            // The one that is nearest to full loses least.
            let nearest = levels.iter().map(|level| level.full_at).min();
            let _ = levels.extract_if(.., |level| Some(level.full_at) == nearest).next();
        }
        levels.push(Level { client: client.0, bucket: bucket.code(), full_at });
        let bytes: Vec<u8> = levels.iter().flat_map(Level::bytes).collect();
        if store.swap(&key, &bytes, version).is_ok() {
            return Ok(true);
        }
    }
    Err(LedgerFailure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;
    use std::time::Duration;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn at(milliseconds: u64) -> Millis {
        Millis::since_epoch(Duration::from_millis(milliseconds))
    }

    #[test]
    fn a_burst_passes_then_one_per_interval() {
        let store = MemoryStore::default();
        let rate = Rate { interval: 100_000, burst: 3 };
        let take = |client: u8, kind, now| ask(Ask::Take, kind, rate, ClientKey([client; 8]), at(now), &store).unwrap();
        for (now, expected) in [
            (1_000, true),
            (1_000, true),
            (1_000, true),
            (1_000, false),
            (1_099, false),
            (1_100, true),
            (1_100, false),
            (9_000, true),
            (9_000, true),
            (9_000, true),
            (8_990, false),
            // The clock was set back.
            (1_000, true),
        ] {
            assert_eq!(take(1, Bucket::Connect, now), expected, "at {now} ms");
        }
        assert!(take(2, Bucket::Connect, 1_000), "another client has its own bucket");
        assert!(take(1, Bucket::Negotiate, 1_000), "another kind has its own bucket");
    }

    #[test]
    fn memory_is_bounded_whatever_clients_do() {
        let store = MemoryStore::default();
        let rate = Rate { interval: 60_000_000, burst: 1 };
        for client in 0..2_000_u64 {
            let mut key = client.to_be_bytes();
            key.rotate_left(2); // All in slot 0.
            assert!(ask(Ask::Take, Bucket::Connect, rate, ClientKey(key), at(1_000), &store).unwrap());
        }
        assert_eq!(store.load("envoy-signalr/rate/0").unwrap().0.len(), MOST_BUCKETS * Level::LEN);
    }

    #[test]
    fn a_look_takes_nothing() {
        let store = MemoryStore::default();
        let rate = Rate { interval: 1_000_000, burst: 1 };
        let ask = |what, now| ask(what, Bucket::Trust, rate, ClientKey([1; 8]), at(now), &store).unwrap();
        for (what, now, expected) in [
            (Ask::Look, 10_000, true),
            (Ask::Look, 10_000, true),
            (Ask::Take, 10_000, true),
            (Ask::Look, 10_999, false),
            (Ask::Look, 11_000, true),
        ] {
            assert_eq!(ask(what, now), expected, "{what:?} at {now} ms");
        }
    }
}
