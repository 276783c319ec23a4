//! Clients that others wrote, driven by the small programs in `tests/clients`.
//!
//! Each connects so many times, asks the hub who it is, and reports every try: the pod that
//! negotiated must be the pod that answers. They run as processes of their own, and one that hangs
//! is ended.
mod chromium;
mod dotnet;
mod go;
mod java;
mod python;
mod task;

pub use chromium::{BrowserClient, drive_chromium, run_browser};
pub use dotnet::{DotnetClient, HttpVersion, certificate, run_dotnet};
pub use go::{GoClient, run_go};
pub use java::{JavaClient, run_java};
pub use python::{run_python, run_signalrcore};
pub use task::Task;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::process::{PATIENCE, Process};
use crate::{process, tools, workspace};

/// How SignalR's messages travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Transport {
    /// A WebSocket.
    #[default]
    WebSockets,
    /// Server-sent events, with a request for each message to the hub.
    ServerSentEvents,
    /// A request for each message, either way.
    LongPolling,
}

impl Transport {
    /// All three.
    pub const ALL: [Self; 3] = [Self::WebSockets, Self::ServerSentEvents, Self::LongPolling];
}

/// How messages are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// As text.
    #[default]
    Json,
    /// As bytes.
    MessagePack,
}

/// What a client does with cookies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cookies {
    /// It keeps them and sends them, on all transports.
    #[default]
    Kept,
    /// It never sends one, as many clients that are no browsers.
    Refused,
}

/// Microsoft's JavaScript client, in Node.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeClient {
    /// What it is to do.
    #[serde(flatten)]
    pub task: Task,
    /// The only transport it may use.
    pub transport: Transport,
    /// The hub protocol.
    pub protocol: Protocol,
    /// What it does with cookies.
    pub cookies: Cookies,
    /// WebSockets without negotiating first.
    pub skip_negotiation: bool,
    /// Asks for stateful reconnect.
    pub stateful_reconnect: bool,
    /// How many times, before it counts as connected, the hub asks it something, and numbers go both ways in streams. Hubs
    /// older than .NET 8 cannot ask.
    pub rounds: u32,
    /// A URL whose answer it awaits before each of these rounds, and before it ends the connection.
    pub gate: Option<String>,
    /// Takes a certificate that nobody has signed.
    pub trusts_any_certificate: bool,
    /// Headers of its own on all requests.
    pub headers: BTreeMap<String, String>,
    /// What its `accessTokenFactory` gives. In Node it goes into the URL of event streams only.
    pub access_token: Option<String>,
}

/// What came of all the tries.
#[derive(Clone, Debug, Deserialize)]
pub struct Outcome {
    /// How many tries there were.
    pub tried: u32,
    /// How many of them were all right.
    pub connected: u32,
    /// Each of them, in the order in which they began.
    pub tries: Vec<Try>,
}

impl Outcome {
    /// The error of the first try that failed.
    pub fn first_error(&self) -> Option<&str> {
        self.tries.iter().find_map(|attempt| attempt.error.as_deref())
    }
}

/// One connection of a client.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Try {
    /// It connected, was answered by the pod that negotiated, and agreed with the hub on its id.
    pub ok: bool,
    /// The pod that answered the negotiate request.
    pub negotiated_pod: Option<String>,
    /// The pod that the connection is on.
    pub answered_pod: Option<String>,
    /// The connection's id as the client has it.
    pub connection_id: Option<String>,
    /// The transport as the hub has it.
    pub transport: Option<String>,
    /// Why it is not all right.
    pub error: Option<String>,
    /// Why the connection ended before the client ended it.
    pub cut: Option<String>,
    /// From the start to the first answer.
    pub milliseconds: u64,
}

/// A client that runs beside the test and holds its connections until it is asked to let go of them.
#[derive(Debug)]
pub struct Running {
    driver: JoinHandle<Result<Outcome>>,
    held: PathBuf,
    release: PathBuf,
}

impl Running {
    /// Waits until all of its connections have proved themselves and are held.
    pub fn wait_held(&self) -> Result<()> {
        process::wait_for("a client to hold its connections", || self.held.exists() || self.driver.is_finished())?;
        ensure!(self.held.exists(), "a client ended before it held all of its connections");
        Ok(())
    }

    /// Lets it close what it still holds, waits for its end and returns what came of it.
    pub fn release(self) -> Result<Outcome> {
        fs::write(&self.release, "")?;
        self.finish()
    }

    /// Waits until it has lost all that it held and returns what came of it.
    pub fn finish(self) -> Result<Outcome> {
        self.driver.join().map_err(|_| anyhow!("the thread that drove a client panicked"))?
    }
}

/// Runs the Node client to its end.
pub fn run_node(client: &NodeClient) -> Result<Outcome> {
    run_node_with(client, &serde_json::to_value(client)?)
}

fn run_node_with(client: &NodeClient, options: &Value) -> Result<Outcome> {
    report("node-client", node("signalr.mjs", options)?, client.task.allowance())
}

/// Runs a program of `tests/clients` in Node with `options`, and returns its report.
pub fn drive_node<Report: DeserializeOwned>(
    program: &str,
    options: &impl Serialize,
    timeout: Duration,
) -> Result<Report> {
    report(program.trim_end_matches(".mjs"), node(program, &serde_json::to_value(options)?)?, timeout)
}

/// Starts the Node client; the test goes on while it holds its connections, all at the same time.
pub fn start_node(client: NodeClient) -> Result<Running> {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let folder = process::run_dir()?;
    let [held, release] = ["held", "release"].map(|what| folder.join(format!("client-{serial}.{what}")));
    let task = Task { parallel: client.task.connects, hold: 2 * PATIENCE, ..client.task };
    let client = NodeClient { task, ..client };
    let mut options = serde_json::to_value(&client)?;
    options["held"] = serde_json::to_value(&held)?;
    options["release"] = serde_json::to_value(&release)?;
    Ok(Running { driver: thread::spawn(move || run_node_with(&client, &options)), held, release })
}

/// Which of Autobahn's cases to run.
#[derive(Clone, Debug, Serialize)]
pub struct Autobahn {
    /// The server, such as `127.0.0.1:8080`.
    pub server: String,
    /// Numbers of cases, such as `1.1.1` or `9.*`.
    pub include: Vec<String>,
    /// Which of these not.
    pub exclude: Vec<&'static str>,
    /// How many at the same time.
    pub parallel: u32,
}

/// What Autobahn says of a server in one case.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Verdict {
    /// `OK`, `NON-STRICT`, `INFORMATIONAL`, `FAILED` and others. Not what Autobahn says of the TCP connection's end, which has
    /// to come within a second.
    pub behavior: String,
    /// The code of its Close frame.
    pub code: Option<u16>,
}

/// Runs cases of Autobahn's, each on a WebSocket of its own, and returns the verdicts by their numbers.
pub fn run_autobahn(cases: &Autobahn) -> Result<BTreeMap<String, Verdict>> {
    let packages = tools::autobahn()?;
    let mut command = Command::new("python3");
    command.arg("-B").arg(driver("autobahn.py")).arg(serde_json::to_string(cases)?).env("PYTHONPATH", packages);
    report("autobahn", command, PATIENCE * cases.include.len().max(1) as u32)
}

/// Starts a program of `tests/clients` that serves in Node, with `options` and its `port`, and returns its address.
pub fn start_server(program: &str, options: &Value) -> Result<(Process, String)> {
    let port = process::free_port()?;
    let mut options = options.clone();
    options["port"] = port.into();
    let mut server = Process::spawn(program.trim_end_matches(".mjs"), node(program, &options)?)?;
    let address = format!("127.0.0.1:{port}");
    server.wait_ready(|| TcpStream::connect(&address).is_ok())?;
    Ok((server, address))
}

/// A command that runs a program of `tests/clients` in Node.
fn node(program: &str, options: &Value) -> Result<Command> {
    let modules = tools::node_clients()?.join("node_modules");
    let mut command = Command::new("node");
    command.arg(driver(program)).arg(options.to_string());
    command.env("NODE_PATH", modules).env("NODE_NO_WARNINGS", "1");
    Ok(command)
}

fn report<Report: DeserializeOwned>(name: &str, command: Command, timeout: Duration) -> Result<Report> {
    let report = process::run(name, command, timeout)?;
    serde_json::from_slice(&report)
        .with_context(|| format!("no report of {name}: {}", String::from_utf8_lossy(&report)))
}

fn driver(name: &str) -> PathBuf {
    workspace().join("tests/clients").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_gets_the_names_it_reads() {
        let task = Task { hold: Duration::from_secs(2), ..Task::default() };
        let client = NodeClient { task, cookies: Cookies::Refused, ..NodeClient::default() };
        let options: serde_json::Value = serde_json::to_value(&client).unwrap();
        for (field, expected) in [
            ("holdMs", serde_json::json!(2_000)),
            ("tryMs", serde_json::json!(180_000)),
            ("cookies", serde_json::json!("refused")),
            ("protocol", serde_json::json!("json")),
            ("transport", serde_json::json!("WebSockets")),
            ("skipNegotiation", serde_json::json!(false)),
        ] {
            assert_eq!(options[field], expected, "{field}");
        }
    }
}
