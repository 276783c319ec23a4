//! Clients that come and go for ever must not take memory for ever.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::envoy::connection_manager;
use testbed::process::cores;
use testbed::raw::Wire;

use crate::gateway::Gateway;
use crate::quick;

/// How many clients there are; `LIMITS_CLIENTS` sets another number.
const CLIENTS: u32 = 150_000;
const IDLE: Duration = Duration::from_secs(2);
/// KiB that Envoy may grow by once half of the clients have gone, which touches each slot of the ledger. A single entry left by
/// each of the others would take more.
const TOLERANCE: u64 = 3 * 1_024;

/// Each of these clients negotiates, polls once and is never seen again.
fn visit(gateway: &str, clients: impl Iterator<Item = u32>) {
    let user = |client| format!("user{client}");
    let requests = clients
        .flat_map(|client| [quick::negotiate(&user(client)), quick::poll(&user(client), &format!("id{client}"))]);
    let statuses = Wire::open(gateway).ask_all(&requests.collect::<Vec<_>>());
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

/// A log of millions of requests would fill the disk.
fn without_access_log(bootstrap: &mut Value) {
    connection_manager(bootstrap).as_object_mut().unwrap().remove("access_log").unwrap();
}

/// Resident memory of a process in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn clients_without_end_take_no_memory_without_end() {
    let clients = std::env::var("LIMITS_CLIENTS").ok().and_then(|clients| clients.parse().ok()).unwrap_or(CLIENTS);
    let rate = json!({ "requests": 1, "per": "2s", "burst": 1 });
    let limits = json!({
        "client": { "key": { "header": "x-user" } },
        "connections": { "per_client": 1, "per_hub": 1_000_000, "total": 1_000_000 },
        "negotiate_rate": rate,
        "connect_rate": rate,
        "long_polling_idle": format!("{}s", IDLE.as_secs()),
    });
    let gateway = Gateway::start(quick::options(&limits, without_access_log));
    let threads = 4 * cores() as u32;
    let (before, mut memory) = (resident(gateway.envoy.pid()), Vec::new());
    for tenth in 0..10 {
        thread::scope(|scope| {
            for thread in 0..threads {
                let mine = (tenth * clients / 10..(tenth + 1) * clients / 10).filter(move |n| n % threads == thread);
                let url = gateway.envoy.url();
                scope.spawn(move || visit(&url, mine));
            }
        });
        memory.push(resident(gateway.envoy.pid()));
    }
    println!("{clients} clients: {before} KiB before, then {memory:?}");
    let labels = [("signalr_transport", "long_polling")];
    let counted = gateway.envoy.metric("signalr_gateway_connections_total", &labels).unwrap();
    assert_eq!(counted, f64::from(clients), "all were connections");
    gateway.settles("all have gone", [0; 3]);
    let grown = memory.iter().max().unwrap() - memory[4];
    assert!(grown < TOLERANCE, "{before} KiB, then {memory:?}");
    for limit in ["per_client", "negotiate_rate", "connect_rate"] {
        assert_eq!(gateway.rejected(limit, "enforce"), 0, "{limit}");
    }
    assert_eq!(gateway.ledger_failures(), 0);
}
