//! Envoy's shared data as the core's [`Store`].
//!
//! All modules with the same `vm_id` share it, and Istio leaves that empty, so keys carry our name.

use proxy_wasm::hostcalls;

use crate::store::{Conflict, Store, Version};

pub(super) struct SharedData;

impl Store for SharedData {
    fn load(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        match hostcalls::get_shared_data(key) {
            // An empty value comes back as none, but with the version that says it is there.
            Ok((value, Some(version))) => Some((value.unwrap_or_default(), Version(version))),
            _ => None,
        }
    }

    fn swap(&self, key: &str, value: &[u8], expected: Version) -> Result<(), Conflict> {
        hostcalls::set_shared_data(key, Some(value), Some(expected.0)).map_err(|_| Conflict)
    }
}
