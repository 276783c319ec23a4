//! Clients in a browser.
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Outcome, Task, Transport, node, report};
use crate::process::PATIENCE;
use crate::{target_dir, tools};

/// How long a driver of a browser may run. It bounds each of its waits itself; this ends one that hangs all the same.
const WHOLE_DRIVE: Duration = Duration::from_secs(10 * PATIENCE.as_secs());

/// Microsoft's JavaScript client in a page, in Chromium.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BrowserClient {
    /// The page, such as the hub's own. On another site than the hub, the browser's rules for that hold.
    pub page: String,
    /// What it is to do.
    #[serde(flatten)]
    pub task: Task,
    /// The only transport it may use.
    pub transport: Transport,
    /// What its `accessTokenFactory` gives. In a browser it goes into the URL of WebSockets and event streams.
    pub access_token: Option<String>,
}

impl BrowserClient {
    /// A page that makes so many connections to the chat hub behind `url`.
    pub fn of(page: String, url: String, connects: u32) -> Self {
        // A browser holds six at the same time on HTTP/1.1.
        Self {
            page,
            task: Task { parallel: 2, ..Task::of(url, connects) },
            transport: Transport::WebSockets,
            access_token: None,
        }
    }
}

/// Runs the client in Chromium to its end.
pub fn run_browser(client: &BrowserClient) -> Result<Outcome> {
    drive_chromium("browser.mjs", client)
}

/// Runs a program of `tests/clients` that drives Chromium, with `options`, and returns its report.
///
/// The program also gets the Chromium to use, and as `tryMs` the bound of each wait, which is [`PATIENCE`] unless `options` has it.
pub fn drive_chromium<Report: DeserializeOwned>(program: &str, options: &impl Serialize) -> Result<Report> {
    // One browser at a time on this machine, whatever thread or process the test runs in: each takes several cores, and two
    // that share them make each other late, with the hubs and the Envoy of both.
    let _alone = tools::exclusive(&target_dir(), "chromium")?;
    let chromium = tools::chromium()?;
    let text = |value: &OsString| value.to_string_lossy().into_owned();
    let environment = chromium.environment.iter().map(|(name, value)| (*name, text(value)));
    let mut options = serde_json::to_value(options)?;
    options["program"] = text(&chromium.program.into()).into();
    options["environment"] = serde_json::to_value(environment.collect::<BTreeMap<_, _>>())?;
    if options["tryMs"].is_null() {
        options["tryMs"] = u64::try_from(PATIENCE.as_millis())?.into();
    }
    report(program.trim_end_matches(".mjs"), node(program, &options)?, WHOLE_DRIVE)
}
