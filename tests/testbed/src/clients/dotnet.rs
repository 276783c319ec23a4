//! Microsoft's .NET client, driven by the program in `tests/clients/dotnet`. It needs .NET 10.

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{NodeClient, Outcome, driver, report};
use crate::{process, tools};

/// The .NET release that the client is built for.
const RELEASE: u32 = 10;

/// The version of HTTP that every request uses, and no other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    #[serde(rename = "1.1")]
    Http1,
    /// HTTP/2, without TLS by prior knowledge. A WebSocket is an extended CONNECT.
    #[serde(rename = "2.0")]
    Http2,
}

/// Microsoft's .NET client.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DotnetClient {
    /// What it has in common with the JavaScript client.
    #[serde(flatten)]
    pub common: NodeClient,
    /// Of all its requests.
    pub http_version: HttpVersion,
    /// Offers to compress WebSockets (RFC 7692).
    pub compression: bool,
}

/// Runs the .NET client to its end.
pub fn run_dotnet(client: &DotnetClient) -> Result<Outcome> {
    report("dotnet-client", program(&serde_json::to_string(client)?)?, client.common.task.allowance())
}

/// A fresh certificate for 127.0.0.1, signed by itself, and its key, both in one PEM.
pub fn certificate() -> Result<String> {
    String::from_utf8(process::run("certificate", program("certificate")?, process::PATIENCE)?)
        .context("a certificate is text")
}

fn program(argument: &str) -> Result<std::process::Command> {
    let dotnet = tools::dotnet_at_least(RELEASE)?;
    let mut command = dotnet.command();
    command.arg(dotnet.publish(&driver("dotnet"))?).arg(argument);
    Ok(command)
}
