//! Token buckets per client, shared by all worker threads: the generic cell rate algorithm (ITU-T I.371), whose whole
//! state is one time, until which everything earned is spent.
//!
//! A bucket whose time has passed is full, and that is what an absent one is, too: so idle clients cost nothing.

use super::{ClientKey, LedgerFailure, TRIES};
use crate::clock::{AHEAD, Millis};
use crate::settings::Rate;
use crate::store::{Store, Version};

/// 1,024 slots of at most 256 buckets of 17 bytes: 4.5 MB, 262,144 clients in the middle of a burst.
const SLOTS: u16 = 1_024;
const MOST_BUCKETS: usize = 256;

/// Which of a client's buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Negotiate,
    Connect,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Negotiate => b'n',
            Self::Connect => b'c',
        }
    }
}

/// A bucket that is not full.
struct Bucket {
    client: [u8; 8],
    kind: u8,
    /// When it will be full, in microseconds since the Unix epoch.
    full_at: u64,
}

impl Bucket {
    const LEN: usize = 8 + 1 + 8;

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (client, bytes) = bytes.split_first_chunk()?;
        let (kind, bytes) = bytes.split_first()?;
        Some(Self { client: *client, kind: *kind, full_at: u64::from_be_bytes(bytes.try_into().ok()?) })
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        self.client.into_iter().chain([self.kind]).chain(self.full_at.to_be_bytes())
    }
}

/// Takes one token. False when there is none.
///
/// # Errors
/// Too many conflicts.
pub(super) fn take(
    kind: Kind,
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
        let mut buckets: Vec<_> = bytes.chunks_exact(Bucket::LEN).filter_map(Bucket::from_bytes).collect();
        buckets.retain(|bucket| bucket.full_at > now);
        let is_own = |bucket: &Bucket| bucket.client == client.0 && bucket.kind == kind.code();
        let own = buckets.extract_if(.., |bucket| is_own(bucket)).next();
        // What is beyond any burst was spent before the clock was set back, or under another configuration.
        let fullest = now.saturating_add(capacity).saturating_add(ahead);
        let spent_until = own.filter(|own| own.full_at <= fullest).map_or(now, |own| own.full_at);
        let full_at = spent_until.saturating_add(rate.interval);
        if full_at.saturating_sub(now) > capacity {
            return Ok(false);
        }
        if buckets.len() >= MOST_BUCKETS {
            // The one that is nearest to full loses least.
            buckets.sort_by_key(|bucket| std::cmp::Reverse(bucket.full_at));
            buckets.truncate(MOST_BUCKETS.saturating_sub(1));
        }
        buckets.push(Bucket { client: client.0, kind: kind.code(), full_at });
        let bytes: Vec<u8> = buckets.iter().flat_map(Bucket::bytes).collect();
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
        let take = |client: u8, kind, now| take(kind, rate, ClientKey([client; 8]), at(now), &store).unwrap();
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
            assert_eq!(take(1, Kind::Connect, now), expected, "at {now} ms");
        }
        assert!(take(2, Kind::Connect, 1_000), "another client has its own bucket");
        assert!(take(1, Kind::Negotiate, 1_000), "another kind has its own bucket");
    }

    #[test]
    fn memory_is_bounded_whatever_clients_do() {
        let store = MemoryStore::default();
        let rate = Rate { interval: 60_000_000, burst: 1 };
        for client in 0..2_000_u64 {
            let mut key = client.to_be_bytes();
            key.rotate_left(2); // All in slot 0.
            assert!(take(Kind::Connect, rate, ClientKey(key), at(1_000), &store).unwrap());
        }
        assert_eq!(store.load("envoy-signalr/rate/0").unwrap().0.len(), MOST_BUCKETS * Bucket::LEN);
    }
}
