//! What Envoy says at once, in the middle of the call that asks it: the cluster does not exist, has no host, or takes no request.

use serde_json::{Value, json};
use testbed::process::{free_port, wait_for};
use testbed::redis::cluster;

use crate::gateways::{Plan, gateway};

#[test]
fn without_a_way_to_redis_on_error_holds_and_nothing_traps() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 4] = [
        ("no such cluster", |cluster| cluster["name"] = json!("another")),
        ("no host", |cluster| cluster["load_assignment"]["endpoints"] = json!([])),
        ("no request allowed", |cluster| {
            cluster["circuit_breakers"] = json!({ "thresholds": [{ "max_requests": 0, "max_pending_requests": 0 }] });
        }),
        ("nobody listens", |_| {}),
    ];
    for (name, change) in cases {
        for (on_error, admitted) in [("local", 2), ("allow", 4), ("deny", 0)] {
            let redis = json!({ "on_error": on_error });
            let plan = Plan { redis, ..Plan::by_user(&json!({ "connections": { "per_client": 2 } })) };
            let mut cluster = cluster(&[free_port().unwrap()]);
            change(&mut cluster);
            let envoy = gateway(&plan, cluster);
            let away = || envoy.metric("signalr_gateway_shared_state", &[("signalr_state", "away")]).unwrap();
            wait_for("Redis to be away for all", || away() >= f64::from(crate::gateways::INSTANCES)).unwrap();
            let ann = testbed::raw::Client::of(&envoy.url()).header("x-user", "ann");
            let open: Vec<_> = (0..4).filter_map(|_| ann.bare_socket(None).ok()).collect();
            assert_eq!(open.len(), admitted, "{name}, {on_error}");
            assert!(!envoy.has_trapped(), "{name}, {on_error}: {}", envoy.log());
        }
    }
}
