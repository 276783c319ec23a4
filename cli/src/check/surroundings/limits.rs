//! What limits rest on: known hubs, and an address that a client cannot make up.

use envoy_signalr::settings::{AbsentKey, ClientKeySource, Hubs, Settings};

use super::super::finding::Finding;
use super::super::plugin::Plugin;
use super::{Manager, warning};

pub(super) fn warnings(manager: Option<&Manager<'_>>, plugin: &Plugin<'_>, settings: &Settings) -> Vec<Finding> {
    let limits = &settings.limits;
    let counts = [limits.per_client, limits.per_hub, limits.total].iter().any(Option::is_some);
    if !counts && limits.negotiate_rate.is_none() && limits.connect_rate.is_none() {
        return Vec::new();
    }
    let by_address = limits.client.key == ClientKeySource::SourceAddress || limits.client.absent == AbsentKey::Address;
    let place = manager.and_then(|manager| manager.place(""));
    let mut warnings = Vec::new();
    if matches!(settings.hubs, Hubs::Any) {
        warnings.push(warning(
            plugin.place_of("limits"),
            "limits without hubs: any path counts as a hub as soon as it answers a negotiate; list your hubs in `hubs`",
        ));
    }
    if manager.is_some_and(|manager| by_address && !manager.is_set("use_remote_address")) {
        warnings.push(warning(
            place,
            "limits count by the client's address, which a client can make up: set `use_remote_address: true` in the HTTP \
             connection manager",
        ));
    }
    if limits.client.key == ClientKeySource::Header("x-forwarded-for".to_owned()) {
        warnings.push(warning(
            plugin.place_of("limits.client.key"),
            "each client writes into `x-forwarded-for`, and so can be as many clients as it likes: add `\"as\": \"address\"` to \
             `limits.client.key`",
        ));
    }
    let by_last_entry = limits.client.key == ClientKeySource::AddressHeader("x-forwarded-for".to_owned());
    let adds_peer = |manager: &Manager<'_>| manager.is_set("use_remote_address") && !manager.is_set("skip_xff_append");
    if by_last_entry && manager.is_some_and(adds_peer) {
        warnings.push(warning(
            place,
            "all clients behind one proxy are one, because Envoy adds the proxy's address to `x-forwarded-for`: set \
             `skip_xff_append: true` in the HTTP connection manager",
        ));
    }
    if manager.is_some_and(|manager| !manager.is_set("normalize_path")) {
        warnings.push(warning(
            place,
            "a client can write a hub's path in several ways: set `normalize_path: true` in the HTTP connection manager",
        ));
    }
    warnings
}
