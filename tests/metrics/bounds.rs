//! What a stranger can make up must not become series.

use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};
use testbed::envoy::{negotiate_route, put_routes_first};
use testbed::hub::shared_hubs;
use testbed::process::{cores, wait_for};
use testbed::raw::Wire;

use crate::client::{Client, upgrade};
use crate::scrape::{series, start};

const MADE_UP: usize = 10_000;
/// As many hubs are distinguished as `docs/configuration.md` says.
const MOST_HUBS: usize = 64;

/// Envoy answers a negotiate at any path below `/learned`.
fn eager_server(bootstrap: &mut Value) {
    put_routes_first(bootstrap, vec![negotiate_route("/learned")]);
}

/// Negotiates at many paths and hosts over one connection.
fn negotiate_everywhere(gateway: &str, numbers: impl Iterator<Item = usize>) {
    let request = |number| {
        let path = if number % 40 == 0 { "learned/" } else { "" };
        let head = format!("POST /{path}hub-{number}/negotiate HTTP/1.1\r\nhost: host-{number}.example\r\n");
        format!("{head}content-length: 0\r\n\r\n").into_bytes()
    };
    Wire::open(gateway).ask_all(&numbers.map(request).collect::<Vec<_>>());
}

#[test]
fn ten_thousand_made_up_hubs_and_hosts_make_few_series() {
    let hubs = &shared_hubs().unwrap()[..1];
    let envoy = start(hubs, 4, json!({}), eager_server);
    Client::connect(&envoy, "/chat").close(Some(1000));
    let threads = 4 * cores();
    thread::scope(|scope| {
        for first in 0..threads {
            let gateway = envoy.url();
            scope.spawn(move || negotiate_everywhere(&gateway, (first..MADE_UP).step_by(threads)));
        }
    });
    for number in 0..100 {
        assert_eq!(upgrade(&envoy.url(), &format!("/made-up-{number}?id=x{number}.y")).err(), Some(Some(404)));
    }
    let answered = || {
        let all = series(&envoy);
        all.iter().filter(|(name, _)| name.contains("_negotiations_total")).map(|(_, count)| *count).sum::<u64>()
    };
    wait_for("all negotiates to be counted", || answered() == MADE_UP as u64 + 1).unwrap();
    let all = series(&envoy);
    let hub = |name: &String| Some(name.split_once("hub=")?.1.split([',', '}']).next()?.to_owned());
    let labels: BTreeSet<_> = all.keys().filter_map(hub).collect();
    // Those that answered a negotiate, among them the real one, and the rest.
    assert_eq!(labels.len(), MOST_HUBS + 1, "{labels:?}");
    assert!(labels.contains("/chat") && labels.contains("other"), "{labels:?}");
    assert!(all.len() < 2 * (MOST_HUBS + 1) + 40, "{} series", all.len());
    let text = envoy.prometheus().unwrap();
    assert!(!text.contains("host-1") && !text.contains("made-up"), "a made-up name became a series");
    // Labels that are not taken out stay in the name, their punctuation as underscores.
    let label_in_name = text.lines().find(|line| line.contains("signalr_hub_") || line.contains("=.="));
    assert_eq!(label_in_name, None);
}
