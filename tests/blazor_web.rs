//! Tier 6: a Blazor Web App of .NET 10, whose circuits can be paused, whose pages are changed in place by enhanced
//! navigation, and whose WebSockets are compressed.

#[path = "blazor/visits.rs"]
mod visits;

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::json;
use testbed::envoy::{Envoy, Filter};
use testbed::process::wait_for;
use testbed::tools::{self, Skips};

use crate::visits::{Visit, Visitors, envoy, is_connect, is_farewell, is_negotiate, three_pods};

/// What `tests/clients/blazor_web.mjs` reports of a visit.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WebVisit {
    #[serde(flatten)]
    visit: Visit,
    /// A paused circuit was resumed with its count.
    resumed: bool,
    resumed_pod: Option<String>,
    /// Enhanced navigation led to the static page and back, in one document.
    returned: bool,
    /// The pods of the static page, of the page after it and of its circuit.
    returned_pods: Vec<String>,
    /// The messages on the circuit's WebSockets.
    frames: Frames,
}

/// As the hub sees them: `received` is from the browser.
#[derive(Debug, Deserialize)]
struct Frames {
    received: u64,
    sent: u64,
}

/// What `docs/configuration.md` recommends for Blazor, with the app's pages.
fn recipe() -> Filter {
    Filter::With(json!({
        "affinity": {"client_cookie": {"enabled": true, "paths": ["/", "/counter", "/about"]}},
        "metrics": {"detail": "messages"},
    }))
}

fn is_skipped(test: &str) -> bool {
    Skips::here().or_skip(test, tools::dotnet_at_least(10)).is_none()
}

/// The value of a metric for the hub of all circuits.
fn of_circuits(envoy: &Envoy, metric: &str, labels: &[(&str, &str)]) -> u64 {
    let labels = [&[("signalr_hub", "/_blazor")], labels].concat();
    envoy.metric(metric, &labels).unwrap() as u64
}

#[test]
fn a_circuit_stays_with_the_pod_of_its_page_through_cuts_pauses_and_navigation() {
    if is_skipped("a_circuit_stays_with_the_pod_of_its_page_through_cuts_pauses_and_navigation") {
        return;
    }
    let pods = three_pods("blazor-web", "keys-of-steered-web-pods");
    let envoy = envoy(&pods, recipe());
    let visits: Vec<WebVisit> = Visitors::of(&envoy, 6).come("blazor_web.mjs");
    for web in &visits {
        let visit = &web.visit;
        assert!(visit.error.is_none() && visit.met_one_pod() && visit.kept, "{web:?}");
        assert!(web.resumed && web.resumed_pod == visit.page_pod, "{web:?}: paused and resumed");
        let home = visit.page_pod.as_deref().unwrap();
        assert!(web.returned && web.returned_pods == [home; 3], "{web:?}: enhanced navigation");
    }
    let homes: BTreeSet<_> = visits.iter().map(|web| &web.visit.page_pod).collect();
    assert!(homes.len() > 1, "all on one pod: this proves nothing");

    // The farewell is sent while the page goes, and nobody waits for its answer.
    wait_for("a farewell of each visitor", || {
        visits.iter().all(|web| !web.visit.pods_asked(&pods, is_farewell).is_empty())
    })
    .unwrap();
    let mut negotiations = 0;
    for WebVisit { visit, .. } in &visits {
        let home = visit.page_pod.as_deref().unwrap();
        let negotiated = visit.pods_asked(&pods, is_negotiate);
        // One more if the browser had given up the circuit of the page before the static one, which it does after two seconds;
        // and a slow machine may have needed more of them.
        for asked in [&negotiated, &visit.pods_asked(&pods, is_connect)] {
            assert!(asked.len() >= 3, "{visit:?}: for the page, the resumed circuit and after the cut: {asked:?}");
            assert!(asked.iter().all(|pod| *pod == home), "{visit:?}: {asked:?}");
        }
        assert_eq!(visit.pods_asked(&pods, is_farewell), [home], "{visit:?}: the farewell");
        negotiations += negotiated.len() as u64;
    }
    let sealed = of_circuits(&envoy, "signalr_gateway_negotiations_total", &[("signalr_result", "sealed")]);
    assert_eq!(sealed, negotiations, "negotiations of circuits, and nothing else");
    assert_eq!(envoy.metric("signalr_gateway_negotiations_total", &[]).unwrap() as u64, negotiations, "of all hubs");
    assert_eq!(envoy.metric("signalr_gateway_internal_errors_total", &[]).unwrap(), 0.0);
}

/// Browser and pod compress all that they say to each other, from the first byte.
#[test]
fn messages_of_a_circuit_are_counted_as_compressed() {
    if is_skipped("messages_of_a_circuit_are_counted_as_compressed") {
        return;
    }
    let pods = three_pods("blazor-web", "keys-of-compressing-pods");
    let envoy = envoy(&pods, recipe());
    // A cut would lose what is on its way.
    let visits: Vec<WebVisit> = Visitors { cut: false, ..Visitors::of(&envoy, 2) }.come("blazor_web.mjs");
    let mut said = Frames { received: 0, sent: 0 };
    for web in &visits {
        assert!(web.visit.error.is_none() && web.resumed, "{web:?}");
        said.received += web.frames.received;
        said.sent += web.frames.sent;
    }
    assert!(said.received > 0 && said.sent > 0, "the browser saw nothing: {visits:?}");
    let of = |direction, metric, labels: &[_]| {
        of_circuits(&envoy, metric, &[&[("signalr_direction", direction)], labels].concat())
    };
    let compressed = |direction| of(direction, "signalr_gateway_messages_total", &[("signalr_type", "compressed")]);
    wait_for("as many compressed messages as the browser saw", || {
        // What comes while the browser closes a WebSocket is not seen by anybody there.
        compressed("received") == said.received && compressed("sent") >= said.sent
    })
    .unwrap();
    for direction in ["received", "sent"] {
        let all = compressed(direction);
        assert_eq!(of(direction, "signalr_gateway_messages_total", &[]), all, "{direction}: no other type");
        assert_eq!(of(direction, "websocket_messages_total", &[]), all, "{direction}: messages of WebSockets");
    }
}

/// The controls: what the tests above call a good visit is not to be had otherwise.
#[test]
fn without_the_filter_or_its_cookie_circuits_are_not_made_or_lost() {
    if is_skipped("without_the_filter_or_its_cookie_circuits_are_not_made_or_lost") {
        return;
    }
    let pods = three_pods("blazor-web", "keys-of-other-web-pods");
    // With no filter no circuit comes, however long one waits.
    for (name, filter, try_ms) in
        [("default settings", Filter::With(json!({})), None), ("no filter", Filter::Absent, Some(10_000))]
    {
        let envoy = envoy(&pods, filter);
        let visits: Vec<WebVisit> = Visitors { try_ms, ..Visitors::of(&envoy, 6) }.come("blazor_web.mjs");
        let is_good = |web: &&WebVisit| web.visit.error.is_none() && web.visit.met_one_pod() && web.visit.kept;
        let good = visits.iter().filter(is_good).count();
        assert!(good < visits.len(), "{name}: {visits:?}");
        let failed = visits.iter().any(|web| web.visit.error.is_some());
        assert_eq!(failed, try_ms.is_some(), "{name}: {visits:?}");
    }
}
