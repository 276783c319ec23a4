//! What is linked into the module, and into the command-line program, as CycloneDX.
//!
//! `cargo tree` knows it: the normal dependencies, for the target, with the features that each is built with.
//! `cargo metadata` adds what tests and tasks of the workspace turn on, and so would a tool that reads it.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use testbed::tools::RustTarget;
use testbed::workspace;

use super::image::sha256;
use super::release::{Release, output};

/// What a document is about.
#[derive(Clone, Copy)]
pub(super) enum Subject {
    Module,
    Tool,
}

impl Subject {
    fn package(self) -> &'static str {
        match self {
            Self::Module => "envoy-signalr",
            Self::Tool => "envoy-signalr-cli",
        }
    }

    fn target(self) -> RustTarget {
        match self {
            Self::Module => RustTarget::Module,
            Self::Tool => RustTarget::Tool,
        }
    }

    /// What Rust's standard library links for the target.
    fn c_library(self) -> &'static str {
        match self {
            Self::Module => "the wasi-libc",
            Self::Tool => "the musl",
        }
    }

    fn description(self, release: &Release) -> &str {
        match self {
            Self::Module => &release.description,
            Self::Tool => "The command-line program of envoy-signalr",
        }
    }
}

/// The document, of which nothing depends on this machine. `file` is what was built.
pub(super) fn of(subject: Subject, file: &[u8], release: &Release) -> Result<Vec<u8>> {
    let (package, target) = (subject.package(), subject.target().name());
    let tree = output(
        "cargo",
        env!("CARGO"),
        &[
            &["tree", "--locked", "--package", package, "--edges", "normal,no-proc-macro", "--target", target],
            ["--prefix", "depth", "--no-dedupe", "--format", "|{p}|{l}|{r}"].as_slice(),
        ]
        .concat(),
    )?;
    let lock = fs::read_to_string(workspace().join("Cargo.lock")).context("cannot read Cargo.lock")?;
    let document = document(subject, &Tree::parse(&tree)?, &lock, &sha256(file), release);
    Ok((serde_json::to_string_pretty(&document)? + "\n").into_bytes())
}

/// Crates by their package URLs, and what each depends on. The first is the filter.
struct Tree {
    root: String,
    crates: BTreeMap<String, Crate>,
}

struct Crate {
    name: String,
    version: String,
    license: String,
    repository: String,
    depends_on: BTreeSet<String>,
}

impl Tree {
    /// Lines such as `1|base64 v0.23.1|MIT OR Apache-2.0|https://…`, each below the one that depends on it.
    fn parse(lines: &str) -> Result<Self> {
        let mut crates: BTreeMap<String, Crate> = BTreeMap::new();
        let mut path: Vec<String> = Vec::new();
        for line in lines.lines() {
            let (url, found, depth) = Crate::parse(line).with_context(|| format!("cargo tree printed: {line}"))?;
            path.truncate(depth);
            if let Some(parent) = path.last().and_then(|parent| crates.get_mut(parent)) {
                parent.depends_on.insert(url.clone());
            }
            crates.entry(url.clone()).or_insert(found);
            path.push(url);
        }
        Ok(Self { root: path.first().context("cargo tree printed nothing")?.clone(), crates })
    }
}

impl Crate {
    fn parse(line: &str) -> Option<(String, Self, usize)> {
        let [depth, package, license, repository] = line.split('|').collect::<Vec<_>>().try_into().ok()?;
        let mut words = package.split(' ');
        let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
        // A plus sign in a version is one of the characters that a package URL encodes.
        let url = format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"));
        // Cargo's old way to write it, which SPDX does not know.
        let license = license.replace('/', " OR ");
        let [name, version, repository] = [name, version, repository].map(str::to_owned);
        Some((url, Self { name, version, license, repository, depends_on: BTreeSet::new() }, depth.parse().ok()?))
    }

    fn component(&self, url: &str, hash: Option<&str>) -> Value {
        let mut component = json!({
            "type": "library",
            "bom-ref": url,
            "name": self.name,
            "version": self.version,
            "purl": url,
            "licenses": [{ "expression": self.license }],
        });
        if let Some(hash) = hash {
            component["hashes"] = json!([{ "alg": "SHA-256", "content": hash }]);
        }
        if !self.repository.is_empty() {
            component["externalReferences"] = json!([{ "type": "vcs", "url": self.repository }]);
        }
        component
    }
}

fn document(about: Subject, tree: &Tree, lock: &str, hash: &str, release: &Release) -> Value {
    let std = format!("rust-std@{}", release.rustc);
    let mut components = vec![json!({
        "type": "library",
        "bom-ref": std,
        "name": "rust-std",
        "version": release.rustc,
        "description": format!(
            "Rust's standard library for {}, and {} that it links", about.target().name(), about.c_library()
        ),
        "licenses": [{ "expression": "MIT OR Apache-2.0" }],
    })];
    let mut dependencies = vec![json!({ "ref": std })];
    let mut subject = Value::Null;
    for (url, found) in &tree.crates {
        let mut depends_on = found.depends_on.clone();
        if *url == tree.root {
            subject = found.component(url, Some(hash));
            subject["description"] = json!(about.description(release));
            depends_on.insert(std.clone());
        } else {
            components.push(found.component(url, checksum(lock, &found.name, &found.version)));
        }
        dependencies.push(match depends_on.is_empty() {
            true => json!({ "ref": url }),
            false => json!({ "ref": url, "dependsOn": depends_on }),
        });
    }
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": release.created,
            "component": subject,
            "tools": { "components": [{ "type": "application", "name": "rustc", "version": release.rustc }] },
        },
        "components": components,
        "dependencies": dependencies,
    })
}

/// The hash of a crate's file in the registry, by which cargo checks it.
fn checksum<'a>(lock: &'a str, name: &str, version: &str) -> Option<&'a str> {
    let head = format!("\nname = \"{name}\"\nversion = \"{version}\"\n");
    let entry = lock.split("[[package]]").find(|entry| entry.starts_with(&head))?;
    entry.split_once("\nchecksum = \"")?.1.split('"').next()
}

#[cfg(test)]
mod tests {
    use cyclonedx_bom::prelude::{Bom, SpecVersion, Validate as _};

    use super::*;

    #[test]
    fn the_document_is_valid_and_holds_no_field_that_cyclonedx_does_not_have() {
        for subject in [Subject::Module, Subject::Tool] {
            let written = of(subject, b"a file", &Release::here().unwrap()).unwrap();
            let bill = Bom::parse_from_json_v1_5(written.as_slice()).unwrap();
            let found = bill.validate_version(SpecVersion::V1_5);
            assert!(found.passed(), "{found:?}");
            // What the library does not know, it drops.
            let mut again = Vec::new();
            bill.output_as_json_v1_5(&mut again).unwrap();
            let [written, again] = [&written, &again].map(|json| serde_json::from_slice::<Value>(json).unwrap());
            assert_eq!(written, again);
        }
    }

    #[test]
    fn a_crate_depends_on_those_right_below_it() {
        let tree = "0|filter v0.1.0 (/tmp/filter)|MIT|\n1|a v1.0.0|MIT|https://a.example\n2|b v2.0.0+c|Zlib|\n1|b v2.0.0+c|Zlib|";
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nsource = \"x\"\nchecksum = \"12ab\"\n\n[[package]]\nname = \"b\"\n";
        let release = Release::here().unwrap();
        let document = document(Subject::Module, &Tree::parse(tree).unwrap(), lock, "34cd", &release);
        let std = format!("rust-std@{}", release.rustc);
        let expected = json!([
            { "ref": std },
            { "ref": "pkg:cargo/a@1.0.0", "dependsOn": ["pkg:cargo/b@2.0.0%2Bc"] },
            { "ref": "pkg:cargo/b@2.0.0%2Bc" },
            { "ref": "pkg:cargo/filter@0.1.0", "dependsOn": ["pkg:cargo/a@1.0.0", "pkg:cargo/b@2.0.0%2Bc", std] },
        ]);
        assert_eq!(document["dependencies"], expected);
        assert_eq!(document["components"][1]["hashes"][0]["content"], "12ab");
        assert_eq!(document["metadata"]["component"]["hashes"][0]["content"], "34cd");
    }
}
