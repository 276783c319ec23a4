//! The samples of the documentation, which tests use as they stand there.

use std::fs;

use serde_json::Value;

use crate::workspace;

/// The YAML blocks of a document that open so, such as `yaml envoy`. With a heading, those below it and before the next chapter.
///
/// # Panics
/// When the file, the heading or a block is not what the test takes it for.
pub fn samples(file: &str, heading: Option<&str>, opening: &str) -> Vec<Value> {
    let text = fs::read_to_string(workspace().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
    let section = heading.map_or(text.as_str(), |heading| {
        let (_, below) = text.split_once(&format!("{heading}\n")).unwrap_or_else(|| panic!("{file} has no {heading}"));
        below.split("\n## ").next().unwrap_or(below)
    });
    let opening = format!("```{opening}\n");
    let blocks = section.split(&opening).skip(1).filter_map(|rest| rest.split("```").next());
    blocks
        .map(|block| serde_yaml_ng::from_str(&unindented(block)).unwrap_or_else(|error| panic!("{block}: {error}")))
        .collect()
}

/// Blocks in lists are indented.
fn unindented(block: &str) -> String {
    let indent = block.len() - block.trim_start_matches(' ').len();
    block.lines().map(|line| line.get(indent..).unwrap_or_default().to_owned() + "\n").collect()
}
