//! Several gateways before the same hubs, and the Redis that they share.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, balance_exactly};
use testbed::hub::shared_hubs;
use testbed::raw::Client;
use testbed::redis::Redis;
use testbed::tools::{self, Skips};

/// What the gateways seal with, and hash clients with.
pub(crate) const KEY: &str = "a secret of thirty-two bytes or more";

/// Redis, or nothing where the test is to be skipped.
pub(crate) fn redis(test: &str) -> Option<PathBuf> {
    Skips::here().or_skip(test, tools::redis())
}

/// Gateways with the same limits.
pub(crate) struct Gateways {
    pub(crate) redis: Redis,
    pub(crate) envoys: Vec<Envoy>,
}

impl Gateways {
    /// So many of three worker threads.
    pub(crate) fn start(program: &Path, many: usize, limits: &Value) -> Self {
        Self::before(Redis::start(program).unwrap(), many, limits, &json!({}))
    }

    /// The same with a Redis that runs, and more of `limits.shared.redis`.
    pub(crate) fn before(redis: Redis, many: usize, limits: &Value, more: &Value) -> Self {
        let envoys = (0..many).map(|_| gateway(redis.port(), limits, more)).collect();
        Self { redis, envoys }
    }

    pub(crate) fn client(&self, at: usize) -> Client {
        Client::of(&self.envoys[at % self.envoys.len()].url())
    }

    pub(crate) fn user(&self, at: usize, name: &str) -> Client {
        self.client(at).header("x-user", name)
    }

    /// How many connections all rows have, by Redis' own count.
    pub(crate) fn in_rows(&self) -> i64 {
        let rows: Vec<String> = self.redis.ask(&["SMEMBERS", "envoy-signalr:{test}:rows"]).unwrap();
        let held =
            |row: &String| self.redis.ask::<Option<i64>>(&["HGET", &format!("envoy-signalr:{{test}}:row:{row}"), "t"]);
        rows.iter().map(|row| held(row).unwrap().unwrap_or(0)).sum()
    }
}

/// A gateway of three worker threads that shares `limits` through the Redis at a port.
pub(crate) fn gateway(port: u16, limits: &Value, more: &Value) -> Envoy {
    Envoy::start(&EnvoyOptions {
        filter: Filter::With(settings(limits, more)),
        hosts: Hosts::of(shared_hubs().unwrap()),
        concurrency: 3,
        patch: Some(Box::new(move |bootstrap| {
            balance_exactly(bootstrap);
            bootstrap["static_resources"]["clusters"].as_array_mut().unwrap().push(cluster(port));
        })),
        ..EnvoyOptions::default()
    })
    .unwrap()
}

/// The filter's settings with limits that are shared. `more` is of `limits.shared.redis`.
pub(crate) fn settings(limits: &Value, more: &Value) -> Value {
    let mut limits = limits.clone();
    let mut redis = json!({ "cluster": "redis", "namespace": "test", "timeout": "2s" });
    merge(&mut redis, more);
    limits["shared"] = json!({ "redis": redis });
    json!({
        "affinity": { "keys": [{ "id": "k1", "secret": { "value": KEY } }] },
        "hubs": [{ "path": "/chat" }],
        "limits": limits,
    })
}

fn merge(into: &mut Value, more: &Value) {
    for (name, value) in more.as_object().unwrap() {
        into[name] = value.clone();
    }
}

/// The cluster of the Redis at a port.
pub(crate) fn cluster(port: u16) -> Value {
    let address = json!({ "socket_address": { "address": "127.0.0.1", "port_value": port } });
    json!({
        "name": "redis",
        "type": "STATIC",
        "connect_timeout": "1s",
        "upstream_config": {
            "name": "envoy.filters.connection_pools.http.tcp",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.tcp.v3.TcpConnectionPoolProto",
            },
        },
        "load_assignment": {
            "cluster_name": "redis",
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
        },
    })
}
