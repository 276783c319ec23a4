//! What of the admin interface other machines reach: what Prometheus and probes ask for, by the listener `metrics`.

use serde_json::json;
use testbed::raw::{Request, ask};

use crate::gateway::{Gateway, every_version};
use crate::upstream::hub;

#[test]
fn only_metrics_and_readiness_are_passed_on() {
    for (version, options) in every_version(&json!({})) {
        let gateway = Gateway::with([hub(0)], options);
        gateway.negotiate();
        for (method, target, expected) in [
            ("GET", "/stats/prometheus", Some("signalr_gateway_negotiations_total{")),
            ("GET", "/stats/prometheus?usedonly&filter=negotiations", Some("signalr_gateway_negotiations_total{")),
            ("GET", "/ready", Some("LIVE")),
            ("POST", "/ready", None),
            ("POST", "/stats/prometheus", None),
            ("POST", "/quitquitquit", None),
            ("GET", "/quitquitquit", None),
            ("GET", "/config_dump", None),
            ("GET", "/stats", None),
            ("GET", "/stats/prometheus/../../config_dump", None),
            ("GET", "/stats/prometheus/%2e%2e/%2e%2e/config_dump", None),
            ("GET", "//config_dump", None),
            ("GET", "/", None),
            // No hub either.
            ("POST", "/chat/negotiate?negotiateVersion=1", None),
        ] {
            let answer = ask(&gateway.envoy.metrics(), &Request::new(method, target));
            let name = format!("{version:?} {method} {target}: {answer:?}");
            assert_eq!(answer.status(), if expected.is_some() { 200 } else { 404 }, "{name}");
            assert!(answer.text().contains(expected.unwrap_or_default()), "{name}");
        }
        assert!(gateway.take_received().is_empty(), "{version:?}: the hub was asked");
    }
}
