//! One version everywhere: `Cargo.toml` has it, and whatever else names it says the same.
use std::fs;
use std::path::Path;

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
