//! Envoy's shared data as the core's [`Store`].
//!
//! All modules with the same `vm_id` share it, and Istio leaves that empty, so keys carry our name.

use std::sync::atomic::{AtomicU64, Ordering};

use proxy_wasm::hostcalls;

use crate::metrics::Count;
use crate::store::{Conflict, Store, Version};

/// Since they were last counted.
static CONFLICTS: AtomicU64 = AtomicU64::new(0);

pub(super) struct SharedData;

impl SharedData {
    /// How many conflicts this thread met since the last call.
    pub(super) fn take_conflicts() -> Count {
        Count::Conflicts(CONFLICTS.swap(0, Ordering::Relaxed))
    }
}

impl Store for SharedData {
    fn load(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        match hostcalls::get_shared_data(key) {
            // An empty value comes back as none, but with the version that says it is there.
            Ok((value, Some(version))) => Some((value.unwrap_or_default(), Version(version))),
            _ => None,
        }
    }

    fn swap(&self, key: &str, value: &[u8], expected: Version) -> Result<(), Conflict> {
        hostcalls::set_shared_data(key, Some(value), Some(expected.0)).map_err(|_| {
            CONFLICTS.fetch_add(1, Ordering::Relaxed);
            Conflict
        })
    }
}
