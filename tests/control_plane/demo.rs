//! The demonstration of `istio/README.md`: its commands, and clients through its gateway.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::clients::{Cookies, NodeClient, Outcome, Running, Task, Transport, run_node, start_node};
use testbed::http;
use testbed::process::wait_for;
use testbed::raw::Client;

use crate::lab::{Lab, Pod};

/// The gateway's namespace and Deployment, as the files of `istio/` have them.
const NAMESPACE: &str = "istio-ingress";
pub(crate) const DEPLOYMENT: &str = "deployment/istio-ingressgateway";

/// The filter by the API that Istio has from 1.30 on.
pub(crate) const FILTER: &str = "istio/filter/traffic-extension";

impl Lab {
    /// All of the demonstration as it is shipped, whatever the test before left behind.
    pub(crate) fn serve_demo(&self) {
        self.apply("istio/demo");
        self.rolled_out("default", "deployment/hub");
        self.create_key(NAMESPACE);
        self.in_gateways(&["scale", DEPLOYMENT, "--replicas=1"]);
        let ours =
            ["apply", "--server-side", "--field-manager", "envoy-signalr", "-k", "istio/gateway-pods/deployment"];
        self.kubectl(&ours);
        self.rolled_out(NAMESPACE, DEPLOYMENT);
        self.in_gateways(&["delete", "wasmplugin", "--all"]);
        self.apply(FILTER);
        self.gateway().wait_sealed(8080);
    }

    /// Undoes what makes a filter of the gateway.
    pub(crate) fn remove_filter(&self) {
        for kind in ["envoyfilter", "trafficextension", "wasmplugin"] {
            self.in_gateways(&["delete", kind, "--all"]);
        }
        let client = Client::of(&self.gateway().url(8080));
        let plain = || client.negotiate().is_ok_and(|token| !token.contains('.'));
        wait_for("the gateway to leave tokens as they are", plain).unwrap();
    }

    pub(crate) fn create_key(&self, namespace: &str) {
        let key = "--from-literal=SIGNALR_AFFINITY_KEY=all gateways of this test have this key";
        let secret = ["--namespace", namespace, "create", "secret", "generic", "signalr-affinity", key];
        let secret = self.kubectl(&[&secret[..], &["--dry-run=client", "--output=yaml"]].concat());
        self.apply_text(&secret);
    }

    /// Applies a folder of `istio/`.
    pub(crate) fn apply(&self, folder: &str) {
        self.kubectl(&["apply", "-k", folder]);
    }

    /// Applies the filter with this done to its settings and its image.
    pub(crate) fn apply_changed_filter(&self, change: impl Fn(&mut Value)) {
        let text = self.kubectl(&["kustomize", FILTER]);
        let documents = text.split("\n---\n").map(|document| {
            let mut document: Value = serde_yaml_ng::from_str(document).unwrap();
            if document["kind"] == "TrafficExtension" {
                change(&mut document["spec"]["wasm"]);
            }
            document
        });
        self.apply_text(
            &json!({ "apiVersion": "v1", "kind": "List", "items": documents.collect::<Value>() }).to_string(),
        );
    }

    pub(crate) fn apply_text(&self, text: &str) {
        let file = self.folder().join("applied.yaml");
        fs::write(&file, text).unwrap();
        self.kubectl(&["apply", "--filename", file.to_str().unwrap()]);
    }

    pub(crate) fn in_gateways(&self, arguments: &[&str]) -> String {
        self.kubectl(&[&["--namespace", NAMESPACE], arguments].concat())
    }

    /// The pods of the gateway that istioctl made.
    pub(crate) fn gateways(&self) -> Vec<Pod> {
        self.pods(NAMESPACE, "istio=ingressgateway")
    }

    /// The only one of them.
    pub(crate) fn gateway(&self) -> Pod {
        one(self.gateways())
    }

    /// How many extensions gateways have refused, as istiod counts them.
    pub(crate) fn refusals(&self) -> f64 {
        let metrics =
            http::get(&format!("{}/metrics", one(self.pods("istio-system", "app=istiod")).url(15014))).unwrap().1;
        let line = metrics.lines().find_map(|line| line.strip_prefix(r#"pilot_total_xds_rejects{type="ecds"} "#));
        line.map_or(0.0, |number| number.parse().unwrap())
    }
}

impl Pod {
    /// Waits until requests get this status, whatever a hub would say.
    pub(crate) fn wait_status(&self, port: u16, expected: u16) {
        let health = format!("{}/healthz", self.url(port));
        let what = format!("{} to answer {expected}", self.name);
        wait_for(&what, || http::get(&health).is_ok_and(|(status, _)| status == expected)).unwrap();
    }

    /// Waits until the gateway seals ids and steers by them.
    pub(crate) fn wait_sealed(&self, port: u16) {
        let (client, admin) = (Client::of(&self.url(port)), self.url(15000));
        // As long as the listener has no such filter another one is to come, and ends the connections of this one.
        let steers = || {
            let dump = http::get(&format!("{admin}/config_dump?resource=dynamic_listeners")).unwrap().1;
            let dump: Value = serde_json::from_str(&dump).unwrap();
            let mut listeners = dump["configs"].as_array().unwrap().iter();
            listeners.any(|listener| listener["active_state"].to_string().contains("signalr.stateful_session"))
        };
        let seals = || client.negotiate().is_ok_and(|token| token.contains('.'));
        wait_for("the gateway to seal ids and steer by them", || steers() && seals()).unwrap();
    }

    pub(crate) fn metrics(&self, port: u16) -> String {
        http::get(&format!("{}/stats/prometheus", self.url(port))).unwrap().1
    }
}

pub(crate) fn one(pods: Vec<Pod>) -> Pod {
    let [pod] = pods.try_into().map_err(|pods: Vec<_>| pods.len()).expect("there is one pod");
    pod
}

/// Clients of each transport, without cookies.
pub(crate) fn connect(url: &str, connects: u32, try_timeout: Duration) -> [(Transport, Outcome); 3] {
    Transport::ALL.map(|transport| {
        let task = Task { try_timeout, ..Task::of(url.to_owned(), connects) };
        let client = NodeClient { task, transport, cookies: Cookies::Refused, ..NodeClient::default() };
        (transport, run_node(&client).unwrap())
    })
}

/// The same, all of which must connect.
pub(crate) fn connect_all(url: &str, connects: u32) -> Vec<String> {
    let outcomes = connect(url, connects, testbed::process::PATIENCE);
    outcomes.into_iter().flat_map(|(transport, outcome)| pods(transport, outcome)).collect()
}

/// Connections of each transport that stay open.
pub(crate) struct Held([(Transport, Running); 3]);

impl Held {
    pub(crate) fn open(url: &str, connects: u32) -> Self {
        let held = Transport::ALL.map(|transport| {
            let task = Task::of(url.to_owned(), connects);
            let client = NodeClient { task, transport, cookies: Cookies::Refused, ..NodeClient::default() };
            (transport, start_node(client).unwrap())
        });
        held.iter().for_each(|(_, running)| running.wait_held().unwrap());
        Self(held)
    }

    /// Lets go of them and returns the pods that they were on. Every one must have been open until now.
    pub(crate) fn release(self) -> Vec<String> {
        self.0.into_iter().flat_map(|(transport, running)| pods(transport, running.release().unwrap())).collect()
    }
}

/// The pods of connections that were all right, and were not cut.
fn pods(transport: Transport, outcome: Outcome) -> Vec<String> {
    assert_eq!(outcome.connected, outcome.tried, "{transport:?}: {:?}", outcome.first_error());
    let cut = outcome.tries.iter().find_map(|one| one.cut.as_ref());
    assert!(cut.is_none(), "{transport:?}: {cut:?}");
    outcome.tries.into_iter().map(|one| one.answered_pod.unwrap()).collect()
}
