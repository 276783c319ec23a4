//! The little HTTP that the testbed speaks itself: asking a server on this machine whether it is
//! ready, and Envoy for its statistics. Clients under test bring their own HTTP.
use anyhow::{Context as _, Result};

use crate::process::PATIENCE;

/// Gets `url` and returns the status and the body, whatever the status is.
pub fn get(url: &str) -> Result<(u16, String)> {
    read(agent().get(url).call(), url)
}

/// Posts nothing to `url`, as Envoy's admin interface and SignalR's negotiate want it.
pub fn post(url: &str) -> Result<(u16, String)> {
    read(agent().post(url).send_empty(), url)
}

fn agent() -> ureq::Agent {
    // A fresh agent each time: a kept connection to a server that was restarted would fail once.
    ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .new_agent()
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>, url: &str) -> Result<(u16, String)> {
    let mut answer = answer.with_context(|| format!("no answer from {url}"))?;
    let body = answer.body_mut().read_to_string().with_context(|| format!("cut short: the answer of {url}"))?;
    Ok((answer.status().as_u16(), body))
}
