//! A pod that hangs: the kernel takes connections for it, and no answer comes.

use testbed::clients::{NodeClient, Task, Transport, run_node};
use testbed::envoy::{Envoy, EnvoyOptions, Hosts, HubTimeouts, Patch};
use testbed::http;
use testbed::hub::{Hub, three_hubs};
use testbed::process::wait_for;

use crate::requests::{Socket, Step, negotiate_on, request};
use crate::{connects, is_unknown_to_the_hub};

fn gateway(hubs: &[Hub], patch: Option<Patch>) -> Envoy {
    let (hosts, hub_timeouts) = (Hosts::of(hubs), HubTimeouts::Shipped);
    Envoy::start(&EnvoyOptions { hosts, hub_timeouts, patch, ..EnvoyOptions::default() }).unwrap()
}

#[test]
fn who_negotiates_with_a_pod_that_hangs_is_taken_by_another() {
    const CONNECTIONS: u32 = 9;
    let hubs = three_hubs().unwrap();
    // Health checks find all pods healthy at first, and look no more.
    let envoy = gateway(
        &hubs,
        Some(Box::new(|bootstrap| {
            let check = &mut bootstrap["static_resources"]["clusters"][0]["health_checks"][0];
            check["interval"] = "3600s".into();
            check["no_traffic_interval"] = "3600s".into();
        })),
    );
    let given_up = || envoy.counter("cluster.hubs.upstream_rq_per_try_timeout").unwrap();
    hubs[0].hang().unwrap();
    for transport in Transport::ALL {
        let client = NodeClient { task: Task::of(envoy.url(), CONNECTIONS), transport, ..NodeClient::default() };
        // On a busy machine the other pods, too, may now and then take longer than Envoy waits.
        wait_for(&format!("all clients by {transport:?}"), || {
            let before = given_up();
            let outcome = run_node(&client).unwrap();
            let connected = outcome.tries.iter().filter(|attempt| attempt.ok);
            assert!(connected.clone().all(|attempt| attempt.answered_pod.as_deref() != Some("hub-1")));
            println!("{transport:?}: {} of {CONNECTIONS}, {:?}", outcome.connected, outcome.first_error());
            outcome.connected == CONNECTIONS && given_up() > before
        })
        .unwrap();
    }
}

#[test]
fn health_checks_find_a_pod_that_hangs_and_find_it_well_again() {
    let hubs = three_hubs().unwrap();
    let envoy = gateway(&hubs, None);
    let failed = format!("hubs::{}::health_flags::/failed_active_hc", hubs[0].address());
    let is_out = || http::get(&format!("{}/clusters", envoy.admin())).is_ok_and(|(_, hosts)| hosts.contains(&failed));
    let [held, idle] = [(); 2].map(|()| negotiate_on(&envoy.url(), "hub-1"));
    let mut socket = Socket::open(&envoy.url(), &held.id).unwrap();
    hubs[0].hang().unwrap();
    wait_for("the pod to be found", is_out).unwrap();
    // So its client negotiates anew.
    is_unknown_to_the_hub("a pod that hangs", &request(&envoy.url(), Step::Send, &idle.id));

    hubs[0].go_on().unwrap();
    wait_for("the pod to be found well", || !is_out()).unwrap();
    assert_eq!(socket.who_am_i(), "hub-1");
    connects(&envoy, &negotiate_on(&envoy.url(), "hub-1"));
}
