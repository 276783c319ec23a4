//! Whether the filter takes a configuration, by its own code.
//!
//! What a file passes on from the gateway's environment cannot be seen here, and counts as set.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use envoy_signalr::settings::{OWN_SECRET_WARNING, Settings, Surroundings};
use envoy_signalr::store::Secret;

use super::Lookup;
use super::finding::{Finding, Level};
use super::plugin::{Environment, Plugin};

/// Stands for a variable's value. It is long enough for a secret.
const UNSEEN: &str = "the gateway's environment has the value";

/// What the filter says of the plugin's configuration, and the settings if it takes it. Only where the plugin is one of several is
/// it said which.
pub(super) fn of(plugin: &Plugin<'_>, shell: Lookup<'_>, one_of_several: bool) -> (Vec<Finding>, Option<Settings>) {
    let own_secret = Cell::new(false);
    let process_secret = || {
        own_secret.set(true);
        Secret::new([0; 32])
    };
    let unseen = RefCell::new(BTreeSet::new());
    let missing = RefCell::new(BTreeSet::new());
    let env = |name: &str| {
        let value = match &plugin.environment {
            Environment::Unknown => shell(name),
            Environment::Given { values, passed_on, .. } => {
                let is_unseen = !values.contains_key(name) && passed_on.contains(name);
                if is_unseen {
                    unseen.borrow_mut().insert(name.to_owned());
                }
                is_unseen.then(|| UNSEEN.to_owned()).or_else(|| values.get(name).cloned())
            }
        };
        if value.is_none() {
            missing.borrow_mut().insert(name.to_owned());
        }
        value
    };
    let surroundings = Surroundings { env: &env, process_secret: &process_secret };
    match Settings::parse(plugin.json().as_bytes(), &surroundings) {
        Ok(settings) => {
            let place = plugin.place().filter(|_| one_of_several);
            let mut findings = vec![Finding::new(Level::Accepted, place, accepted(&unseen.take()))];
            if own_secret.get() {
                findings.push(Finding::new(Level::Warning, plugin.place_of("affinity.keys"), OWN_SECRET_WARNING));
            }
            (findings, Some(settings))
        }
        Err(refusal) => {
            let place = plugin.place_of(refusal.field());
            let mut findings = vec![Finding::new(Level::Refused, place, refusal.to_string())];
            if let Environment::Given { way, .. } = &plugin.environment {
                let lines = missing.take();
                let lines = lines.iter().map(|name| Finding::new(Level::Note, plugin.place(), way.line(name)));
                findings.extend(lines);
            }
            (findings, None)
        }
    }
}

fn accepted(unseen: &BTreeSet<String>) -> String {
    let names: Vec<_> = unseen.iter().map(String::as_str).collect();
    match names.as_slice() {
        [] => String::new(),
        [name] => format!("{name} comes from the gateway's environment: not checked"),
        names => format!("{} come from the gateway's environment: not checked", names.join(", ")),
    }
}
