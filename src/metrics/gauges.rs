//! The gauges: what there is at present.

use std::collections::BTreeMap;

use super::{HubLabel, stat};
use crate::limit::Upstream;
use crate::signalr::Transport;

/// The gauges, by name with labels: `signalr_gateway_connections_active` and `websocket_connections_active`, the latter by
/// pod where `upstreams` has been asked for.
pub fn gauges(
    connections: &[(HubLabel, Transport, u64)],
    upstreams: Option<&BTreeMap<Upstream, u64>>,
) -> BTreeMap<String, u64> {
    let websockets = "websocket_connections_active";
    let mut gauges = BTreeMap::new();
    for (hub, transport, count) in connections {
        let labels = [("hub", hub.as_str()), ("transport", transport.label())];
        gauges.insert(stat("signalr_gateway_connections_active", &labels), *count);
        if *transport == Transport::WebSockets && upstreams.is_none() {
            gauges.insert(stat(websockets, &[("hub", hub.as_str())]), *count);
        }
    }
    for (Upstream { hub, address }, count) in upstreams.into_iter().flatten() {
        gauges.insert(stat(websockets, &[("hub", hub.as_str()), ("upstream", address.as_str())]), *count);
    }
    gauges
}
