//! The samples of the documentation, which tests use as they stand there.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::workspace;

/// The YAML blocks of a document that open so, such as `yaml envoy`. With a heading, those below it and before the next chapter.
///
/// # Panics
/// When the file, the heading or a block is not what the test takes it for.
pub fn samples(file: &str, heading: Option<&str>, opening: &str) -> Vec<Value> {
    let text = read(file);
    let section = heading.map_or(text.as_str(), |heading| {
        let (_, below) = text.split_once(&format!("{heading}\n")).unwrap_or_else(|| panic!("{file} has no {heading}"));
        below.split("\n## ").next().unwrap_or(below)
    });
    let yaml = |block: &String| serde_yaml_ng::from_str(block).unwrap_or_else(|error| panic!("{block}: {error}"));
    blocks_of(section, opening).iter().map(yaml).collect()
}

/// The blocks of a document that open so, as they stand there.
///
/// # Panics
/// When there is no such file.
pub fn blocks(file: &str, opening: &str) -> Vec<String> {
    blocks_of(&read(file), opening)
}

/// The commands in the blocks of a document that are for a shell: each whole, without the comments around it.
///
/// # Panics
/// When there is no such file, or no bash, or a command does not end.
pub fn commands(file: &str) -> Vec<String> {
    let mut commands = Vec::new();
    for block in blocks(file, "sh") {
        let mut command = String::new();
        for line in block.lines() {
            if command.is_empty() && (line.trim().is_empty() || line.starts_with('#')) {
                continue;
            }
            command.push_str(line);
            if is_whole(&command) {
                // Behind a command, not in it.
                let code = command.split("  #").next().unwrap_or(&command).split(" # ").next().unwrap_or(&command);
                commands.push(code.trim_end().to_owned());
                command.clear();
            } else {
                command.push('\n');
            }
        }
        assert!(command.is_empty(), "{file}: no end: {command}");
    }
    commands
}

/// Whether a shell would run this without waiting for more.
fn is_whole(command: &str) -> bool {
    let output = Command::new("bash").args(["-n", "-c", command]).output().expect("bash can be started");
    // Of a document that does not end it only warns.
    !command.ends_with('\\') && output.status.success() && output.stderr.is_empty()
}

fn read(file: &str) -> String {
    fs::read_to_string(workspace().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn blocks_of(text: &str, opening: &str) -> Vec<String> {
    let opening = format!("```{opening}\n");
    text.split(&opening).skip(1).filter_map(|rest| rest.split("```").next()).map(unindented).collect()
}

/// Blocks in lists are indented.
fn unindented(block: &str) -> String {
    let indent = block.len() - block.trim_start_matches(' ').len();
    block.lines().map(|line| line.get(indent..).unwrap_or_default().to_owned() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_ends_where_the_shell_takes_it() {
        for (name, text, expected) in [
            ("a line", "cargo xtask wasm", true),
            ("a line that goes on", "docker build \\", false),
            ("its end", "docker build \\\n    .", true),
            ("an open quote", "echo 'a", false),
            ("a document", "cat <<'END'\nspec:", false),
            ("its end", "cat <<'END'\nspec:\nEND", true),
            ("in quotes", "kubectl patch --patch \"$(cat <<'PATCH'\nspec:\nPATCH\n)\"", true),
        ] {
            assert_eq!(is_whole(text), expected, "{name}");
        }
    }
}
