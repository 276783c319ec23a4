//! The gauges: the present number of connections, and zero for a name that had one before.
//!
//! Envoy never drops a gauge, and keeps its last value. The instance that set it may be gone: its VM trapped, or the
//! configuration has changed. So the emitted names are shared, and each instance emits all of them. Instances of an older
//! configuration live as long as their connections; they emit what the newest configuration asks for.

use std::collections::{BTreeMap, BTreeSet};

use super::stat;
use crate::hub::HubLabel;
use crate::ledger::{Present, Upstream};
use crate::signalr::Transport;
use crate::store::{Store, Version};

/// A line that says whether WebSockets are counted by pod, and one for each name.
const KEY: &str = "envoy-signalr/gauges";
const BY_POD: &str = "by-pod";
const BY_HUB: &str = "by-hub";
/// 65 hubs by three transports, once more for WebSockets, and what is left for pods that come and go: some 1,700. Some
/// 200 KB of names.
const MOST: usize = 2_048;
/// Attempts to share what is new before it is left for the next second.
const TRIES: u8 = 4;

const CONNECTIONS: &str = "signalr_gateway_connections_active";
const WEBSOCKETS: &str = "websocket_connections_active";
const SHARED_STATE: &str = "signalr_gateway_shared_state";

/// The gauges of one instance.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Whether this instance's configuration wants WebSockets by pod, until that is shared.
    wanted: Option<bool>,
}

impl Gauges {
    /// Those of an instance that was configured just now.
    pub fn new(per_upstream: bool) -> Self {
        Self { wanted: Some(per_upstream) }
    }

    /// The gauges to set, by name with labels.
    pub fn emit(&mut self, present: &Present, store: &dyn Store) -> BTreeMap<String, u64> {
        let mut gauges = BTreeMap::new();
        for _ in 0..TRIES {
            let loaded = store.load(KEY);
            let version = loaded.as_ref().map_or(Version::ABSENT, |(_, version)| *version);
            let before = loaded.and_then(|(bytes, _)| String::from_utf8(bytes).ok()).unwrap_or_default();
            let (mode, known) = before.split_once('\n').unwrap_or((&before, ""));
            let lines = known.lines();
            // `collect` would sort first, by 5 KB of code.
            let mut known = BTreeSet::new();
            known.extend(lines);
            let by_pod = self.wanted.unwrap_or(mode == BY_POD);
            gauges = name(present, by_pod, &known);
            for name in known {
                gauges.entry(name.to_owned()).or_insert(0);
            }
            let mode = if by_pod { BY_POD } else { BY_HUB };
            let after = gauges.keys().fold(mode.to_owned(), |all, name| all + "\n" + name);
            if after == before || store.swap(KEY, after.as_bytes(), version).is_ok() {
                self.wanted = None;
                break;
            }
        }
        gauges
    }
}

/// The present numbers by name. A pod for which there is no room is emitted as `other`.
fn name(present: &Present, by_pod: bool, known: &BTreeSet<&str>) -> BTreeMap<String, u64> {
    let mut gauges = BTreeMap::new();
    for (hub, transport, count) in &present.connections {
        let labels = [("hub", hub.as_str()), ("transport", transport.label())];
        gauges.insert(stat(CONNECTIONS, &labels), *count);
        if *transport == Transport::WebSockets && !by_pod {
            gauges.insert(stat(WEBSOCKETS, &labels[..1]), *count);
        }
    }
    if present.redis != [0, 0] {
        let states = ["connected", "away"].into_iter().zip(present.redis);
        gauges.extend(states.map(|(state, instances)| (stat(SHARED_STATE, &[("state", state)]), instances)));
    }
    let mut room = MOST.saturating_sub(known.len());
    for (Upstream { hub, address }, count) in present.upstreams.iter().filter(|_| by_pod) {
        let of_pod = |pod: &str| stat(WEBSOCKETS, &[("hub", hub.as_str()), ("upstream", pod)]);
        let mut name = of_pod(address.as_str());
        if !known.contains(name.as_str()) {
            match room.checked_sub(1) {
                Some(left) => room = left,
                None => name = of_pod(HubLabel::other().as_str()),
            }
        }
        let sum = gauges.entry(name).or_insert(0);
        *sum = count.saturating_add(*sum);
    }
    gauges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::small_map::SmallMap;
    use crate::store::memory::MemoryStore;
    use crate::token::Address;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn chat() -> HubLabel {
        HubLabel::learned(b"/chat")
    }

    fn pods(numbers: impl IntoIterator<Item = u16>) -> SmallMap<Upstream, u64> {
        let pod = |port| {
            let address = Address::new(format!("10.0.0.1:{port}").as_bytes()).unwrap();
            (Upstream { hub: chat(), address: HubLabel::address(&address) }, 1)
        };
        numbers.into_iter().map(pod).collect()
    }

    fn present(connections: &[(HubLabel, Transport, u64)], upstreams: SmallMap<Upstream, u64>) -> Present {
        Present { connections: connections.to_vec(), upstreams, redis: [0, 0] }
    }

    fn lines(gauges: BTreeMap<String, u64>) -> Vec<String> {
        let line = |(name, value): (String, u64)| format!("{} {value}", name.replace("signalr_hub=.=/chat;.;", ""));
        gauges.into_iter().map(line).collect()
    }

    #[test]
    fn what_is_told_no_more_is_zero_whoever_told_it() {
        let store = MemoryStore::default();
        let sockets = [(chat(), Transport::WebSockets, 2)];
        let by_transport = |number| format!("signalr_transport=.=web_sockets;.;{CONNECTIONS} {number}");
        let by_pod = |port, number| format!("signalr_upstream=.=10.0.0.1:{port};.;{WEBSOCKETS} {number}");
        let all = |number| format!("{WEBSOCKETS} {number}");
        let mut instances = [false, true, false].map(Gauges::new);
        let [old, new, newest] = [0, 1, 2];
        for (name, instance, connections, upstreams, expected) in [
            ("two", old, &sockets[..], pods([1, 2]), vec![by_transport(2), all(2)]),
            ("theirs died", old, &[], pods([]), vec![by_transport(0), all(0)]),
            (
                "pods are asked for",
                new,
                &sockets,
                pods([1, 2]),
                vec![by_transport(2), by_pod(1, 1), by_pod(2, 1), all(0)],
            ),
            ("a pod is gone", old, &sockets, pods([2]), vec![by_transport(2), by_pod(1, 0), by_pod(2, 1), all(0)]),
            ("no more", newest, &sockets, pods([2]), vec![by_transport(2), by_pod(1, 0), by_pod(2, 0), all(2)]),
            ("obeyed", new, &sockets, pods([2]), vec![by_transport(2), by_pod(1, 0), by_pod(2, 0), all(2)]),
        ] {
            assert_eq!(lines(instances[instance].emit(&present(connections, upstreams), &store)), expected, "{name}");
        }
    }

    #[test]
    fn pods_are_named_also_when_the_first_websocket_comes_late() {
        let (store, mut instance) = (MemoryStore::default(), Gauges::new(true));
        for _ in 0..3 {
            assert_eq!(instance.emit(&Present::default(), &store), BTreeMap::new());
        }
        let gauges = lines(instance.emit(&present(&[], pods([1])), &store));
        assert_eq!(gauges, [format!("signalr_upstream=.=10.0.0.1:1;.;{WEBSOCKETS} 1")]);
    }

    #[test]
    fn pods_that_come_and_go_for_ever_make_no_more_series_than_there_is_room_for() {
        let store = MemoryStore::default();
        let mut instance = Gauges::new(true);
        for first in (0..4_000).step_by(100) {
            let gauges = instance.emit(&present(&[], pods(first..first + 100)), &store);
            assert_eq!(gauges.values().sum::<u64>(), 100, "none is lost: from {first}");
            assert!(gauges.len() <= MOST + 1, "{} from {first}", gauges.len());
        }
    }

    #[test]
    fn a_name_that_could_not_be_shared_is_shared_a_second_later() {
        let (store, sockets) = (MemoryStore::default(), [(chat(), Transport::WebSockets, 2)]);
        let (mut one, mut other) = (Gauges::new(false), Gauges::new(false));
        store.conflicts.set(TRIES.into());
        for (connections, expected) in [(&sockets[..], 0), (&sockets, 2)] {
            assert_eq!(one.emit(&present(connections, pods([])), &store).len(), 2);
            assert_eq!(other.emit(&Present::default(), &store).len(), expected);
        }
    }
}
