//! Clients that send what no library does on demand, and hide nothing of what comes back.
//!
//! [`Wire`] is one TCP connection, [`ask`] one request on it, [`Socket`] a WebSocket, [`Client`] speaks SignalR by each
//! transport, and [`http2`] is for streams of HTTP/2. None of them keeps cookies. They panic where a test could only fail.
mod client;
pub mod http2;
mod request;
mod websocket;
mod wire;

pub use client::{Client, Events, Session, are_one};
pub use request::{Answer, Request, ask};
pub use websocket::{NoSocket, Socket};
pub use wire::{Body, Head, Wire, reset_at_close};

use serde_json::{Value, json};

/// Ends each of SignalR's JSON messages.
pub const END: char = '\u{1e}';

/// What a client says first.
pub fn handshake() -> Value {
    json!({ "protocol": "json", "version": 1 })
}

/// A call of a method of the hub.
pub fn invocation(target: &str, arguments: &[&str]) -> Value {
    json!({ "type": 1, "invocationId": "1", "target": target, "arguments": arguments })
}
