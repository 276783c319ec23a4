//! The client for Go of philippseith.
use std::process::Command;

use anyhow::Result;
use serde::Serialize;

use super::{Cookies, Outcome, Task, Transport, report};
use crate::tools;

/// The client for Go of philippseith: WebSockets and server-sent events.
///
/// By events it needs version 0: with 1 it posts to the connection's id instead of its token, and a hub alone answers 404, too.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GoClient {
    /// What it is to do.
    #[serde(flatten)]
    pub task: Task,
    /// The only transport it may use.
    pub transport: Transport,
    /// The version that it asks for when it negotiates.
    pub negotiate_version: u32,
    /// What it does with cookies. It keeps those of the negotiate answer for the WebSocket, and none for other requests.
    pub cookies: Cookies,
}

impl Default for GoClient {
    fn default() -> Self {
        let (transport, cookies) = (Transport::WebSockets, Cookies::Kept);
        Self { task: Task::default(), transport, negotiate_version: 1, cookies }
    }
}

/// Runs the Go client to its end.
pub fn run_go(client: &GoClient) -> Result<Outcome> {
    let mut command = Command::new(tools::go_client()?);
    command.arg(serde_json::to_string(client)?);
    report("go-client", command, client.task.allowance())
}
