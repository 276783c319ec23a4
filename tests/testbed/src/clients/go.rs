//! The client for Go of philippseith.
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::{Cookies, Outcome, Transport, allowance, milliseconds, report};
use crate::process::PATIENCE;
use crate::tools;

/// The client for Go of philippseith: WebSockets and server-sent events.
///
/// By events it needs version 0: with 1 it posts to the connection's id instead of its token, and a hub alone answers 404, too.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GoClient {
    /// The base URL, such as [`crate::envoy::Envoy::url`].
    pub url: String,
    /// The path of the hub.
    pub hub: String,
    /// The only transport it may use.
    pub transport: Transport,
    /// The version that it asks for when it negotiates.
    pub negotiate_version: u32,
    /// What it does with cookies. It keeps those of the negotiate answer for the WebSocket, and none for other requests.
    pub cookies: Cookies,
    /// How many connections it makes.
    pub connects: u32,
    /// How many of them at the same time.
    pub parallel: u32,
    /// How long each connection stays open once it has proved itself.
    #[serde(rename = "holdMs", serialize_with = "milliseconds")]
    pub hold: Duration,
    /// How long one try may take, holding aside.
    #[serde(rename = "tryMs", serialize_with = "milliseconds")]
    pub try_timeout: Duration,
}

impl Default for GoClient {
    fn default() -> Self {
        Self {
            url: String::new(),
            hub: "/chat".into(),
            transport: Transport::WebSockets,
            negotiate_version: 1,
            cookies: Cookies::Kept,
            connects: 20,
            parallel: 10,
            hold: Duration::ZERO,
            try_timeout: PATIENCE,
        }
    }
}

/// Runs the Go client to its end.
pub fn run_go(client: &GoClient) -> Result<Outcome> {
    let mut command = Command::new(tools::go_client()?);
    command.arg(serde_json::to_string(client)?);
    let timeout = allowance(client.connects, client.parallel, client.try_timeout, client.hold);
    report("go-client", command, timeout)
}
