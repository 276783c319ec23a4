//! A proxy-wasm filter that makes Envoy and Istio gateways understand SignalR.
//!
//! # The life of one SignalR connection
//! 1. `POST /chat/negotiate`: [`signalr`] recognises it, Envoy balances it to some pod. In the answer, [`stream`] appends
//!    the pod's address, sealed by [`token`], to the connection id: `<id>.<sealed>`.
//! 2. `GET /chat?id=<id>.<sealed>` (WebSocket, events or polls): [`affinity`] opens the seal, takes it off the id, and
//!    [`steer`] names the pod in the pin header. Envoy's `stateful_session`, next in line, sends the request there.
//! 3. Every later request with the id goes the same way, through any gateway that has the key.
//!
//! Values come in and plans go out: the core knows neither Envoy nor a clock. Only `host`, which exists in the module
//! alone, talks to Envoy.

#![deny(missing_docs)]
#![deny(unsafe_code)]
// A trap drops every WebSocket of a worker thread, so whatever can panic is refused; a test may panic.
#![cfg_attr(
    not(test),
    deny(
        clippy::arithmetic_side_effects,
        clippy::as_conversions,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]
#![deny(clippy::disallowed_methods)]

pub mod access_token;
pub mod affinity;
pub mod clock;
#[cfg(test)]
mod cuts;
pub mod frame;
#[cfg(target_os = "wasi")]
mod host;
pub mod http;
pub mod hub;
pub mod ledger;
pub mod lifecycle;
pub mod limit;
pub mod messages;
pub mod metrics;
pub mod settings;
pub mod shared;
pub mod signalr;
pub mod small_map;
pub mod socket;
pub mod steer;
pub mod store;
pub mod stream;
pub mod token;
