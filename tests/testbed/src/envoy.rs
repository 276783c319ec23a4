//! Envoy with the filter in it.
//!
//! It boots `envoy/envoy.yaml`, the file that users are given, changed only where a test must:
//! ports, the module, the filter's settings, the addresses of the hubs, and how long they may take ([`bootstrap`]).
mod bootstrap;
mod metrics;
mod module;
mod watched;

pub use bootstrap::{
    HealthStatus, Patch, add_cluster, balance_exactly, connection_manager, filter_of, http_filters, lengthen_tries,
    load_module, negotiate_route, put_routes_first, remove_health_checks, restrict_to_hub_routes, signalr_filter,
};
pub use metrics::sum_of_metric;
pub use module::{module, module_built_in, module_that_does_nothing, module_that_traps, module_with_names};
pub use watched::Watched;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::hub::Hub;
use crate::process::{Process, free_port, run_dir, wait_for};
use crate::tools::{self, EnvoyVersion};
use crate::{http, workspace};

/// What the filter chain holds.
#[derive(Clone, Debug)]
pub enum Filter {
    /// The filter with these settings.
    With(Value),
    /// Neither the filter nor the session filter that steers for it: Envoy as it comes.
    Absent,
}

/// Where the addresses of the hubs come from.
#[derive(Clone, Debug)]
pub enum Hosts {
    /// They stay as they are.
    Fixed(Vec<String>),
    /// [`Envoy::set_endpoints`] changes them later.
    Changing(Vec<(String, HealthStatus)>),
}

impl Hosts {
    /// These hubs, which stay where they are.
    pub fn of(hubs: &[Hub]) -> Self {
        Self::Fixed(hubs.iter().map(Hub::address).collect())
    }
}

/// How long a hub may take to answer a health check or a negotiate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HubTimeouts {
    /// So long that a busy machine does not count as a hub that hangs.
    Long,
    /// As `envoy/envoy.yaml` has it.
    Shipped,
}

/// How Envoy is set up.
pub struct EnvoyOptions {
    /// The release.
    pub version: EnvoyVersion,
    /// The port for clients; a free one if none is given.
    pub port: Option<u16>,
    /// The filter.
    pub filter: Filter,
    /// The hubs behind it.
    pub hosts: Hosts,
    /// When one of them counts as hanging.
    pub hub_timeouts: HubTimeouts,
    /// The number of worker threads.
    pub concurrency: u32,
    /// Envoy's log level, such as `info` or `warning,wasm:debug`.
    pub log_level: String,
    /// Variables for its environment.
    pub environment: Vec<(String, String)>,
    /// Further arguments of its command line.
    pub arguments: Vec<String>,
    /// What else to change in the bootstrap, after everything above.
    pub patch: Option<Patch>,
}

impl Default for EnvoyOptions {
    fn default() -> Self {
        Self {
            version: EnvoyVersion::Newest,
            port: None,
            filter: Filter::With(Value::Object(serde_json::Map::new())),
            hosts: Hosts::Fixed(Vec::new()),
            hub_timeouts: HubTimeouts::Long,
            concurrency: 4,
            log_level: "warning,wasm:info".into(),
            environment: Vec::new(),
            arguments: Vec::new(),
            patch: None,
        }
    }
}

/// A running Envoy. It ends when this is dropped.
#[derive(Debug)]
pub struct Envoy {
    port: u16,
    admin: u16,
    metrics: u16,
    endpoints: Option<PathBuf>,
    process: Process,
}

impl Envoy {
    /// Starts the newest Envoy with this filter before these hubs.
    pub fn before(hubs: &[Hub], filter: Filter) -> Result<Self> {
        Self::start(&EnvoyOptions { filter, hosts: Hosts::of(hubs), ..EnvoyOptions::default() })
    }

    /// Starts Envoy and waits until it serves and knows its hubs healthy.
    pub fn start(options: &EnvoyOptions) -> Result<Self> {
        let mut envoy = Self::launch(options)?;
        let ready = format!("{}/ready", envoy.admin());
        let live = || http::get(&ready).is_ok_and(|(_, body)| body.trim() == "LIVE");
        envoy.process.wait_ready(live)?;
        envoy.wait_healthy()?;
        Ok(envoy)
    }

    /// On a busy machine Envoy serves before it has found its hubs healthy, and pins nobody to one that is not.
    fn wait_healthy(&self) -> Result<()> {
        let hosts = |state: &str| self.counter(&format!("cluster.hubs.membership_{state}")).ok();
        let all = || hosts("total").is_some_and(|total| hosts("healthy") == Some(total));
        wait_for("healthy hubs", all)
    }

    /// Starts an Envoy that is to refuse its configuration, and returns what it said.
    pub fn refuses(options: &EnvoyOptions) -> Result<String> {
        let mut envoy = Self::launch(options)?;
        let ready = format!("{}/ready", envoy.admin());
        let mut ended = None;
        let mut live = false;
        wait_for("Envoy to refuse its configuration", || {
            ended = envoy.process.ended().ok().flatten();
            live = ended.is_none() && http::get(&ready).is_ok_and(|(_, body)| body.trim() == "LIVE");
            ended.is_some() || live
        })?;
        ensure!(!live, "Envoy took the configuration that it was to refuse");
        Ok(envoy.log())
    }

    /// The base URL for clients, addressed by IP.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The same by name, for clients that keep cookies only for names.
    pub fn url_by_name(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    /// The base URL of the admin interface.
    pub fn admin(&self) -> String {
        format!("http://127.0.0.1:{}", self.admin)
    }

    /// The base URL of the listener for metrics and probes.
    pub fn metrics(&self) -> String {
        format!("http://127.0.0.1:{}", self.metrics)
    }

    /// The process id of Envoy.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What Envoy has logged up to now, the access log too.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Whether the filter has trapped: a VM's end is in the log.
    pub fn has_trapped(&self) -> bool {
        self.log().contains("in-VM backtrace")
    }

    /// How Envoy ended, if it has.
    pub fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
        self.process.ended()
    }

    /// Kills Envoy at once, as the loss of its node would.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends Envoy and returns its log. Before it ends, Envoy closes what is open and writes what it holds back of the access log.
    pub fn finish(mut self) -> Result<String> {
        let status = Command::new("kill").arg(self.pid().to_string()).status().context("cannot start kill")?;
        ensure!(status.success(), "cannot end Envoy");
        wait_for("Envoy's end", || self.ended().is_ok_and(|ended| ended.is_some()))?;
        Ok(self.log())
    }

    /// All statistics as lines `name: value`.
    pub fn stats(&self) -> Result<String> {
        self.ask("/stats")
    }

    /// All statistics as Prometheus gets them.
    pub fn prometheus(&self) -> Result<String> {
        self.ask("/stats/prometheus")
    }

    /// The value of one counter or gauge of [`Self::stats`]; one that is not there counts as zero.
    pub fn counter(&self, name: &str) -> Result<u64> {
        let stats = self.stats()?;
        let value = stats.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.map_or(Ok(0), |value| value.parse().with_context(|| format!("{name} is {value}, no number")))
    }

    /// The sum of all Prometheus series with this name whose labels include `labels`.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Result<f64> {
        Ok(sum_of_metric(&self.prometheus()?, name, labels))
    }

    /// Gives Envoy other hubs. Only with [`Hosts::Changing`]; Envoy takes a moment to see it.
    pub fn set_endpoints(&self, hosts: &[(String, HealthStatus)]) -> Result<()> {
        let file = self.endpoints.as_ref().context("the hosts of this Envoy are fixed")?;
        bootstrap::write_endpoints(file, hosts)
    }

    fn launch(options: &EnvoyOptions) -> Result<Self> {
        let (port, admin, metrics) = (options.port.map_or_else(free_port, Ok)?, free_port()?, free_port()?);
        let module = match options.filter {
            Filter::With(_) => Some(module()?),
            Filter::Absent => None,
        };
        let folder = run_dir()?.join(format!("envoy-{port}"));
        fs::create_dir_all(&folder)?;
        let text = fs::read_to_string(workspace().join("envoy/envoy.yaml")).context("cannot read envoy/envoy.yaml")?;
        let places = bootstrap::Places { port, admin, metrics, module, folder: folder.clone() };
        let bootstrap = bootstrap::patched(&text, options, &places)?;
        let file = folder.join("bootstrap.json");
        fs::write(&file, serde_json::to_vec_pretty(&bootstrap)?)?;
        let mut command = Command::new(tools::envoy(options.version)?);
        command
            .arg("--config-path")
            .arg(&file)
            .args(["--concurrency", &options.concurrency.to_string()])
            .args(["--log-level", level(&options.log_level)?])
            // Several Envoys on one machine would else share memory.
            .arg("--disable-hot-restart")
            // The access log, too, is to be there when a test looks.
            .args(["--file-flush-interval-msec", "100"])
            .args(&options.arguments)
            .envs(options.environment.iter().map(|(name, value)| (name, value)));
        if let Some((_, components)) = options.log_level.split_once(',') {
            command.args(["--component-log-level", components]);
        }
        let process = Process::spawn("envoy", command)?;
        let endpoints = matches!(options.hosts, Hosts::Changing(_)).then(|| places.endpoints());
        Ok(Self { port, admin, metrics, endpoints, process })
    }

    fn ask(&self, path: &str) -> Result<String> {
        let (status, body) = http::get(&format!("{}{path}", self.admin()))?;
        ensure!(status == 200, "Envoy answered {path} with {status}: {body}");
        Ok(body)
    }
}

/// The part of a log level that is for all of Envoy.
fn level(levels: &str) -> Result<&str> {
    match levels.split(',').next() {
        Some(level) if !level.is_empty() && !level.contains(':') => Ok(level),
        _ => bail!("a log level starts with one for all of Envoy, as in `warning,wasm:debug`: {levels}"),
    }
}
