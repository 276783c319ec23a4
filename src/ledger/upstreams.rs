//! Open WebSockets by pod, for autoscalers. They are always counted, and emitted if a configuration asks for it
//! (`metrics.per_upstream`), so that those that were opened before are among them.

use crate::hub::HubLabel;
use crate::small_map::SmallMap;
use crate::token::Address;

/// How many pairs of hub and pod an instance counts one by one: as many series; later pods are counted as `other`.
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
pub struct Upstreams(SmallMap<Upstream, u64>);

impl Upstreams {
    /// A WebSocket was opened. Give the result back when it has ended.
    pub fn opened(&mut self, hub: &HubLabel, address: &Address) -> Upstream {
        let upstream = |address| Upstream { hub: hub.clone(), address };
        let exact = upstream(HubLabel::address(address));
        let known = self.0.contains_key(&exact) || self.0.len() < MOST;
        let upstream = if known { exact } else { upstream(HubLabel::other()) };
        self.0.update(&upstream, |open| *open = open.saturating_add(1));
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

    /// How many are open of each.
    pub(super) fn numbers(&self) -> &SmallMap<Upstream, u64> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn pods_beyond_the_bound_are_one() {
        let (mut upstreams, hub) = (Upstreams::default(), HubLabel::learned(b"/chat"));
        for port in 1..=300 {
            let _ = upstreams.opened(&hub, &Address::new(format!("10.0.0.1:{port}").as_bytes()).unwrap());
        }
        assert_eq!(upstreams.0.len(), MOST + 1);
    }
}
