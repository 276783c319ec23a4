//! The report: every line of the input, by what became of it.

use serde_json::{Value, json};

use super::plan::{Line, Outcome, Source};

const PARTS: [(Outcome, &str); 5] = [
    (Outcome::Converted, "converted"),
    (Outcome::Better, "better here"),
    (Outcome::Left, "left to ingress2gateway or the platform"),
    (Outcome::Impossible, "not possible here"),
    (Outcome::Void, "had no effect before"),
];

impl Outcome {
    /// Whether somebody has to decide something.
    pub(super) fn needs_a_look(self) -> bool {
        match self {
            Self::Impossible | Self::Void => true,
            Self::Converted | Self::Better | Self::Left => false,
        }
    }
}

/// For people: a part for each outcome, and in it the lines as compilers write them.
pub(super) fn text(lines: &[Line]) -> String {
    let mut text = String::new();
    for (outcome, title) in PARTS {
        let mut own: Vec<_> = lines.iter().filter(|line| line.outcome == outcome).collect();
        // Stable: what one line gives stays in its order. Files stay in the order in which they were given.
        own.sort_by_key(|line| {
            (lines.iter().position(|first| first.source.file == line.source.file), line.source.place)
        });
        if own.is_empty() {
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&format!("{title}:\n"));
        let mut before = None;
        for Line { source: Source { file, place, what }, text: became, .. } in own {
            // One line of the input may give several.
            if before.replace((file, place, what)) != Some((file, place, what)) {
                text.push_str(&format!("  {file}:{}: {what}\n", place.line));
            }
            text.push_str(&format!("      {became}\n"));
        }
    }
    text
}

/// For programs: a list of objects.
pub(super) fn json(lines: &[Line]) -> String {
    let object = |Line { source: Source { file, place, what }, outcome, text, .. }: &Line| {
        let outcome = match outcome {
            Outcome::Converted => "converted",
            Outcome::Better => "better",
            Outcome::Left => "left",
            Outcome::Impossible => "impossible",
            Outcome::Void => "void",
        };
        json!({ "file": file, "line": place.line, "column": place.column, "source": what, "outcome": outcome, "message": text })
    };
    format!("{:#}\n", Value::from(lines.iter().map(object).collect::<Vec<_>>()))
}
