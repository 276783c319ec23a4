//! Each input's output, with real hubs and clients.

use std::fs;
use std::time::Instant;

use serde_json::Value;
use testbed::clients::{NodeClient, Task, run_node};
use testbed::hub::shared_hubs;
use testbed::process::wait_for;
use testbed::raw::Client;

use crate::{converted, settings, start};

/// Limits above are not tried: the documents that people write have some, and what is tried is the conversion.
const TRIED: u64 = 24;
/// Connections of a real client, which all limits of the inputs admit.
const CONNECTS: u32 = 2;
/// Negotiates of one client that must all reach one pod. Without a cookie, two of three would not.
const RETURNS: usize = 8;

#[test]
fn each_output_serves_clients_with_the_affinity_and_limits_of_its_input() {
    let hubs = shared_hubs().unwrap();
    let folder = testbed::workspace().join("tests/convert/inputs");
    let mut inputs: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    inputs.sort();
    for input in &inputs {
        let mut bootstrap = converted(input);
        let settings = settings(&mut bootstrap);
        let envoy = start(bootstrap, hubs);
        let ended = || envoy.metric("signalr_gateway_connections_active", &[]).is_ok_and(|open| open == 0.0);
        let node = NodeClient { task: Task::of(envoy.url(), CONNECTS), ..NodeClient::default() };
        let outcome = run_node(&node).unwrap();
        assert_eq!(outcome.connected, CONNECTS, "{input}: {:?}", outcome.first_error());
        wait_for("the end of its connections", ended).unwrap();
        // No limit counts it with the one above.
        let client = Client::of(&envoy.url()).header("x-user", "ann").from([127, 0, 0, 3].into());
        let limits = &settings["limits"];
        if limits["mode"] != "shadow" {
            connections_are_limited(input, &client, limits);
            wait_for("the end of all connections", ended).unwrap();
            rates_are_limited(input, &client, limits);
        }
        // A limit by address is spent by now; another client is not.
        let another = Client::of(&envoy.url()).header("x-user", "bob").from([127, 0, 0, 2].into());
        returns_to_its_pod(input, &another, &settings["affinity"]["client_cookie"]);
    }
    println!("{} inputs", inputs.len());
}

/// Of one client, and of all together: so many connect, and one more does not.
fn connections_are_limited(input: &str, client: &Client, limits: &Value) {
    let number = |name: &str| limits["connections"][name].as_u64();
    let burst = limits["connect_rate"]["burst"].as_u64().unwrap_or(u64::MAX);
    let Some(most) = number("per_client").or(number("total")).filter(|most| *most <= TRIED.min(burst)) else { return };
    let open: Vec<_> = (0..most + 3).map(|_| client.bare_socket(None)).collect();
    assert_eq!(open.iter().filter(|socket| socket.is_ok()).count() as u64, most, "{input}");
}

/// The burst passes at once, and then what the rate gives back in the time that the test takes.
fn rates_are_limited(input: &str, client: &Client, limits: &Value) {
    let rate = &limits["negotiate_rate"];
    let Some(burst) = rate["burst"].as_u64().filter(|burst| *burst <= TRIED) else { return };
    let per = humantime::parse_duration(rate["per"].as_str().unwrap()).unwrap();
    let began = Instant::now();
    let admitted = (0..2 * burst).filter(|_| client.negotiate().is_ok()).count() as u64;
    let earned = (began.elapsed().div_duration_f64(per) * rate["requests"].as_f64().unwrap()).ceil() as u64;
    // What connected before has taken from the other bucket, which a negotiate looks at, too.
    let taken = limits["connections"]["per_client"].as_u64().map_or(0, |most| most + 3);
    let expected = burst.saturating_sub(taken)..=burst + earned;
    assert!(expected.contains(&admitted), "{input}: {admitted} of {expected:?} negotiates");
}

/// With a cookie for each client its negotiates reach one pod; its connections reach theirs in any case.
fn returns_to_its_pod(input: &str, client: &Client, cookie: &Value) {
    let first = client.negotiate_answer();
    let name = cookie["name"].as_str().unwrap_or("signalr-client");
    let set: Vec<_> =
        first.head.all("set-cookie").into_iter().filter(|set| set.starts_with(&format!("{name}="))).collect();
    if cookie["enabled"] != true {
        assert!(set.is_empty(), "{input}: {set:?}");
        let id = first.json()["connectionToken"].as_str().unwrap().to_owned();
        assert!(client.socket(&id).is_ok(), "{input}");
        return;
    }
    let [set] = set.as_slice() else { panic!("{input}: {set:?}") };
    for (field, attribute) in [("secure", "Secure"), ("http_only", "HttpOnly"), ("partitioned", "Partitioned")] {
        if let Some(wanted) = cookie[field].as_bool() {
            assert_eq!(set.contains(attribute), wanted, "{input}: {set}");
        }
    }
    let returning = client.clone().header("cookie", set.split(';').next().unwrap());
    for _ in 0..RETURNS {
        let answer = returning.negotiate_answer();
        // A rate may be over by now.
        if answer.pod().is_some() {
            assert_eq!(answer.pod(), first.pod(), "{input}");
        }
    }
}
