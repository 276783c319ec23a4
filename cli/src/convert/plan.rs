//! What all sources ask for together: settings, each with the line that it comes from, and a report of every line.
//!
//! The filter has one value for each setting, so of two lines that ask for different ones the first counts, and the report says so. What
//! the filter refuses is taken out again, with the filter's own words as the reason.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::ask::{Ask, written};
use crate::check::finding::Place;
use crate::check::settings_in;
use crate::settings::Reasoned;

const COOKIE: &str = "affinity.client_cookie";
const LIMITS: &str = "limits.";
/// So many segments below a path are pages of it: the settings name each segment.
const DEPTH: usize = 3;
/// Without the cookie.
const NO_COOKIE: &str = "no cookie is needed: the route is in each connection's id";

/// A line of the input.
#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) file: String,
    pub(super) place: Place,
    /// As it was written: `name: value`.
    pub(super) what: String,
}

/// What became of a line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) source: Source,
    pub(super) outcome: Outcome,
    pub(super) text: String,
    /// The setting that it gave.
    field: Option<String>,
}

/// The report's parts, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// The settings or the manifests have it.
    Converted,
    /// It is solved in another way, without a setting.
    Better,
    /// It is the business of `ingress2gateway` or the platform.
    Left,
    /// Neither has it.
    Impossible,
    /// It had no effect before.
    Void,
}

/// What all lines ask for.
#[derive(Debug)]
pub(super) struct Plan {
    /// By full name.
    settings: BTreeMap<String, Value>,
    pub(super) lines: Vec<Line>,
    services: BTreeSet<(String, u16)>,
    client_cookie: bool,
}

impl Plan {
    /// `client_cookie`: whether a cookie for each client stays one.
    pub(super) fn new(hubs: &[String], client_cookie: bool) -> Self {
        let hubs: Vec<_> = hubs.iter().map(|path| json!({ "path": path })).collect();
        let settings = (!hubs.is_empty()).then(|| ("hubs".to_owned(), hubs.into())).into_iter().collect();
        Self { settings, lines: Vec::new(), services: BTreeSet::new(), client_cookie }
    }

    /// The service of the hubs, where all sources name the same.
    pub(super) fn service(&self) -> Option<(&str, u16)> {
        let mut services = self.services.iter();
        let first = services.next()?;
        services.next().is_none().then_some((&*first.0, first.1))
    }

    /// Does what a line asks for.
    pub(super) fn take(&mut self, source: Source, ask: Ask) {
        match ask {
            Ask::ClientCookie => self.cookie(source, "enabled", true.into()),
            Ask::Cookie(field, value) => self.cookie(source, field, value),
            Ask::Pages(path) => self.pages(source, &path),
            Ask::Set(field, value) => self.set(source, field, value),
            Ask::Rate { requests, per, burst } => {
                let rate = json!({ "requests": requests, "per": written(per), "burst": burst });
                self.set(source.clone(), "limits.negotiate_rate", rate.clone());
                self.set(source, "limits.connect_rate", rate);
            }
            Ask::Exempt(networks) => self.exempt(source, &networks),
            Ask::Service(name, port) => {
                self.services.insert((name, port));
            }
            Ask::Same(text) => self.report(source, Outcome::Converted, text),
            Ask::Better(text) => self.report(source, Outcome::Better, text),
            Ask::Left(text) => self.report(source, Outcome::Left, text),
            Ask::Impossible(text) => self.report(source, Outcome::Impossible, text),
            Ask::Void(text) => self.report(source, Outcome::Void, text),
        }
    }

    fn report(&mut self, source: Source, outcome: Outcome, text: String) {
        self.lines.push(Line { source, outcome, text, field: None });
    }

    fn cookie(&mut self, source: Source, field: &str, value: Value) {
        if self.client_cookie {
            self.set(source, &format!("{COOKIE}.{field}"), value);
        } else {
            self.report(source, Outcome::Better, NO_COOKIE.to_owned());
        }
    }

    fn set(&mut self, source: Source, field: &str, value: Value) {
        match self.settings.get(field) {
            Some(before) if *before != value => {
                let first = self.lines.iter().find(|line| line.field.as_deref() == Some(field));
                let first = first.map(|line| format!(" by {}:{}", line.source.file, line.source.place.line));
                let text = format!(
                    "`{field}` is {before}{} already, and a gateway has one value for all: convert what differs by itself",
                    first.unwrap_or_default()
                );
                self.report(source, Outcome::Impossible, text);
            }
            _ => {
                let text = format!("{field}: {}", plain(&value));
                self.settings.insert(field.to_owned(), value);
                self.lines.push(Line { source, outcome: Outcome::Converted, text, field: Some(field.to_owned()) });
            }
        }
    }

    /// Adds to a list.
    fn add(&mut self, source: Source, field: &str, values: Vec<Value>) {
        let text = format!("{field}: {}", plain(&values.clone().into()));
        let list = self.settings.entry(field.to_owned()).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            for value in values {
                if !list.contains(&value) {
                    list.push(value);
                }
            }
        }
        self.lines.push(Line { source, outcome: Outcome::Converted, text, field: Some(field.to_owned()) });
    }

    fn pages(&mut self, source: Source, path: &str) {
        if !self.client_cookie {
            return;
        }
        let path = path.trim_end_matches('/');
        if path.contains(['*', '(', '^', '$', '\\', '{', '?', '%']) {
            let text =
                "no path but an expression: name the pages that start a circuit in `affinity.client_cookie.paths`";
            return self.report(source, Outcome::Impossible, text.to_owned());
        }
        let below = (1..=DEPTH).map(|depth| format!("{path}{}", "/*".repeat(depth)));
        let itself = if path.is_empty() { "/".to_owned() } else { path.to_owned() };
        let pages = std::iter::once(itself).chain(below).map(Value::from).collect();
        self.add(source, "affinity.client_cookie.paths", pages);
    }

    fn exempt(&mut self, source: Source, networks: &[String]) {
        let network = |text: &String| {
            let text = text.trim();
            let whole = if text.contains(':') { "/128" } else { "/32" };
            Value::from(if text.contains('/') { text.to_owned() } else { format!("{text}{whole}") })
        };
        self.add(source, "limits.client.exempt", networks.iter().map(network).collect());
    }

    /// Whether a line has asked for a cookie for each client.
    pub(super) fn has_client_cookie(&self) -> bool {
        self.settings.contains_key("affinity.client_cookie.enabled")
    }

    /// The settings with the lines that they come from.
    pub(super) fn settings(&mut self) -> Reasoned {
        self.take_out_what_does_nothing();
        if self.has_client_cookie() && !self.settings.contains_key("affinity.client_cookie.paths") {
            let enables = |line: &&mut Line| line.field.as_deref() == Some("affinity.client_cookie.enabled");
            for line in self.lines.iter_mut().filter(enables) {
                line.text.push_str(
                    "; for Blazor Server, name the pages that start a circuit in `affinity.client_cookie.paths`",
                );
            }
        }
        let is_none = |value: Option<&Value>| value.is_some_and(|value| value == "none");
        if is_none(self.settings.get("affinity.client_cookie.same_site")) {
            // Browsers drop the cookie otherwise.
            self.settings.insert(format!("{COOKIE}.secure"), true.into());
        }
        while let Err((field, refusal)) = self.judged() {
            let Some(name) = self.settings.keys().find(|name| field.starts_with(name.as_str())).cloned() else { break };
            self.take_out(&name, Outcome::Impossible, &format!("the filter refuses it: {refusal}"));
            self.take_out_what_does_nothing();
        }
        let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in &self.lines {
            if let Some(field) = &line.field {
                let Source { file, place, what } = &line.source;
                reasons.entry(field.clone()).or_default().push(format!("{file}:{}: {what}", place.line));
            }
        }
        Reasoned { settings: self.nested(), reasons }
    }

    /// What is there but says nothing by itself.
    fn take_out_what_does_nothing(&mut self) {
        if !self.has_client_cookie() {
            self.take_out("affinity.client_cookie.paths", Outcome::Left, "a route: `ingress2gateway`");
            self.take_out(COOKIE, Outcome::Void, "without affinity by a cookie it has no effect");
        }
        const LIMIT: [&str; 3] = ["limits.connections.", "limits.negotiate_rate", "limits.connect_rate"];
        if !self.settings.keys().any(|name| LIMIT.iter().any(|limit| name.starts_with(limit))) {
            self.take_out(LIMITS, Outcome::Void, "without a limit it has no effect");
        }
    }

    fn take_out(&mut self, field: &str, outcome: Outcome, text: &str) {
        self.settings.retain(|name, _| !name.starts_with(field));
        for line in &mut self.lines {
            if line.field.as_deref().is_some_and(|name| name.starts_with(field)) {
                (line.field, line.outcome, line.text) = (None, outcome, text.to_owned());
            }
        }
    }

    /// Whether the filter takes the settings; else the field that it names, and why.
    fn judged(&self) -> Result<(), (String, String)> {
        let refusal = match settings_in(&self.nested().to_string(), &|_| None) {
            Ok(_) => return Ok(()),
            Err(refusal) => refusal,
        };
        let (field, why) = refusal.split_once(": ").unwrap_or((&refusal, ""));
        Err((field.to_owned(), why.to_owned()))
    }

    fn nested(&self) -> Value {
        let mut all = json!({});
        for (name, value) in &self.settings {
            let mut place = &mut all;
            for part in name.split('.') {
                place = &mut place[part];
            }
            *place = value.clone();
        }
        all
    }
}

/// A value as one writes it by hand.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
