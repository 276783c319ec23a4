//! A registry of images in small, which stands in for a real one: it serves the image that `docker build` makes with
//! `envoy/Dockerfile`, and asks for a password.
use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use testbed::process::{PATIENCE, run, run_dir};
use testbed::raw::{Body, Wire};
use testbed::stand_in::listen;

const CREDENTIALS: &str = "gateway:the password of this registry";

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A registry with one image.
pub(crate) struct Registry {
    address: SocketAddr,
    digest: String,
}

impl Registry {
    /// Serves `module` as the image `envoy-signalr`.
    pub(crate) fn with(module: &Path) -> Self {
        let mut blobs = BTreeMap::new();
        let layer = describe(&mut blobs, layer(module), "application/vnd.oci.image.layer.v1.tar+gzip");
        let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] } });
        let config = describe(&mut blobs, config.to_string().into(), "application/vnd.oci.image.config.v1+json");
        let manifest = json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer] });
        let digest = describe(&mut blobs, manifest.to_string().into(), MANIFEST)["digest"].as_str().unwrap().to_owned();
        Self { address: listen(move |stream| serve(stream, &blobs)).unwrap(), digest }
    }

    /// The image by its digest.
    pub(crate) fn image(&self) -> String {
        format!("{}/envoy-signalr@{}", self.address, self.digest)
    }

    /// The Secret of this name with the password, as `kubectl create secret docker-registry` makes it.
    pub(crate) fn secret(&self, name: &str) -> Value {
        let auths = json!({ "auths": { self.address.to_string(): { "auth": STANDARD.encode(CREDENTIALS) } } });
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": name, "namespace": "default" },
            "type": "kubernetes.io/dockerconfigjson",
            "data": { ".dockerconfigjson": STANDARD.encode(auths.to_string()) },
        })
    }
}

/// The module as `plugin.wasm` in an archive.
fn layer(module: &Path) -> Vec<u8> {
    let folder = tempfile::tempdir_in(run_dir().unwrap()).unwrap();
    fs::copy(module, folder.path().join("plugin.wasm")).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--create", "--gzip", "--file=-", "--directory"]).arg(folder.path()).arg("plugin.wasm");
    run("tar", tar, PATIENCE).unwrap()
}

/// Keeps a blob, and returns what a manifest says of it.
fn describe(blobs: &mut BTreeMap<String, (Vec<u8>, String)>, bytes: Vec<u8>, media_type: &str) -> Value {
    let hash: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let descriptor = json!({ "mediaType": media_type, "size": bytes.len(), "digest": format!("sha256:{hash}") });
    blobs.insert(format!("sha256:{hash}"), (bytes, media_type.to_owned()));
    descriptor
}

/// Answers requests until the client closes (OCI Distribution Specification, "Pull").
fn serve(stream: TcpStream, blobs: &BTreeMap<String, (Vec<u8>, String)>) {
    let mut wire = Wire::new(stream).unwrap();
    let allowed = format!("Basic {}", STANDARD.encode(CREDENTIALS));
    while let Ok(Some(head)) = wire.read_head() {
        wire.read_body(&head, Body::OfRequest).unwrap();
        let path = head.start.split(' ').nth(1).unwrap_or_default();
        let blob = path.rsplit('/').next().and_then(|digest| blobs.get(digest));
        let (status, media_type, bytes) = match blob {
            _ if head.one("authorization") != Some(&allowed) => ("401 Unauthorized", "application/json", &b"{}"[..]),
            _ if path == "/v2/" => ("200 OK", "application/json", &b"{}"[..]),
            Some((bytes, media_type)) => ("200 OK", media_type.as_str(), bytes.as_slice()),
            None => ("404 Not Found", "application/json", &b"{}"[..]),
        };
        let challenge = "www-authenticate: Basic realm=\"registry\"";
        let length = bytes.len();
        wire.send(
            format!(
                "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n{challenge}\r\n\r\n"
            )
            .as_bytes(),
        );
        if head.start.starts_with("GET") {
            wire.send(bytes);
        }
    }
}
