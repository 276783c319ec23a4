//! Pods with pages of Blazor, an Envoy before them, and visitors in Chromium.

use std::thread;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use testbed::clients::drive_chromium;
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, Patch};
use testbed::hub::{Hub, HubOptions, HubRequest};
use testbed::process::run_dir;

/// The options of `tests/clients/visits.mjs`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Visitors {
    /// The gateway.
    pub(crate) url: String,
    /// At least so many, each with a profile of its own.
    pub(crate) visitors: usize,
    /// How many of them at the same time: more than there are cores would only make each other wait.
    pub(crate) at_once: usize,
    /// In between they lose all their TCP connections.
    pub(crate) cut: bool,
    /// How long one step of one visit may take, if not as long as usual.
    pub(crate) try_ms: Option<u32>,
}

impl Visitors {
    pub(crate) fn of(envoy: &Envoy, visitors: usize) -> Self {
        // Two at the least, as visitors must not be confused with each other.
        let at_once = thread::available_parallelism().map_or(2, |cores| cores.get().max(2));
        Self { url: envoy.url(), visitors, at_once, cut: true, try_ms: None }
    }

    /// Runs a program of `tests/clients`.
    pub(crate) fn come<Visit: for<'de> Deserialize<'de>>(&self, program: &str) -> Vec<Visit> {
        drive_chromium::<Visits<Visit>>(program, self).unwrap().visits
    }
}

#[derive(Deserialize)]
struct Visits<Visit> {
    visits: Vec<Visit>,
}

/// What there is to report of every visit.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Visit {
    /// What the visitor's browser sends as its cookie `visitor`.
    visitor: String,
    pub(crate) page_pod: Option<String>,
    circuit_pod: Option<String>,
    /// The page still had its circuit when it was last looked at, and that its count.
    pub(crate) kept: bool,
    pub(crate) error: Option<String>,
}

impl Visit {
    pub(crate) fn met_one_pod(&self) -> bool {
        self.page_pod.is_some() && self.page_pod == self.circuit_pod
    }

    /// The pods that such requests of this visitor reached.
    pub(crate) fn pods_asked<'a>(&self, pods: &'a [Hub], wanted: impl Fn(&HubRequest) -> bool) -> Vec<&'a str> {
        let cookie = format!("visitor={}", self.visitor);
        let own = |request: &HubRequest| {
            let cookies = request.headers.get("cookie").into_iter().flatten().flat_map(|cookies| cookies.split("; "));
            cookies.into_iter().any(|one| one == cookie)
        };
        let asked = pods.iter().flat_map(|pod| pod.requests().unwrap().into_iter().map(move |request| (pod, request)));
        asked.filter(|(_, request)| own(request) && wanted(request)).map(|(pod, _)| pod.pod()).collect()
    }
}

pub(crate) fn is_negotiate(request: &HubRequest) -> bool {
    request.path == "/_blazor/negotiate"
}

pub(crate) fn is_connect(request: &HubRequest) -> bool {
    request.path == "/_blazor" && request.headers.contains_key("upgrade")
}

pub(crate) fn is_farewell(request: &HubRequest) -> bool {
    request.path.trim_end_matches('/') == "/_blazor/disconnect"
}

/// Three pods of this folder of `examples` that read each other's pages, by the keys in a folder of this name.
pub(crate) fn three_pods(app: &str, keys: &str) -> Vec<Hub> {
    let keys = run_dir().unwrap().join(keys);
    let pod = |number| HubOptions {
        app: app.into(),
        pod: format!("pod-{number}"),
        environment: vec![("DATA_PROTECTION_KEYS".into(), keys.clone().into())],
        ..HubOptions::default()
    };
    // The first makes the key that the others find.
    let mut pods = vec![Hub::start(&pod(1)).unwrap()];
    pods.extend(Hub::start_all(&[pod(2), pod(3)]).unwrap());
    pods
}

/// Balances at random: round robin and pages that always ask for as many things as there are pods beat in time, and then page
/// and circuit meet without any affinity.
pub(crate) fn envoy(pods: &[Hub], filter: Filter) -> Envoy {
    let hosts = Hosts::of(pods);
    let at_random = |bootstrap: &mut Value| bootstrap["static_resources"]["clusters"][0]["lb_policy"] = "RANDOM".into();
    let patch: Option<Patch> = Some(Box::new(at_random));
    Envoy::start(&EnvoyOptions { filter, hosts, patch, ..EnvoyOptions::default() }).unwrap()
}
