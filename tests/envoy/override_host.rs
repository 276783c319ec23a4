//! The other consumer of the pin: the load balancing policy `override_host`, which needs no filter behind ours.
//!
//! It reads the header when it chooses the host, after the route has changed the headers, so only a filter of the
//! cluster may take the pin off.

use serde_json::{Value, json};
use testbed::envoy::{EnvoyOptions, connection_manager};
use testbed::raw::{Request, Wire};

use crate::gateway::{Gateway, PODS, every_version, pod};
use crate::upstream::hub;

const PIN: &str = "x-signalr-pin";

fn use_override_host(bootstrap: &mut Value) {
    let manager = connection_manager(bootstrap);
    let filters = manager["http_filters"].as_array_mut().unwrap();
    filters.retain(|filter| filter["name"] != "envoy.filters.http.stateful_session");
    manager["route_config"]["virtual_hosts"][0].as_object_mut().unwrap().remove("request_headers_to_remove");
    let cluster = bootstrap["static_resources"]["clusters"][0].as_object_mut().unwrap();
    cluster.remove("lb_policy");
    let policy = |name: &str, config: Value| json!({ "policies": [{ "typed_extension_config": { "name": name, "typed_config": config } }] });
    let types = "type.googleapis.com/envoy.extensions";
    let fallback =
        policy("round_robin", json!({ "@type": format!("{types}.load_balancing_policies.round_robin.v3.RoundRobin") }));
    cluster.insert(
        "load_balancing_policy".to_owned(),
        policy(
            "override_host",
            json!({
                "@type": format!("{types}.load_balancing_policies.override_host.v3.OverrideHost"),
                "override_host_sources": [{ "header": PIN }],
                "fallback_policy": fallback,
            }),
        ),
    );
    cluster.insert(
        "typed_extension_protocol_options".to_owned(),
        json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": format!("{types}.upstreams.http.v3.HttpProtocolOptions"),
            "explicit_http_config": { "http_protocol_options": {} },
            "http_filters": [
                { "name": "take the pin off", "typed_config": {
                    "@type": format!("{types}.filters.http.header_mutation.v3.HeaderMutation"),
                    "mutations": { "request_mutations": [{ "remove": PIN }] },
                } },
                { "name": "codec", "typed_config": { "@type": format!("{types}.filters.http.upstream_codec.v3.UpstreamCodec") } },
            ],
        } }),
    );
}

#[test]
fn a_plain_pin_steers_by_the_balancing_policy_and_reaches_no_pod() {
    let settings = json!({ "affinity": { "pin": { "encoding": "plain" } } });
    for (version, options) in every_version(&settings) {
        let options = EnvoyOptions { patch: Some(Box::new(use_override_host)), ..options };
        let gateway = Gateway::with((0..PODS).map(hub), options);
        for _ in 0..PODS {
            let negotiated = gateway.negotiate();
            let target = format!("/chat?id={}.{}", negotiated.id, negotiated.seal);
            let other = gateway.pods[(negotiated.pod + 1) % PODS].address();
            for request in [Request::get(&target), Request::websocket(&target), Request::get(&target).with(PIN, &other)]
            {
                for _ in 0..2 * PODS {
                    let answer = gateway.ask(&request);
                    assert_eq!((pod(&answer), answer.head.all(PIN)), (negotiated.pod, vec![]), "{version:?}");
                    let received = gateway.take_one("steered");
                    assert_eq!(received.target(), format!("/chat?id={}", negotiated.id), "{version:?}");
                    assert_eq!(received.head.all(PIN), [""; 0], "{version:?}");
                }
            }
        }
        // Nor does a client's own pin steer, which here would be its plain text.
        let home = gateway.pods[0].address();
        let mut connection = Wire::open(&gateway.envoy.url());
        let pods = (0..PODS).map(|_| pod(&connection.ask(&Request::get("/chat").with(PIN, &home))));
        assert_eq!(crate::gateway::distinct(pods), PODS, "{version:?}");
        assert_eq!(gateway.affinity("connection_token", "routed") as usize, PODS * 3 * 2 * PODS, "{version:?}");
    }
}
