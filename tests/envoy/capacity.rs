//! More clients than the gateway takes.

use serde_json::{Value, json};
use testbed::envoy::{EnvoyOptions, Patch};
use testbed::process::wait_for;
use testbed::raw::{Request, Wire, ask};

use crate::gateway::{Gateway, every_version};
use crate::upstream::hub;

#[test]
fn a_full_gateway_closes_new_connections_and_still_shows_its_metrics() {
    for (version, options) in every_version(&json!({})) {
        let few: Patch = Box::new(|bootstrap: &mut Value| {
            let monitor = &mut bootstrap["overload_manager"]["resource_monitors"][0]["typed_config"];
            monitor["max_active_downstream_connections"] = 2.into();
        });
        let gateway = Gateway::with([hub(0)], EnvoyOptions { patch: Some(few), ..options });
        let poll = Request::get("/chat?id=abc");
        let mut held = [(); 2].map(|()| Wire::open(&gateway.envoy.url()));
        for wire in &mut held {
            assert_eq!(wire.ask(&poll).status(), 200, "{version:?}");
        }
        let refused = |wire: &mut Wire| wire.try_ask(&poll).is_err();
        assert!(refused(&mut Wire::open(&gateway.envoy.url())), "{version:?}");
        let metrics = ask(&gateway.envoy.metrics(), &Request::get("/stats/prometheus"));
        assert!(metrics.text().contains("downstream_global_cx_overflow"), "{version:?}: {metrics:?}");
        drop(held);
        wait_for("room for another", || !refused(&mut Wire::open(&gateway.envoy.url()))).unwrap();
        let log = gateway.envoy.finish().unwrap();
        assert!(!log.contains("no configured limit"), "{version:?}: {log}");
    }
}
