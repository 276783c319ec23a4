//! Redis as others run it: a cluster, a password without a user, TLS.

use std::path::Path;

use serde_json::{Value, json};
use testbed::clients::certificate;
use testbed::process::{free_port, run_dir, wait_for};
use testbed::redis::{Redis, cluster};

use crate::gateways::{Gateways, INSTANCES, Plan, gateway, redis, rush};

const LIMIT: usize = 7;
const ATTEMPTS: usize = 60;

fn plan() -> Plan {
    Plan::by_user(&json!({ "connections": { "per_client": LIMIT } }))
}

/// Exactly the limit gets in, and nothing stays.
fn fill_and_empty(name: &str, gateways: &Gateways) {
    gateways.all_know(name, false);
    for run in 0..2 {
        let open = rush(ATTEMPTS, |attempt| gateways.user(attempt, "ann").bare_socket(None).ok());
        assert_eq!(open.len(), LIMIT, "{name}, run {run}");
        gateways.settle(name, LIMIT);
        assert!(gateways.all_are_full("ann"), "{name}, run {run}");
        drop(open);
        gateways.settle(name, 0);
    }
    gateways.all_know(name, false);
    gateways.assert_sound(name);
}

#[test]
fn gateways_find_the_node_of_a_cluster_that_is_in_charge() {
    let Some(program) = redis("gateways_find_the_node_of_a_cluster_that_is_in_charge") else { return };
    let mut nodes = redis_cluster(&program);
    let ports: Vec<_> = nodes.iter().map(Redis::port).collect();
    let slot: usize = nodes[0].ask(&["CLUSTER", "KEYSLOT", "envoy-signalr:{test}:rows"]).unwrap();
    let redis = nodes.remove(SLOTS.iter().position(|(from, to)| (*from..=*to).contains(&slot)).unwrap());
    let envoys = (0..2).map(|_| gateway(&plan(), cluster(&ports))).collect();
    let gateways = Gateways { redis, envoys, relays: Vec::new() };
    fill_and_empty("a cluster", &gateways);
    for other in &nodes {
        let errors: String = other.ask(&["INFO", "errorstats"]).unwrap();
        assert!(errors.contains("errorstat_MOVED"), "nobody has asked the node at {}: {errors}", other.port());
        assert_eq!(other.ask::<u32>(&["DBSIZE"]).unwrap(), 0);
    }
}

/// Of each node, the first and the last.
const SLOTS: [(usize, usize); 3] = [(0, 5_460), (5_461, 10_922), (10_923, 16_383)];

fn redis_cluster(program: &Path) -> Vec<Redis> {
    let nodes = SLOTS.map(|(from, to)| {
        let bus = free_port().unwrap().to_string();
        let file = format!("nodes-{bus}.conf");
        let arguments = ["--cluster-enabled", "yes", "--cluster-config-file", &file, "--cluster-port", &bus];
        let node = Redis::start_with(program, &arguments).unwrap();
        node.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]).unwrap();
        (node, bus)
    });
    for (node, bus) in &nodes[1..] {
        nodes[0].0.ask::<()>(&["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), bus]).unwrap();
    }
    let is_whole = |node: &Redis| {
        let state: String = node.ask(&["CLUSTER", "INFO"]).unwrap();
        state.contains("cluster_state:ok") && state.contains("cluster_size:3")
    };
    wait_for("the nodes to know each other", || nodes.iter().all(|(node, _)| is_whole(node))).unwrap();
    nodes.map(|(node, _)| node).into()
}

#[test]
fn a_password_is_enough_without_a_user() {
    let Some(program) = redis("a_password_is_enough_without_a_user") else { return };
    let password = |password: &str| Plan { redis: json!({ "password": { "value": password } }), ..plan() };
    let redis = Redis::start_with(&program, &["--requirepass", "secret"]).unwrap();
    let gateways = Gateways::before(redis, 2, &password("secret"));
    fill_and_empty("a password", &gateways);
    let wrong = gateway(&password("another"), cluster(&[gateways.redis.port()]));
    let away = || wrong.metric("signalr_gateway_shared_state", &[("signalr_state", "away")]).unwrap();
    wait_for("nobody to get in with another", || away() == f64::from(INSTANCES)).unwrap();
}

#[test]
fn calls_to_redis_may_go_over_tls() {
    let Some(program) = redis("calls_to_redis_may_go_over_tls") else { return };
    let pem = certificate().unwrap();
    let port = free_port().unwrap();
    let file = run_dir().unwrap().join(format!("redis-{port}.pem"));
    std::fs::write(&file, &pem).unwrap();
    let (file, tls_port) = (file.to_str().unwrap(), port.to_string());
    let arguments = ["--tls-port", &tls_port, "--tls-cert-file", file, "--tls-key-file", file];
    let arguments = [arguments.as_slice(), &["--tls-ca-cert-file", file, "--tls-auth-clients", "no"]].concat();
    let redis = Redis::start_with(&program, &arguments).unwrap();
    let envoys = (0..2).map(|_| gateway(&plan(), over_tls(port, &pem))).collect();
    let gateways = Gateways { redis, envoys, relays: Vec::new() };
    fill_and_empty("TLS", &gateways);
    let elsewhere = gateway(&plan(), over_tls(port, &certificate().unwrap()));
    let away = || elsewhere.metric("signalr_gateway_shared_state", &[("signalr_state", "away")]).unwrap();
    wait_for("nobody to trust another certificate", || away() == f64::from(INSTANCES)).unwrap();
}

/// Envoy's cluster of the Redis at this port, if its certificate is this one.
fn over_tls(port: u16, pem: &str) -> Value {
    let mut cluster = cluster(&[port]);
    let (certificate, _) = pem.split_once("-----BEGIN PRIVATE KEY-----").unwrap_or((pem, ""));
    cluster["transport_socket"] = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                "validation_context": {
                    "trusted_ca": { "inline_string": certificate },
                    "match_typed_subject_alt_names": [
                        { "san_type": "IP_ADDRESS", "matcher": { "exact": "127.0.0.1" } },
                    ],
                },
            },
        },
    });
    cluster
}
