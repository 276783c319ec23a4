//! `cargo xtask package`: what users get of a release, in one folder.
//!
//! Everything here is made of the commit, so the same commit gives the same bytes on any machine with the same Rust:
//! no clock, no path of this machine, no order of a file system.
mod image;
mod manifests;
mod release;
mod sbom;
mod tool;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use testbed::workspace;

use image::Image;
use manifests::Reference;
use release::Release;
use sbom::Subject;

#[derive(clap::Args)]
pub(crate) struct Package {
    /// The image's name in your registry, without a tag; the manifests name it
    #[arg(long, default_value = manifests::PLACEHOLDER, value_parser = without_tag)]
    image: String,
    /// The folder to write; a package that is there is replaced
    #[arg(long, default_value = "dist")]
    out: PathBuf,
}

/// The last file to be written, so a folder with it is a whole package.
const SUMS: &str = "SHA256SUMS";

/// The command-line program.
const TOOL: &str = "envoy-signalr-linux-amd64";

/// The folders that users apply from, the one file of `envoy/` that stands by itself, and the script that checks a deployment.
const MANIFESTS: [&str; 4] = ["envoy-gateway", "istio", "envoy/envoy.yaml", "examples/verify.sh"];

/// Writes the package, and prints what is in it and how to push the image.
pub(crate) fn run(options: &Package) -> Result<()> {
    let out = &options.out;
    remove_old(out)?;
    let release = Release::here()?;
    let module = fs::read(testbed::envoy::module()?)?;
    let tool = tool::build()?;
    let image = Image::of(&module, &tool, &release)?;
    let reference = Reference { name: &options.image, version: &release.version, digest: image.digest() };

    fs::create_dir_all(out).with_context(|| format!("cannot write {}", out.display()))?;
    image.write_layout(&out.join("oci"), &reference)?;
    let manifests = manifests::pinned(&workspace(), &MANIFESTS, &reference)?;
    manifests.iter().try_for_each(|(path, bytes)| write(&out.join(path), bytes))?;
    let files = [
        ("envoy_signalr.wasm", module.clone()),
        ("envoy_signalr.names.wasm", fs::read(testbed::envoy::module_with_names()?)?),
        ("envoy_signalr.wasm.sha256", sum_line("envoy_signalr.wasm", &module).into_bytes()),
        ("envoy_signalr.cdx.json", sbom::of(Subject::Module, &module, &release)?),
        ("envoy_signalr.oci.tar", image.archive(&reference)?),
        ("manifests.tar.gz", manifests::archive(&manifests)?),
        ("envoy-signalr-linux-amd64.cdx.json", sbom::of(Subject::Tool, &tool, &release)?),
        (TOOL, tool),
    ];
    files.iter().try_for_each(|(name, bytes)| write(&out.join(name), bytes))?;
    fs::set_permissions(out.join(TOOL), fs::Permissions::from_mode(0o755))?;
    let sums: String = files.iter().map(|(name, bytes)| sum_line(name, bytes)).collect();
    write(&out.join(SUMS), sums.as_bytes())?;
    print(out, &files, &reference, &release);
    Ok(())
}

/// An image's name, to which this task adds the version and the digest.
fn without_tag(name: &str) -> Result<String> {
    let repository = name.rsplit('/').next().unwrap_or_default();
    ensure!(!name.contains("://"), "leave out the scheme, such as `oci://`");
    ensure!(!repository.contains([':', '@']), "leave out the tag and the digest: they are those of this package");
    let valid = |part: &str| !part.is_empty() && !part.contains(|byte: char| byte.is_ascii_uppercase() || byte == ' ');
    ensure!(
        name.contains('/') && name.split('/').all(valid),
        "write it as registry.example.com/envoy-signalr, in lower case"
    );
    Ok(name.to_owned())
}

/// Only a package is removed, never what else a path may lead to.
fn remove_old(out: &Path) -> Result<()> {
    let empty = !out.exists() || fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_none());
    ensure!(
        empty || out.join(SUMS).is_file(),
        "{} holds something else than a package: remove it first",
        out.display()
    );
    if empty { Ok(()) } else { fs::remove_dir_all(out).with_context(|| format!("cannot remove {}", out.display())) }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::create_dir_all(path.parent().context("a file has a folder")?)?;
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// As `sha256sum` writes it, and as `sha256sum --check` reads it.
fn sum_line(name: &str, bytes: &[u8]) -> String {
    format!("{}  {name}\n", image::sha256(bytes))
}

fn print(out: &Path, files: &[(&str, Vec<u8>)], reference: &Reference, release: &Release) {
    println!("envoy-signalr {} of commit {}, built by rustc {}\n", release.version, release.revision, release.rustc);
    for (name, bytes) in files {
        println!("{:<44} {:>9} bytes", out.join(name).display(), bytes.len());
    }
    for folder in ["oci", "istio", "envoy-gateway", "envoy", "examples"] {
        println!("{}/", out.join(folder).display());
    }
    let (layout, tagged) = (out.join("oci"), format!("{}:{}", reference.name, release.version));
    println!("\nThe image, as the manifests name it:\n  {}@{}", reference.name, reference.digest);
    println!("Push it by one of these. `docker push` after `docker load` may give it another digest.");
    println!("  crane push {} {tagged}", layout.display());
    println!("  skopeo copy --preserve-digests oci:{}:{} docker://{tagged}", layout.display(), release.version);
    println!("  oras cp --from-oci-layout {}:{} {tagged}", layout.display(), release.version);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_named_by_registry_and_repository() {
        for name in [manifests::PLACEHOLDER, "127.0.0.1:5000/a", "registry.example.org/team/a.b_c-d"] {
            assert_eq!(without_tag(name).unwrap(), name);
        }
        for (name, problem) in [
            ("oci://registry.example.org/a", "scheme"),
            ("registry.example.org/a:1", "tag"),
            ("registry.example.org/a@sha256:12", "digest"),
            ("registry.example.org/Team/a", "lower case"),
            ("registry.example.org/", "lower case"),
            ("a", "lower case"),
            ("", "lower case"),
        ] {
            let error = without_tag(name).unwrap_err().to_string();
            assert!(error.contains(problem), "{name:?}: {error}");
        }
    }

    #[test]
    fn only_a_package_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        remove_old(&out).unwrap();
        write(&out.join("thesis.txt"), b"").unwrap();
        let error = remove_old(&out).unwrap_err().to_string();
        assert!(error.ends_with("holds something else than a package: remove it first"), "{error}");
        write(&out.join(SUMS), b"").unwrap();
        remove_old(&out).unwrap();
        assert!(!out.exists());
    }
}
