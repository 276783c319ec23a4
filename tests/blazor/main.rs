//! Tier 6: Blazor Server, which asks more of a gateway than a hub alone: page, circuit and farewell are requests of
//! their own, and a circuit that lost its connection is asked for by a new negotiate.

mod visits;

use std::collections::BTreeSet;

use serde_json::json;
use testbed::envoy::Filter;
use testbed::process::wait_for;

use crate::visits::{Visit, Visitors, envoy, is_connect, is_farewell, is_negotiate, three_pods};

#[test]
fn a_circuit_lives_where_its_page_was_made_and_is_found_again_after_a_cut() {
    let pods = three_pods("blazor", "keys-of-steered-pods");
    let settings = json!({"affinity": {"client_cookie": {"enabled": true, "paths": ["/", "/counter"]}}});
    let envoy = envoy(&pods, Filter::With(settings));
    let visits: Vec<Visit> = Visitors::of(&envoy, 8).come("blazor.mjs");
    for visit in &visits {
        assert!(visit.error.is_none() && visit.met_one_pod() && visit.kept, "{visit:?}");
    }
    let homes: BTreeSet<_> = visits.iter().map(|visit| &visit.page_pod).collect();
    assert!(homes.len() > 1, "all on one pod: this proves nothing");

    // The farewell is sent while the page goes, and nobody waits for its answer.
    wait_for("a farewell of each visitor", || {
        visits.iter().all(|visit| !visit.pods_asked(&pods, is_farewell).is_empty())
    })
    .unwrap();
    for visit in &visits {
        let home = visit.page_pod.as_deref().unwrap();
        // A slow machine may have needed more of them.
        for asked in [visit.pods_asked(&pods, is_negotiate), visit.pods_asked(&pods, is_connect)] {
            assert!(asked.len() >= 2, "{visit:?}: before and after the cut: {asked:?}");
            assert!(asked.iter().all(|pod| *pod == home), "{visit:?}: {asked:?}");
        }
        assert_eq!(visit.pods_asked(&pods, is_farewell), [home], "{visit:?}: the farewell");
    }
}

/// The control: a route in the connection id knows neither where the page was made nor where the circuit is.
#[test]
fn without_the_client_cookie_circuits_live_elsewhere_and_are_lost_by_a_cut() {
    let pods = three_pods("blazor", "keys-of-other-pods");
    let envoy = envoy(&pods, Filter::With(json!({})));
    let visits: Vec<Visit> = Visitors::of(&envoy, 12).come("blazor.mjs");
    assert!(visits.iter().all(|visit| visit.error.is_none()), "{visits:?}");
    assert!(visits.iter().any(|visit| !visit.met_one_pod()), "{visits:?}");
    assert!(visits.iter().any(|visit| !visit.kept), "{visits:?}");
}
