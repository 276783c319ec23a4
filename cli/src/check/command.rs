//! The command: reads files and folders, prints what was found, and ends with status 1 if there is an error.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};

use super::finding::{Finding, Level, Place};
use super::plugin::Alone;
use super::{check, together};
use crate::{print, read};

const EXAMPLE: &str = "\
Examples:
  envoy-signalr check envoy.yaml
  envoy-signalr check --strict manifests/
  kubectl kustomize overlays/production | envoy-signalr check -

Status: 0 if there is no error (with --strict, no warning either), 1 if there is one, 2 if a file cannot be read.";

/// Check configurations: the filter's settings, by themselves or in an Envoy bootstrap, a part of one, a WasmPlugin, a
/// TrafficExtension, an EnvoyFilter or an EnvoyExtensionPolicy, and what around them the filter rests on
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Check {
    /// Files in YAML or JSON, with any number of documents; folders, of which `*.yaml`, `*.yml` and `*.json` are read; `-` is
    /// standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How findings are printed
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// End with status 1 for a warning, too
    #[arg(long)]
    strict: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line for each, as compilers write it: `file:line:column: warning: …`
    Text,
    /// One list of objects with `file`, `line`, `column`, `level` and `message`
    Json,
}

/// Reads, prints, and says by the status whether all is well.
///
/// # Errors
/// A file that cannot be read.
pub fn run(options: &Check) -> Result<ExitCode> {
    let environment = |name: &str| std::env::var(name).ok();
    let mut files = Vec::new();
    for named in &options.files {
        if named.is_dir() {
            let below = files_below(named)?;
            ensure!(!below.is_empty(), "{} has no file in YAML or JSON", named.display());
            files.extend(below.into_iter().map(|file| (file, Alone::IfKnown)));
        } else {
            files.push((named.clone(), Alone::Always));
        }
    }
    let texts = files.iter().map(|(file, _)| read(file)).collect::<Result<Vec<_>>>()?;
    let together = together::check(&texts.iter().map(String::as_str).collect::<Vec<_>>(), &environment);
    let mut found = Vec::new();
    for (index, ((file, alone), text)) in files.iter().zip(&texts).enumerate() {
        let findings = check(text, *alone, &environment).into_iter();
        // A folder has files that are not for the filter.
        found.extend(
            findings
                .filter(|finding| *alone == Alone::Always || finding.level != Level::Nothing)
                .map(|finding| (file, finding)),
        );
        found.extend(together.iter().filter(|(of, _)| *of == index).map(|(_, finding)| (file, finding.clone())));
    }
    if let (true, Some(first)) = (found.is_empty(), options.files.first()) {
        found.push((first, Finding::new(Level::Nothing, None, "no file in it configures the filter")));
    }
    match options.output {
        Output::Text => {
            found.iter().try_for_each(|(file, finding)| print(&format!("{}:{finding}\n", file.display())))?
        }
        Output::Json => print(&(as_json(&found) + "\n"))?,
    }
    let fails = |finding: &Finding| finding.is_error() || (options.strict && finding.level == Level::Warning);
    Ok(if found.iter().any(|(_, finding)| fails(finding)) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn as_json(found: &[(&PathBuf, Finding)]) -> String {
    let object = |(file, finding): &(&PathBuf, Finding)| {
        let Place { line, column } = finding.place.unwrap_or(Place { line: 0, column: 0 });
        let number = |number: usize| if number == 0 { Value::Null } else { number.into() };
        json!({
            "file": file.display().to_string(),
            "line": number(line),
            "column": number(column),
            "level": finding.level.name(),
            "message": finding.text,
        })
    };
    format!("{:#}", Value::from(found.iter().map(object).collect::<Vec<_>>()))
}

/// The files of a folder and the folders in it that may have a configuration, by name. Links are not followed.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let entry = entry?;
            let (path, kind) = (entry.path(), entry.file_type()?);
            let extension = path.extension().unwrap_or_default();
            if kind.is_dir() {
                folders.push(path);
            } else if ["yaml", "yml", "json"].iter().any(|own| extension == *own) {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}
