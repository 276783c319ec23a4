//! The module's side that talks to Envoy: nothing here decides anything about SignalR.
//!
//! Envoy calls these contexts, they read bytes and the clock, ask the core, and carry out its plan. The SDK's calls
//! panic on statuses that Envoy gives only in a wrong phase or for text that is not UTF-8, so each is used in its own
//! phase, and none that returns text: [`abi`] reads headers. `clippy.toml` bans the others.

mod abi;
mod envoy_metrics;
mod exchange;
mod redis;
mod root;
mod shared;

use std::cell::RefCell;
use std::time::UNIX_EPOCH;

use log::warn;
use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, LogLevel, MapType};

use crate::clock::Millis;
use crate::http::HeaderOp;
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
    call(&mut Moment { now: now(), nonce: &mut nonce, store: &SharedData })
}

/// Fresh random bytes. Envoy is asked for those of some seals at once, because each question costs as much as a seal.
fn nonce() -> Option<[u8; NONCE_LEN]> {
    thread_local!(static AHEAD: RefCell<Vec<[u8; NONCE_LEN]>> = const { RefCell::new(Vec::new()) });
    AHEAD.with_borrow_mut(|ahead| {
        if ahead.is_empty() {
            let mut fresh = [[0; NONCE_LEN]; NONCES];
            getrandom::fill(fresh.as_flattened_mut()).ok()?;
            ahead.extend(fresh);
        }
        ahead.pop()
    })
}

/// How many nonces are fetched at once.
const NONCES: usize = 16;

fn now() -> Millis {
    let since_epoch = hostcalls::get_current_time().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    Millis::since_epoch(since_epoch.unwrap_or_default())
}

/// Randomness of Envoy's cryptographic generator, which stands behind WASI's `random_get`.
fn random<const LEN: usize>() -> Option<[u8; LEN]> {
    let mut bytes = [0; LEN];
    getrandom::fill(&mut bytes).ok().map(|()| bytes)
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

/// Bytes of a buffer. There are none where Envoy refuses.
fn body(buffer: BufferType, start: usize, size: usize) -> Vec<u8> {
    hostcalls::get_buffer(buffer, start, size).unwrap_or_default().unwrap_or_default()
}

fn store() -> &'static dyn Store {
    &SharedData
}
