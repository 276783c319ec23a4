//! What sharing costs: requests that ask Redis, and how long they take.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::envoy::put_routes_first;
use testbed::raw::{Request, ask};

use crate::gateways::{Gateways, INSTANCES, Plan, connect, redis};

/// How often all instances of a gateway say that they live.
fn most_beats(took: Duration) -> u64 {
    u64::from(INSTANCES) * (took.as_secs() / 3 + 2)
}

#[test]
fn polls_and_sends_of_a_known_connection_are_not_asked_about() {
    const ROUNDS: usize = 100;
    let Some(program) = redis("polls_and_sends_of_a_known_connection_are_not_asked_about") else { return };
    let rate = json!({ "requests": 1, "per": "1h", "burst": 5 });
    let limits = json!({ "connections": { "per_client": 3, "per_hub": 5, "total": 5 }, "connect_rate": rate });
    // What asks is refused where Redis does not answer.
    let plan = Plan { redis: json!({ "on_error": "deny" }), ..Plan::by_user(&limits) };
    let gateways = Gateways::start(&program, 1, &plan);
    let ann = gateways.user(0, "ann");
    let session = ann.session(&ann.negotiate().unwrap()).unwrap();
    let mut events = ann.events(&ann.negotiate().unwrap()).unwrap();
    let mut socket = connect(&ann);
    gateways.settle("three", 3);
    gateways.hear_of_all();

    let (begun, before) = (Instant::now(), commands(&gateways));
    let mut talk = || {
        session.echo();
        events.echo();
        assert!(socket.echoes());
    };
    (0..ROUNDS).for_each(|_| talk());
    let (made, took) = (commands(&gateways) - before, begun.elapsed());
    assert!(made <= most_beats(took), "{made} commands in {took:?}");

    gateways.redis.freeze().unwrap();
    // On whichever worker thread.
    (0..20).for_each(|_| talk());
    gateways.all_know("Redis stands still", true);
    (0..20).for_each(|_| talk());
    assert!(ann.negotiate().is_err(), "who asks is refused");
    gateways.redis.thaw().unwrap();
    gateways.all_know("Redis goes on", false);
    gateways.settle("all are still there", 3);
    session.close();
    drop((socket, events));
    gateways.settle("all closed", 0);
    gateways.assert_sound("known connections");
}

/// How many commands Redis has got from gateways.
fn commands(gateways: &Gateways) -> u64 {
    let statistics: String = gateways.redis.ask(&["INFO", "commandstats"]).unwrap();
    let calls = statistics.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    calls.unwrap().split(',').next().unwrap().parse().unwrap()
}

#[test]
fn a_connect_and_its_end_are_a_command_each() {
    const TIMES: usize = 100;
    let Some(program) = redis("a_connect_and_its_end_are_a_command_each") else { return };
    let limits = json!({
        "client": { "key": { "header": "x-real-ip", "as": "address" }, "exempt": ["10.0.0.0/8"] },
        "connections": { "per_client": 1_000, "total": 1_000 },
    });
    let plan = Plan { patch: let_clients_ping, ..Plan::of(&limits) };
    let gateways = Gateways::start(&program, 1, &plan);
    gateways.hear_of_all();
    let ping = Request { body: b"PING\r\n", ..Request::post("/ping") };
    let url = gateways.envoys[0].url();
    let pings = middle(TIMES, || assert_eq!(ask(&url, &ping).text(), "+PONG\r\n"));
    let (begun, before) = (Instant::now(), commands(&gateways));
    let middle_of = |address: &str| {
        let client = gateways.client(0).header("x-real-ip", address);
        let mut open = Vec::new();
        middle(TIMES, || {
            open.clear();
            open.push(client.bare_socket(None).unwrap());
        })
    };
    let (without, with) = (middle_of("10.0.0.1"), middle_of("192.0.2.1"));
    println!("a PING over Envoy's cluster takes {pings:?}, a connect {with:?}, and one that does not ask {without:?}");
    gateways.settle("all closed", 0);
    let (made, beats) = (commands(&gateways) - before, most_beats(begun.elapsed()));
    assert!(made <= 4 * TIMES as u64 + beats, "{made} commands and {beats} beats for {} connects", 2 * TIMES);
    gateways.assert_sound("connects");
}

/// Nobody else does so: it lets clients send any command.
fn let_clients_ping(bootstrap: &mut Value) {
    put_routes_first(bootstrap, vec![json!({ "match": { "path": "/ping" }, "route": { "cluster": "redis" } })]);
}

/// How long something takes: as many times it takes longer as it takes less.
fn middle(times: usize, mut act: impl FnMut()) -> Duration {
    let mut all: Vec<_> = (0..times)
        .map(|_| {
            let begun = Instant::now();
            act();
            begun.elapsed()
        })
        .collect();
    all.sort();
    all[times / 2]
}
