//! What is admitted is the limit, exactly, over all gateways.

use std::sync::Barrier;
use std::thread;

use serde_json::json;
use testbed::raw::Socket;

use crate::gateways::{Gateways, Plan, redis};

const GATEWAYS: usize = 3;
const ATTEMPTS: usize = 450;
const RUNS: usize = 20;

#[test]
fn of_many_attempts_at_once_as_many_hold_a_connection_as_the_limit_says() {
    let Some(program) = redis("of_many_attempts_at_once_as_many_hold_a_connection_as_the_limit_says") else { return };
    for (name, limits, limit) in [
        ("per client", json!({ "per_client": 20 }), 20),
        ("per hub", json!({ "per_hub": 20 }), 20),
        ("in total", json!({ "total": 20 }), 20),
    ] {
        let plan = Plan::by_user(&json!({ "connections": limits }));
        let gateways = Gateways::start(&program, GATEWAYS, &plan);
        for run in 0..RUNS {
            let open = all_at_once(&gateways, name == "per client");
            assert_eq!(open.len(), limit, "{name}, run {run}");
            drop(open);
            gateways.settle(&format!("{name}, run {run}: all closed"), 0);
        }
    }
}

/// The sockets of those who got in.
fn all_at_once(gateways: &Gateways, are_one: bool) -> Vec<Socket> {
    const THREADS: usize = 30;
    let barrier = Barrier::new(THREADS);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let barrier = &barrier;
                scope.spawn(move || {
                    barrier.wait();
                    let attempts = (thread..ATTEMPTS).step_by(THREADS);
                    let user = |attempt| if are_one { "ann".to_owned() } else { format!("user{attempt}") };
                    attempts
                        .filter_map(|attempt| gateways.user(attempt, &user(attempt)).bare_socket(None).ok())
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}
