//! The files that users apply, with the image named by its digest: a tag can be moved, and Istio then runs the old module in
//! some pods and the new one in others.
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use super::image;

/// What the files of the repository name in place of a registry.
pub(super) const PLACEHOLDER: &str = "registry.example.com/envoy-signalr";

/// The image, wherever it is pushed to.
pub(super) struct Reference<'a> {
    /// The registry and the repository there.
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    pub(super) digest: &'a str,
}

/// The files at these places below `root`, by their paths from there. Guides stay in the repository, where their links lead.
pub(super) fn pinned(root: &Path, places: &[&str], reference: &Reference) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    places.iter().try_for_each(|place| collect(root, place, &mut files))?;
    let mut pins = 0;
    for (path, bytes) in files.iter_mut().filter(|(path, _)| path.ends_with(".yaml")) {
        let text = std::str::from_utf8(bytes).with_context(|| format!("{path} is not text"))?;
        pins += text.matches(PLACEHOLDER).count();
        *bytes = reference.pin(text).with_context(|| path.clone())?.into_bytes();
    }
    ensure!(pins > 0, "no manifest names {PLACEHOLDER}");
    Ok(files)
}

/// One file with all of them, for a release.
pub(super) fn archive(files: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>> {
    let mode = |path: &str| if path.ends_with(".sh") { 0o755 } else { 0o644 };
    image::gzip(&image::tar(files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice(), mode(path))))?)
}

fn collect(root: &Path, place: &str, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    let path = root.join(place);
    if path.extension() == Some(OsStr::new("md")) {
        return Ok(());
    }
    if !path.is_dir() {
        files.insert(place.to_owned(), fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        return Ok(());
    }
    for entry in fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))? {
        collect(root, &format!("{place}/{}", entry?.file_name().display()), files)?;
    }
    Ok(())
}

impl Reference<'_> {
    /// Puts the digest in the place of the version, line by line. The mark CHANGE goes with the placeholder.
    fn pin(&self, text: &str) -> Result<String> {
        let (tagged, pinned) = (format!("{PLACEHOLDER}:{}", self.version), format!("{}@{}", self.name, self.digest));
        let mut lines = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            let named = line.matches(PLACEHOLDER).count();
            ensure!(
                named == line.matches(&tagged).count(),
                "the image has another version than {}: {line}",
                self.version
            );
            let changed = line.replace(&tagged, &pinned);
            match changed.split_once(" # CHANGE") {
                Some((kept, _)) if named > 0 && self.name != PLACEHOLDER => lines.extend([kept, "\n"]),
                _ => lines.push_str(&changed),
            }
        }
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_takes_the_place_of_the_version() {
        let given = "url: oci://registry.example.com/envoy-signalr:0.1.0 # CHANGE: where you pushed the image\nnext: 1 # CHANGE\n";
        let cases = [
            (
                PLACEHOLDER,
                "url: oci://registry.example.com/envoy-signalr@sha256:12 # CHANGE: where you pushed the image\nnext: 1 # CHANGE\n",
            ),
            ("registry.example.org/a/b", "url: oci://registry.example.org/a/b@sha256:12\nnext: 1 # CHANGE\n"),
        ];
        for (name, expected) in cases {
            let reference = Reference { name, version: "0.1.0", digest: "sha256:12" };
            assert_eq!(reference.pin(given).unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn a_manifest_of_another_version_is_an_error() {
        let reference = Reference { name: PLACEHOLDER, version: "0.2.0", digest: "sha256:12" };
        for given in
            ["url: registry.example.com/envoy-signalr:0.1.0\n", "url: registry.example.com/envoy-signalr:latest\n"]
        {
            assert!(reference.pin(given).is_err(), "{given}");
        }
    }
}
