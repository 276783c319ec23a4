//! The client for Go of philippseith.
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::{Cookies, Outcome, allowance, milliseconds, report};
use crate::process::PATIENCE;
use crate::tools;

/// The client for Go of philippseith: WebSockets, negotiate version 1.
///
/// Its server-sent events fail with a hub alone, too: with version 1 it posts to the connection's id instead of its token,
/// and it takes each piece of the stream that it reads for whole events, so that with version 0 it loses some.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GoClient {
    /// The base URL, such as [`crate::envoy::Envoy::url`].
    pub url: String,
    /// The path of the hub.
    pub hub: String,
    /// What it does with cookies. It keeps those of the negotiate answer for the WebSocket.
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
