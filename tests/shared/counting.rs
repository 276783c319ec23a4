//! What is admitted is the limit, exactly, over all gateways.

use serde_json::json;

use crate::gateways::{Gateways, Plan, redis, rush};

const GATEWAYS: usize = 3;
const ATTEMPTS: usize = 450;
const RUNS: usize = 20;

#[test]
fn of_many_attempts_at_once_as_many_hold_a_connection_as_the_limit_says() {
    let Some(program) = redis("of_many_attempts_at_once_as_many_hold_a_connection_as_the_limit_says") else { return };
    for (name, limits, limit) in [
        ("per client", json!({ "per_client": 20 }), 20),
        ("per hub", json!({ "per_hub": 20 }), 20),
        ("in total", json!({ "total": 20 }), 20),
    ] {
        let plan = Plan::by_user(&json!({ "connections": limits }));
        let gateways = Gateways::start(&program, GATEWAYS, &plan);
        for run in 0..RUNS {
            let user = |attempt| if name == "per client" { "ann".to_owned() } else { format!("user{attempt}") };
            let open = rush(ATTEMPTS, |attempt| gateways.user(attempt, &user(attempt)).bare_socket(None).ok());
            assert_eq!(open.len(), limit, "{name}, run {run}");
            drop(open);
            gateways.settle(&format!("{name}, run {run}: all closed"), 0);
        }
    }
}
