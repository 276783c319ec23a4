//! The control plane of Envoy Gateway as it runs without Kubernetes, and the Envoy that it starts.
//!
//! It reads resources from a folder, and makes of an EnvoyProxy the bootstrap of an Envoy of its own, which gets the rest by xDS.
//! Only the program of this Envoy is ours: it lies where Envoy Gateway keeps what it has downloaded. No kubelet is here, so the
//! environment of the Envoy is that of the control plane.
use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testbed::http;
use testbed::process::{PATIENCE, Process, free_port, run, run_dir, wait_for};
use testbed::tools::{self, EnvoyVersion};

use crate::resources::named;

/// Where Envoy Gateway serves xDS and modules. Nothing changes these.
const FIXED_PORTS: [u16; 2] = [18_000, 18_002];

/// Those of its Envoy, by which it knows the control plane and is known.
const CERTIFICATES: &str = "config/certs/envoy";

/// A running control plane with its Envoy. Both end when this is dropped.
pub(crate) struct ControlPlane {
    home: PathBuf,
    resources: PathBuf,
    runtime: PathBuf,
    process: Process,
    _alone: File,
}

impl ControlPlane {
    /// Starts it with these resources, and with these variables in the environment of the gateway.
    pub(crate) fn start(version: EnvoyVersion, resources: &[Value], environment: &[(&str, &str)]) -> Self {
        let alone = alone_on_this_machine();
        let home = run_dir().unwrap().join(format!("envoy-gateway-{}", free_port().unwrap()));
        let [folder, runtime] = ["resources", "runtime"].map(|name| home.join(name));
        fs::create_dir_all(&folder).unwrap();
        let mut resources = resources.to_vec();
        add_wasm_cluster(&mut resources, &home.join(CERTIFICATES));
        write(&folder, &resources);
        let bin = home.join("data/envoy-versions").join(version.number()).join("bin");
        fs::create_dir_all(&bin).unwrap();
        symlink(tools::envoy(version).unwrap(), bin.join("envoy")).unwrap();
        let config = home.join("envoy-gateway.json");
        fs::write(&config, configuration(&home, &folder, &runtime).to_string()).unwrap();
        let program = tools::envoy_gateway().unwrap();
        let mut certificates = Command::new(&program);
        certificates.args(["certgen", "--local", "--config-home"]).arg(home.join("config"));
        run("envoy-gateway-certgen", certificates, PATIENCE).unwrap();
        let mut command = Command::new(program);
        command.arg("server").arg("--config-path").arg(config);
        // func-e, which starts Envoy for it, looks here for the version.
        command.env("ENVOY_VERSION", version.number()).envs(environment.iter().copied()).current_dir(&home);
        let process = Process::spawn("envoy-gateway", command).unwrap();
        Self { home, resources: folder, runtime, process, _alone: alone }
    }

    /// Replaces all resources. It takes a moment until Envoy has them.
    pub(crate) fn apply(&self, resources: &[Value]) {
        let mut resources = resources.to_vec();
        add_wasm_cluster(&mut resources, &self.home.join(CERTIFICATES));
        write(&self.resources, &resources);
    }

    /// The Secret of this name with a certificate: the one that it has made for its Envoy.
    pub(crate) fn certificate(&self, name: &str) -> Value {
        let folder = self.home.join(CERTIFICATES);
        let encoded = |file: &str| STANDARD.encode(fs::read(folder.join(file)).unwrap());
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": name, "namespace": "default" },
            "type": "kubernetes.io/tls",
            "data": { "tls.crt": encoded("tls.crt"), "tls.key": encoded("tls.key") },
        })
    }

    /// What the control plane and its Envoy have printed.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until the control plane has started, and then until its Envoy serves on this port.
    pub(crate) fn wait_for_port(&mut self, port: u16) {
        self.process.wait_ready(|| TcpStream::connect(("127.0.0.1", FIXED_PORTS[0])).is_ok()).unwrap();
        self.process.wait_ready(|| TcpStream::connect(("127.0.0.1", port)).is_ok()).unwrap();
    }

    /// What the admin interface of its Envoy answers.
    pub(crate) fn admin(&self, path: &str) -> String {
        let mut address = None;
        wait_for("the address of the admin interface", || {
            address = self.admin_address();
            address.is_some()
        })
        .unwrap();
        http::get(&format!("http://{}{path}", address.unwrap())).unwrap().1
    }

    /// Envoy writes it into a folder that is named after the run.
    fn admin_address(&self) -> Option<String> {
        let runs = fs::read_dir(&self.runtime).ok()?.flatten();
        let written = runs.filter_map(|run| fs::read_to_string(run.path().join("admin-address.txt")).ok());
        written.map(|address| address.trim().to_owned()).find(|address| !address.is_empty())
    }
}

/// Waits until no other test of this machine runs a control plane: its ports cannot be chosen.
fn alone_on_this_machine() -> File {
    let lock = File::create(std::env::temp_dir().join("envoy-signalr-envoy-gateway.lock")).unwrap();
    lock.lock().unwrap();
    let taken = |port: &u16| TcpStream::connect(("127.0.0.1", *port)).is_ok();
    wait_for("the ports of Envoy Gateway", || !FIXED_PORTS.iter().any(taken)).unwrap();
    lock
}

/// Adds to the bootstrap where modules are fetched from: the cluster that Envoy gets from the control plane has the name of a
/// Kubernetes service, and the certificates of a pod.
fn add_wasm_cluster(resources: &mut [Value], certificates: &Path) {
    let bootstrap = &mut named(resources, "EnvoyProxy", "signalr")["spec"]["bootstrap"]["value"];
    let mut value: Value = serde_yaml_ng::from_str(bootstrap.as_str().unwrap()).unwrap();
    let [certificate, key, authority] = ["tls.crt", "tls.key", "ca.crt"].map(|file| certificates.join(file));
    let mut clusters = value["static_resources"]["clusters"].as_array().cloned().unwrap_or_default();
    clusters.push(json!({
        "name": "wasm_cluster",
        "type": "STATIC",
        "load_assignment": { "cluster_name": "wasm_cluster", "endpoints": [{ "lb_endpoints": [{ "endpoint": {
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": FIXED_PORTS[1] } },
        }}]}]},
        "transport_socket": { "name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "common_tls_context": {
                "tls_params": { "tls_maximum_protocol_version": "TLSv1_3" },
                "tls_certificates": [{ "certificate_chain": { "filename": certificate }, "private_key": { "filename": key } }],
                "validation_context": { "trusted_ca": { "filename": authority } },
            },
        }},
    }));
    value["static_resources"] = json!({ "clusters": clusters });
    *bootstrap = value.to_string().into();
}

fn configuration(home: &Path, resources: &Path, runtime: &Path) -> Value {
    json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyGateway",
        "gateway": { "controllerName": "gateway.envoyproxy.io/gatewayclass-controller" },
        "provider": { "type": "Custom", "custom": {
            "resource": { "type": "File", "file": { "paths": [resources] } },
            "infrastructure": { "type": "Host", "host": {
                "configHome": home.join("config"), "dataHome": home.join("data"), "stateHome": home.join("state"), "runtimeDir": runtime,
            }},
        }},
        "admin": { "address": { "host": "127.0.0.1", "port": free_port().unwrap() } },
        "telemetry": { "metrics": { "prometheus": { "disable": true } } },
        "extensionApis": { "enableBackend": true, "enableEnvoyPatchPolicy": true },
    })
}

/// Envoy Gateway reads the folder again when a file in it changes, and so it must never see half of one.
fn write(folder: &Path, resources: &[Value]) {
    let text: String = resources.iter().map(|resource| format!("---\n{resource}\n")).collect();
    let fresh = folder.with_extension("next");
    fs::write(&fresh, text).unwrap();
    fs::rename(fresh, folder.join("resources.yaml")).unwrap();
}
