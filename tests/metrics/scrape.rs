//! What Prometheus would read, as a table of series and numbers.

use std::collections::BTreeMap;

use serde_json::Value;
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, Patch};
use testbed::hub::Hub;
use testbed::process::wait_for;
use testbed::tools::EnvoyVersion;

/// Series by `name{label=value,…}`, labels in alphabetical order and without `signalr_`.
pub(crate) type Series = BTreeMap<String, u64>;

/// An Envoy before these hubs that shows histograms after a second instead of five.
pub(crate) fn start(
    hubs: &[Hub],
    concurrency: u32,
    settings: Value,
    patch: impl Fn(&mut Value) + Send + Sync + 'static,
) -> Envoy {
    start_version(EnvoyVersion::Newest, hubs, concurrency, settings, patch)
}

/// The same in this release.
pub(crate) fn start_version(
    version: EnvoyVersion,
    hubs: &[Hub],
    concurrency: u32,
    settings: Value,
    patch: impl Fn(&mut Value) + Send + Sync + 'static,
) -> Envoy {
    let addresses = hubs.iter().map(Hub::address).collect();
    start_before(version, addresses, concurrency, settings, patch)
}

/// The same before whatever listens at these addresses.
pub(crate) fn start_before(
    version: EnvoyVersion,
    addresses: Vec<String>,
    concurrency: u32,
    settings: Value,
    patch: impl Fn(&mut Value) + Send + Sync + 'static,
) -> Envoy {
    let patch: Patch = Box::new(move |bootstrap| {
        bootstrap["stats_flush_interval"] = "1s".into();
        patch(bootstrap);
    });
    let options = EnvoyOptions {
        version,
        filter: Filter::With(settings),
        hosts: Hosts::Fixed(addresses),
        concurrency,
        patch: Some(patch),
        ..EnvoyOptions::default()
    };
    Envoy::start(&options).unwrap()
}

/// The filter's series but for conflicts, which are as threads happen to meet; of histograms only how many there were.
pub(crate) fn series(envoy: &Envoy) -> Series {
    let text = envoy.prometheus().unwrap();
    let ours = |line: &&str| {
        let known = line.starts_with("websocket_") || line.starts_with("signalr_");
        known && !line.starts_with("signalr_gateway_shared_data_conflicts_total")
    };
    let mut all = Series::new();
    for line in text.lines().filter(ours) {
        let (written, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = written.strip_suffix('}').unwrap().split_once('{').unwrap();
        if name.ends_with("_bucket") || name.ends_with("_sum") {
            continue;
        }
        let plain = |label: &str| label.strip_prefix("signalr_").expect("a label of ours").replace('"', "");
        let mut labels: Vec<_> = labels.split(',').filter(|label| !label.is_empty()).map(plain).collect();
        labels.sort();
        all.insert(format!("{name}{{{}}}", labels.join(",")), value.parse().unwrap());
    }
    all
}

/// The series that `wanted` picks come to be exactly `expected`, neither more nor less: counters and gauges within a second,
/// histograms when Envoy flushes them.
pub(crate) fn settles(name: &str, envoy: &Envoy, wanted: impl Fn(&str) -> bool, expected: &[(String, u64)]) {
    let expected: Series = expected.iter().cloned().collect();
    let mut found = Series::new();
    let settled = wait_for(name, || {
        found = series(envoy).into_iter().filter(|(series, _)| wanted(series)).collect();
        found == expected
    });
    assert!(
        settled.is_ok(),
        "{name}, found and not expected: {:#?}; expected and not found: {:#?}",
        without(&found, &expected),
        without(&expected, &found)
    );
}

fn without(these: &Series, those: &Series) -> Vec<String> {
    let missing = these.iter().filter(|(name, value)| those.get(*name) != Some(value));
    missing.map(|(name, value)| format!("{name} {value}")).collect()
}
