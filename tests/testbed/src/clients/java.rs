//! Microsoft's client for Java.
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::{Cookies, Outcome, Transport, allowance, milliseconds, report};
use crate::process::PATIENCE;
use crate::tools;

/// Microsoft's client for Java: WebSockets and long polling, negotiate version 1.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JavaClient {
    /// The base URL, such as [`crate::envoy::Envoy::url`].
    pub url: String,
    /// The path of the hub.
    pub hub: String,
    /// The only transport it may use.
    pub transport: Transport,
    /// What it does with cookies.
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

impl Default for JavaClient {
    fn default() -> Self {
        Self {
            url: String::new(),
            hub: "/chat".into(),
            transport: Transport::WebSockets,
            cookies: Cookies::Kept,
            connects: 20,
            parallel: 10,
            hold: Duration::ZERO,
            try_timeout: PATIENCE,
        }
    }
}

/// Runs the Java client to its end.
pub fn run_java(client: &JavaClient) -> Result<Outcome> {
    let mut command = Command::new("java");
    command.arg("-cp").arg(tools::java_client()?).arg("Client").arg(serde_json::to_string(client)?);
    let timeout = allowance(client.connects, client.parallel, client.try_timeout, client.hold);
    report("java-client", command, timeout)
}
