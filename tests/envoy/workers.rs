//! The worker threads of one Envoy, each with a filter of its own, act as one.

use std::thread;

use envoy_signalr::settings::OWN_SECRET_WARNING;
use serde_json::json;
use testbed::envoy::{EnvoyOptions, Filter};
use testbed::process::cores;
use testbed::raw::{Request, ask};
use testbed::tools::EnvoyVersion;

use crate::gateway::{Gateway, PODS, pod};
use crate::upstream::hub;

/// Of each client.
const CONNECTIONS: usize = 25;

/// Without a configured key the first thread makes one up, and an id sealed by one thread is opened by all.
#[test]
fn all_workers_seal_with_the_key_that_one_made_up() {
    // Two for each core, so that worker threads meet.
    let clients = 2 * cores();
    for version in EnvoyVersion::ALL {
        let filter = Filter::With(json!({}));
        let options = EnvoyOptions { version, filter, concurrency: 4, ..EnvoyOptions::default() };
        let gateway = Gateway::with((0..PODS).map(hub), options);
        thread::scope(|scope| {
            for _ in 0..clients {
                scope.spawn(|| (0..CONNECTIONS).for_each(|_| connect(&gateway)));
            }
        });
        assert_eq!(gateway.affinity("connection_token", "routed") as usize, clients * CONNECTIONS, "{version:?}");
        for outcome in ["forged", "unknown_key", "expired", "host_gone"] {
            assert_eq!(gateway.affinity("connection_token", outcome), 0, "{version:?} {outcome}");
        }
        assert_eq!(gateway.envoy.log().matches(OWN_SECRET_WARNING).count(), 1, "{version:?}");
    }
}

fn connect(gateway: &Gateway) {
    let negotiate = ask(&gateway.envoy.url(), &Request::post("/chat/negotiate?negotiateVersion=1"));
    let target = format!("/chat?id={}", negotiate.json()["connectionToken"].as_str().unwrap());
    assert!(target.contains('.'), "{target}");
    assert_eq!(pod(&ask(&gateway.envoy.url(), &Request::websocket(&target))), pod(&negotiate));
}
