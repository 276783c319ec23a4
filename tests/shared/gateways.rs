//! Several gateways before the same hubs, and the Redis that they share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, add_cluster, balance_exactly};
use testbed::hub::shared_hubs;
use testbed::process::wait_for;
use testbed::raw::{Client, Socket};
use testbed::redis::{Redis, cluster};
use testbed::relay::Relay;
use testbed::tools::{self, Skips};

/// What the gateways seal with, and hash clients with.
pub(crate) const KEY: &str = "a secret of thirty-two bytes or more";
/// Worker threads of each.
const WORKERS: u32 = 3;
/// Instances of the filter in each: Envoy's main thread has one, too, which gets no requests.
pub(crate) const INSTANCES: u32 = WORKERS + 1;

/// Redis, or nothing where the test is to be skipped.
pub(crate) fn redis(test: &str) -> Option<PathBuf> {
    Skips::here().or_skip(test, tools::redis())
}

/// Gateways with the same limits.
pub(crate) struct Gateways {
    pub(crate) redis: Redis,
    pub(crate) envoys: Vec<Envoy>,
    /// Between each gateway and Redis, where they are wanted.
    pub(crate) relays: Vec<Relay>,
}

/// What gateways are like.
pub(crate) struct Plan {
    pub(crate) limits: Value,
    /// More of `limits.shared.redis`.
    pub(crate) redis: Value,
    /// What else to change in their bootstrap.
    pub(crate) patch: fn(&mut Value),
}

impl Plan {
    pub(crate) fn of(limits: &Value) -> Self {
        Self { limits: limits.clone(), redis: json!({}), patch: |_| () }
    }

    /// The same for clients that say in a header who they are.
    pub(crate) fn by_user(limits: &Value) -> Self {
        let mut limits = limits.clone();
        limits["client"] = json!({ "key": { "header": "x-user" } });
        Self::of(&limits)
    }
}

impl Gateways {
    /// So many before a Redis of their own.
    pub(crate) fn start(program: &Path, many: usize, plan: &Plan) -> Self {
        Self::before(Redis::start(program).unwrap(), many, plan)
    }

    /// The same before a Redis that runs.
    pub(crate) fn before(redis: Redis, many: usize, plan: &Plan) -> Self {
        let envoys = (0..many).map(|_| gateway(plan, cluster(&[redis.port()]))).collect();
        Self { redis, envoys, relays: Vec::new() }
    }

    /// The same, each over a relay of its own.
    pub(crate) fn over_relays(redis: Redis, many: usize, plan: &Plan) -> Self {
        let relays: Vec<_> = (0..many).map(|_| Relay::to(redis.port()).unwrap()).collect();
        let envoys = relays.iter().map(|relay| gateway(plan, cluster(&[relay.port()]))).collect();
        Self { redis, envoys, relays }
    }

    /// Somebody at one of them.
    pub(crate) fn client(&self, at: usize) -> Client {
        Client::of(&self.envoys[at % self.envoys.len()].url())
    }

    /// Somebody of this name.
    pub(crate) fn user(&self, at: usize, name: &str) -> Client {
        self.client(at).header("x-user", name)
    }

    /// How many connections all rows have. Each counts once, in how many rows it may be.
    pub(crate) fn in_rows(&self) -> i64 {
        let mut ids = BTreeSet::new();
        for row in self.rows() {
            let fields: BTreeMap<Vec<u8>, Vec<u8>> = self.redis.ask(&["HGETALL", &row_key(&row)]).unwrap();
            let lists = fields.iter().filter(|(name, _)| name.starts_with(b"c")).map(|(_, list)| list);
            ids.extend(lists.flat_map(|list| list.chunks(8).map(<[u8]>::to_vec).collect::<Vec<_>>()));
        }
        i64::try_from(ids.len()).unwrap()
    }

    /// The names of all rows.
    pub(crate) fn rows(&self) -> Vec<String> {
        self.redis.ask(&["SMEMBERS", "envoy-signalr:{test}:rows"]).unwrap()
    }

    /// Whether one connection more of this client is refused at each of them.
    pub(crate) fn all_are_full(&self, name: &str) -> bool {
        (0..self.envoys.len()).all(|at| is_full(&self.user(at, name)))
    }

    /// How many connections one row has.
    pub(crate) fn in_row(&self, row: &str) -> i64 {
        self.redis.ask::<Option<i64>>(&["HGET", &row_key(row), "t"]).unwrap().unwrap_or(0)
    }

    /// Waits until all rows have so many connections.
    pub(crate) fn settle(&self, name: &str, many: usize) {
        let settled = wait_for("the rows", || usize::try_from(self.in_rows()) == Ok(many));
        assert!(settled.is_ok(), "{name}: {} connections in the rows instead of {many}", self.in_rows());
    }

    /// Waits until every instance has called Redis, with what there was to be said before.
    pub(crate) fn hear_of_all(&self) {
        let all = self.envoys.len() * INSTANCES as usize;
        wait_for("a row for each", || self.rows().len() == all).unwrap();
        let lives = || -> Vec<i64> {
            self.rows().iter().map(|row| self.redis.ask(&["PTTL", &row_key(row)]).unwrap()).collect()
        };
        let mut heard = vec![false; all];
        let mut before = lives();
        wait_for("words of all", || {
            let now = lives();
            for (heard, (now, before)) in heard.iter_mut().zip(now.iter().zip(&before)) {
                *heard |= now > before;
            }
            before = now;
            heard.iter().all(|heard| *heard)
        })
        .unwrap();
    }

    /// How many instances in a gateway say that Redis is away.
    pub(crate) fn away(&self, at: usize) -> u32 {
        let gauge = "wasmcustom.signalr_state=.=away;.;signalr_gateway_shared_state";
        self.envoys[at].counter(gauge).unwrap().try_into().unwrap()
    }

    /// Waits until each instance knows whether Redis is away.
    pub(crate) fn all_know(&self, name: &str, is_away: bool) {
        let expected = if is_away { INSTANCES } else { 0 };
        for at in 0..self.envoys.len() {
            let known = wait_for(name, || self.away(at) == expected);
            assert!(known.is_ok(), "{name}: {} of gateway {at} are away instead of {expected}", self.away(at));
        }
    }

    /// No filter has trapped.
    pub(crate) fn assert_sound(&self, name: &str) {
        for (at, envoy) in self.envoys.iter().enumerate() {
            assert!(!envoy.has_trapped(), "{name}: gateway {at} has trapped\n{}", envoy.log());
        }
    }
}

pub(crate) fn row_key(row: &str) -> String {
    format!("envoy-signalr:{{test}}:row:{row}")
}

/// A WebSocket of a negotiated id, on which client and hub have shaken hands.
pub(crate) fn connect(client: &Client) -> Socket {
    client.connect().unwrap()
}

/// Whether a limit refuses one more connection, both at its negotiate and without one.
pub(crate) fn is_full(client: &Client) -> bool {
    let refusals = [client.negotiate().err(), client.bare_socket(None).err()];
    refusals.into_iter().all(|answer| answer.is_some_and(|answer| answer.is_refusal()))
}

/// What comes of so many attempts that threads make at once. Only what is something.
pub(crate) fn rush<T: Send>(attempts: usize, attempt: impl Fn(usize) -> Option<T> + Sync) -> Vec<T> {
    const THREADS: usize = 30;
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (barrier, attempt) = (&barrier, &attempt);
                scope.spawn(move || {
                    barrier.wait();
                    (thread..attempts).step_by(THREADS).filter_map(attempt).collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// A gateway that shares its limits through this cluster of Envoy's.
pub(crate) fn gateway(plan: &Plan, cluster: Value) -> Envoy {
    let mut limits = plan.limits.clone();
    // As long as it may be: a busy machine is no Redis that does not answer.
    let mut redis = json!({ "cluster": "redis", "namespace": "test", "timeout": "5s" });
    for (name, value) in plan.redis.as_object().unwrap() {
        redis[name] = value.clone();
    }
    limits["shared"] = json!({ "redis": redis });
    let settings = json!({
        "affinity": { "keys": [{ "id": "k1", "secret": { "value": KEY } }] },
        "hubs": [{ "path": "/chat" }, { "path": "/notifications" }],
        "limits": limits,
    });
    let patch = plan.patch;
    Envoy::start(&EnvoyOptions {
        filter: Filter::With(settings),
        hosts: Hosts::of(shared_hubs().unwrap()),
        concurrency: WORKERS,
        patch: Some(Box::new(move |bootstrap| {
            balance_exactly(bootstrap);
            add_cluster(bootstrap, cluster.clone());
            patch(bootstrap);
        })),
        ..EnvoyOptions::default()
    })
    .unwrap()
}
