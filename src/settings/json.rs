//! Reads the configuration's JSON into the structures of [`raw`](super::raw). Of a mistake it says in which field it is, and where
//! in the text.
//!
//! serde_json cuts the text into values ([`RawValue`]), one level at a time, and serde's derived readers get each value from here. On
//! the way back an error takes the names of the fields that it is in. So there is one reader for all types: wrapped around
//! serde_json's own reader, the same costs each type a second one, 100 KB of module. And an array is never read as the fields of a
//! structure in their order, which serde's formats allow.

use std::fmt;

use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, Error as _, Expected, IntoDeserializer as _, MapAccess,
    SeqAccess, Unexpected, Visitor,
};
use serde_json::value::RawValue;
use serde_json::{Number, Value};

use super::error::{Problem, SettingsError};

/// Deeper values are refused: reading one takes stack.
const MOST_DEPTH: u8 = 32;

/// Reads a whole text.
///
/// # Errors
/// [`SettingsError`], if it is not JSON, has a field that does not exist, or a value of the wrong type.
pub(super) fn read<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, SettingsError> {
    let raw: &RawValue = serde_json::from_slice(json).map_err(|error| not_json(&error))?;
    T::deserialize(Node { raw, depth: 0 }).map_err(|mistake| mistake.in_text(json))
}

fn not_json(error: &serde_json::Error) -> SettingsError {
    let at = (error.line(), error.column());
    let what = format!("not JSON: {}", without_place(error));
    SettingsError::at(SettingsError::WHOLE, Problem::Malformed { what, at: Some(at) })
}

/// What serde_json says, without its own words for the place.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    text.strip_suffix(&place).unwrap_or(&text).to_owned()
}

/// A mistake on its way out of the value that it is in. In a box, because every value that is read may be one.
#[derive(Debug)]
struct Mistake(Box<Found>);

#[derive(Debug)]
struct Found {
    what: String,
    /// Names of fields and places in lists, the innermost first.
    path: Vec<Step>,
    /// The address of the first byte of the value.
    at: Option<usize>,
}

#[derive(Debug)]
enum Step {
    Field(String),
    Item(usize),
}

impl Mistake {
    #[inline(never)]
    fn at(mut self, raw: &RawValue) -> Self {
        self.0.at = self.0.at.or(Some(raw.get().as_ptr().addr()));
        self
    }

    /// Machines write one line, in which a column helps nobody.
    fn in_text(self, json: &[u8]) -> SettingsError {
        let offset = self.0.at.and_then(|at| at.checked_sub(json.as_ptr().addr()));
        let before = offset.and_then(|offset| json.get(..offset));
        let before = before.filter(|_| json.trim_ascii().contains(&b'\n'));
        let place = before.map(|before| {
            let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at.saturating_add(1));
            let lines = before.iter().filter(|byte| **byte == b'\n').count();
            (lines.saturating_add(1), before.len().saturating_sub(line_start).saturating_add(1))
        });
        let mut field = String::new();
        for step in self.0.path.iter().rev() {
            match step {
                Step::Item(index) => field.push_str(&format!("[{index}]")),
                Step::Field(name) if field.is_empty() => field.push_str(name),
                Step::Field(name) => field.extend([".", name]),
            }
        }
        SettingsError::malformed(field, &self.0.what, place)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl std::error::Error for Mistake {}

impl de::Error for Mistake {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self(Box::new(Found { what: what.to_string(), path: Vec::new(), at: None }))
    }

    #[inline(never)]
    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("invalid type: {found}, expected {expected}"))
    }
}

/// A value of the text.
#[derive(Clone, Copy)]
struct Node<'de> {
    raw: &'de RawValue,
    depth: u8,
}

impl<'de> Node<'de> {
    /// What this value is when it is cut into those that it is made of, or read if there are none.
    fn cut<T: Deserialize<'de>>(self) -> Result<T, Mistake> {
        serde_json::from_str(self.raw.get()).map_err(|error| Mistake::custom(without_place(&error)))
    }

    fn below(self) -> Result<u8, Mistake> {
        let deeper = self.depth.checked_add(1).filter(|depth| *depth <= MOST_DEPTH);
        deeper.ok_or_else(|| Mistake::custom("nested too deeply"))
    }

    /// Apart from the visitors, so that each of them does not bring a copy of it.
    #[inline(never)]
    fn content(self) -> Result<Content<'de>, Mistake> {
        Ok(match self.raw.get().as_bytes().first() {
            Some(b'{') => {
                let Members(members) = self.cut()?;
                let parts = members.into_iter().map(|(name, raw)| (Some(name), raw)).collect();
                Content::Object(Parts { parts, taken: 0, depth: self.below()? })
            }
            Some(b'[') => {
                let items: Vec<&'de RawValue> = self.cut()?;
                let parts = items.into_iter().map(|raw| (None, raw)).collect();
                Content::List(Parts { parts, taken: 0, depth: self.below()? })
            }
            Some(b'"') => Content::Text(self.cut()?),
            Some(b't' | b'f') => Content::Flag(self.cut()?),
            Some(b'n') => Content::Null,
            _ => Content::Number(self.cut()?),
        })
    }

    fn visit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.content()? {
            Content::Object(fields) => visitor.visit_map(fields),
            Content::List(items) => visitor.visit_seq(items),
            Content::Text(text) => visitor.visit_string(text),
            Content::Flag(flag) => visitor.visit_bool(flag),
            Content::Null => visitor.visit_unit(),
            Content::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(whole), _) => visitor.visit_u64(whole),
                (None, Some(negative)) => visitor.visit_i64(negative),
                (None, None) => visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN)),
            },
        }
    }
}

/// What a value is.
enum Content<'de> {
    Object(Parts<'de>),
    List(Parts<'de>),
    Text(String),
    Flag(bool),
    Null,
    Number(Number),
}

impl<'de> Deserializer<'de> for Node<'de> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.visit(visitor).map_err(|mistake| mistake.at(self.raw))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        if self.raw.get() == "null" { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        if self.raw.get().starts_with('[') {
            return Err(Mistake::invalid_type(Unexpected::Seq, &visitor).at(self.raw));
        }
        self.deserialize_any(visitor)
    }

    /// An enumeration is a word. Any other value is refused as a word that does not exist.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        let word = match self.cut()? {
            Value::String(word) => word,
            // On one line.
            other => other.to_string(),
        };
        let word: StringDeserializer<Mistake> = word.into_deserializer();
        visitor.visit_enum(word).map_err(|mistake| mistake.at(self.raw))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct newtype_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

/// The members of an object. A name that stands twice is there twice, and the structure refuses it.
struct Members<'de>(Vec<(String, &'de RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// The members of an object or the elements of a list, in their order.
struct Parts<'de> {
    parts: Vec<(Option<String>, &'de RawValue)>,
    /// How many have been taken.
    taken: usize,
    depth: u8,
}

/// What is not generic stands apart, or each type would bring a copy of it.
impl<'de> Parts<'de> {
    /// The name of the next one and its value, which is the present one from now on.
    #[inline(never)]
    fn take(&mut self) -> Option<(&str, Node<'de>)> {
        let (name, raw) = self.parts.get(self.taken)?;
        self.taken = self.taken.saturating_add(1);
        Some((name.as_deref().unwrap_or_default(), Node { raw, depth: self.depth }))
    }

    #[inline(never)]
    fn present(&self) -> Result<Node<'de>, Mistake> {
        let present = self.taken.checked_sub(1).and_then(|present| self.parts.get(present));
        let (_, raw) = present.ok_or_else(|| Mistake::custom("a value without a name"))?;
        Ok(Node { raw, depth: self.depth })
    }

    /// The mistake, which is in the present one.
    #[inline(never)]
    fn locate(&self, mut mistake: Mistake) -> Mistake {
        let present = self.taken.saturating_sub(1);
        let name = self.parts.get(present).and_then(|(name, _)| name.clone());
        mistake.0.path.push(name.map_or(Step::Item(present), Step::Field));
        mistake
    }
}

impl<'de> MapAccess<'de> for Parts<'de> {
    type Error = Mistake;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Mistake> {
        let Some((name, value)) = self.take() else { return Ok(None) };
        let key: StrDeserializer<'_, Mistake> = name.into_deserializer();
        seed.deserialize(key).map(Some).map_err(|mistake| self.locate(mistake.at(value.raw)))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Mistake> {
        seed.deserialize(self.present()?).map_err(|mistake| self.locate(mistake))
    }
}

impl<'de> SeqAccess<'de> for Parts<'de> {
    type Error = Mistake;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Mistake> {
        let Some((_, value)) = self.take() else { return Ok(None) };
        seed.deserialize(value).map(Some).map_err(|mistake| self.locate(mistake))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::raw::Raw;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_mistake_is_named_with_its_field_and_place() {
        let nested =
            format!(r#"{{"affinity": {{"keys": [{{"id": "1", "secret": {}1{}}}]}}}}"#, "[".repeat(99), "]".repeat(99));
        for (json, expected) in [
            (r#"{"hubs": [], "hubs": []}"#, "configuration: duplicate field `hubs`"),
            (r#"{"explain": 1e999}"#, "explain: number out of range"),
            (r#"{"hubs": [{"path": "\ud800"}]}"#, "hubs[0].path: unexpected end of hex escape"),
            (&nested, "affinity.keys[0].secret[0][0]"),
            (
                "{\n  \"limits\": {\n    \"mode\": 5}}",
                "limits.mode: unknown value `5`, expected `enforce` or `shadow` (line 3, column 13)",
            ),
            ("[\n]", "configuration: invalid type: array, expected an object (line 1, column 1)"),
            (r#"{"explain": true} x"#, "configuration: not JSON: trailing characters (line 1, column 19)"),
        ] {
            let refusal = read::<Raw>(json.as_bytes()).unwrap_err().to_string();
            assert!(refusal.starts_with(expected), "{json}: {refusal}");
        }
    }
}
