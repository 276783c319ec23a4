//! Microsoft's client for Java.
use std::process::Command;

use anyhow::Result;
use serde::Serialize;

use super::{Cookies, Outcome, Task, Transport, report};
use crate::tools;

/// Microsoft's client for Java: WebSockets and long polling, negotiate version 1.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct JavaClient {
    /// What it is to do.
    #[serde(flatten)]
    pub task: Task,
    /// The only transport it may use.
    pub transport: Transport,
    /// What it does with cookies.
    pub cookies: Cookies,
}

/// Runs the Java client to its end.
pub fn run_java(client: &JavaClient) -> Result<Outcome> {
    let mut command = Command::new("java");
    command.arg("-cp").arg(tools::java_client()?).arg("Client").arg(serde_json::to_string(client)?);
    report("java-client", command, client.task.allowance())
}
