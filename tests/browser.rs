//! Tier 6: many connections of one browser profile at the same time, which is where cookies of connections could mix:
//! tabs, hubs and transports, on the gateway's own site and on another that gets no cookies. And the page of `examples/chat`.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use testbed::clients::drive_chromium;
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts};
use testbed::hub::{Hub, three_hubs, three_hubs_with};
use testbed::process::free_port;

/// The options of `tests/clients/tabs.mjs`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Tabs {
    /// The gateway.
    url: String,
    /// Where the pages come from.
    page: String,
    hubs: [&'static str; 2],
    /// One connection after the other, instead of all at once.
    in_turn: bool,
    /// How long one step of one connection may take, if not as long as usual.
    try_ms: Option<u32>,
    /// How long all of them stay silent before they are asked again, and again.
    rest_ms: u32,
}

impl Tabs {
    fn of(envoy: &Envoy) -> Self {
        Self {
            url: envoy.url(),
            page: envoy.url(),
            hubs: ["/chat", "/notifications"],
            in_turn: false,
            try_ms: None,
            rest_ms: 500,
        }
    }

    fn open(&self) -> Lives {
        drive_chromium("tabs.mjs", self).unwrap()
    }
}

/// What it reports.
#[derive(Deserialize)]
struct Lives {
    lives: Vec<Life>,
}

/// One connection, from its negotiate to its end.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Life {
    tab: usize,
    hub: String,
    transport: String,
    negotiated_pod: Option<String>,
    /// The pod that answered, each time it was asked.
    pods: Vec<String>,
    /// The messages that it did not get once.
    missed: Vec<String>,
    error: Option<String>,
    /// Why it ended before the page ended it.
    cut: Option<String>,
}

impl Life {
    fn stayed(&self) -> bool {
        let at_home = |pod| Some(pod) == self.negotiated_pod.as_ref();
        self.error.is_none() && self.cut.is_none() && self.pods.len() >= 3 && self.pods.iter().all(at_home)
    }
}

impl Lives {
    fn all_stayed_and_heard_each_other(&self, name: &str) {
        let failed: Vec<_> = self.lives.iter().filter(|life| !life.stayed() || !life.missed.is_empty()).collect();
        assert!(failed.is_empty(), "{name}: {failed:#?}");
        let kinds: BTreeSet<_> = self.lives.iter().map(|life| (life.tab, &life.hub, &life.transport)).collect();
        assert_eq!((self.lives.len(), kinds.len()), (16, 12), "{name}: two tabs, two hubs, three transports");
    }

    fn pods(&self) -> BTreeSet<&str> {
        self.lives.iter().flat_map(|life| &life.pods).map(String::as_str).collect()
    }
}

/// What `tests/clients/chat.mjs` saw on the page of `examples/chat`, in both tabs.
#[derive(Deserialize)]
struct ChatPages {
    /// What it says of each connection.
    states: Vec<String>,
    errors: Vec<String>,
    /// How many messages each tab shows.
    logs: Vec<u32>,
}

/// The same page on one screen, as `tests/clients/page.mjs` saw it while the gateway restarted.
#[derive(Deserialize)]
struct PageVisit {
    screen: String,
    /// What makes it hard to use.
    faults: Vec<String>,
    /// The errors on its console.
    errors: Vec<String>,
    /// It showed when it would try again.
    waited: bool,
    /// The pod of each connection at the end, or two with an arrow.
    moves: Vec<String>,
}

/// What `tests/clients/comparison.mjs` saw of the page's comparison.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Comparison {
    /// By transport: how many connected with the filter and without.
    outcomes: BTreeMap<String, (u32, u32)>,
    faults: Vec<String>,
    /// Where the page knows no other gateway.
    hidden_elsewhere: bool,
}

/// Three pods that let pages of another site call them: those of the first, past the gateway.
fn hubs_for_another_site() -> Vec<Hub> {
    let hubs = three_hubs_with(|hubs| {
        let site = format!("http://localhost:{}", hubs[0].port.unwrap());
        hubs.iter_mut().for_each(|hub| hub.cors_origins = vec![site.clone()]);
    });
    hubs.unwrap()
}

/// How many of the requests that reached the hubs bore such a header.
fn requests_with(hubs: &[Hub], header: &str, value: impl Fn(&str) -> bool) -> usize {
    let requests = hubs.iter().flat_map(|hub| hub.requests().unwrap());
    requests.filter(|request| request.headers.get(header).is_some_and(|values| values.iter().any(|v| value(v)))).count()
}

fn routed(envoy: &Envoy, source: &str) -> f64 {
    let labels = [("signalr_source", source), ("signalr_outcome", "routed")];
    envoy.metric("signalr_gateway_affinity_total", &labels).unwrap()
}

#[test]
fn connections_of_one_browser_stay_with_their_pods_and_hear_each_other() {
    let hubs = three_hubs().unwrap();
    let envoy = Envoy::before(&hubs, Filter::With(json!({}))).unwrap();
    let lives = Tabs::of(&envoy).open();
    lives.all_stayed_and_heard_each_other("same site");
    assert!(lives.pods().len() > 1, "all on one pod: this proves nothing");
    assert!(requests_with(&hubs, "cookie", |_| true) > 0, "the browser sent no cookies");
    assert!(routed(&envoy, "connection_token") > 0.0);
}

#[test]
fn pages_of_another_site_need_no_cookies() {
    let hubs = hubs_for_another_site();
    let third_party = json!({"affinity": {"connection_cookie": {"same_site": "none", "secure": true}}});
    for (name, settings) in [("default settings", json!({})), ("blocked third-party cookies", third_party)] {
        let envoy = Envoy::before(&hubs, Filter::With(settings)).unwrap();
        let lives = Tabs { page: hubs[0].url_by_name(), ..Tabs::of(&envoy) }.open();
        lives.all_stayed_and_heard_each_other(name);
        assert!(lives.pods().len() > 1, "{name}: all on one pod");
    }
    assert_eq!(requests_with(&hubs, "cookie", |_| true), 0);
    assert!(requests_with(&hubs, "sec-fetch-site", |site| site == "cross-site") > 0, "no other site to the browser");
    assert_eq!(requests_with(&hubs, "sec-fetch-site", |site| site != "cross-site"), 0);
}

/// What a browser lets through even so, and the proof that the test above would see a cookie if there were one.
#[test]
fn partitioned_cookies_alone_serve_pages_of_another_site() {
    let hubs = hubs_for_another_site();
    let filter = Filter::With(json!({"affinity": {
        "connection_token": {"enabled": false},
        "connection_cookie": {"same_site": "none", "secure": true, "partitioned": true},
    }}));
    let envoy = Envoy::before(&hubs, filter).unwrap();
    let lives = Tabs { page: hubs[0].url_by_name(), in_turn: true, ..Tabs::of(&envoy) }.open();
    lives.all_stayed_and_heard_each_other("partitioned");
    assert!(routed(&envoy, "connection_cookie") > 0.0);
    assert!(requests_with(&hubs, "cookie", |_| true) > 0);
}

#[test]
fn cookies_of_connections_alone_keep_those_apart_that_start_one_after_the_other() {
    let hubs = three_hubs().unwrap();
    let filter = Filter::With(json!({"affinity": {"connection_token": {"enabled": false}}}));
    let envoy = Envoy::before(&hubs, filter).unwrap();
    let lives = Tabs { in_turn: true, ..Tabs::of(&envoy) }.open();
    lives.all_stayed_and_heard_each_other("no token");
    assert!(routed(&envoy, "connection_cookie") > 0.0);
    assert_eq!(routed(&envoy, "connection_token"), 0.0);
}

#[test]
fn people_chat_from_tab_to_tab_on_the_page_of_the_example() {
    let hubs = three_hubs().unwrap();
    let envoy = Envoy::before(&hubs, Filter::With(json!({}))).unwrap();
    let url = json!({"url": envoy.url()});
    let pages: ChatPages = drive_chromium("chat.mjs", &url).unwrap();
    assert_eq!(pages.errors, [""; 0]);
    assert_eq!(pages.states, ["Connected"; 6]);
    assert_eq!(pages.logs, [2, 2]);
}

#[test]
fn the_page_of_the_example_outlives_its_gateway_on_each_screen() {
    let hubs = three_hubs().unwrap();
    let port = Some(free_port().unwrap());
    let start = |hubs| Envoy::start(&EnvoyOptions { port, hosts: Hosts::of(hubs), ..EnvoyOptions::default() }).unwrap();
    let mut envoy = start(&hubs);
    let options = json!({"url": envoy.url(), "admin": envoy.admin()});
    let visits = thread::spawn(move || drive_chromium::<Vec<PageVisit>>("page.mjs", &options));
    // The driver bounds each of its steps itself.
    while envoy.ended().unwrap().is_none() && !visits.is_finished() {
        thread::sleep(Duration::from_millis(50));
    }
    let _after = start(&hubs[2..]);
    let visits = visits.join().unwrap().unwrap();
    assert_eq!(visits.len(), 4);
    for PageVisit { screen, faults, errors, waited, moves } in visits {
        assert!(waited && faults.is_empty() && errors.is_empty(), "{screen}: {faults:#?} {errors:#?}");
        assert!(moves.iter().all(|pods| pods.ends_with("hub-3")), "{screen}: {moves:?}");
        assert!(moves.iter().any(|pods| pods == "hub-1 → hub-3" || pods == "hub-2 → hub-3"), "{screen}: {moves:?}");
    }
}

#[test]
fn the_page_of_the_example_compares_gateways_with_and_without_the_filter() {
    let port = free_port().unwrap();
    let page = format!("http://127.0.0.1:{port}");
    let hubs = three_hubs_with(|hubs| hubs.iter_mut().for_each(|hub| hub.cors_origins = vec![page.clone()])).unwrap();
    let options = EnvoyOptions { port: Some(port), hosts: Hosts::of(&hubs), ..EnvoyOptions::default() };
    let (_with, without) = (Envoy::start(&options).unwrap(), Envoy::before(&hubs, Filter::Absent).unwrap());
    let page = json!({"page": format!("{page}/?without={}", without.url())});
    let seen: Comparison = drive_chromium("comparison.mjs", &page).unwrap();
    assert_eq!(seen.outcomes.len(), 3);
    for (transport, (with, without)) in seen.outcomes {
        assert!(with == 10 && without < 10, "{transport}: {with} with, {without} without");
    }
    assert!(seen.hidden_elsewhere && seen.faults.is_empty(), "{:#?}", seen.faults);
}

/// The control: the tests of pages with many connections can fail.
#[test]
fn without_the_filter_connections_of_one_browser_fail() {
    let hubs = three_hubs().unwrap();
    let envoy = Envoy::before(&hubs, Filter::Absent).unwrap();
    // A step that waits for a pod which does not know the connection is not worth more.
    let lives = Tabs { try_ms: Some(3_000), ..Tabs::of(&envoy) }.open();
    assert!(lives.lives.iter().any(|life| !life.stayed()), "all of them stayed");
}
