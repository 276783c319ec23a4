//! Open WebSockets by pod, for autoscalers. Always known, and told if a configuration asks for it (`metrics.per_upstream`):
//! those that were opened before are among them.
//!
//! Each instance publishes its own numbers once a second, and the sum over the living ones is the gauge. So a VM that
//! stopped takes its numbers with it, and nothing is ever owed.

use std::collections::BTreeMap;

use super::counts::Counts;
use super::{InstanceId, TRIES};
use crate::clock::Seconds;
use crate::hub::HubLabel;
use crate::store::{Store, Version};
use crate::token::Address;

const KEY: &str = "envoy-signalr/upstreams";
/// How many pairs of hub and pod an instance tells apart: as many series; later pods are counted as `other`.
const MOST: usize = 256;

/// A hub and a pod of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Upstream {
    /// The hub.
    pub hub: HubLabel,
    /// The pod's address, or `other`.
    pub address: HubLabel,
}

/// The open WebSockets of one instance.
#[derive(Debug, Default)]
pub struct Upstreams(BTreeMap<Upstream, u64>);

impl Upstreams {
    /// A WebSocket was opened. Give the result back when it has ended.
    pub fn opened(&mut self, hub: &HubLabel, address: &Address) -> Upstream {
        let upstream = |address| Upstream { hub: hub.clone(), address };
        let exact = upstream(HubLabel::address(address));
        let known = self.0.contains_key(&exact) || self.0.len() < MOST;
        let upstream = if known { exact } else { upstream(HubLabel::other()) };
        let open = self.0.entry(upstream.clone()).or_default();
        *open = open.saturating_add(1);
        upstream
    }

    /// It has ended.
    pub fn closed(&mut self, upstream: &Upstream) {
        let left = self.0.get(upstream).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            self.0.remove(upstream);
        } else {
            self.0.insert(upstream.clone(), left);
        }
    }

    /// Publishes this instance's numbers, and returns the sums over all living instances.
    pub(super) fn publish(
        &self,
        instance: InstanceId,
        counts: &Counts,
        now: Seconds,
        store: &dyn Store,
    ) -> BTreeMap<Upstream, u64> {
        let own: Vec<String> = self.0.iter().map(|(upstream, open)| row(instance, upstream, *open)).collect();
        let mut sums = BTreeMap::new();
        for _ in 0..TRIES {
            let (text, version) = match store.load(KEY) {
                Some((bytes, version)) => (String::from_utf8(bytes).unwrap_or_default(), version),
                None => (String::new(), Version::ABSENT),
            };
            let lives =
                |line: &&str| read(line).is_some_and(|(by, _, _)| by != instance.get() && counts.is_alive(by, now));
            let mut lines: Vec<&str> = text.lines().filter(lives).chain(own.iter().map(String::as_str)).collect();
            // In one order for all, so that nothing is written when nothing has changed.
            lines.sort_unstable();
            sums = sum(&lines);
            let written = lines.join("\n");
            if written == text || store.swap(KEY, written.as_bytes(), version).is_ok() {
                break;
            }
        }
        sums
    }
}

fn row(instance: InstanceId, Upstream { hub, address }: &Upstream, open: u64) -> String {
    format!("{instance} {open} {} {}", address.as_str(), hub.as_str())
}

fn read(line: &str) -> Option<(u32, u64, Upstream)> {
    let mut words = line.splitn(4, ' ');
    let (instance, open) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    let (address, hub) = (HubLabel::restored(words.next()?), HubLabel::restored(words.next()?));
    Some((instance, open, Upstream { hub, address }))
}

fn sum(lines: &[&str]) -> BTreeMap<Upstream, u64> {
    let mut sums = BTreeMap::new();
    for (_, open, upstream) in lines.iter().filter_map(|line| read(line)) {
        let sum: &mut u64 = sums.entry(upstream).or_default();
        *sum = sum.saturating_add(open);
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::counts;
    use crate::store::memory::MemoryStore;
    use std::time::Duration;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn at(seconds: u64) -> Seconds {
        crate::clock::Millis::since_epoch(Duration::from_secs(1_000_000 + seconds)).seconds()
    }

    fn told(sums: BTreeMap<Upstream, u64>) -> Vec<String> {
        sums.iter().map(|(upstream, open)| format!("{} {open}", upstream.address.as_str())).collect()
    }

    #[test]
    fn pods_are_summed_over_living_instances() {
        let (store, hub) = (MemoryStore::default(), HubLabel::learned(b"/chat"));
        let (one, two) = (InstanceId::new(1).unwrap(), InstanceId::new(2).unwrap());
        let pod = |number: u8| Address::new(format!("10.0.0.{number}:80").as_bytes()).unwrap();
        let (mut of_one, mut of_two) = (Upstreams::default(), Upstreams::default());
        let beat = |instance, now| counts::apply(&[], instance, None, now, &store).unwrap().unwrap();
        let publish = |upstreams: &Upstreams, instance, now| {
            told(upstreams.publish(instance, &Counts::load(&store), now, &store))
        };
        beat(one, at(0));
        beat(two, at(0));
        let first = of_one.opened(&hub, &pod(1));
        let _ = (of_one.opened(&hub, &pod(2)), of_two.opened(&hub, &pod(2)));
        publish(&of_one, one, at(0));
        assert_eq!(publish(&of_two, two, at(0)), ["10.0.0.1:80 1", "10.0.0.2:80 2"]);
        of_one.closed(&first);
        assert_eq!(publish(&of_one, one, at(1)), ["10.0.0.2:80 2"], "a pod without connections has no row");
        beat(one, at(8));
        assert_eq!(publish(&of_one, one, at(8)), ["10.0.0.2:80 1"], "what the dead instance had is gone");
    }

    #[test]
    fn pods_beyond_the_bound_are_one() {
        let (mut upstreams, hub) = (Upstreams::default(), HubLabel::learned(b"/chat"));
        for port in 1..=300 {
            let _ = upstreams.opened(&hub, &Address::new(format!("10.0.0.1:{port}").as_bytes()).unwrap());
        }
        assert_eq!(upstreams.0.len(), MOST + 1);
    }
}
