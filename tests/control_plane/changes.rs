//! What changes do to a filter that runs, right ones and wrong ones.

use serde_json::json;
use testbed::process::wait_for;

use crate::demo::{DEPLOYMENT, FILTER, Held, connect_all};
use crate::lab::lab;

#[test]
fn a_change_of_settings_cuts_no_connection() {
    let Some(lab) = lab("a_change_of_settings_cuts_no_connection") else { return };
    lab.serve_demo();
    let gateway = lab.gateway();
    let url = gateway.url(8080);
    let held = Held::open(&url, 4);
    lab.apply_changed_filter(|wasm| wasm["pluginConfig"]["hubs"] = json!([{ "path": "/chat", "name": "renamed" }]));
    let renamed = || {
        connect_all(&url, 1);
        gateway.metrics(15020).contains(r#"signalr_hub="renamed""#)
    };
    wait_for("the change to reach the gateway", renamed).unwrap();
    held.release();
}

#[test]
fn refused_settings_leave_the_old_ones_at_work_but_a_new_gateway_answers_500() {
    let Some(lab) = lab("refused_settings_leave_the_old_ones_at_work_but_a_new_gateway_answers_500") else { return };
    lab.serve_demo();
    let (old, refusals) = (lab.gateway(), lab.refusals());
    let held = Held::open(&old.url(8080), 4);
    lab.apply_changed_filter(|wasm| wasm["pluginConfig"] = json!({ "hub": [] }));
    wait_for("istiod to count the refusal", || lab.refusals() > refusals).unwrap();
    connect_all(&old.url(8080), 4);

    lab.in_gateways(&["scale", DEPLOYMENT, "--replicas=2"]);
    wait_for("a second gateway", || lab.gateways().len() == 2).unwrap();
    let new = lab.gateways().into_iter().find(|gateway| gateway.name != old.name).unwrap();
    new.wait_status(8080, 500);
    lab.apply(FILTER);
    new.wait_status(8080, 200);
    held.release();
}

#[test]
fn an_image_that_cannot_be_fetched_is_answered_403() {
    let Some(lab) = lab("an_image_that_cannot_be_fetched_is_answered_403") else { return };
    lab.serve_demo();
    let gateway = lab.gateway();
    lab.apply_changed_filter(|wasm| wasm["url"] = "oci://registry.example.com/envoy-signalr:missing".into());
    gateway.wait_status(8080, 403);
    lab.apply(FILTER);
    gateway.wait_status(8080, 200);
}

#[test]
fn a_gateway_without_the_key_answers_500_and_says_why() {
    let Some(lab) = lab("a_gateway_without_the_key_answers_500_and_says_why") else { return };
    lab.serve_demo();
    lab.in_gateways(&["set", "env", DEPLOYMENT, "SIGNALR_AFFINITY_KEY-"]);
    lab.rolled_out("istio-ingress", DEPLOYMENT);
    let gateway = lab.gateway();
    gateway.wait_status(8080, 500);
    let log = gateway.log();
    assert!(log.contains("configuration refused: affinity.keys[0].secret.env"), "{log}");
}
