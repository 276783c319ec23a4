//! `check`: what the filter would say of a configuration, and what around it in the file makes the filter useless.
//!
//! The edge is [`check`](check()): the text of a file goes in, and [`Finding`]s come out. It reads the plugin's configuration with the
//! filter's own code, so that the two never disagree. [`command`] reads files and prints.
//!
//! | file | decides |
//! |---|---|
//! | `document.rs` | what a text holds, and where each part of it stands |
//! | `plugin.rs` | where a document configures the filter, and which variables reach it |
//! | `verdict.rs` | whether the filter takes the configuration |
//! | `surroundings.rs` and below | what around it in its document the filter rests on |
//! | `together.rs` | what in other documents a resource of Istio or Envoy Gateway rests on |

mod command;
pub(crate) mod document;
pub(crate) mod finding;
mod plugin;
mod surroundings;
mod together;
mod verdict;

use envoy_signalr::settings::Settings;
use finding::{Finding, Level};
use plugin::{Alone, Plugin};
use serde_json::Value;

pub use command::{Check, run};

/// Looks up a variable of the environment.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What there is to say of a file with this text. `environment` is asked for the variables of a configuration that stands by
/// itself; what surrounds a plugin says which variables it gets.
fn check(text: &str, alone: Alone, environment: Lookup<'_>) -> Vec<Finding> {
    let documents = match document::read(text) {
        Ok(documents) => documents,
        Err(finding) => return vec![finding],
    };
    let mut findings = Vec::new();
    let mut plugins = Vec::new();
    for document in &documents {
        plugins.extend(plugin::find(document, alone, &mut findings));
    }
    if plugins.is_empty() && findings.is_empty() {
        findings.push(Finding::new(Level::Nothing, None, "no wasm plugin in it"));
    }
    let has_ours = plugins.iter().any(Plugin::bears_our_name);
    let (ours, others): (Vec<_>, Vec<_>) = plugins.iter().partition(|plugin| !has_ours || plugin.bears_our_name());
    let others = others.iter().map(|plugin| Finding::new(Level::Note, plugin.place(), "another plugin: not checked"));
    findings.extend(others);
    for plugin in &ours {
        let (verdict, settings) = verdict::of(plugin, environment, ours.len() > 1);
        findings.extend(verdict);
        if let Some(settings) = settings {
            findings.extend(surroundings::warnings(plugin, &settings));
        }
    }
    findings
}

/// The lines that `check` prints for a file with this text, without the file's name. No variable of the environment is set.
pub fn lines_of(text: &str) -> Vec<String> {
    findings_of(text).map(|finding| finding.to_string()).collect()
}

fn findings_of(text: &str) -> impl Iterator<Item = Finding> {
    let together = together::check(&[text], &|_| None).into_iter().map(|(_, finding)| finding);
    check(text, Alone::Always, &|_| None).into_iter().chain(together)
}

/// Stands for a secret where it does not matter which one it is.
pub(crate) fn any_secret(_: &str) -> Option<String> {
    Some("x".repeat(64))
}

/// The settings of the filter in a file with this text, as the filter has them and as they were written.
///
/// # Errors
/// In one line, why there are none.
pub(crate) fn settings_in(text: &str, environment: Lookup<'_>) -> Result<(Settings, Value), String> {
    let documents = document::read(text).map_err(|finding| finding.text)?;
    let mut findings = Vec::new();
    let plugins: Vec<_> =
        documents.iter().flat_map(|document| plugin::find(document, Alone::Always, &mut findings)).collect();
    let ours = plugins.iter().find(|plugin| plugin.bears_our_name()).or(plugins.first());
    let plugin = ours.ok_or("no wasm plugin in it")?;
    match verdict::of(plugin, environment, false) {
        // Nothing at all means every default.
        (_, Some(settings)) => Ok((settings, serde_json::from_str(&plugin.json()).unwrap_or_default())),
        (findings, None) => Err(findings.into_iter().next().map(|finding| finding.text).unwrap_or_default()),
    }
}

/// The warnings and errors of a file with this text.
#[cfg(test)]
pub(crate) fn warnings_of(text: &str) -> Vec<String> {
    findings_of(text)
        .filter(|finding| finding.is_error() || finding.level == Level::Warning)
        .map(|finding| finding.to_string())
        .collect()
}

#[cfg(test)]
mod tests;
