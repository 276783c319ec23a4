//! signalrcore for Python, which shares its options with pysignalr. It keeps no cookies.
//!
//! By server-sent events and long polling, and with messages of 100 KB, it never gets an answer from a hub alone.
use anyhow::Result;

use super::{Outcome, PythonClient, drive_python};

/// Runs signalrcore to its end.
pub fn run_signalrcore(client: &PythonClient) -> Result<Outcome> {
    drive_python("signalrcore_client.py", client)
}
