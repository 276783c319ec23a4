//! `envoy-signalr convert`: what it prints boots in Envoy and serves clients with the affinity and the limits of its input, and admits
//! as many as the proxy does that the input is for.
//!
//! `inputs` are files as people write them; `expected` are the settings and the reports that the program's own tests hold them to.

mod others;
mod outputs;

use std::process::Command;

use serde_json::Value;
use testbed::envoy::{Envoy, EnvoyOptions, Hosts, module, signalr_filter};
use testbed::hub::Hub;

/// The bootstrap that an input becomes.
fn converted(input: &str) -> Value {
    let file = testbed::workspace().join("tests/convert/inputs").join(input);
    let mut command = Command::new(testbed::tasks::envoy_signalr().unwrap());
    command.arg("convert").arg(file).args(["--to", "envoy", "--", "--key", "KEY", "--module"]).arg(module().unwrap());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{input}: {}", String::from_utf8_lossy(&output.stderr));
    serde_yaml_ng::from_slice(&output.stdout).unwrap()
}

/// The settings in a bootstrap.
fn settings(bootstrap: &mut Value) -> Value {
    let text = &signalr_filter(bootstrap)["typed_config"]["config"]["configuration"]["value"];
    serde_json::from_str(text.as_str().unwrap()).unwrap()
}

/// Envoy with the filter of a converted bootstrap. The addresses are the testbed's; all else is `envoy/envoy.yaml` in both.
fn start(mut bootstrap: Value, hubs: &[Hub]) -> Envoy {
    let filter = signalr_filter(&mut bootstrap).clone();
    let patch = Some(Box::new(move |bootstrap: &mut Value| *signalr_filter(bootstrap) = filter.clone()) as _);
    let environment = vec![("KEY".to_owned(), "0123456789abcdef0123456789abcdef".to_owned())];
    let hosts = Hosts::of(hubs);
    Envoy::start(&EnvoyOptions { hosts, environment, patch, concurrency: 2, ..EnvoyOptions::default() }).unwrap()
}
