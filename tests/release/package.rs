//! The files of a package.
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use serde::Deserialize as _;
use serde_json::Value;
use wasmparser::{Parser, Payload};

use crate::image::digest;
use crate::{package, write_package};

/// All files below a folder, by their paths from there.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            found.extend(files(&entry.path()).into_iter().map(|(path, bytes)| (format!("{name}/{path}"), bytes)));
        } else {
            found.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    found
}

#[test]
fn the_same_commit_gives_the_same_package() {
    let elsewhere = tempfile::tempdir().unwrap();
    let other = elsewhere.path().join("other");
    write_package(&other, &[]);
    let (one, other) = (files(package()), files(&other));
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>());
    for (path, bytes) in &one {
        assert!(other[path] == *bytes, "{path} differs");
    }
}

#[test]
fn the_module_with_names_is_the_same_code() {
    let sections = |name: &str| {
        let bytes = fs::read(package().join(name)).unwrap();
        let payloads = Parser::new(0).parse_all(&bytes).map(Result::unwrap);
        let sections = payloads.filter(|payload| !matches!(payload, Payload::CustomSection(_)));
        let sections: Vec<_> = sections.filter_map(|payload| payload.as_section()).collect();
        let at = |place: u64| usize::try_from(place).unwrap();
        let content = |(id, range): (_, Range<_>)| (id, bytes[at(range.start)..at(range.end)].to_vec());
        sections.into_iter().map(content).collect::<Vec<_>>()
    };
    let (module, named) = (sections("envoy_signalr.wasm"), sections("envoy_signalr.names.wasm"));
    assert!(module.len() > 5 && module == named);
    let size = |name| fs::metadata(package().join(name)).unwrap().len();
    assert!(size("envoy_signalr.names.wasm") > size("envoy_signalr.wasm"));
}

#[test]
fn the_tool_runs_by_itself_and_names_no_folder_of_this_machine() {
    let tool = package().join("envoy-signalr-linux-amd64");
    let output = Command::new(&tool).env_clear().arg("--version").output().unwrap();
    let version = String::from_utf8(output.stdout).unwrap();
    assert_eq!(version, concat!("envoy-signalr ", env!("CARGO_PKG_VERSION"), "\n"));
    let bytes = fs::read(&tool).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    for needle in ["/.cargo/", "/.rustup/", "/home/", "/root/", "/lib64/ld-linux"] {
        assert!(!text.contains(needle), "{needle}");
    }
}

#[test]
fn every_file_to_download_is_listed_with_its_hash() {
    let checked = Command::new("sha256sum")
        .args(["--check", "--strict", "--quiet", "SHA256SUMS", "envoy_signalr.wasm.sha256"])
        .current_dir(package())
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
    let sums = fs::read_to_string(package().join("SHA256SUMS")).unwrap();
    let listed: BTreeSet<_> = sums.lines().map(|line| line.split("  ").nth(1).unwrap().to_owned()).collect();
    let present = files(package()).into_keys().filter(|path| !path.contains('/') && path != "SHA256SUMS").collect();
    assert_eq!(listed, present);
}

#[test]
fn the_manifests_name_the_image_by_its_digest() {
    let elsewhere = tempfile::tempdir().unwrap();
    let released = elsewhere.path().join("released");
    write_package(&released, &["--image", "registry.example.org/team/signalr"]);
    for (folder, name, marked) in [
        (package(), "registry.example.com/envoy-signalr", true),
        (released.as_path(), "registry.example.org/team/signalr", false),
    ] {
        let pinned = format!("{name}@{}", digest(folder));
        for (place, file) in [("istio", "values/values.yaml"), ("envoy-gateway", "signalr.yaml")] {
            let manifests = files(&folder.join(place));
            let all = manifests.iter().filter(|(path, _)| path.ends_with(".yaml"));
            for (path, bytes) in all {
                let text = std::str::from_utf8(bytes).unwrap();
                assert!(!text.contains("/envoy-signalr:"), "{place}/{path} names an image by its tag");
                let documents = serde_yaml_ng::Deserializer::from_str(text).map(Value::deserialize);
                documents.for_each(|document| assert!(document.is_ok(), "{place}/{path}: {document:?}"));
            }
            assert!(manifests.keys().all(|path| !path.ends_with(".md")), "a guide's links lead out of the package");
            let (path, bytes) = manifests.iter().find(|(path, _)| path.ends_with(file)).expect(file);
            let text = std::str::from_utf8(bytes).unwrap();
            let line = text.lines().find(|line| line.contains(&pinned));
            assert_eq!(line.map(|line| line.contains("CHANGE")), Some(marked), "{place}/{path}: {line:?}");
        }
    }
}

#[test]
fn a_bill_of_materials_lists_what_the_module_and_the_tool_show_of_themselves() {
    for (file, bill) in [
        ("envoy_signalr.wasm", "envoy_signalr.cdx.json"),
        ("envoy-signalr-linux-amd64", "envoy-signalr-linux-amd64.cdx.json"),
    ] {
        lists_what_it_shows(file, bill);
    }
}

fn lists_what_it_shows(file: &str, bill: &str) {
    let built = fs::read(package().join(file)).unwrap();
    let bill: Value = serde_json::from_slice(&fs::read(package().join(bill)).unwrap()).unwrap();
    let listed: BTreeSet<_> = bill["components"]
        .as_array()
        .unwrap()
        .iter()
        .map(|component| format!("{}-{}", component["name"].as_str().unwrap(), component["version"].as_str().unwrap()))
        .collect();
    // The places of panics name the folders of crates.
    let text = String::from_utf8_lossy(&built);
    let shown: BTreeSet<_> = text
        .split("/registry/")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once('/')?.1.split('/').next()?.to_owned()))
        .collect();
    assert!(!shown.is_empty(), "{file} names no crate");
    assert!(shown.is_subset(&listed), "{:?}", shown.difference(&listed).collect::<Vec<_>>());
    for absent in ["testbed", "xtask", "syn", "tungstenite"] {
        assert!(!listed.iter().any(|name| name.starts_with(&format!("{absent}-"))), "{absent} is not in {file}");
    }
}
