//! What the worker threads of one Envoy process share, and the two things agreed through it so far: the process's
//! secret and the names of the hubs seen.
//!
//! Envoy's shared data has compare-and-swap but no delete and no list, so every key here is one of a fixed few.

use std::collections::BTreeSet;
use std::fmt;

use crate::http;

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

/// A secret of 256 bits, which is told to no log.
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

const HUBS_KEY: &str = "envoy-signalr/hubs";

/// The secret that this Envoy process made up for itself, and whether this call made it.
#[derive(Debug)]
pub struct ProcessSecret {
    /// The same in every worker thread.
    pub secret: Secret,
    /// True for one caller only: the one that should tell the operator.
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

/// The paths of hubs that answered a negotiate, which may become metric labels.
///
/// Bounded, because a client can make up paths: only a hub's answer adds one, and only [`HubNames::MOST`] fit.
#[derive(Debug, Default)]
pub struct HubNames(BTreeSet<String>);

impl HubNames {
    /// How many hubs are told apart; later ones are labelled `other`. 64 hubs times the label values of the largest
    /// metric (some 20) stay below 1,300 series.
    pub const MOST: usize = 64;
    /// Attempts to add a name before it is left for the next negotiate of that hub.
    const TRIES: u8 = 4;

    /// Whether `name` is known, here or to another worker thread.
    pub fn knows(&mut self, name: &str, store: &dyn Store) -> bool {
        if !self.0.contains(name) && self.0.len() < Self::MOST {
            self.read(store);
        }
        self.0.contains(name)
    }

    /// Whether `path` has the name of a hub that is known here. Asked of every request, so it copies nothing.
    pub fn has(&self, path: &[u8]) -> bool {
        let path = http::without_slash(path);
        self.0.iter().any(|name| name.as_bytes().eq_ignore_ascii_case(path))
    }

    /// Adds `name`, for all worker threads, if there is room.
    pub fn learn(&mut self, name: &str, store: &dyn Store) {
        for _ in 0..Self::TRIES {
            if self.0.contains(name) {
                return;
            }
            let version = self.read(store);
            if self.0.contains(name) || self.0.len() >= Self::MOST {
                return;
            }
            let list = self.0.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join("\n");
            if store.swap(HUBS_KEY, list.as_bytes(), version).is_ok() {
                self.0.insert(name.to_owned());
                return;
            }
        }
    }

    fn read(&mut self, store: &dyn Store) -> Version {
        let Some((bytes, version)) = store.load(HUBS_KEY) else { return Version::ABSENT };
        let names = bytes.split(|byte| *byte == b'\n').filter_map(|name| String::from_utf8(name.to_vec()).ok());
        self.0 = names.take(Self::MOST).collect();
        version
    }
}

#[cfg(test)]
pub(crate) mod memory {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    /// A [`Store`] with Envoy's rules for versions, which can be told to report conflicts.
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

    #[test]
    fn hub_names_are_shared_and_bounded() {
        let store = MemoryStore::default();
        let (mut here, mut there) = (HubNames::default(), HubNames::default());
        here.learn("/chat", &store);
        assert!(there.knows("/chat", &store));
        for n in 0..100 {
            there.learn(&format!("/hub{n}"), &store);
        }
        assert_eq!(there.0.len(), HubNames::MOST);
        assert!(here.knows("/hub1", &store) && !here.knows("/hub99", &store));
    }

    #[test]
    fn a_conflict_is_tried_again_a_few_times() {
        let store = MemoryStore::default();
        for (conflicts, learned) in [(1, true), (9, false)] {
            let name = format!("/{conflicts}");
            store.conflicts.set(conflicts);
            HubNames::default().learn(&name, &store);
            store.conflicts.set(0);
            assert_eq!(HubNames::default().knows(&name, &store), learned, "{conflicts} conflicts");
        }
    }
}
