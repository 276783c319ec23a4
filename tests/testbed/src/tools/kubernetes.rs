//! What judges manifests for Kubernetes: kustomize, kubectl-validate, and the CRDs of those whose resources we ship.
//!
//! All come as Go modules. kubectl-validate is the API server's own code without a server, and brings Kubernetes' own types along.
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::go_programs::{KUBECTL_VALIDATE, KUSTOMIZE};
use super::{DOWNLOAD_TIMEOUT, go, pinned};
use crate::process;

/// Which of the Gateway API's CRDs a cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GatewayApi {
    /// What everybody has.
    Standard,
    /// With the fields that may still change.
    Experimental,
}

/// A folder with CRDs in a Go module, whose content has this hash.
struct Crds {
    module: &'static str,
    version: &'static str,
    sum: &'static str,
    folder: &'static str,
}

const GATEWAY_API: Crds = Crds {
    module: "sigs.k8s.io/gateway-api",
    version: "v1.6.1",
    sum: "h1:mock6phZbI6rvZerwrVNk7hVNymQgHo+6sJ81Ia7ftY=",
    folder: "config/crd",
};

const OTHERS: [Crds; 5] = [
    Crds {
        module: "istio.io/api",
        version: "v1.32.0",
        sum: "h1:37mJvg9I0biYZAEQF+MATs4FNeCpXEIVO3LFpVb6iNM=",
        folder: "kubernetes",
    },
    Crds {
        module: "github.com/envoyproxy/gateway",
        version: "v1.9.1",
        sum: "h1:vAVp6/AlBXJ1aOhp1mxL7fNEzVEfjADUguUhm2wzxQY=",
        folder: "charts/gateway-helm/charts/crds/crds/generated",
    },
    Crds {
        module: "github.com/kedacore/keda/v2",
        version: "v2.21.0",
        sum: "h1:R6z2HZvstK4RLUMxroNACzBj74xGxt3kG59b5Xc+Xps=",
        folder: "config/crd/bases",
    },
    Crds {
        module: "github.com/cert-manager/cert-manager",
        version: "v1.21.2",
        sum: "h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68=",
        folder: "deploy/crds",
    },
    Crds {
        module: "github.com/prometheus-operator/prometheus-operator",
        version: "v0.85.0",
        sum: "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        folder: "example/prometheus-operator-crd",
    },
];

/// The tools for manifests.
#[derive(Clone, Debug)]
pub struct Kubernetes {
    kustomize: PathBuf,
    kubectl_validate: PathBuf,
    crds: Vec<PathBuf>,
    gateway_api: PathBuf,
}

/// Builds and fetches them. Fails with one sentence where Go is missing or too old.
pub fn kubernetes() -> Result<Kubernetes> {
    let (kustomize, kubectl_validate) = (KUSTOMIZE.built()?, KUBECTL_VALIDATE.built()?);
    let crds = OTHERS.iter().map(Crds::fetched).collect::<Result<_>>()?;
    Ok(Kubernetes { kustomize, kubectl_validate, crds, gateway_api: GATEWAY_API.fetched()? })
}

impl Kubernetes {
    /// The program that renders a folder.
    pub fn kustomize(&self) -> &Path {
        &self.kustomize
    }

    /// The program that says whether an API server would accept files.
    pub fn kubectl_validate(&self) -> &Path {
        &self.kubectl_validate
    }

    /// The folders with CRDs.
    pub fn crds(&self, gateway_api: GatewayApi) -> Vec<PathBuf> {
        let channel = match gateway_api {
            GatewayApi::Standard => "standard",
            GatewayApi::Experimental => "experimental",
        };
        [self.crds.as_slice(), &[self.gateway_api.join(channel)]].concat()
    }
}

impl Crds {
    /// The folder in Go's own cache.
    fn fetched(&self) -> Result<PathBuf> {
        let mut download = Command::new("go");
        download.args(["mod", "download", "-json", &format!("{}@{}", self.module, self.version)]);
        // No project of Go's is here, so nothing chooses another version.
        go::alone(&mut download).current_dir(pinned(""));
        let answer: Value = serde_json::from_slice(&process::run("go", download, DOWNLOAD_TIMEOUT)?)?;
        ensure!(answer["Sum"] == self.sum, "{} is another one than expected: {}", self.module, answer["Sum"]);
        let folder = answer["Dir"].as_str().with_context(|| format!("Go has no folder for {}", self.module))?;
        Ok(Path::new(folder).join(self.folder))
    }
}
