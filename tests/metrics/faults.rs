//! Gauges under open connections when a VM traps or the configuration changes.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use testbed::envoy::{
    Envoy, EnvoyOptions, Filter, Hosts, Patch, Watched, balance_exactly, load_module, module_that_traps,
};
use testbed::http;
use testbed::hub::{Hub, three_hubs};
use testbed::process::wait_until;

use crate::client::Client;
use crate::scrape::series;

const OPEN: usize = 100;
/// Within this the gauges are right again after any fault; and what a busy machine may add.
const AFTER_A_FAULT: Duration = Duration::from_secs(10);
const BUSY: Duration = Duration::from_secs(3);

fn start(hubs: &[Hub], concurrency: u32, per_upstream: bool, patch: Patch) -> Envoy {
    let hosts = Hosts::Fixed(hubs.iter().map(Hub::address).collect());
    let filter = Filter::With(json!({ "metrics": { "per_upstream": per_upstream } }));
    Envoy::start(&EnvoyOptions { filter, hosts, concurrency, patch: Some(patch), ..EnvoyOptions::default() }).unwrap()
}

/// All gauges are right within the time after `at`, and stay so: the sums over pods, the hub's, and the transport's.
fn come_to(envoy: &Envoy, name: &str, at: Instant, by_pod: u64, by_hub: u64) {
    let sums = || {
        let all = series(envoy);
        let sum =
            |wanted: &dyn Fn(&str) -> bool| all.iter().filter(|(name, _)| wanted(name)).map(|(_, open)| open).sum();
        let pods: u64 = sum(&|name| name.starts_with("websocket_connections_active{hub=/chat,upstream="));
        let hub: u64 = sum(&|name| name == "websocket_connections_active{hub=/chat}");
        let transport: u64 = sum(&|name| name.starts_with("signalr_gateway_connections_active{"));
        [pods, hub, transport]
    };
    let expected = [by_pod, by_hub, by_pod + by_hub];
    let left = (AFTER_A_FAULT + BUSY).saturating_sub(at.elapsed());
    let right = wait_until(left, name, || sums() == expected);
    assert!(right.is_ok(), "{name}: {:?} instead of {expected:?} after {:?}", sums(), at.elapsed());
    println!("{name}: right after {:?}", at.elapsed());
    thread::sleep(Duration::from_millis(2_300));
    assert_eq!(sums(), expected, "{name}: did not last");
}

fn connect(envoy: &Envoy) -> Vec<Client> {
    (0..OPEN).map(|_| Client::connect(envoy, "/chat", &[])).collect()
}

#[test]
fn after_a_trap_gauges_tell_who_is_left() {
    let module = module_that_traps().unwrap();
    let hubs = three_hubs().unwrap();
    for (concurrency, per_upstream) in [(4, true), (1, true), (1, false)] {
        let name = format!("{concurrency} threads, by pod: {per_upstream}");
        let module = module.clone();
        let patch: Patch = Box::new(move |bootstrap| {
            load_module(bootstrap, &module);
            balance_exactly(bootstrap);
        });
        let envoy = start(&hubs, concurrency, per_upstream, patch);
        let gauges = |open: u64| if per_upstream { (open, 0) } else { (0, open) };
        let open = connect(&envoy);
        let (by_pod, by_hub) = gauges(OPEN as u64);
        come_to(&envoy, &format!("before, {name}"), Instant::now(), by_pod, by_hub);

        let at = Instant::now();
        let trap = http::post_with(&format!("{}/chat/negotiate", envoy.url()), &[("x-signalr-trap", "1")]);
        assert_eq!(trap.unwrap().0, 503);
        // Envoy resets the others of that thread when something comes on them.
        let left: Vec<_> = thread::scope(|scope| {
            let asked: Vec<_> = open.into_iter().map(|client| scope.spawn(|| client.survives())).collect();
            asked.into_iter().filter_map(|asked| asked.join().unwrap()).collect()
        });
        let survivors = if concurrency == 1 { 0..1 } else { 1..OPEN };
        assert!(survivors.contains(&left.len()), "{name}: {} survived", left.len());
        let (by_pod, by_hub) = gauges(left.len() as u64);
        come_to(&envoy, &format!("after, {name}"), at, by_pod, by_hub);
    }
}

/// Connections that were opened before are told as the new configuration says, and none is told twice.
#[test]
fn another_configuration_tells_what_is_open_in_its_own_way() {
    let hubs = three_hubs().unwrap();
    let watched = Watched::new("per-upstream").unwrap();
    let taken = watched.clone();
    let envoy = start(&hubs, 4, false, Box::new(move |bootstrap| taken.take_filter(bootstrap)));
    let open = connect(&envoy);
    let all = OPEN as u64;
    come_to(&envoy, "by hub", Instant::now(), 0, all);
    for (name, per_upstream, by_pod, by_hub) in [("by pod", true, all, 0), ("by hub again", false, 0, all)] {
        watched.configure(&json!({ "metrics": { "per_upstream": per_upstream } }));
        come_to(&envoy, name, Instant::now(), by_pod, by_hub);
    }
    drop(open);
    come_to(&envoy, "all closed", Instant::now(), 0, 0);
}
