//! Two clients for Python: pysignalr and signalrcore.
//!
//! signalrcore is asked for WebSockets only, which is all that pysignalr has: by server-sent events and long polling, and with
//! messages of 100 KB, it never gets an answer, with a hub alone, too.
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::{Outcome, allowance, driver, milliseconds, report};
use crate::process::PATIENCE;
use crate::tools;

/// A Python client, pysignalr or signalrcore: WebSockets only, negotiate version 0, no cookies for a gateway addressed by IP.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PythonClient {
    /// The base URL, such as [`crate::envoy::Envoy::url`].
    pub url: String,
    /// The path of the hub.
    pub hub: String,
    /// How many connections it makes.
    pub connects: u32,
    /// How many of them at the same time.
    pub parallel: u32,
    /// How long each connection stays open once it has proved itself.
    #[serde(rename = "holdMs", serialize_with = "milliseconds")]
    pub hold: Duration,
    /// How long one try may take, holding aside. One that is expected to fail is not worth much of it.
    #[serde(rename = "tryMs", serialize_with = "milliseconds")]
    pub try_timeout: Duration,
}

impl Default for PythonClient {
    fn default() -> Self {
        Self {
            url: String::new(),
            hub: "/chat".into(),
            connects: 20,
            parallel: 10,
            hold: Duration::ZERO,
            try_timeout: PATIENCE,
        }
    }
}

/// Runs pysignalr to its end.
pub fn run_python(client: &PythonClient) -> Result<Outcome> {
    drive_python("pysignalr_client.py", client)
}

/// Runs signalrcore to its end.
pub fn run_signalrcore(client: &PythonClient) -> Result<Outcome> {
    drive_python("signalrcore_client.py", client)
}

fn drive_python(program: &str, client: &PythonClient) -> Result<Outcome> {
    let packages = tools::python_clients()?;
    let mut command = Command::new("python3");
    // Nothing compiled into the source tree or the cache.
    command.arg("-B").arg(driver(program)).arg(serde_json::to_string(client)?);
    command.env("PYTHONPATH", packages);
    let timeout = allowance(client.connects, client.parallel, client.try_timeout, client.hold);
    report(program.trim_end_matches(".py"), command, timeout)
}
