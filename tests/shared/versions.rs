//! Other servers with Redis' protocol.

use serde_json::json;
use testbed::process::wait_for;
use testbed::redis::Redis;
use testbed::tools::{RedisVersion, Skips};

use crate::gateways::{Gateways, Plan};

#[test]
fn each_version_of_redis_admits_the_limit_and_forgets_what_ends() {
    let test = "each_version_of_redis_admits_the_limit_and_forgets_what_ends";
    for version in RedisVersion::ALL {
        let Some(program) = Skips::here().or_skip(&format!("{test}: {version:?}"), version.program()) else { continue };
        let plan = Plan::by_user(&json!({
            "connections": { "per_client": 3, "per_hub": 5, "total": 7 },
            "connect_rate": { "requests": 1, "per": "1h", "burst": 8 },
        }));
        let mut gateways = Gateways::before(Redis::start(&program).unwrap(), 2, &plan);
        let open = |gateways: &Gateways, user: &str| -> Vec<_> {
            (0..6).filter_map(|attempt| gateways.user(attempt, user).bare_socket(None).ok()).collect()
        };
        let of_ann = open(&gateways, "ann");
        let of_bob = open(&gateways, "bob");
        assert_eq!((of_ann.len(), of_bob.len()), (3, 2), "{version:?}: per client, and per hub");
        drop(of_ann);
        wait_for("the places of those who left", || gateways.in_rows() == 2).unwrap();
        // 3 of 8 tokens were taken by those who came in, and one by each who was refused for another limit.
        assert_eq!(open(&gateways, "ann").len(), 2, "{version:?}: the rate");
        gateways.redis.restart().unwrap();
        wait_for("the rows to be written anew", || gateways.in_rows() == 2).unwrap();
        drop(of_bob);
        wait_for("every row to be empty", || gateways.in_rows() == 0).unwrap();
        assert!(gateways.envoys.iter().all(|envoy| !envoy.has_trapped()), "{version:?}");
    }
}
