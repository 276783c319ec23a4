//! A map for some hundred entries: a sorted list.
//!
//! Envoy compiles the module before it listens, and each B-tree of the standard library is 8 KB of code for each pair of types; this is
//! 1 KB. What is put in already sorted, as rows of shared data are, is appended. A map that clients can make long is a `HashMap`.

/// Values by key, in the order of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmallMap<K, V>(Vec<(K, V)>);

impl<K, V> Default for SmallMap<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K: Ord, V> SmallMap<K, V> {
    /// Where the key is, or else where it belongs.
    fn find(&self, key: &K) -> Result<usize, usize> {
        match self.0.last() {
            Some((last, _)) if last < key => Err(self.0.len()),
            _ => self.0.binary_search_by(|(other, _)| other.cmp(key)),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.find(key).ok().and_then(|at| self.0.get(at)).map(|(_, value)| value)
    }

    /// The value of a key, to change it.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.find(key).ok().and_then(|at| self.0.get_mut(at)).map(|(_, value)| value)
    }

    /// Whether there is a value for a key.
    pub fn contains_key(&self, key: &K) -> bool {
        self.find(key).is_ok()
    }

    /// Puts a value in the place of the one that the key has, if it has one.
    pub fn insert(&mut self, key: K, value: V) {
        match self.find(&key) {
            Ok(at) => {
                if let Some((_, old)) = self.0.get_mut(at) {
                    *old = value;
                }
            }
            Err(at) => self.0.insert(at, (key, value)),
        }
    }

    /// Takes a value out.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.find(key).ok().map(|at| self.0.remove(at).1)
    }

    /// Drops all but what `keep` says.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &mut V) -> bool) {
        self.0.retain_mut(|(key, value)| keep(key, value));
    }
}

impl<K: Ord + Clone, V: Default> SmallMap<K, V> {
    /// Changes the value of a key, or a default one that it gets.
    pub fn update(&mut self, key: &K, change: impl FnOnce(&mut V)) {
        let at = self.find(key).unwrap_or_else(|at| {
            self.0.insert(at, (key.clone(), V::default()));
            at
        });
        if let Some((_, value)) = self.0.get_mut(at) {
            change(value);
        }
    }
}

impl<K, V> SmallMap<K, V> {
    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Drops all entries.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Keys and values.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.iter().map(|(key, _)| key)
    }

    /// The values.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }
}

impl<K, V> IntoIterator for SmallMap<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<K: Ord, V> FromIterator<(K, V)> for SmallMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        entries.into_iter().for_each(|(key, value)| map.insert(key, value));
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn it_does_what_the_standard_librarys_map_does() {
        let mut dice = fastrand::Rng::with_seed(7);
        let (mut small, mut standard) = (SmallMap::default(), BTreeMap::new());
        for _ in 0..20_000 {
            let (key, value) = (dice.u8(..64), dice.u32(..));
            match dice.u8(..4) {
                0 => {
                    small.insert(key, value);
                    standard.insert(key, value);
                }
                1 => assert_eq!(small.remove(&key), standard.remove(&key)),
                2 => {
                    small.update(&key, |old| *old = old.wrapping_add(value));
                    let old = standard.entry(key).or_default();
                    *old = old.wrapping_add(value);
                }
                _ => assert_eq!(small.get(&key).copied(), standard.get(&key).copied()),
            }
            assert_eq!((small.len(), small.contains_key(&key)), (standard.len(), standard.contains_key(&key)));
        }
        small.retain(|key, _| key % 2 == 0);
        standard.retain(|key, _| key % 2 == 0);
        assert!(small.iter().eq(standard.iter()), "in the same order");
        assert_eq!(small.into_iter().collect::<BTreeMap<_, _>>(), standard);
    }
}
