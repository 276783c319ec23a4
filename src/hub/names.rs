//! The hubs that answered a negotiate, and so have a label of their own although no configuration lists them.
//!
//! Bounded, because a client can make up paths: only a hub's answer adds one, at most [`HubNames::MOST`] are kept, and a hub that
//! has answered no negotiate for [`HubNames::IDLE`] makes room for another.

use std::time::Duration;

use log::warn;

use super::HubLabel;
use crate::clock::Seconds;
use crate::store::{Store, Version};

const KEY: &str = "envoy-signalr/hubs";

/// The names that all worker threads know, as this one read them last.
#[derive(Debug, Default)]
pub struct HubNames {
    names: Vec<Name>,
    /// Whether this thread has warned that there is no room.
    warned: bool,
}

#[derive(Clone, Debug)]
struct Name {
    name: String,
    /// About when the hub answered a negotiate last.
    answered: Seconds,
}

/// What became of a hub that answered a negotiate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Learned {
    /// It has a label of its own.
    Known,
    /// It is one of the others, for want of room or after too many conflicts.
    Other,
}

impl HubNames {
    /// How many hubs have labels of their own; all others share the label `other`. 64 hubs times the label values of the largest
    /// metric (some 20) stay below 1,300 series.
    pub const MOST: usize = 64;
    /// A hub that has answered no negotiate for so long makes room for another. Its connections keep their label.
    pub const IDLE: Duration = Duration::from_secs(600);
    /// How old the time of the last answer may become before it is written anew.
    const REFRESH: Duration = Duration::from_secs(60);
    /// Attempts to write before it is left for the next negotiate of that hub.
    const TRIES: u8 = 4;

    /// Whether `name` is known, here or to another worker thread.
    pub fn knows(&mut self, name: &str, store: &dyn Store) -> bool {
        if self.find(name).is_none() {
            self.read(store);
        }
        self.find(name).is_some()
    }

    /// Whether `path` has the name of a hub that is known here. Asked of every request, so it copies nothing.
    pub fn has(&self, path: &[u8]) -> bool {
        self.names.iter().any(|known| HubLabel::is_name_of(&known.name, path))
    }

    /// Notes for all worker threads that the hub `name` has answered a negotiate.
    pub fn learn(&mut self, name: &str, now: Seconds, store: &dyn Store) -> Learned {
        let is_fresh = |known: &Name| now.is_within(Self::REFRESH, known.answered);
        for _ in 0..Self::TRIES {
            if self.find(name).is_some_and(is_fresh) {
                return Learned::Known;
            }
            let version = self.read(store);
            if self.find(name).is_some_and(is_fresh) {
                return Learned::Known;
            }
            let known = self.names.extract_if(.., |known| known.name == name).next();
            if known.is_none() && !self.make_room(now) {
                return Learned::Other;
            }
            self.names.push(Name { name: name.to_owned(), answered: now });
            let line = |known: &Name| format!("{} {}", u32::from_be_bytes(known.answered.to_bytes()), known.name);
            let list: Vec<_> = self.names.iter().map(line).collect();
            if store.swap(KEY, list.join("\n").as_bytes(), version).is_ok() {
                return Learned::Known;
            }
            // What is not written is not known.
            self.names.clear();
        }
        self.read(store);
        if self.find(name).is_some() { Learned::Known } else { Learned::Other }
    }

    /// Whether there is room for one more name: the hub that has been idle longest makes it, if it has been so for long enough.
    fn make_room(&mut self, now: Seconds) -> bool {
        if self.names.len() < Self::MOST {
            return true;
        }
        let oldest = self.names.iter().enumerate().min_by_key(|(_, known)| known.answered);
        let idle = oldest.filter(|(_, known)| !now.is_within(Self::IDLE, known.answered)).map(|(place, _)| place);
        if let Some(place) = idle {
            self.names.remove(place);
        } else if !self.warned {
            self.warned = true;
            warn!(
                "{} hubs have answered negotiates in the last {} minutes: further ones share the label `other` and \
                 limits.connections.per_hub; list your hubs in `hubs`",
                Self::MOST,
                Self::IDLE.as_secs() / 60
            );
        }
        idle.is_some()
    }

    fn find(&self, name: &str) -> Option<&Name> {
        self.names.iter().find(|known| known.name == name)
    }

    fn read(&mut self, store: &dyn Store) -> Version {
        let Some((bytes, version)) = store.load(KEY) else { return Version::ABSENT };
        let lines = bytes.split(|byte| *byte == b'\n').filter_map(|line| {
            let (answered, name) = str::from_utf8(line).ok()?.split_once(' ')?;
            let answered = Seconds::from_bytes(answered.parse::<u32>().ok()?.to_be_bytes());
            Some(Name { name: name.to_owned(), answered })
        });
        self.names = lines.take(Self::MOST).collect();
        version
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Millis;
    use crate::store::memory::MemoryStore;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn at(seconds: u64) -> Seconds {
        Millis::since_epoch(Duration::from_secs(1_000_000 + seconds)).seconds()
    }

    #[test]
    fn names_are_shared_and_bounded() {
        let store = MemoryStore::default();
        let (mut here, mut there) = (HubNames::default(), HubNames::default());
        assert_eq!(here.learn("/chat", at(0), &store), Learned::Known);
        assert!(there.knows("/chat", &store));
        let learned = (0..100).filter(|n| there.learn(&format!("/hub{n}"), at(1), &store) == Learned::Known).count();
        assert_eq!((learned, there.names.len()), (HubNames::MOST - 1, HubNames::MOST));
        assert!(here.knows("/hub1", &store) && !here.knows("/hub99", &store));
    }

    #[test]
    fn a_hub_that_is_idle_makes_room_and_one_that_is_not_stays() {
        let (store, mut names) = (MemoryStore::default(), HubNames::default());
        for n in 0..64 {
            names.learn(&format!("/made-up-{n}"), at(n), &store);
        }
        for minute in 1..10 {
            names.learn("/made-up-7", at(minute * 61), &store);
        }
        assert_eq!(names.learn("/chat", at(500), &store), Learned::Other, "nobody has been idle for ten minutes");
        assert_eq!(names.learn("/chat", at(601), &store), Learned::Known);
        assert!(!names.knows("/made-up-0", &store), "idle longest");
        assert_eq!(names.learn("/other-chat", at(608), &store), Learned::Known);
        assert!(names.knows("/made-up-7", &store) && !names.knows("/made-up-1", &store));
    }

    #[test]
    fn paths_that_a_hub_takes_for_one_are_one() {
        let (store, mut names) = (MemoryStore::default(), HubNames::default());
        names.learn(HubLabel::learned(b"/Caf%C3%A9/c%68at/").as_str(), at(0), &store);
        for (path, known) in [
            ("/caf%c3%a9/chat", true),
            ("/CAF%C3%A9/CH%41T/", true),
            ("/caf%C3%A9/chat/x", false),
            ("/caf%C3%A9%2Fchat", false),
        ] {
            assert_eq!(names.has(path.as_bytes()), known, "{path}");
            assert_eq!(names.knows(HubLabel::learned(path.as_bytes()).as_str(), &store), known, "{path}");
        }
    }

    #[test]
    fn a_conflict_is_tried_again_a_few_times() {
        let store = MemoryStore::default();
        for (conflicts, learned) in [(1, Learned::Known), (9, Learned::Other)] {
            let name = format!("/{conflicts}");
            store.conflicts.set(conflicts);
            assert_eq!(HubNames::default().learn(&name, at(0), &store), learned, "{conflicts} conflicts");
            store.conflicts.set(0);
            assert_eq!(HubNames::default().knows(&name, &store), learned == Learned::Known, "{conflicts} conflicts");
        }
    }
}
