//! Autobahn's cases for WebSockets, odd frames and compressed ones among them: the filter changes no verdict.

use std::collections::BTreeMap;

use serde_json::json;
use testbed::clients::{Autobahn, Verdict, run_autobahn, start_server};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, Patch, remove_health_checks};

/// Of the cases with compression some that are quick; of the others all, but for 6.4, whose verdict is a race with the clock.
const COMPRESSED: [&str; 5] = ["12.1.4", "12.2.5", "12.4.6", "13.1.4", "13.7.4"];

fn verdicts(server: &str) -> BTreeMap<String, Verdict> {
    let cases = Autobahn {
        server: server.to_owned(),
        include: [&["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"], &COMPRESSED[..]].concat(),
        exclude: vec!["6.4.*"],
        parallel: 4,
    };
    run_autobahn(&cases).unwrap()
}

#[test]
fn no_verdict_of_autobahn_changes_behind_the_filter() {
    let (_echo, address) = start_server("echo.mjs", &json!({})).unwrap();
    let direct = verdicts(&address);
    assert_eq!(direct.len(), 297 + COMPRESSED.len());
    // Two cases in 65,536 fragments are too many for `ws`.
    let passed = direct.values().filter(|verdict| verdict.behavior != "FAILED");
    assert_eq!(passed.count(), direct.len() - 2, "{direct:#?}");

    let with = |detail| Filter::With(json!({ "metrics": { "detail": detail } }));
    let filters = ["connections", "frames", "messages"].map(|detail| (detail, with(detail)));
    for (name, filter) in [("no filter", Filter::Absent)].into_iter().chain(filters) {
        let hosts = Hosts::Fixed(vec![address.clone()]);
        let patch: Patch = Box::new(remove_health_checks);
        let options = EnvoyOptions { filter, hosts, concurrency: 2, patch: Some(patch), ..EnvoyOptions::default() };
        let envoy = Envoy::start(&options).unwrap();
        let through = verdicts(envoy.url().trim_start_matches("http://"));
        let changed = |(case, verdict): &(String, Verdict)| direct[case] != *verdict;
        let changed: Vec<_> = through.into_iter().filter(changed).collect();
        assert_eq!(changed, [], "{name}");
        assert!(!envoy.has_trapped(), "{name}: {}", envoy.log());
    }
}
