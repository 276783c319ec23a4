//! One version everywhere: `Cargo.toml` has it, and whatever else names it says the same. So do the versions of others in
//! `docs/compatibility.md`.
use std::fs;
use std::path::Path;

use testbed::tools::EnvoyVersion;
use testbed::workspace;

pub(crate) fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// Calls `check` with each file below `path` and its text.
fn each_file(path: &Path, check: &mut impl FnMut(&Path, &str)) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            each_file(&entry.unwrap().path(), check);
        }
    } else if let Ok(text) = fs::read_to_string(path) {
        check(path, &text);
    }
}

#[test]
fn every_image_has_the_version() {
    let mut named = 0;
    for place in ["README.md", "docs", "envoy", "istio", "envoy-gateway"] {
        each_file(&workspace().join(place), &mut |path, text| {
            for rest in text.split("/envoy-signalr:").skip(1) {
                let tag = rest.split(|end: char| !end.is_ascii_alphanumeric() && !"._-".contains(end)).next();
                assert_eq!(tag, Some(version()), "{}", path.display());
                named += 1;
            }
        });
    }
    assert!(named > 0, "no image is named");
}

#[test]
fn the_changelog_has_a_chapter_for_the_version() {
    let changelog = fs::read_to_string(workspace().join("CHANGELOG.md")).unwrap();
    let heading = format!("## [{}] - ", version());
    assert!(changelog.lines().any(|line| line.starts_with(&heading)), "CHANGELOG.md has no {heading:?}");
}

/// The version after `before` in a file that pins it.
fn pinned(file: &str, before: &str) -> String {
    let text = fs::read_to_string(workspace().join(file)).unwrap();
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{file} has no {before:?}"));
    rest.chars().take_while(|next| next.is_ascii_digit() || *next == '.').collect()
}

#[test]
fn the_table_of_compatibility_has_the_versions_that_the_tests_run() {
    let document = fs::read_to_string(workspace().join("docs/compatibility.md")).unwrap();
    let npm = |package: &str| pinned("tests/clients/package.json", &format!("\"{package}\": \""));
    let python = |package: &str| pinned("tests/clients/requirements.txt", &format!("\n{package}=="));
    let go = pinned("tests/clients/go/go.mod", "philippseith/signalr v");
    for (row, version) in [
        ("| Envoy |", EnvoyVersion::Oldest.number().to_owned()),
        ("| Envoy |", EnvoyVersion::Newest.number().to_owned()),
        ("| Envoy Gateway |", pinned("tests/testbed/tools/envoy-gateway/go.mod", "envoyproxy/gateway v")),
        ("| Go, `philippseith/signalr` ", go.clone()),
        ("| `@microsoft/signalr`, in Node |", npm("@microsoft/signalr")),
        ("| `@microsoft/signalr`, in Chromium |", npm("@microsoft/signalr")),
        ("| `@microsoft/signalr-protocol-msgpack` |", npm("@microsoft/signalr-protocol-msgpack")),
        (
            "| `Microsoft.AspNetCore.SignalR.Client` |",
            pinned("tests/clients/dotnet/dotnet.csproj", "SignalR.Client\" Version=\""),
        ),
        (
            "| `com.microsoft.signalr`, Java |",
            pinned("tests/clients/java/pom.xml", "<artifactId>signalr</artifactId>\n      <version>"),
        ),
        ("| `philippseith/signalr`, Go |", go.clone()),
        ("| `pysignalr`, Python |", python("pysignalr")),
        ("| `signalrcore`, Python |", python("signalrcore")),
    ] {
        let line = document.lines().find(|line| line.starts_with(row)).unwrap_or_else(|| panic!("no row {row:?}"));
        assert!(line.contains(&version), "{version} is what runs: {line}");
    }
}

#[test]
fn the_table_of_compatibility_names_tests_that_there_are() {
    let document = fs::read_to_string(workspace().join("docs/compatibility.md")).unwrap();
    let mut column = None;
    for line in document.lines() {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let heading = cells.iter().position(|cell| *cell == "CI");
        column = heading.or(column).filter(|_| line.starts_with('|'));
        let Some(cell) = column.and_then(|column| cells.get(column)) else { continue };
        let names = cell.split('`').skip(1).step_by(2).filter(|name| !name.contains('/'));
        for name in names {
            assert!(workspace().join("tests").join(name).exists(), "tests/{name} is not there: {line}");
        }
    }
}
