//! An Envoy with the filter before scripted pods, and the key that it seals with.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use envoy_signalr::clock::Millis;
use envoy_signalr::token::{Address, KeyRing, Purpose, Refusal, Route};
use serde_json::{Value, json};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, Patch};
use testbed::raw::{Answer, Request, ask};
use testbed::tools::EnvoyVersion;

use crate::upstream::{Received, Script, Upstream, hub};

/// The id and the secret of the key that every gateway here is given.
pub(crate) const KEY: (&str, &str) = ("2026-11", "0123456789abcdef0123456789abcdef");

/// How many pods [`Gateway::start`] starts.
pub(crate) const PODS: usize = 3;

/// An Envoy and what stands behind it.
pub(crate) struct Gateway {
    pub(crate) envoy: Envoy,
    pub(crate) pods: Vec<Upstream>,
}

impl Gateway {
    /// Three hubs behind the newest Envoy, with these settings and [`KEY`].
    pub(crate) fn start(settings: Value) -> Self {
        Self::patched(settings, None)
    }

    /// The same with a change to the bootstrap.
    pub(crate) fn patched(settings: Value, patch: Option<Patch>) -> Self {
        let filter = Filter::With(keyed(settings));
        Self::with((0..PODS).map(hub), EnvoyOptions { filter, patch, concurrency: 2, ..EnvoyOptions::default() })
    }

    /// These pods behind an Envoy set up so, but for its hosts.
    pub(crate) fn with(pods: impl IntoIterator<Item = Script>, options: EnvoyOptions) -> Self {
        let pods: Vec<_> = pods.into_iter().map(Upstream::start).collect();
        let hosts = Hosts::Fixed(pods.iter().map(Upstream::address).collect());
        Self { envoy: Envoy::start(&EnvoyOptions { hosts, ..options }).unwrap(), pods }
    }

    pub(crate) fn ask(&self, request: &Request<'_>) -> Answer {
        ask(&self.envoy.url(), request)
    }

    /// Negotiates at `/chat` by version 1: the pod, the id that the hub gave, and what the filter put behind its dot.
    pub(crate) fn negotiate(&self) -> Negotiated {
        let answer = self.ask(&Request::post("/chat/negotiate?negotiateVersion=1"));
        assert_eq!(answer.status(), 200, "{answer:?}");
        let body = answer.json();
        let token = body["connectionToken"].as_str().unwrap();
        let (id, seal) = token.split_once('.').unwrap_or((token, ""));
        self.take_received();
        Negotiated { pod: pod(&answer), id: id.to_owned(), seal: seal.to_owned(), answer }
    }

    /// What the pods received since the last call.
    pub(crate) fn take_received(&self) -> Vec<Received> {
        self.pods.iter().flat_map(Upstream::take_received).collect()
    }

    /// The one request that reached a pod since the last call.
    pub(crate) fn take_one(&self, name: &str) -> Received {
        let mut received = self.take_received();
        assert_eq!(received.len(), 1, "{name}: {received:?}");
        received.remove(0)
    }

    pub(crate) fn address(&self, pod: usize) -> Address {
        Address::new(self.pods[pod].address().as_bytes()).unwrap()
    }

    /// `signalr_gateway_affinity_total` for all hubs.
    pub(crate) fn affinity(&self, source: &str, outcome: &str) -> u32 {
        self.count("signalr_gateway_affinity_total", &[("signalr_source", source), ("signalr_outcome", outcome)])
    }

    /// A counter's value.
    pub(crate) fn count(&self, metric: &str, labels: &[(&str, &str)]) -> u32 {
        self.envoy.metric(metric, labels).unwrap() as u32
    }
}

/// The answer to a negotiate, taken apart.
pub(crate) struct Negotiated {
    pub(crate) pod: usize,
    pub(crate) id: String,
    pub(crate) seal: String,
    pub(crate) answer: Answer,
}

/// The number of the pod that answered.
pub(crate) fn pod(answer: &Answer) -> usize {
    answer.pod().and_then(|name| name.parse().ok()).unwrap_or_else(|| panic!("no pod answered: {answer:?}"))
}

/// Which of some pods answered, each once.
pub(crate) fn distinct(pods: impl IntoIterator<Item = usize>) -> usize {
    pods.into_iter().collect::<std::collections::BTreeSet<_>>().len()
}

/// The settings with [`KEY`].
pub(crate) fn keyed(mut settings: Value) -> Value {
    settings["affinity"]["keys"] = json!([{ "id": KEY.0, "secret": { "value": KEY.1 } }]);
    settings
}

/// The newest and the oldest Envoy, with these settings and [`KEY`].
pub(crate) fn every_version(settings: &Value) -> impl Iterator<Item = (EnvoyVersion, EnvoyOptions)> {
    EnvoyVersion::ALL.into_iter().map(move |version| {
        let filter = Filter::With(keyed(settings.clone()));
        (version, EnvoyOptions { version, filter, concurrency: 2, ..EnvoyOptions::default() })
    })
}

/// The ring that a gateway with [`KEY`] has.
pub(crate) fn ring() -> KeyRing {
    KeyRing::new([(KEY.0, KEY.1.as_bytes())])
}

/// What the gateway would have sealed `age` ago, good for `life`.
pub(crate) fn sealed(purpose: Purpose, id: &str, address: Address, age: Duration, life: Duration) -> String {
    let route = Route::new(address.into(), ago(age), life);
    ring().seal(purpose, id.as_bytes(), &route, [7; 24]).unwrap()
}

/// Where a sealed route leads, by the gateway's key.
pub(crate) fn opened(purpose: Purpose, id: &str, sealed: &str) -> Result<Route, Refusal> {
    ring().open(purpose, id.as_bytes(), sealed.as_bytes(), ago(Duration::ZERO).seconds())
}

fn ago(age: Duration) -> Millis {
    Millis::since_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap() - age)
}
