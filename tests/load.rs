//! Tier 6: the k6 script of `examples/load` does what its README says. k6 itself is not run: `tests/clients/k6.mjs` stands in for it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;
use testbed::clients::drive_node;
use testbed::envoy::{Envoy, Filter};
use testbed::hub::shared_hubs;
use testbed::process::PATIENCE;
use testbed::workspace;

const USERS: usize = 20;

#[derive(Deserialize)]
struct Report {
    thresholds: Vec<String>,
    metrics: BTreeMap<String, Vec<f64>>,
}

fn run(gateway: &Envoy) -> Report {
    let environment = json!({ "URL": gateway.url(), "HOLD_SECONDS": "3", "PAUSE_SECONDS": "0.1" });
    let script = workspace().join("examples/load/signalr.js");
    drive_node("k6.mjs", &json!({ "script": script, "users": USERS, "environment": environment }), PATIENCE).unwrap()
}

#[test]
fn the_load_script_reports_who_connected_and_who_was_lost() {
    let hubs = shared_hubs().unwrap();
    let report = run(&Envoy::before(hubs, Filter::With(json!({}))).unwrap());
    assert_eq!(report.metrics["signalr_connected"], [1.0; USERS]);
    assert!(report.metrics["signalr_lost"].is_empty(), "none was cut");
    assert_eq!(report.metrics["signalr_connect_time"].len(), USERS);
    assert!(report.metrics["signalr_round_trip"].len() >= USERS, "each calls the hub at least once");
    assert!(report.thresholds.iter().all(|name| report.metrics.contains_key(name)), "{:?}", report.thresholds);

    let without = run(&Envoy::before(hubs, Filter::Absent).unwrap());
    let connected = &without.metrics["signalr_connected"];
    assert!(connected.len() == USERS && connected.contains(&0.0), "without the filter some fail: {connected:?}");
}
