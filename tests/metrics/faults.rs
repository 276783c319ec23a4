//! Gauges under open connections when a VM traps or the configuration changes.

use std::thread;

use serde_json::json;
use testbed::envoy::{
    Envoy, EnvoyOptions, Filter, Hosts, Patch, Watched, balance_exactly, load_module, module_that_traps,
};
use testbed::hub::{Hub, shared_hubs};
use testbed::process::wait_for;
use testbed::raw::{self, Request};

use crate::client::{Client, upgrade};
use crate::scrape::{Series, series};

const OPEN: usize = 60;

fn start(hubs: &[Hub], concurrency: u32, per_upstream: bool, patch: Patch) -> Envoy {
    let hosts = Hosts::of(hubs);
    let filter = Filter::With(json!({ "metrics": { "per_upstream": per_upstream } }));
    Envoy::start(&EnvoyOptions { filter, hosts, concurrency, patch: Some(patch), ..EnvoyOptions::default() }).unwrap()
}

/// The sum of the gauges that begin so.
fn sum(all: &Series, gauge: &str) -> u64 {
    all.iter().filter(|(name, _)| name.starts_with(gauge)).map(|(_, open)| open).sum()
}

/// All gauges come to be right, and stay so: the sums over pods, the hub's, and the transport's.
fn come_to(envoy: &Envoy, name: &str, by_pod: u64, by_hub: u64) {
    let sums = |all: &Series| {
        let gauges = ["websocket_connections_active{hub=/chat,upstream=", "websocket_connections_active{hub=/chat}"];
        let [pods, hub] = gauges.map(|gauge| sum(all, gauge));
        [pods, hub, sum(all, "signalr_gateway_connections_active{hub=/chat,")]
    };
    let expected = [by_pod, by_hub, by_pod + by_hub];
    let right = wait_for(name, || sums(&series(envoy)) == expected);
    assert!(right.is_ok(), "{name}: {:?} instead of {expected:?}", sums(&series(envoy)));
    // The gauges are set anew for a visitor to another hub who comes and for one who goes.
    for _ in 0..2 {
        let mut visitor = None;
        for open in [1, 0] {
            let is_reported = || {
                // Where a VM has trapped, Envoy answers until it is loaded anew.
                visitor = visitor.take().or_else(|| upgrade(&envoy.url(), "/notifications").ok()).filter(|_| open == 1);
                let all = series(envoy);
                assert_eq!(sums(&all), expected, "{name}: did not last");
                sum(&all, "signalr_gateway_connections_active{") == expected[2] + open
            };
            wait_for("a visitor to be reported", is_reported).unwrap();
        }
    }
}

fn connect(envoy: &Envoy) -> Vec<Client> {
    (0..OPEN).map(|_| Client::connect(envoy, "/chat")).collect()
}

#[test]
fn after_a_trap_gauges_tell_who_is_left() {
    let module = module_that_traps().unwrap();
    let hubs = shared_hubs().unwrap();
    for (concurrency, per_upstream) in [(4, true), (1, true), (1, false)] {
        let name = format!("{concurrency} threads, by pod: {per_upstream}");
        let module = module.clone();
        let patch: Patch = Box::new(move |bootstrap| {
            load_module(bootstrap, &module);
            balance_exactly(bootstrap);
        });
        let envoy = start(hubs, concurrency, per_upstream, patch);
        let gauges = |open: u64| if per_upstream { (open, 0) } else { (0, open) };
        let open = connect(&envoy);
        let (by_pod, by_hub) = gauges(OPEN as u64);
        come_to(&envoy, &format!("before, {name}"), by_pod, by_hub);

        let trap = raw::ask(&envoy.url(), &Request::post("/chat/negotiate").with("x-signalr-trap", "1"));
        assert_eq!(trap.status(), 503);
        // Envoy resets the others of that thread when something comes on them.
        let left: Vec<_> = thread::scope(|scope| {
            let asked: Vec<_> = open.into_iter().map(|client| scope.spawn(|| client.survives())).collect();
            asked.into_iter().filter_map(|asked| asked.join().unwrap()).collect()
        });
        let survivors = if concurrency == 1 { 0..1 } else { 1..OPEN };
        assert!(survivors.contains(&left.len()), "{name}: {} survived", left.len());
        let (by_pod, by_hub) = gauges(left.len() as u64);
        come_to(&envoy, &format!("after, {name}"), by_pod, by_hub);
    }
}

/// Connections that were opened before are reported as the new configuration says, and none twice.
#[test]
fn another_configuration_tells_what_is_open_in_its_own_way() {
    let hubs = shared_hubs().unwrap();
    let watched = Watched::new("per-upstream").unwrap();
    let taken = watched.clone();
    let envoy = start(hubs, 4, false, Box::new(move |bootstrap| taken.take_filter(bootstrap)));
    let open = connect(&envoy);
    let all = OPEN as u64;
    come_to(&envoy, "by hub", 0, all);
    for (name, per_upstream, by_pod, by_hub) in [("by pod", true, all, 0), ("by hub again", false, 0, all)] {
        watched.configure(&json!({ "metrics": { "per_upstream": per_upstream } }));
        come_to(&envoy, name, by_pod, by_hub);
    }
    drop(open);
    come_to(&envoy, "all closed", 0, 0);
}
