//! The documents in a text, JSON or YAML, and where in it each of their parts stands.

use std::collections::BTreeMap;

use saphyr::{LoadableYamlNode as _, MarkedYaml, Marker, Scalar, YamlData};
use serde_json::{Map, Number, Value};

use super::finding::{Finding, Level, Place};

/// One document.
#[derive(Debug, Default)]
pub(crate) struct Document {
    pub(crate) value: Value,
    /// The text itself where it is JSON, so that lines and columns in refusals are the file's own.
    pub(crate) json: Option<String>,
    /// By JSON pointer (RFC 6901), for parts of objects the place of their name.
    places: BTreeMap<String, Place>,
    /// The pointers of texts that begin on the line after their name.
    blocks: Vec<String>,
}

/// All documents of a text that say something.
pub(crate) fn read(text: &str) -> Result<Vec<Document>, Finding> {
    let marked = MarkedYaml::load_from_str(text);
    let json = serde_json::from_str(text);
    // Broken JSON goes to the filter as it is.
    if json.is_ok() || text.trim().is_empty() || text.trim_start().starts_with(['{', '[']) {
        let mut document = match marked {
            Ok(documents) if documents.len() == 1 => documents.first().map(|document| Document::of(document, text)),
            _ => None,
        }
        .unwrap_or_default();
        document.value = json.unwrap_or_default();
        document.json = Some(text.to_owned());
        return Ok(vec![document]);
    }
    let documents = marked.map_err(|error| {
        let text = format!("neither JSON nor YAML: {}", error.info());
        Finding::new(Level::Error, Some(place(error.marker())), text)
    })?;
    let documents = documents.iter().map(|document| Document::of(document, text));
    Ok(documents.filter(|document| !document.value.is_null()).collect())
}

impl Document {
    fn of(node: &MarkedYaml<'_>, text: &str) -> Self {
        let mut document = Self::default();
        document.places.insert(String::new(), place(&node.span.start));
        let lines: Vec<&str> = text.lines().collect();
        document.value = document.read(String::new(), node, &lines);
        document
    }

    /// Where this part stands, or else what is around it.
    pub(crate) fn place(&self, pointer: &str) -> Option<Place> {
        let mut pointer = pointer;
        loop {
            match (self.places.get(pointer), pointer.rfind('/')) {
                (Some(place), _) => return Some(*place),
                (None, Some(end)) => pointer = pointer.get(..end)?,
                (None, None) => return None,
            }
        }
    }

    /// The first line of a text, where it begins below its name.
    pub(crate) fn first_line(&self, pointer: &str) -> Option<usize> {
        self.blocks.iter().any(|block| block == pointer).then(|| Some(self.place(pointer)?.line + 1)).flatten()
    }

    fn read(&mut self, pointer: String, node: &MarkedYaml<'_>, lines: &[&str]) -> Value {
        match &node.data {
            YamlData::Mapping(members) => {
                let members = members.iter().map(|(name, member)| {
                    let text = name_of(name);
                    let pointer = format!("{pointer}/{}", escaped(&text));
                    let at = place(&name.span.start);
                    self.places.insert(pointer.clone(), at);
                    if lines.get(at.line - 1).is_some_and(|line| ends_with_a_block(line)) {
                        self.blocks.push(pointer.clone());
                    }
                    (text, self.read(pointer, member, lines))
                });
                Value::Object(members.collect::<Map<_, _>>())
            }
            YamlData::Sequence(items) => {
                let items = items.iter().enumerate().map(|(index, item)| {
                    let pointer = format!("{pointer}/{index}");
                    self.places.insert(pointer.clone(), place(&item.span.start));
                    self.read(pointer, item, lines)
                });
                Value::Array(items.collect())
            }
            YamlData::Tagged(_, inner) => self.read(pointer, inner, lines),
            YamlData::Value(scalar) => value_of(scalar),
            YamlData::Representation(text, ..) => Value::String(text.to_string()),
            YamlData::Alias(_) | YamlData::BadValue => Value::Null,
        }
    }
}

/// Whether the value of the name on this line is a text on the lines below.
fn ends_with_a_block(line: &str) -> bool {
    let mut words = line.split(" #").next().unwrap_or(line).split_whitespace();
    words.next_back().is_some_and(|last| matches!(last, "|" | "|-" | "|+"))
}

fn name_of(node: &MarkedYaml<'_>) -> String {
    match &node.data {
        YamlData::Value(scalar) => match value_of(scalar) {
            Value::String(text) => text,
            other => other.to_string(),
        },
        _ => String::new(),
    }
}

fn value_of(scalar: &Scalar<'_>) -> Value {
    match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(value) => Value::Bool(*value),
        Scalar::Integer(value) => Value::from(*value),
        Scalar::FloatingPoint(value) => Number::from_f64(value.into_inner()).map_or(Value::Null, Value::Number),
        Scalar::String(text) => Value::String(text.to_string()),
    }
}

fn place(marker: &Marker) -> Place {
    Place { line: marker.line().max(1), column: marker.col() + 1 }
}

/// A name as a part of a JSON pointer.
pub(crate) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}
