//! The slots that an instance is to look through, and when: see [`tick`](super::tick). At most one entry for each slot.

use std::collections::{BTreeSet, HashMap};

use super::slots::Slot;
use crate::clock::Seconds;

/// Slots by the time at which they are due.
#[derive(Debug, Default)]
pub(super) struct Watch {
    by_time: BTreeSet<(Seconds, Slot)>,
    by_slot: HashMap<Slot, Seconds>,
}

impl Watch {
    /// Adds a slot, or makes it due earlier.
    pub(super) fn add(&mut self, slot: Slot, due: Seconds) {
        let earlier = self.by_slot.get(&slot).copied();
        if earlier.is_none_or(|earlier| due < earlier) {
            self.by_time.extend([(due, slot)]);
            self.by_slot.insert(slot, due);
            if let Some(earlier) = earlier {
                self.by_time.remove(&(earlier, slot));
            }
        }
    }

    /// Takes the slot that has been due for the longest time.
    pub(super) fn take_due(&mut self, now: Seconds) -> Option<Slot> {
        let (due, slot) = *self.by_time.first()?;
        if due > now {
            return None;
        }
        self.by_time.pop_first();
        self.by_slot.remove(&slot);
        Some(slot)
    }

    /// Makes all slots due.
    pub(super) fn all_due(&mut self, now: Seconds) {
        self.by_slot.values_mut().for_each(|due| *due = now.min(*due));
        self.by_time.clear();
        self.by_time.extend(self.by_slot.iter().map(|(slot, due)| (*due, *slot)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_longest_due_comes_first_and_each_slot_once() {
        let at = |seconds: u32| Seconds::from_bytes(seconds.to_be_bytes());
        let slot = |number| Slot::numbered(number).unwrap();
        let mut watch = Watch::default();
        for (number, due) in [(1, 30), (2, 10), (3, 20), (1, 15), (2, 40)] {
            watch.add(slot(number), at(due));
        }
        assert_eq!(watch.take_due(at(9)), None);
        assert_eq!(
            [at(20), at(20), at(20)].map(|now| watch.take_due(now)),
            [Some(slot(2)), Some(slot(1)), Some(slot(3))]
        );
        watch.add(slot(4), at(90));
        watch.all_due(at(50));
        assert_eq!([watch.take_due(at(50)), watch.take_due(at(99))], [Some(slot(4)), None]);
    }
}
