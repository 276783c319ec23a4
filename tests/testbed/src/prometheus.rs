//! Prometheus with the configuration and the rules that users are given, `envoy/prometheus`, looking every second.
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::process::{Process, free_port, run_dir};
use crate::{http, workspace};

/// How the configuration finds gateways: by a name that only docker compose knows.
const GATEWAYS: &str = "dns_sd_configs: [{ names: [gateways], type: A, port: 9902 }]";

/// A change to a file: all of the first becomes the second.
pub type Change<'a> = (&'a str, &'a str);

/// A running Prometheus. It ends when this is dropped.
#[derive(Debug)]
pub struct Prometheus {
    url: String,
    _process: Process,
}

impl Prometheus {
    /// Starts the one in this folder, which scrapes these base URLs, with changes to the recording rules.
    pub fn start(programs: &Path, targets: &[String], rules: &[Change]) -> Result<Self> {
        let (port, kit) = (free_port()?, workspace().join("envoy/prometheus"));
        let folder = run_dir()?.join(format!("prometheus-{port}"));
        fs::create_dir_all(folder.join("rules"))?;
        let written = fs::read_to_string(kit.join("prometheus.yml"))?;
        let (before, after) = written.split_once(GATEWAYS).context("prometheus.yml finds gateways in another way")?;
        let targets = targets.join(", ").replace("http://", "");
        let configuration = format!("{before}static_configs: [{{ targets: [{targets}] }}]{after}").replace("15s", "1s");
        fs::write(folder.join("prometheus.yml"), configuration)?;
        for (file, changes) in [("rules/signalr.recording.yml", rules), ("rules/signalr.alerts.yml", &[])] {
            let mut text = fs::read_to_string(kit.join(file)).with_context(|| format!("cannot read {file}"))?;
            for (from, to) in changes {
                ensure!(text.contains(from), "{file} has no {from}");
                text = text.replace(from, to);
            }
            fs::write(folder.join(file), text)?;
        }
        let mut command = Command::new(programs.join("prometheus"));
        command
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"));
        let mut process = Process::spawn("prometheus", command)?;
        let url = format!("http://127.0.0.1:{port}");
        let ready = format!("{url}/-/ready");
        process.wait_ready(|| http::get(&ready).is_ok_and(|(status, _)| status == 200))?;
        Ok(Self { url, _process: process })
    }

    /// The series that `expression` has now.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        self.ask("query", expression, "")
    }

    /// The series that `expression` had in the last while, a number each second.
    pub fn query_last(&self, expression: &str, duration: Duration) -> Result<Vec<Value>> {
        let end = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let start = end.saturating_sub(duration);
        self.ask("query_range", expression, &format!("&start={}&end={}&step=1", start.as_secs(), end.as_secs()))
    }

    /// The rules of all groups, as they stand.
    pub fn rules(&self) -> Result<Vec<Value>> {
        let mut answer = self.get("rules")?;
        let groups = answer["data"]["groups"].as_array_mut().context("there are no groups")?;
        Ok(groups.iter_mut().filter_map(|group| group["rules"].as_array_mut()).flat_map(std::mem::take).collect())
    }

    fn ask(&self, how: &str, expression: &str, range: &str) -> Result<Vec<Value>> {
        let encoded = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let mut answer = self.get(&format!("{how}?query={encoded}{range}")).context(expression.to_owned())?;
        answer["data"]["result"].as_array_mut().map(std::mem::take).context("there is no result")
    }

    fn get(&self, path: &str) -> Result<Value> {
        let (status, body) = http::get(&format!("{}/api/v1/{path}", self.url))?;
        ensure!(status == 200, "Prometheus answered {status}: {body}");
        Ok(serde_json::from_str(&body)?)
    }
}
