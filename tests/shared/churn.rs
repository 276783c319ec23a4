//! Many connections that come and go through many gateways: what Redis counts is what the clients have.

use std::env;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use testbed::process::wait_for;
use testbed::raw::{Client, Events, Session, Socket};

use crate::gateways::{Gateways, Plan, redis, row_key};

const GATEWAYS: usize = 5;
const THREADS: usize = 20;
/// Minutes of churn, and how many connections, for a longer run.
const MINUTES: &str = "ENVOY_SIGNALR_CHURN_MINUTES";
/// Connections of each thread at most.
const EACH: usize = 20;
const EACH_OF_LONG_RUN: usize = 100;

/// A connection by one of the transports.
enum Open {
    WebSocket(Socket),
    Events(Events),
    Polls(Session),
}

impl Open {
    fn new(client: &Client, dice: &mut fastrand::Rng) -> Option<Self> {
        let id = client.negotiate().ok()?;
        match dice.u8(..10) {
            0 => client.events(&id).ok().map(Self::Events),
            1 => client.session(&id).ok().map(Self::Polls),
            _ => client.bare_socket(Some(&id)).ok().map(Self::WebSocket),
        }
    }

    fn end(self, dice: &mut fastrand::Rng) {
        match self {
            Self::WebSocket(socket) if dice.bool() => socket.close(),
            Self::WebSocket(socket) => socket.cut(),
            Self::Events(events) => drop(events),
            Self::Polls(session) => session.close(),
        }
    }
}

/// Connections of one thread come and go for a while.
fn churn(gateways: &Gateways, open: &mut Vec<Open>, most: usize, rest: Duration, dice: &mut fastrand::Rng) {
    let begun = Instant::now();
    while begun.elapsed() < rest {
        // More come than go until there are enough, and then as many.
        if open.len() < most && dice.usize(..most * 2) >= open.len() {
            let client = gateways.user(dice.usize(..GATEWAYS), &format!("user{}", dice.u8(..)));
            open.extend(Open::new(&client, dice));
        } else if !open.is_empty() {
            open.swap_remove(dice.usize(..open.len())).end(dice);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// What all rows count, in total and at their hub. Rows of the dead do not count.
fn counted(gateways: &Gateways) -> [usize; 2] {
    let rows = gateways.rows();
    ["t", "h/chat"].map(|field| {
        let of_row = |row: &String| gateways.redis.ask::<Option<usize>>(&["HGET", &row_key(row), field]).unwrap();
        rows.iter().filter_map(of_row).sum()
    })
}

#[test]
fn while_connections_come_and_go_redis_counts_what_the_clients_have() {
    let Some(program) = redis("while_connections_come_and_go_redis_counts_what_the_clients_have") else { return };
    let minutes: Option<u32> = env::var(MINUTES).ok().and_then(|minutes| minutes.parse().ok());
    let (rounds, rest, most) = match minutes {
        Some(minutes) => (minutes, Duration::from_secs(60), EACH_OF_LONG_RUN),
        None => (3, Duration::from_secs(5), EACH),
    };
    // Sessions are polled once, and then wait.
    let limits = json!({
        "connections": { "per_client": 100, "per_hub": 10_000, "total": 10_000 },
        "long_polling_idle": "1h",
    });
    let gateways = Gateways::start(&program, GATEWAYS, &Plan::by_user(&limits));
    let mut threads: Vec<_> = (0..THREADS).map(|n| (Vec::new(), fastrand::Rng::with_seed(n as u64))).collect();
    let barrier = Barrier::new(THREADS);
    for round in 1..=rounds {
        thread::scope(|scope| {
            for (open, dice) in &mut threads {
                let (gateways, barrier) = (&gateways, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    churn(gateways, open, most, rest, dice);
                });
            }
        });
        let open = threads.iter().map(|(open, _)| open.len()).sum();
        let agrees = wait_for("Redis' numbers", || counted(&gateways) == [open; 2]);
        assert!(agrees.is_ok(), "round {round}: Redis has {:?}, clients {open}", counted(&gateways));
        gateways.settle(&format!("round {round}"), open);
        println!("round {round} of {rounds}: {open} connections in Redis and at the clients");
    }
    for (open, dice) in &mut threads {
        open.drain(..).for_each(|open| open.end(dice));
    }
    gateways.settle("all closed", 0);
    assert_eq!(counted(&gateways), [0; 2]);
    gateways.assert_sound("churn");
}
