//! Autobahn's cases for WebSockets, odd frames and compressed ones among them: the filter changes no verdict.

use std::collections::BTreeMap;

use serde_json::json;
use testbed::clients::{Autobahn, Verdict, run_autobahn, start_server};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, Patch, remove_health_checks};

/// Of the cases with compression some that are quick; of the others all, but for 6.4, whose verdict is a race with the clock.
const COMPRESSED: [&str; 5] = ["12.1.4", "12.2.5", "12.4.6", "13.1.4", "13.7.4"];

/// The verdicts on a server, of which those that are not `as_expected` were found twice: most cases give an echo a second, which
/// on a busy machine it may need while others run beside it.
fn verdicts(server: &str, as_expected: impl Fn(&str, &Verdict) -> bool) -> BTreeMap<String, Verdict> {
    let mut cases = Autobahn {
        server: server.to_owned(),
        include: ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"].map(str::to_owned).into(),
        exclude: vec!["6.4.*"],
        parallel: 4,
    };
    cases.include.extend(COMPRESSED.map(str::to_owned));
    let mut verdicts = run_autobahn(&cases).unwrap();
    let odd = verdicts.iter().filter(|(case, verdict)| !as_expected(case, verdict));
    let alone: Vec<_> = odd.map(|(case, _)| case.clone()).collect();
    if !alone.is_empty() {
        println!("once more, alone: {alone:?}");
        verdicts.extend(run_autobahn(&Autobahn { include: alone, parallel: 1, ..cases }).unwrap());
    }
    verdicts
}

#[test]
fn no_verdict_of_autobahn_changes_behind_the_filter() {
    let (_echo, address) = start_server("echo.mjs", &json!({})).unwrap();
    let direct = verdicts(&address, |_, verdict| verdict.behavior != "FAILED");
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
        let same = |case: &str, verdict: &Verdict| direct[case] == *verdict;
        let through = verdicts(envoy.url().trim_start_matches("http://"), same);
        let changed: Vec<_> = through.into_iter().filter(|(case, verdict)| !same(case, verdict)).collect();
        assert_eq!(changed, [], "{name}");
        assert!(!envoy.has_trapped(), "{name}: {}", envoy.log());
    }
}
