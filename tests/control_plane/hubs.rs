//! Hubs that go while clients are connected to them.

use serde_json::json;
use testbed::http;
use testbed::process::wait_for;
use testbed::raw::Client;

use crate::demo::{Held, connect_all};
use crate::lab::lab;

#[test]
fn a_hub_that_is_deleted_keeps_its_connections_and_gets_no_new_ones() {
    let Some(lab) = lab("a_hub_that_is_deleted_keeps_its_connections_and_gets_no_new_ones") else { return };
    lab.serve_demo();
    // It ends when this test is through with it, on a slow machine as well.
    let container = json!({ "name": "hub", "lifecycle": { "preStop": { "sleep": { "seconds": 3_600 } } } });
    let pod = json!({ "terminationGracePeriodSeconds": 7_200, "containers": [container] });
    let patch = json!({ "spec": { "template": { "spec": pod } } });
    lab.kubectl(&["patch", "deployment", "hub", "--patch", &patch.to_string()]);
    lab.rolled_out("default", "deployment/hub");

    let gateway = lab.gateway();
    let url = gateway.url(8080);
    let held = Held::open(&url, 6);
    let client = Client::of(&url);
    let negotiated = client.negotiate_answer();
    let leaving = negotiated.pod().expect("the hub names itself").to_owned();
    let session = client.session(negotiated.json()["connectionToken"].as_str().unwrap()).unwrap();
    let hubs = lab.pods("default", "app=hub");
    let address = &hubs.iter().find(|hub| hub.name == leaving).expect("a hub has the name of its pod").address;
    lab.kubectl(&["delete", "pod", &leaving, "--wait=false"]);
    let clusters = format!("{}/clusters", gateway.url(15000));
    let flag = format!("::{address}:8080::health_flags::/eds_status_draining");
    let drains = || http::get(&clusters).is_ok_and(|(_, clusters)| clusters.contains(&flag));
    wait_for("the gateway to know that the hub is going", drains).unwrap();

    for _ in 0..5 {
        session.echo();
    }
    let pods = connect_all(&url, 10);
    assert!(!pods.contains(&leaving), "new connections are on {leaving}: {pods:?}");
    let pods = held.release();
    assert!(pods.contains(&leaving), "no connection was held on {leaving}: {pods:?}");
    lab.kubectl(&["delete", "pods", "--selector", "app=hub", "--force", "--grace-period=0"]);
}
