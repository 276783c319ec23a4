//! Tier 6: Blazor Server, which asks more of a gateway than a hub alone: page, circuit and farewell are requests of
//! their own, and a circuit that lost its connection is asked for by a new negotiate.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use testbed::clients::drive_chromium;
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts};
use testbed::hub::{Hub, HubOptions, HubRequest};
use testbed::process::{run_dir, wait_until};

/// What `tests/clients/blazor.mjs` is told.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Visitors {
    /// The gateway.
    url: String,
    /// Each with a profile of its own, all at the same time. In between they lose all their TCP connections.
    visitors: usize,
    /// How long one step of one visit may take.
    try_ms: u32,
}

/// What it reports.
#[derive(Deserialize)]
struct Visits {
    visits: Vec<Visit>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Visit {
    /// What the visitor's browser sends as its cookie `visitor`.
    visitor: String,
    page_pod: Option<String>,
    circuit_pod: Option<String>,
    /// After the cut the page still had its circuit, and that its count.
    kept: bool,
    error: Option<String>,
}

impl Visit {
    fn met_one_pod(&self) -> bool {
        self.page_pod.is_some() && self.page_pod == self.circuit_pod
    }

    /// The pods that such requests of this visitor reached.
    fn pods_asked<'a>(&self, pods: &'a [Hub], wanted: impl Fn(&HubRequest) -> bool) -> Vec<&'a str> {
        let cookie = format!("visitor={}", self.visitor);
        let own = |request: &HubRequest| {
            let cookies = request.headers.get("cookie").into_iter().flatten().flat_map(|cookies| cookies.split("; "));
            cookies.into_iter().any(|one| one == cookie)
        };
        let asked = pods.iter().flat_map(|pod| pod.requests().unwrap().into_iter().map(move |request| (pod, request)));
        asked.filter(|(_, request)| own(request) && wanted(request)).map(|(pod, _)| pod.pod()).collect()
    }
}

/// Three pods of `examples/blazor` that read each other's pages, by the keys in a folder of this name.
fn three_pods(keys: &str) -> Vec<Hub> {
    let keys = run_dir().unwrap().join(keys);
    let pod = |number| HubOptions {
        app: "blazor".into(),
        pod: format!("pod-{number}"),
        environment: vec![("DATA_PROTECTION_KEYS".into(), keys.clone().into())],
        ..HubOptions::default()
    };
    // The first makes the key that the others find.
    let mut pods = vec![Hub::start(&pod(1)).unwrap()];
    pods.extend(Hub::start_all(&[pod(2), pod(3)]).unwrap());
    pods
}

fn envoy(pods: &[Hub], client_cookie: Value) -> Envoy {
    let hosts = Hosts::Fixed(pods.iter().map(Hub::address).collect());
    let filter = Filter::With(json!({"affinity": {"client_cookie": client_cookie}}));
    Envoy::start(&EnvoyOptions { filter, hosts, ..EnvoyOptions::default() }).unwrap()
}

fn visit(envoy: &Envoy, visitors: usize) -> Vec<Visit> {
    let options = Visitors { url: envoy.url(), visitors, try_ms: 30_000 };
    drive_chromium::<Visits>("blazor.mjs", &options, Duration::from_secs(120)).unwrap().visits
}

fn is_negotiate(request: &HubRequest) -> bool {
    request.path == "/_blazor/negotiate"
}

fn is_connect(request: &HubRequest) -> bool {
    request.path == "/_blazor" && request.headers.contains_key("upgrade")
}

fn is_farewell(request: &HubRequest) -> bool {
    request.path.trim_end_matches('/') == "/_blazor/disconnect"
}

#[test]
fn a_circuit_lives_where_its_page_was_made_and_is_found_again_after_a_cut() {
    let pods = three_pods("keys-of-steered-pods");
    let envoy = envoy(&pods, json!({"enabled": true, "paths": ["/", "/counter"]}));
    let visits = visit(&envoy, 8);
    for visit in &visits {
        assert!(visit.error.is_none() && visit.met_one_pod() && visit.kept, "{visit:?}");
    }
    let homes: BTreeSet<_> = visits.iter().map(|visit| &visit.page_pod).collect();
    assert!(homes.len() > 1, "all on one pod: this proves nothing");

    // The farewell is sent while the page goes, and nobody waits for its answer.
    wait_until(Duration::from_secs(5), "a farewell of each visitor", || {
        visits.iter().all(|visit| !visit.pods_asked(&pods, is_farewell).is_empty())
    })
    .unwrap();
    for visit in &visits {
        let home = visit.page_pod.as_deref().unwrap();
        assert_eq!(
            visit.pods_asked(&pods, is_negotiate),
            [home; 2],
            "{visit:?}: the negotiate before and after the cut"
        );
        assert_eq!(
            visit.pods_asked(&pods, is_connect),
            [home; 2],
            "{visit:?}: the connections before and after the cut"
        );
        assert_eq!(visit.pods_asked(&pods, is_farewell), [home], "{visit:?}: the farewell");
    }
}

/// The control: a route in the connection id knows neither where the page was made nor where the circuit is.
#[test]
fn without_the_client_cookie_circuits_live_elsewhere_and_are_lost_by_a_cut() {
    let pods = three_pods("keys-of-other-pods");
    let envoy = envoy(&pods, json!({"enabled": false}));
    let visits = visit(&envoy, 12);
    assert!(visits.iter().all(|visit| visit.error.is_none()), "{visits:?}");
    assert!(visits.iter().any(|visit| !visit.met_one_pod()), "{visits:?}");
    assert!(visits.iter().any(|visit| !visit.kept), "{visits:?}");
}
