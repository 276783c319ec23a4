//! Tiers 5 and 6: limits over four and over sixteen worker threads of a real Envoy, with real hubs, clients and faults.
//!
//! What the core decides is proven in `src/limit/tests.rs`; here it is that Envoy tells it of every beginning and every end.

#[path = "limits/bypass.rs"]
mod bypass;
#[path = "limits/clients.rs"]
mod clients;
#[path = "limits/counting.rs"]
mod counting;
#[path = "limits/ends.rs"]
mod ends;
#[path = "limits/faults.rs"]
mod faults;
#[path = "limits/gateway.rs"]
mod gateway;
#[path = "limits/jwt.rs"]
mod jwt;
#[path = "limits/keys.rs"]
mod keys;
#[path = "limits/ledger.rs"]
mod ledger;
#[path = "limits/memory.rs"]
mod memory;
#[path = "limits/patient.rs"]
mod patient;
#[path = "limits/quick.rs"]
mod quick;
#[path = "limits/refusals.rs"]
mod refusals;
#[path = "limits/threads.rs"]
mod threads;
#[path = "http2/tunnel.rs"]
mod tunnel;
#[path = "limits/wire.rs"]
mod wire;
