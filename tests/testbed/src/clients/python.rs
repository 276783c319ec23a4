//! Two clients for Python, pysignalr and signalrcore: WebSockets only, negotiate version 0, no cookies for a gateway addressed by IP.
//!
//! pysignalr has no other transports, and signalrcore is not asked for them: by server-sent events and long polling, and with
//! messages of 100 KB, it never gets an answer, with a hub alone, too.
use std::process::Command;

use anyhow::Result;

use super::{Outcome, Task, driver, report};
use crate::tools;

/// Runs pysignalr to its end.
pub fn run_python(task: &Task) -> Result<Outcome> {
    drive_python("pysignalr_client.py", task)
}

/// Runs signalrcore to its end.
pub fn run_signalrcore(task: &Task) -> Result<Outcome> {
    drive_python("signalrcore_client.py", task)
}

fn drive_python(program: &str, task: &Task) -> Result<Outcome> {
    let packages = tools::python_clients()?;
    let mut command = Command::new("python3");
    // Nothing compiled into the source tree or the cache.
    command.arg("-B").arg(driver(program)).arg(serde_json::to_string(task)?);
    command.env("PYTHONPATH", packages);
    report(program.trim_end_matches(".py"), command, task.allowance())
}
