//! `cargo xtask check-config`: reads the files, prints what was found, and ends with status 1 if there is an error.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use super::check;

pub(crate) fn run(files: &[PathBuf]) -> Result<ExitCode> {
    let environment = |name: &str| std::env::var(name).ok();
    let mut code = ExitCode::SUCCESS;
    for file in files {
        let text = read(file).with_context(|| format!("cannot read {}", file.display()))?;
        for finding in check(&text, &environment) {
            println!("{}:{finding}", file.display());
            if finding.is_error() {
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

fn read(file: &Path) -> std::io::Result<String> {
    if file != Path::new("-") {
        return fs::read_to_string(file);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}
