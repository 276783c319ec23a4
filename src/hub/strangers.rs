//! Paths that end in `/negotiate` and belong to some other application.

use std::collections::VecDeque;

use crate::http;

/// Those that this worker thread has seen lately. No limit is about them.
///
/// Only an answer of success that is no negotiate's puts a path here, and a client cannot make a hub give one: a hub that refuses
/// does it with another status, or with a negotiate's answer that holds an error.
#[derive(Debug, Default)]
pub struct Strangers(VecDeque<Vec<u8>>);

impl Strangers {
    /// Paths remembered; the oldest makes room.
    const MOST: usize = 64;
    /// Longest path that is remembered.
    const LONGEST: usize = 256;

    /// Whether `hub` is the path of another application, before its `/negotiate`.
    pub fn has(&self, hub: &[u8]) -> bool {
        self.0.iter().any(|known| normal(hub).eq(known.iter().copied()))
    }

    /// Remembers that what answers at `hub` is no hub.
    pub fn learn(&mut self, hub: &[u8]) {
        if hub.len() > Self::LONGEST || self.has(hub) {
            return;
        }
        if self.0.len() >= Self::MOST {
            self.0.pop_front();
        }
        self.0.push_back(normal(hub).collect());
    }

    /// A hub has answered at this path after all.
    pub fn forget(&mut self, hub: &[u8]) {
        self.0.retain(|known| !normal(hub).eq(known.iter().copied()));
    }
}

fn normal(hub: &[u8]) -> impl Iterator<Item = u8> {
    http::decode_path(http::without_slash(hub)).map(|byte| byte.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_few_paths_are_remembered_until_a_hub_answers_there() {
        let mut strangers = Strangers::default();
        strangers.learn(b"/App/");
        assert!(strangers.has(b"/app") && strangers.has(b"/a%70p") && !strangers.has(b"/apps"));
        strangers.forget(b"/APP");
        assert!(!strangers.has(b"/app"));
        (0..100).for_each(|n| strangers.learn(format!("/{n}").as_bytes()));
        assert!(!strangers.has(b"/35") && strangers.has(b"/36") && strangers.has(b"/99"));
        strangers.learn(&[b'/'; 257]);
        assert_eq!(strangers.0.len(), Strangers::MOST);
    }
}
