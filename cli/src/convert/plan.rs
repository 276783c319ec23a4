//! What all sources ask for together: settings, each with the line that it comes from, and a report of every line.
//!
//! The filter has one value for each setting, so of two lines that ask for different ones the first counts, and the report says so. What
//! the filter refuses is taken out again, with the filter's own words as the reason.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::ask::{Ask, ROUTE, address, written};
use crate::check::finding::Place;
use crate::check::settings_in;
use crate::settings::Reasoned;

const COOKIE: &str = "affinity.client_cookie";
const ENABLED: &str = "affinity.client_cookie.enabled";
const PAGES: &str = "affinity.client_cookie.paths";
const SAME_SITE: &str = "affinity.client_cookie.same_site";
const SECURE: &str = "affinity.client_cookie.secure";
const LIMITS: &str = "limits.";
const KEY: &str = "limits.client.key";
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
    services: BTreeSet<Service>,
    client_cookie: bool,
}

/// A service of hubs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) namespace: String,
    /// `None` if the input has a name for it.
    pub(super) port: Option<u16>,
}

impl Plan {
    /// `client_cookie`: whether a cookie for each client stays one.
    pub(super) fn new(hubs: &[String], client_cookie: bool) -> Self {
        let hubs: Vec<_> = hubs.iter().map(|path| json!({ "path": path })).collect();
        let settings = (!hubs.is_empty()).then(|| ("hubs".to_owned(), hubs.into())).into_iter().collect();
        Self { settings, lines: Vec::new(), services: BTreeSet::new(), client_cookie }
    }

    /// The service of the hubs, where all sources name the same.
    pub(super) fn service(&self) -> Option<&Service> {
        let mut services = self.services.iter();
        let first = services.next()?;
        services.next().is_none().then_some(first)
    }

    /// Does what a line asks for.
    pub(super) fn take(&mut self, source: Source, ask: Ask) {
        match ask {
            Ask::ClientCookie => self.cookie(source, "enabled", true.into()),
            Ask::Cookie(field, value) => self.cookie(source, field, value),
            Ask::Pages(paths) => self.pages(source, &paths),
            Ask::Set(field, value) => self.set(source, field, value),
            Ask::Key(key) => self.set(source, KEY, key),
            Ask::PerClient(most, key) => {
                if self.has_key(&source, &key) {
                    self.set(source, "limits.connections.per_client", most.into());
                }
            }
            Ask::Rate { requests, per, burst, key } => {
                if self.has_key(&source, &key) {
                    let rate = json!({ "requests": requests, "per": written(per), "burst": burst });
                    self.set(source.clone(), "limits.negotiate_rate", rate.clone());
                    self.set(source, "limits.connect_rate", rate);
                }
            }
            Ask::Exempt(networks) => self.exempt(source, &networks),
            Ask::Service { name, namespace, port } => {
                self.services.insert(Service { name, namespace, port });
            }
            Ask::Same(text) => self.report(source, Outcome::Converted, text),
            Ask::Better(text) => self.report(source, Outcome::Better, text),
            Ask::Left(text) => self.report(source, Outcome::Left, text),
            Ask::Impossible(text) => self.report(source, Outcome::Impossible, text),
            Ask::Void(text) => self.report(source, Outcome::Void, text),
        }
    }

    /// Whether limits count by this key, which they do from then on if there were none before.
    fn has_key(&mut self, source: &Source, key: &Value) -> bool {
        let present = self.settings.entry(KEY.to_owned()).or_insert_with(|| key.clone());
        if present == key {
            return true;
        }
        let [own, other] = [key, present].map(plain);
        let text = format!("it counts by {own}, other limits by {other}, and a gateway has one key for all");
        self.report(source.clone(), Outcome::Impossible, text);
        false
    }

    fn report(&mut self, source: Source, outcome: Outcome, text: String) {
        self.lines.push(Line { source, outcome, text, field: None });
    }

    fn cookie(&mut self, source: Source, field: &str, value: Value) {
        if self.client_cookie {
            self.set(source, &format!("{COOKIE}.{field}"), value);
        } else {
            // One line may have several attributes.
            let is_said = |last: &Line| last.text == NO_COOKIE && last.source.place == source.place;
            if !self.lines.last().is_some_and(is_said) {
                self.report(source, Outcome::Better, NO_COOKIE.to_owned());
            }
        }
    }

    fn set(&mut self, source: Source, field: &str, value: Value) {
        match self.settings.get(field) {
            Some(before) if *before != value => {
                let first = self.lines.iter().find(|line| line.field.as_deref() == Some(field));
                let first = first.map(|line| format!(" by {}:{}", line.source.file, line.source.place.line));
                let text = format!(
                    "`{field}` is {}{} already, and a gateway has one value for each setting: convert these files separately",
                    plain(before),
                    first.unwrap_or_default()
                );
                self.report(source, Outcome::Impossible, text);
            }
            _ => {
                self.converted(source, field, &value);
                self.settings.insert(field.to_owned(), value);
            }
        }
    }

    /// Adds to a list.
    fn add(&mut self, source: Source, field: &str, values: Vec<Value>) {
        self.converted(source, field, &values.clone().into());
        let list = self.settings.entry(field.to_owned()).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            for value in values {
                if !list.contains(&value) {
                    list.push(value);
                }
            }
        }
    }

    /// A line that gave a setting.
    fn converted(&mut self, source: Source, field: &str, value: &Value) {
        let text = format!("{field}: {}", plain(value));
        self.lines.push(Line { source, outcome: Outcome::Converted, text, field: Some(field.to_owned()) });
    }

    fn pages(&mut self, source: Source, paths: &[String]) {
        if !self.client_cookie {
            return self.report(source, Outcome::Left, ROUTE.to_owned());
        }
        if paths.iter().any(|path| path.contains(['(', '^', '$', '\\', '{', '?', '%'])) {
            let text = "a regular expression, not a path: list the pages that start a circuit in `affinity.client_cookie.paths`";
            return self.report(source, Outcome::Impossible, text.to_owned());
        }
        self.add(source, PAGES, paths.iter().cloned().map(Value::from).collect());
    }

    fn exempt(&mut self, source: Source, networks: &[String]) {
        let network = |text: &String| {
            let whole = if text.contains(':') { "/128" } else { "/32" };
            Value::from(if text.contains('/') { text.clone() } else { format!("{text}{whole}") })
        };
        self.add(source, "limits.client.exempt", networks.iter().map(network).collect());
    }

    /// Whether a line has asked for a cookie for each client.
    pub(super) fn has_client_cookie(&self) -> bool {
        self.settings.contains_key(ENABLED)
    }

    /// The settings with the lines that they come from.
    ///
    /// # Errors
    /// What was given by hand and is refused.
    pub(super) fn settings(&mut self) -> Result<Reasoned, String> {
        self.take_out_what_does_nothing();
        if self.has_client_cookie() && !self.settings.contains_key(PAGES) {
            let enables = |line: &&mut Line| line.field.as_deref() == Some(ENABLED);
            for line in self.lines.iter_mut().filter(enables) {
                line.text.push_str(
                    "; for Blazor Server, name the pages that start a circuit in `affinity.client_cookie.paths`",
                );
            }
        }
        if self.settings.get(SAME_SITE).is_some_and(|value| value == "none") {
            if self.settings.get(SECURE).is_some_and(|secure| *secure != true) {
                self.take_out(SECURE, Outcome::Impossible, "with `SameSite=None`, browsers want `Secure`");
            }
            self.settings.insert(SECURE.to_owned(), true.into());
        }
        while let Err((field, refusal)) = self.judged() {
            if field.starts_with("hubs") {
                return Err(format!("--hub: {refusal}"));
            }
            let is_of = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
            let names = self.settings.keys();
            let name = names.clone().find(|name| field.strip_prefix(name.as_str()).is_some_and(is_of)).cloned();
            let Some(name) = name else { return Err(format!("{field}: {refusal}")) };
            self.take_out(&name, Outcome::Impossible, &format!("the filter refuses it: {refusal}"));
            self.take_out_what_does_nothing();
        }
        self.settings.retain(|name, value| name != KEY || *value != address());
        let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in &self.lines {
            if let Some(field) = &line.field {
                let Source { file, place, what } = &line.source;
                reasons.entry(field.clone()).or_default().push(format!("{file}:{}: {what}", place.line));
            }
        }
        Ok(Reasoned { settings: self.nested(), reasons })
    }

    /// What is there but says nothing by itself.
    fn take_out_what_does_nothing(&mut self) {
        if !self.has_client_cookie() {
            self.take_out(PAGES, Outcome::Left, ROUTE);
            self.take_out_all(COOKIE, "without affinity by a cookie it has no effect");
        }
        const LIMIT: [&str; 3] = ["limits.connections.", "limits.negotiate_rate", "limits.connect_rate"];
        if !self.settings.keys().any(|name| LIMIT.iter().any(|limit| name.starts_with(limit))) {
            self.take_out_all(LIMITS, "without a limit it has no effect");
        }
    }

    fn take_out_all(&mut self, prefix: &str, text: &str) {
        let below: Vec<_> = self.settings.keys().filter(|name| name.starts_with(prefix)).cloned().collect();
        below.iter().for_each(|field| self.take_out(field, Outcome::Void, text));
    }

    fn take_out(&mut self, field: &str, outcome: Outcome, text: &str) {
        self.settings.remove(field);
        for line in self.lines.iter_mut().filter(|line| line.field.as_deref() == Some(field)) {
            (line.field, line.outcome, line.text) = (None, outcome, text.to_owned());
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
