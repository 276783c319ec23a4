//! `envoy-signalr convert`: what it prints boots in Envoy and serves clients with the affinity and the limits of its input, and admits
//! as many as the proxy does that the input is for.
//!
//! `inputs` are files as people write them; `expected` are the settings and the reports that the program's own tests hold them to.

mod others;
mod outputs;

use std::ffi::OsStr;

use serde_json::Value;
use testbed::envoy::{Envoy, EnvoyOptions, Hosts, filter_of, module, signalr_filter};
use testbed::hub::Hub;

/// The bootstrap that an input becomes.
fn converted(input: &str) -> Value {
    let file = testbed::workspace().join("tests/convert/inputs").join(input);
    let options = ["--to", "envoy", "--", "--key", "KEY", "--module"].map(OsStr::new);
    let arguments = [OsStr::new("convert"), file.as_os_str()].into_iter().chain(options);
    let printed = testbed::tasks::printed(arguments.chain([module().unwrap().as_os_str()]));
    serde_yaml_ng::from_str(&printed.unwrap_or_else(|error| panic!("{input}: {error}"))).unwrap()
}

/// The settings in a bootstrap.
fn settings(bootstrap: &mut Value) -> Value {
    let text = &signalr_filter(bootstrap)["typed_config"]["config"]["configuration"]["value"];
    serde_json::from_str(text.as_str().unwrap()).unwrap()
}

/// Envoy with the filter of a converted bootstrap. The addresses are the testbed's; all else is `envoy/envoy.yaml` in both.
fn start(bootstrap: Value, hubs: &[Hub]) -> Envoy {
    let patch = Some(filter_of(bootstrap));
    let environment = vec![("KEY".to_owned(), "0123456789abcdef0123456789abcdef".to_owned())];
    let hosts = Hosts::of(hubs);
    Envoy::start(&EnvoyOptions { hosts, environment, patch, concurrency: 2, ..EnvoyOptions::default() }).unwrap()
}
