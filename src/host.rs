//! The module's side that talks to Envoy: nothing here decides anything about SignalR.
//!
//! Envoy calls these contexts, they read bytes and the clock, ask the core, and carry out its plan. The SDK's calls
//! panic on statuses that Envoy gives only in a wrong phase or for text that is not UTF-8, so only the `*_bytes` calls
//! are used and each in its own phase; `clippy.toml` bans the others.

mod abi;
mod envoy_metrics;
mod exchange;
mod root;
mod shared;

use std::time::UNIX_EPOCH;

use log::warn;
use proxy_wasm::hostcalls;
use proxy_wasm::types::{LogLevel, MapType};

use crate::clock::Millis;
use crate::http::{Head, HeaderOp};
use crate::metrics::{Count, InternalError};
use crate::store::Store;
use crate::stream::Moment;
use crate::token::NONCE_LEN;

use envoy_metrics::EnvoyMetrics;
use root::Root;
use shared::SharedData;

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|_| Box::new(Root::default()));
}}

/// Calls into the core with the present moment.
fn at_this_moment<T>(call: impl FnOnce(&mut Moment<'_>) -> T) -> T {
    let mut nonce = random::<NONCE_LEN>;
    call(&mut Moment { now: now(), nonce: &mut nonce, store: &SharedData })
}

fn now() -> Millis {
    let since_epoch = hostcalls::get_current_time().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Millis::since_epoch(since_epoch.unwrap_or_default())
}

/// Randomness of Envoy's cryptographic generator, which stands behind WASI's `random_get`.
fn random<const LEN: usize>() -> Option<[u8; LEN]> {
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes).ok().map(|()| bytes)
}

fn head(map: MapType) -> Head {
    Head::new(hostcalls::get_map_bytes(map).unwrap_or_default())
}

/// Carries out header operations. A refused one is counted and the rest goes on: half a plan beats a trap.
fn apply(map: MapType, ops: Vec<HeaderOp>, metrics: &mut EnvoyMetrics) {
    for op in ops {
        let done = match &op {
            HeaderOp::Set(name, value) => hostcalls::set_map_value_bytes(map, name, Some(value)),
            HeaderOp::Add(name, value) => hostcalls::add_map_value_bytes(map, name, value),
            HeaderOp::Remove(name) => hostcalls::remove_map_value(map, name),
        };
        if let Err(status) = done {
            warn!("envoy refused a change of a header: {status:?}");
            metrics.add(&[Count::InternalError(InternalError::Header)]);
        }
    }
}

fn store() -> &'static dyn Store {
    &SharedData
}
