//! A cluster of its own with a real API server, a real istiod and a gateway; see `lab/__main__.py` for what stands in.

use std::fs::{self, File};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};
use testbed::envoy::module;
use testbed::process::{PATIENCE, Process, run, run_dir};
use testbed::tools::{
    ControlPlane, EnvoyVersion, Skips, can_run_control_plane, control_plane, dotnet, envoy, etcd, node_clients,
};
use testbed::{stand_in, workspace};

/// The cluster. It ends with this process.
pub(crate) struct Lab {
    programs: ControlPlane,
    folder: PathBuf,
    unshare: Process,
}

/// A pod that is ready.
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) address: String,
    log: PathBuf,
    /// The file of its network.
    network: PathBuf,
}

/// The cluster that all tests of this process share, one after the other. Nothing where `test` is reported as skipped.
pub(crate) fn lab(test: &str) -> Option<MutexGuard<'static, Lab>> {
    static LAB: OnceLock<Result<Mutex<Lab>, String>> = OnceLock::new();
    Skips::here().or_skip(test, can_run_control_plane())?;
    let started = LAB.get_or_init(|| Lab::start().map(Mutex::new).map_err(|error| format!("{error:#}")));
    Some(started.as_ref().unwrap().lock().unwrap_or_else(PoisonError::into_inner))
}

impl Lab {
    fn start() -> Result<Self> {
        node_clients()?;
        let programs = control_plane()?;
        let folder = run_dir()?.join("lab");
        fs::create_dir_all(&folder)?;
        let certificate = folder.join("certificate");
        let dotnet = dotnet()?;
        let hub = dotnet.publish(&workspace().join("examples/chat"))?;
        let dotnet = dotnet.command();
        let environment = dotnet.get_envs().filter_map(|(name, value)| Some((name.to_str()?, value?.to_str()?)));
        let mut hub_environment: Value = environment.map(|(name, value)| (name.to_owned(), value)).collect();
        hub_environment["ASPNETCORE_URLS"] = "http://+:8080".into();
        hub_environment["PATIENCE_SECONDS"] = "3600".into();
        let options = json!({
            "folder": folder,
            "etcd": etcd()?,
            "apiServer": programs.program("kube-apiserver"),
            "module": module()?,
            "images": {
                "pilot": { "argv": [programs.program("pilot-discovery")], "env": {} },
                "proxyv2": { "argv": [programs.program("pilot-agent")], "env": { "SSL_CERT_FILE": certificate } },
                "chat": { "argv": [dotnet.get_program().to_str(), hub], "env": hub_environment },
            },
            "files": {
                "/usr/local/bin/envoy": envoy(EnvoyVersion::Newest)?,
                "/var/lib/istio/envoy/envoy_bootstrap_tmpl.json": programs.bootstrap_template(),
            },
        });
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "python3", "-B"])
            .arg(workspace().join("tests/control_plane/lab"))
            .arg(options.to_string())
            // There is no way out of the lab, so none to a proxy.
            .env("NO_PROXY", "*")
            .env("no_proxy", "*");
        let mut unshare = Process::spawn("lab", command)?;
        let log = unshare.log_path().to_owned();
        unshare.wait_ready(|| fs::read_to_string(&log).is_ok_and(|log| log.contains("ready\n")))?;
        let lab = Self { programs, folder, unshare };
        lab.write_kubeconfig()?;
        lab.install_istio()?;
        Ok(lab)
    }

    fn write_kubeconfig(&self) -> Result<()> {
        let server = forward(self.of_process("ns/net"), "10.77.0.1:6443".into())?;
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "lab",
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "lab" } }],
            "clusters": [{ "name": "lab", "cluster": {
                "server": server.replace("http:", "https:"),
                "certificate-authority": self.folder.join("certificate"),
            } }],
            "users": [{ "name": "lab", "user": { "token": "administrator-of-the-lab" } }],
        });
        Ok(fs::write(self.kubeconfig(), config.to_string())?)
    }

    fn install_istio(&self) -> Result<()> {
        for namespace in ["istio-system", "istio-ingress"] {
            self.run_kubectl(&["create", "namespace", namespace])?;
        }
        let mut generate = Command::new(self.programs.program("istioctl"));
        generate
            .args(["manifest", "generate", "--filename"])
            .arg(workspace().join("tests/control_plane/lab/mesh.yaml"));
        let manifest = self.folder.join("istio.yaml");
        fs::write(&manifest, run("istioctl", generate, PATIENCE)?)?;
        let gateway_api = self.programs.gateway_api();
        for file in [&gateway_api, &manifest] {
            let file = file.to_str().context("a path that is not UTF-8")?;
            self.run_kubectl(&["apply", "--server-side", "--filename", file])?;
        }
        self.wait_rolled_out("istio-system", "deployment/istiod")?;
        self.wait_rolled_out("istio-ingress", "deployment/istio-ingressgateway")
    }

    /// Runs kubectl and returns what it prints.
    #[track_caller]
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.run_kubectl(arguments).unwrap()
    }

    fn run_kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(self.programs.program("kubectl"));
        // Istio's commands are those of its documentation.
        command.args(arguments).env("KUBECONFIG", self.kubeconfig()).current_dir(workspace());
        Ok(String::from_utf8(run("kubectl", command, PATIENCE)?)?)
    }

    /// Waits until a Deployment has the pods that it wants, and no others.
    #[track_caller]
    pub(crate) fn rolled_out(&self, namespace: &str, name: &str) {
        self.wait_rolled_out(namespace, name).unwrap();
    }

    fn wait_rolled_out(&self, namespace: &str, name: &str) -> Result<()> {
        let timeout = format!("--timeout={}s", PATIENCE.as_secs());
        self.run_kubectl(&["--namespace", namespace, "rollout", "status", name, &timeout]).map(drop)
    }

    /// The pods with a label that are ready and stay.
    pub(crate) fn pods(&self, namespace: &str, label: &str) -> Vec<Pod> {
        let list = self.kubectl(&["--namespace", namespace, "get", "pods", "--selector", label, "--output", "json"]);
        let list: Value = serde_json::from_str(&list).unwrap();
        let ready = list["items"].as_array().unwrap().iter().filter(|pod| {
            let conditions = pod["status"]["conditions"].as_array();
            let is_ready = |one: &Value| one["type"] == "Ready" && one["status"] == "True";
            pod["metadata"].get("deletionTimestamp").is_none() && conditions.is_some_and(|all| all.iter().any(is_ready))
        });
        let pod = |pod: &Value| {
            let (name, address) = (&pod["metadata"]["name"], &pod["status"]["podIP"]);
            let [name, address] = [name, address].map(|text| text.as_str().unwrap().to_owned());
            let number = address.rsplit('.').next().unwrap();
            let network = self.of_process(&format!("root/run/netns/pod{number}"));
            Pod { log: self.folder.join(format!("pods/{namespace}.{name}/log")), network, name, address }
        };
        ready.map(pod).collect()
    }

    /// Where the cluster's files and logs lie.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// A file that leads into the namespaces of the cluster.
    fn of_process(&self, file: &str) -> PathBuf {
        Path::new("/proc").join(self.unshare.pid().to_string()).join(file)
    }
}

impl Pod {
    /// A URL on this machine that leads to a port of the pod.
    pub(crate) fn url(&self, port: u16) -> String {
        forward(self.network.clone(), format!("127.0.0.1:{port}")).unwrap()
    }

    /// A Redis in the pod's network, at Redis' own port and with this password.
    pub(crate) fn start_redis(&self, program: &Path, password: &str) -> Process {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.network.display())).arg(program);
        command
            .args(["--bind", "0.0.0.0", "--requirepass", password, "--save", ""])
            .arg("--dir")
            .arg(run_dir().unwrap());
        // Where Debian's package is unpacked and not installed, its libraries lie beside it.
        let libraries = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
        command.env("LD_LIBRARY_PATH", program.ancestors().nth(2).unwrap().join(libraries));
        Process::spawn("redis", command).unwrap()
    }

    /// What it has printed.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

/// A URL on this machine that leads to an address of another network, which a file under /proc or /run/netns names.
fn forward(network: PathBuf, address: String) -> Result<String> {
    let here = stand_in::listen(move |near| -> io::Result<()> {
        // This thread alone moves there; the connection that it has stays where it was made.
        setns(File::open(&network)?, CloneFlags::CLONE_NEWNET)?;
        let far = TcpStream::connect(&address)?;
        let (near_too, far_too) = (near.try_clone()?, far.try_clone()?);
        thread::spawn(move || pass(&far_too, &near_too));
        pass(&near, &far);
        Ok(())
    })?;
    Ok(format!("http://{here}"))
}

/// Passes on what one side sends, and its end. What an ended connection reports on a write is no news.
fn pass(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
