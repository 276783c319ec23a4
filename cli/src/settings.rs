//! Settings of the filter on their way into a file, with the reasons for some of them as comments.

use std::collections::BTreeMap;

use serde_json::Value;

/// Settings, and where they come from.
#[derive(Debug, Default)]
pub(crate) struct Reasoned {
    pub(crate) settings: Value,
    /// By a setting's full name: `limits.connections.per_client`.
    pub(crate) reasons: BTreeMap<String, Vec<String>>,
}

impl Reasoned {
    /// The settings as a block of YAML, with the reasons above them. Texts stand as in JSON, which YAML reads.
    pub(crate) fn yaml(&self, indentation: usize) -> String {
        let mut text = String::new();
        self.write(&self.settings, "", indentation, &mut text);
        text
    }

    /// The reasons alone, as comments. JSON has no place for them.
    pub(crate) fn comments(&self, indentation: usize) -> String {
        let spaces = " ".repeat(indentation);
        let lines = self.reasons.iter().flat_map(|(field, reasons)| reasons.iter().map(move |reason| (field, reason)));
        lines.map(|(field, reason)| format!("{spaces}# {field}: {reason}\n")).collect()
    }

    fn write(&self, value: &Value, name: &str, indentation: usize, text: &mut String) {
        let spaces = " ".repeat(indentation);
        match value {
            Value::Object(members) if !members.is_empty() => {
                for (own, member) in members {
                    let dot = if name.is_empty() { "" } else { "." };
                    let name = format!("{name}{dot}{own}");
                    for reason in self.reasons.get(&name).into_iter().flatten() {
                        text.push_str(&format!("{spaces}# {reason}\n"));
                    }
                    let is_block = member.as_object().is_some_and(|members| !members.is_empty())
                        || member.as_array().is_some_and(|items| !items.is_empty());
                    text.push_str(&format!("{spaces}{own}:{}", if is_block { '\n' } else { ' ' }));
                    self.write(member, &name, if is_block { indentation + 2 } else { 0 }, text);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                items.iter().for_each(|item| text.push_str(&format!("{spaces}- {item}\n")));
            }
            other => text.push_str(&format!("{spaces}{other}\n")),
        }
    }
}
