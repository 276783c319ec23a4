//! Tiers 5 and 6: limits over four and over sixteen worker threads of a real Envoy, with real hubs, clients and faults.
//!
//! What the core decides is proven in `src/limit/tests.rs`; here it is that Envoy reports every beginning and every end to it.

mod bypass;
mod clients;
mod connection;
mod counting;
mod ends;
mod faults;
mod gateway;
mod jwt;
mod keys;
mod ledger;
mod memory;
mod patient;
mod quick;
mod refusals;
mod threads;
