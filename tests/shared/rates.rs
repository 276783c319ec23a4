//! Rates and modes, over all gateways.

use serde_json::json;

use crate::gateways::{Gateways, Plan, connect, redis};

#[test]
fn in_shadow_mode_everything_passes_and_is_counted() {
    let Some(program) = redis("in_shadow_mode_everything_passes_and_is_counted") else { return };
    let plan = Plan::by_user(&json!({ "mode": "shadow", "connections": { "per_client": 2 } }));
    let gateways = Gateways::start(&program, 2, &plan);
    // Two that the first gateway is over its own limit with, and one that it knows of through Redis.
    let open = [0, 0, 0, 0, 1].map(|at| connect(&gateways.user(at, "ann")));
    let over = |at: usize| {
        let labels = [("signalr_limit", "per_client"), ("signalr_mode", "shadow")];
        gateways.envoys[at].metric("signalr_gateway_rejected_total", &labels).unwrap()
    };
    // Each at its negotiate and at its connect.
    assert_eq!((over(0), over(1)), (4.0, 2.0));
    gateways.settle("five", 5);
    drop(open);
    gateways.settle("all closed", 0);
    gateways.assert_sound("shadow");
}
