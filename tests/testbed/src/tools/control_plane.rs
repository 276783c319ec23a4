//! A Kubernetes API server and Istio, built from their Go modules.
//!
//! `tools/control-plane/go.mod` pins both and lists the programs. They share most of Kubernetes' libraries, and so the time to
//! compile them. Go keeps what it fetched and compiled in the user's own caches, so a build that was ended goes on there.
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::go_programs::BACKGROUND_TIMEOUT;
use super::source::Source;
use super::{DOWNLOAD_TIMEOUT, Program, State, fingerprint, go, pinned};
use crate::process;

/// As in go.mod.
const OLDEST_GO: u32 = 26;

/// What the cluster of a test needs of this machine: namespaces of its own, a network between them, and a certificate.
const NAMESPACES: Program = Program {
    name: "unshare",
    probe: &["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "ip", "-Version"],
    remedy: "util-linux and iproute2, and run as root where namespaces may be made",
};
const OPENSSL: Program = Program { name: "openssl", probe: &["version"], remedy: "OpenSSL's command line" };

const TEMPLATE: &str = "envoy_bootstrap.json";
const GATEWAY_API: &str = "gateway-api";

/// Programs and files of Istio and Kubernetes.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    folder: PathBuf,
}

impl ControlPlane {
    /// One of the programs that `go.mod` lists.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join("bin").join(name)
    }

    /// The template of a gateway's bootstrap, which the image of Istio's proxy holds.
    pub fn bootstrap_template(&self) -> PathBuf {
        self.folder.join(TEMPLATE)
    }

    /// A folder with the definitions of the Gateway API's resources.
    pub fn gateway_api(&self) -> PathBuf {
        self.folder.join(GATEWAY_API)
    }
}

/// Fails with one sentence where a control plane cannot be built or run.
pub fn can_run_control_plane() -> Result<()> {
    go::at_least(OLDEST_GO)?;
    OPENSSL.version()?;
    NAMESPACES.version().map(drop)
}

/// The programs, which are built first if need be: a quarter of an hour of two cores.
pub fn control_plane() -> Result<ControlPlane> {
    can_run_control_plane()?;
    Ok(ControlPlane { folder: source()?.fetched(build)? })
}

pub(super) fn state() -> Result<State> {
    let skipped = |error| State::Optional(format!("{error} Without it the tests with a control plane are skipped"));
    can_run_control_plane().map_or_else(|error| Ok(skipped(error)), |()| Ok(source()?.state()))
}

fn source() -> Result<Source> {
    let files = ["go.mod", "go.sum"].map(|name| project().join(name));
    Ok(Source {
        name: "istiod, pilot-agent, istioctl, kube-apiserver and kubectl".into(),
        folder: format!("control-plane-{}", fingerprint(files.iter().map(PathBuf::as_path))?),
        from: "Go's module proxy, istio.io/istio and k8s.io/kubernetes, and building them",
        megabytes: 190,
    })
}

fn build(to: &Path) -> Result<()> {
    let version = module("k8s.io/kubernetes", "{{.Version}}")?;
    let mut install = Command::new("nice");
    install
        .args(["-n", "5", "go", "install", "-mod=readonly", "-buildvcs=false", "-trimpath"])
        .args(["-tags", "vtprotobuf,disable_pgv", "-ldflags"])
        .arg(format!("-s -w -X k8s.io/component-base/version.gitVersion={version}"))
        .arg("tool")
        .env("GOBIN", to.join("bin"))
        .current_dir(project());
    go::alone(&mut install);
    process::run("go", install, BACKGROUND_TIMEOUT)?;
    let template = Path::new(&module("istio.io/istio", "{{.Dir}}")?).join("tools/packaging/common").join(TEMPLATE);
    let definitions = Path::new(&module("sigs.k8s.io/gateway-api", "{{.Dir}}")?).join("config/crd/standard");
    for (from, to) in [(template, to.join(TEMPLATE)), (definitions, to.join(GATEWAY_API))] {
        let mut copy = Command::new("cp");
        // Files of Go's cache may not be written to.
        copy.args(["-R", "--no-preserve=mode"]).args([from, to]);
        process::run("cp", copy, process::PATIENCE)?;
    }
    Ok(())
}

/// What Go knows of a module that `go.mod` pins.
fn module(name: &str, what: &str) -> Result<String> {
    let mut list = Command::new("go");
    go::alone(&mut list).args(["list", "-m", "-mod=readonly", "-f", what, name]).current_dir(project());
    Ok(String::from_utf8(process::run("go", list, DOWNLOAD_TIMEOUT)?)?.trim().to_owned())
}

fn project() -> PathBuf {
    pinned("control-plane")
}
