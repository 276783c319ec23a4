//! The module as an OCI image: one gzipped layer with `plugin.wasm`, and behind it the command-line program, which is what the image
//! runs in Docker.
//!
//! Of the kinds of image that Istio and Envoy Gateway fetch, this is the one that every registry, `docker load` and Kubernetes'
//! image volumes take as well. The platform is linux/amd64 on any machine, because that is what Istio asks an index for, also on
//! arm64; the module itself runs on either.
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use anyhow::Result;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::manifests::Reference;
use super::release::Release;
use super::write;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

pub(super) struct Image {
    layer: Blob,
    config: Blob,
    manifest: Blob,
}

struct Blob {
    media_type: &'static str,
    digest: String,
    bytes: Vec<u8>,
}

impl Image {
    pub(super) fn of(module: &[u8], tool: &[u8], release: &Release) -> Result<Self> {
        // Istio and Envoy Gateway take images of one layer only, and look for this name in it.
        let content = tar([("plugin.wasm", module, 0o644), ("envoy-signalr", tool, 0o755)])?;
        let layer = Blob::new(LAYER, gzip(&content)?);
        let annotations = release.annotations();
        let config = json!({
            "created": release.created,
            "architecture": "amd64",
            "os": "linux",
            "config": { "Labels": annotations, "Entrypoint": ["/envoy-signalr"] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", sha256(&content))] },
            "history": [{ "created": release.created, "created_by": "cargo xtask package" }],
        });
        let config = Blob::new(CONFIG, serde_json::to_vec(&config)?);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
            "annotations": annotations,
        });
        let manifest = Blob::new(MANIFEST, serde_json::to_vec(&manifest)?);
        Ok(Self { layer, config, manifest })
    }

    /// What names this image and no other, `sha256:…`.
    pub(super) fn digest(&self) -> &str {
        &self.manifest.digest
    }

    /// Writes it as a folder that `crane`, `skopeo` and `oras` push.
    pub(super) fn write_layout(&self, folder: &Path, reference: &Reference) -> Result<()> {
        self.layout(reference)?.iter().try_for_each(|(path, bytes)| write(&folder.join(path), bytes))
    }

    /// The same in one file. `docker load` takes it too: releases that know no OCI layouts read its `manifest.json`.
    pub(super) fn archive(&self, reference: &Reference) -> Result<Vec<u8>> {
        let mut files = self.layout(reference)?;
        let image = json!([{
            "Config": self.config.path(),
            "RepoTags": [format!("{}:{}", reference.name, reference.version)],
            "Layers": [self.layer.path()],
        }]);
        files.insert("manifest.json".into(), serde_json::to_vec(&image)?);
        tar(files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice(), 0o644)))
    }

    fn layout(&self, reference: &Reference) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut manifest = self.manifest.descriptor();
        manifest["platform"] = json!({ "architecture": "amd64", "os": "linux" });
        // The tag, for most tools, and the whole name, for containerd.
        manifest["annotations"] = json!({
            "org.opencontainers.image.ref.name": reference.version,
            "io.containerd.image.name": format!("{}:{}", reference.name, reference.version),
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [manifest],
        });
        let mut files = BTreeMap::from([
            ("oci-layout".to_owned(), serde_json::to_vec(&json!({ "imageLayoutVersion": "1.0.0" }))?),
            ("index.json".to_owned(), serde_json::to_vec(&index)?),
        ]);
        let blobs = [&self.layer, &self.config, &self.manifest];
        files.extend(blobs.map(|blob| (blob.path(), blob.bytes.clone())));
        Ok(files)
    }
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        Self { media_type, digest: format!("sha256:{}", sha256(&bytes)), bytes }
    }

    fn descriptor(&self) -> Value {
        json!({ "mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len() })
    }

    /// Its place in a layout.
    fn path(&self) -> String {
        format!("blobs/{}", self.digest.replace(':', "/"))
    }
}

/// In hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An archive of these files with their modes, without times and owners.
pub(super) fn tar<'a>(files: impl IntoIterator<Item = (&'a str, &'a [u8], u32)>) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes, mode) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(u64::try_from(bytes.len())?);
        header.set_mode(mode);
        // The epoch and not the commit's time: a layer changes only with the module in it.
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, path, bytes)?;
    }
    Ok(archive.into_inner()?)
}

pub(super) fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    Ok(encoder.finish()?)
}
