//! The pods: ASP.NET Core hubs, several of them on this machine.
//!
//! Each runs one of the `examples` as a process of its own, so that they know nothing of each other's
//! connections, as pods do not. The application names itself in each answer (`x-pod`) and keeps a
//! log of the requests that reached its hubs, so that a test sees what a gateway sent on.
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde::{Deserialize, Deserializer};

use crate::process::{Process, free_port, run_dir};
use crate::{http, tools, workspace};

/// How a pod is set up.
#[derive(Clone, Debug)]
pub struct HubOptions {
    /// The folder under `examples` of the application that it runs.
    pub app: String,
    /// Its name, which it puts into the header `x-pod` of every answer.
    pub pod: String,
    /// Its port; a free one if none is given.
    pub port: Option<u16>,
    /// The paths that its hubs are served at.
    pub hubs: Vec<String>,
    /// What comes before all paths, such as `/app`.
    pub path_base: Option<String>,
    /// The base URLs of the other pods, to which it passes messages on.
    pub peers: Vec<String>,
    /// The sites whose pages may call it.
    pub cors_origins: Vec<String>,
    /// Further variables for its environment.
    pub environment: Vec<(String, OsString)>,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            app: "chat".into(),
            pod: "hub-1".into(),
            port: None,
            hubs: vec!["/chat".into(), "/notifications".into()],
            path_base: None,
            peers: Vec::new(),
            cors_origins: Vec::new(),
            environment: Vec::new(),
        }
    }
}

/// A request that reached a hub.
#[derive(Clone, Debug, Deserialize)]
pub struct HubRequest {
    /// The method, such as `GET`.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query with its question mark, or nothing.
    pub query: String,
    /// The values of each header, by its name in lower case.
    #[serde(deserialize_with = "by_lower_case")]
    pub headers: BTreeMap<String, Vec<String>>,
}

/// A running pod. It ends when this is dropped.
#[derive(Debug)]
pub struct Hub {
    pod: String,
    port: u16,
    path_base: String,
    requests: PathBuf,
    process: Process,
}

/// Three pods for all tests of this process that neither end them nor count their requests. They end with the process.
pub fn shared_hubs() -> Result<&'static [Hub]> {
    static HUBS: OnceLock<Result<Vec<Hub>, String>> = OnceLock::new();
    let started = HUBS.get_or_init(|| three_hubs().map_err(|error| format!("{error:#}")));
    started.as_ref().map(Vec::as_slice).map_err(|error| anyhow::anyhow!(error.clone()))
}

/// Three pods, which pass each other's messages on.
pub fn three_hubs() -> Result<Vec<Hub>> {
    three_hubs_with(|_| {})
}

/// The same, but for what `change` does to their options, which already have ports.
pub fn three_hubs_with(change: impl FnOnce(&mut [HubOptions])) -> Result<Vec<Hub>> {
    let mut options = pods(&[free_port()?, free_port()?, free_port()?]);
    change(&mut options);
    Hub::start_all(&options)
}

/// A pod for each of these ports, which pass each other's messages on.
pub fn pods(ports: &[u16]) -> Vec<HubOptions> {
    let pod = |(number, port): (usize, &u16)| {
        let others = ports.iter().filter(|other| *other != port);
        HubOptions {
            pod: format!("hub-{number}"),
            port: Some(*port),
            peers: others.map(|other| format!("http://127.0.0.1:{other}")).collect(),
            ..HubOptions::default()
        }
    };
    (1..).zip(ports).map(pod).collect()
}

/// Starts a pod whose hub, at `/chat`, is philippseith's for Go, and returns its address.
pub fn start_go_hub(pod: &str) -> Result<(Process, String)> {
    let port = free_port()?;
    let mut command = Command::new(tools::go_hub()?);
    command.arg(serde_json::json!({ "port": port, "pod": pod }).to_string());
    let mut process = Process::spawn(pod, command)?;
    let address = format!("127.0.0.1:{port}");
    let health = format!("http://{address}/healthz");
    process.wait_ready(|| http::get(&health).is_ok_and(|(status, _)| status == 200))?;
    Ok((process, address))
}

impl Hub {
    /// Starts a pod and waits until it serves.
    pub fn start(options: &HubOptions) -> Result<Self> {
        let mut hub = Self::launch(options)?;
        hub.wait_ready()?;
        Ok(hub)
    }

    /// Starts several at the same time, which is faster than one after the other.
    pub fn start_all(options: &[HubOptions]) -> Result<Vec<Self>> {
        let mut hubs = options.iter().map(Self::launch).collect::<Result<Vec<_>>>()?;
        hubs.iter_mut().try_for_each(Self::wait_ready)?;
        Ok(hubs)
    }

    /// The address as Envoy wants it, `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The URL of the pod itself, past every gateway.
    pub fn url(&self) -> String {
        format!("http://{}{}", self.address(), self.path_base)
    }

    /// The same by name, which to a browser is another site than any gateway that is addressed by IP.
    pub fn url_by_name(&self) -> String {
        format!("http://localhost:{}{}", self.port, self.path_base)
    }

    /// The pod's name.
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// The requests that have reached the hubs of this pod, in order.
    pub fn requests(&self) -> Result<Vec<HubRequest>> {
        let log = fs::read_to_string(&self.requests).unwrap_or_default();
        // The last line may be in the making.
        let complete = log.rfind('\n').map_or("", |end| &log[..end]);
        let parse = |line| serde_json::from_str(line).with_context(|| format!("not a request: {line}"));
        complete.lines().map(parse).collect()
    }

    /// Kills the pod at once, as the loss of its node would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Lets the pod hang: it accepts connections and answers nothing, until [`Self::go_on`].
    pub fn hang(&self) -> Result<()> {
        self.process.signal(Signal::SIGSTOP)
    }

    /// Ends that.
    pub fn go_on(&self) -> Result<()> {
        self.process.signal(Signal::SIGCONT)
    }

    fn launch(options: &HubOptions) -> Result<Self> {
        let dotnet = tools::dotnet()?;
        let program = dotnet.publish(&workspace().join("examples").join(&options.app))?;
        let script = tools::node_clients()?.join("node_modules/@microsoft/signalr/dist/browser/signalr.min.js");
        let port = options.port.map_or_else(free_port, Ok)?;
        let requests = run_dir()?.join(format!("{}-{port}.requests", options.pod));
        let mut command = dotnet.command();
        command
            .arg(program)
            .env("ASPNETCORE_URLS", format!("http://127.0.0.1:{port}"))
            .env("POD", &options.pod)
            .env("PEERS", options.peers.join(","))
            .env("HUBS", options.hubs.join(","))
            .env("PATH_BASE", options.path_base.as_deref().unwrap_or_default())
            .env("CORS_ORIGINS", options.cors_origins.join(","))
            .env("SIGNALR_JS", script)
            .env("REQUEST_LOG", &requests)
            // On a busy machine more time than usual passes between the requests of a test, and its own clients never ping.
            .env("PATIENCE_SECONDS", "3600")
            .envs(options.environment.iter().map(|(name, value)| (name, value)));
        let process = Process::spawn(&options.pod, command)?;
        let path_base = options.path_base.clone().unwrap_or_default();
        Ok(Self { pod: options.pod.clone(), port, path_base, requests, process })
    }

    fn wait_ready(&mut self) -> Result<()> {
        let health = format!("http://{}/healthz", self.address());
        let serves = || http::get(&health).is_ok_and(|(status, _)| status == 200);
        self.process.wait_ready(serves)
    }
}

/// ASP.NET Core writes the names that it knows in its own way, such as `User-Agent`, whatever was sent.
fn by_lower_case<'de, D: Deserializer<'de>>(headers: D) -> Result<BTreeMap<String, Vec<String>>, D::Error> {
    let written = BTreeMap::<String, Vec<String>>::deserialize(headers)?;
    Ok(written.into_iter().map(|(name, values)| (name.to_lowercase(), values)).collect())
}

impl Drop for Hub {
    fn drop(&mut self) {
        // Asked politely, ASP.NET Core would wait five seconds for its clients to go.
        self.process.kill();
    }
}
