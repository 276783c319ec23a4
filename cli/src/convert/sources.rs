//! Which proxy a file is of, and the way to each of its lines.
//!
//! A source reads its own words and says what each asks for, as an [`Ask`]. Every line that is the source's gets one, also those that
//! the filter has nothing to do with: nothing is dropped in silence.

mod envoy;
mod haproxy;
mod haproxy_ingress;
mod ingress_nginx;
mod istio;
mod json;
mod kubernetes;
mod nginx_inc;
mod nginx_words;
mod traefik;
mod yarp;

use serde_json::Value;

use super::ask::Ask;
use super::plan::{Plan, Source};
use crate::check::document::{self, Document, escaped};
use crate::check::finding::Place;

/// So much of a line is repeated in the report.
const SHOWN: usize = 90;
/// So many names of a nested value are.
const SHOWN_NAMES: usize = 4;

/// Takes what a file asks for into the plan.
///
/// # Errors
/// In one line, why the file cannot be read.
pub(super) fn read(file: &str, text: &str, plan: &mut Plan) -> Result<(), String> {
    if haproxy::is_written_in(text) {
        haproxy::read(file, text, plan);
        return Ok(());
    }
    let documents = document::read(&json::without_comments(text)).map_err(|finding| finding.to_string())?;
    let before = plan.lines.len();
    for document in &documents {
        Reader { file, document, plan, root: String::new() }.document();
    }
    if plan.lines.len() == before {
        return Err("nothing in it that can be converted; `envoy-signalr convert --help` says what can".to_owned());
    }
    Ok(())
}

/// A document, or a part of one, on its way into the plan. Pointers are relative to the root.
struct Reader<'a> {
    file: &'a str,
    document: &'a Document,
    plan: &'a mut Plan,
    root: String,
}

/// A value without others in it: a text, a number, a boolean, or an object without members.
struct Leaf {
    pointer: String,
    /// Its names below the object that was searched, without the numbers of lists: `cookie.name`.
    name: String,
    text: String,
}

impl Reader<'_> {
    fn document(&mut self) {
        let has = |pointer: &str| self.get(pointer).is_some();
        if has("/kind") && has("/apiVersion") {
            kubernetes::read(self);
        } else if has("/ReverseProxy") || has("/Clusters") {
            yarp::read(self);
        } else if has("/services") {
            traefik::compose(self);
        } else if has("/http") || has("/tcp") {
            traefik::file(self);
        } else {
            envoy::read(self);
        }
    }

    fn get(&self, pointer: &str) -> Option<&Value> {
        self.document.value.pointer(&format!("{}{pointer}", self.root))
    }

    /// A text, a number or a boolean, as text.
    fn text(&self, pointer: &str) -> Option<String> {
        self.get(pointer).and_then(scalar)
    }

    /// The names of an object's members and the pointers to them, in the order of the file, with those of an object that YAML's `<<` puts in.
    fn members(&self, pointer: &str) -> Vec<(String, String)> {
        let members = self.get(pointer).and_then(Value::as_object).into_iter().flatten();
        let below = |name: &str| format!("{pointer}/{}", escaped(name));
        let members = members.flat_map(|(name, _)| match name.as_str() {
            "<<" => self.members(&below(name)),
            _ => vec![(name.clone(), below(name))],
        });
        let mut members: Vec<_> = members.collect();
        members.sort_by_key(|(_, pointer)| self.place(pointer));
        members
    }

    /// The pointers to a list's items.
    fn items(&self, pointer: &str) -> Vec<String> {
        let items = self.get(pointer).and_then(Value::as_array).into_iter().flatten();
        items.enumerate().map(|(index, _)| format!("{pointer}/{index}")).collect()
    }

    /// All values below, in the order of the file.
    fn leaves(&self, pointer: &str) -> Vec<Leaf> {
        let mut leaves = Vec::new();
        if let Some(value) = self.get(pointer) {
            collect(value, pointer, "", &mut leaves);
        }
        leaves.sort_by_key(|leaf| self.place(&leaf.pointer));
        leaves
    }

    fn place(&self, pointer: &str) -> Place {
        self.document.place(&format!("{}{pointer}", self.root)).unwrap_or(Place { line: 1, column: 1 })
    }

    fn source(&self, pointer: &str) -> Source {
        let whole = format!("{}{pointer}", self.root);
        let annotation = ["/metadata/annotations/", "/metadata/labels/"].iter().find_map(|of| whole.rsplit_once(of));
        let name = annotation.map_or_else(|| short_name(&whole), |(_, name)| name.to_owned());
        let value = self.get(pointer).map(shown).unwrap_or_default();
        let what =
            if name.is_empty() { value } else { format!("{}: {value}", name.replace("~1", "/").replace("~0", "~")) };
        Source { file: self.file.to_owned(), place: self.place(pointer), what: shortened(&what) }
    }

    fn take(&mut self, pointer: &str, ask: Ask) {
        let source = self.source(pointer);
        self.plan.take(source, ask);
    }

    /// The namespace of a resource.
    fn namespace(&self) -> String {
        self.text("/metadata/namespace").unwrap_or_else(|| "default".to_owned())
    }

    /// For a resource as a whole, which is shown by its kind and name.
    fn take_resource(&mut self, ask: Ask) {
        let name = |pointer| self.text(pointer).unwrap_or_default();
        let what = format!("{} {}", name("/kind"), name("/metadata/name"));
        let source = Source { what: what.trim().to_owned(), ..self.source("/kind") };
        self.plan.take(source, ask);
    }

    /// For an attribute of a cookie that is not asked for in a line of its own.
    fn take_cookie(&mut self, pointer: &str, attribute: Ask) {
        if !self.plan.has_client_cookie() {
            self.take(pointer, Ask::ClientCookie);
        }
        self.take(pointer, attribute);
    }

    fn take_all(&mut self, pointer: &str, asks: impl IntoIterator<Item = Ask>) {
        asks.into_iter().for_each(|ask| self.take(pointer, ask));
    }
}

fn collect(value: &Value, pointer: &str, name: &str, leaves: &mut Vec<Leaf>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (own, member) in members {
                let dot = if name.is_empty() { "" } else { "." };
                collect(member, &format!("{pointer}/{}", escaped(own)), &format!("{name}{dot}{own}"), leaves);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, &format!("{pointer}/{index}"), name, leaves);
            }
        }
        scalar => leaves.push(Leaf {
            pointer: pointer.to_owned(),
            name: name.to_owned(),
            text: self::scalar(scalar).unwrap_or_default(),
        }),
    }
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The last names of a pointer, without the numbers of lists; none for an item of a list.
fn short_name(pointer: &str) -> String {
    let mut names = pointer.rsplit('/').filter(|name| !name.is_empty()).peekable();
    let is_number = |name: &&str| name.parse::<usize>().is_ok();
    // A label of Compose has its own context.
    match names.peek() {
        Some(last) if is_number(last) => return String::new(),
        Some(last) if last.contains('.') => return (*last).to_owned(),
        _ => {}
    }
    let mut last: Vec<_> = names.filter(|name| !is_number(name) && *name != "spec").take(SHOWN_NAMES).collect();
    last.reverse();
    last.join(".")
}

/// A value as it can stand in a line of the report.
fn shown(value: &Value) -> String {
    scalar(value).unwrap_or_else(|| value.to_string())
}

/// One line, and no longer than can be read.
fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default().trim_end()),
        None => line,
    }
}
