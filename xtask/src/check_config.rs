//! `check-config`: what the filter would say of a configuration, and what around it in the file makes the filter useless.
//!
//! The edge is [`check`]: the text of a file goes in, and [`Finding`]s come out. It reads the plugin's configuration with the
//! filter's own code, so that the two never disagree. [`command`] reads files and prints.
//!
//! | file | decides |
//! |---|---|
//! | `document.rs` | what a text holds, and where each part of it stands |
//! | `plugin.rs` | where a document configures the filter, and which variables reach it |
//! | `verdict.rs` | whether the filter takes the configuration |
//! | `surroundings.rs` and below | what around it the filter rests on |

pub(crate) mod command;
mod document;
mod finding;
mod plugin;
mod surroundings;
mod verdict;

use finding::{Finding, Level};
use plugin::Plugin;

/// Looks up a variable of the environment.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// What there is to say of a file with this text. `environment` is asked for the variables of a configuration that stands by
/// itself; what surrounds a plugin says which variables it gets.
fn check(text: &str, environment: Lookup<'_>) -> Vec<Finding> {
    let documents = match document::read(text) {
        Ok(documents) => documents,
        Err(finding) => return vec![finding],
    };
    let mut findings = Vec::new();
    let mut plugins = Vec::new();
    for document in &documents {
        plugins.extend(plugin::find(document, &mut findings));
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

#[cfg(test)]
mod tests;
