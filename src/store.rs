//! What the worker threads of one Envoy process share, and the secret that they agree on through it.
//!
//! Envoy's shared data has compare-and-swap but no delete and no list, so every key here is one of a fixed few.

use std::fmt;

/// Shared data with optimistic locking. Two implementations: Envoy's (`host::shared`) and the tests' in-memory one.
pub trait Store {
    /// The value and its version, or `None` when nothing was ever written under `key`.
    fn load(&self, key: &str) -> Option<(Vec<u8>, Version)>;

    /// Writes `value` if the entry still has `expected`, the version [`Store::load`] gave.
    ///
    /// # Errors
    /// [`Conflict`] when somebody else wrote in between.
    fn swap(&self, key: &str, value: &[u8], expected: Version) -> Result<(), Conflict>;
}

/// The version of an entry, opaque but for [`Version::ABSENT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version(pub u32);

impl Version {
    /// Expects that nothing was written yet.
    ///
    /// Envoy counts versions up from 1, accepts any version for a missing key and refuses a wrong one for a present key;
    /// a version that no counter will reach therefore means "create, unless somebody was faster".
    pub const ABSENT: Self = Self(u32::MAX);
}

/// Somebody else wrote the entry first.
#[derive(Debug, PartialEq, Eq)]
pub struct Conflict;

/// A secret of 256 bits. `Debug` does not show it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Wants random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// To seal and to hash with.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// The secret that this Envoy process made up for itself, and whether this call made it.
#[derive(Debug)]
pub struct ProcessSecret {
    /// The same in every worker thread.
    pub secret: Secret,
    /// True for one caller only: the one that should log it.
    pub created: bool,
}

/// What a process's secret is for. Each use has its own.
#[derive(Clone, Copy, Debug)]
pub enum SecretUse {
    /// Sealing routes, where no key is configured.
    Routes,
    /// Hashing clients and connections in the ledger.
    Ledger,
}

/// Finds the process's secret, or makes it from `candidate` when this is the first caller.
pub fn process_secret(store: &dyn Store, secret_use: SecretUse, candidate: Secret) -> ProcessSecret {
    let key = match secret_use {
        SecretUse::Routes => "envoy-signalr/secret",
        SecretUse::Ledger => "envoy-signalr/ledger-secret",
    };
    let known = || store.load(key).and_then(|(bytes, _)| bytes.try_into().ok()).map(Secret);
    if let Some(secret) = known() {
        return ProcessSecret { secret, created: false };
    }
    let created = store.swap(key, candidate.bytes(), Version::ABSENT).is_ok();
    ProcessSecret { secret: known().unwrap_or(candidate), created }
}

#[cfg(test)]
pub(crate) mod memory {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    /// A [`Store`] with Envoy's rules for versions, which reports conflicts on request.
    #[derive(Default)]
    pub(crate) struct MemoryStore {
        entries: RefCell<BTreeMap<String, (Vec<u8>, u32)>>,
        counter: Cell<u32>,
        pub(crate) conflicts: Cell<u32>,
    }

    impl MemoryStore {
        /// Bytes of all keys and values.
        pub(crate) fn bytes(&self) -> usize {
            self.entries.borrow().iter().map(|(key, (value, _))| key.len() + value.len()).sum()
        }
    }

    impl Store for MemoryStore {
        fn load(&self, key: &str) -> Option<(Vec<u8>, Version)> {
            self.entries.borrow().get(key).map(|(value, version)| (value.clone(), Version(*version)))
        }

        fn swap(&self, key: &str, value: &[u8], expected: Version) -> Result<(), Conflict> {
            if let Some(left) = self.conflicts.get().checked_sub(1) {
                self.conflicts.set(left);
                return Err(Conflict);
            }
            let mut entries = self.entries.borrow_mut();
            if entries.get(key).is_some_and(|(_, version)| *version != expected.0) {
                return Err(Conflict);
            }
            self.counter.set(self.counter.get() + 1);
            entries.insert(key.to_owned(), (value.to_vec(), self.counter.get()));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::memory::MemoryStore;
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_first_worker_makes_the_secret_and_all_use_it() {
        let store = MemoryStore::default();
        let first = process_secret(&store, SecretUse::Routes, Secret([1; 32]));
        let second = process_secret(&store, SecretUse::Routes, Secret([2; 32]));
        assert_eq!((first.secret, first.created), (Secret([1; 32]), true));
        assert_eq!((second.secret, second.created), (Secret([1; 32]), false));
    }
}
