//! `docker compose` as README describes it, in a real engine. The base images are stand-ins: `tests/testbed/tools/stand-ins`.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;
use testbed::clients::{NodeClient, Task, Transport, run_node};
use testbed::docker::{self, Engine};
use testbed::process::wait_for;
use testbed::raw::{Answer, Client, Socket, invocation};
use testbed::tools::{self, Skips};
use testbed::{envoy, http, workspace};

const GATEWAY: &str = "http://127.0.0.1:8080";
const SECOND_GATEWAY: &str = "http://127.0.0.1:8090";
const SHARED_GATEWAYS: [&str; 2] = ["http://127.0.0.1:8101", "http://127.0.0.1:8102"];
const CONNECTS: u32 = 20;
const PROMETHEUS_LOG: &str = "compose --file envoy/docker-compose.yaml --profile metrics logs prometheus";
const GRAFANA_LOG: &str = "compose --file envoy/docker-compose.yaml --profile metrics logs grafana";

/// What the images are built from.
const SOURCES: &str = ".dockerignore Cargo.toml Cargo.lock src cli/Cargo.toml xtask/Cargo.toml tests/testbed/Cargo.toml envoy examples/chat";

/// A copy of the repository, and the engine that builds and runs it.
struct Project {
    engine: Engine,
    folder: TempDir,
}

impl Project {
    /// The copy is as a strict umask leaves it: only its owner can read it.
    fn new() -> Option<Self> {
        let engine = Skips::here().or_skip("compose_serves_clients_on_a_real_engine", Engine::start())?;
        let folder = tempfile::tempdir().unwrap();
        let copy = format!("umask 077 && cp --recursive --parents {SOURCES} \"$0\" && rm -f \"$0/envoy/.env\"");
        let copied = Command::new("sh").args(["-c", &copy]).arg(folder.path()).current_dir(workspace()).status();
        assert!(copied.unwrap().success());
        Some(Self { engine, folder })
    }

    fn ask(&self, arguments: &str) -> String {
        self.engine.ask(self.folder.path(), arguments.split_whitespace()).unwrap()
    }

    fn docker(&self, arguments: &str) {
        self.engine.run(self.folder.path(), arguments.split_whitespace()).unwrap();
    }

    fn compose(&self, arguments: &str) {
        self.docker(&format!("compose --progress plain --file envoy/docker-compose.yaml {arguments}"));
    }
}

#[test]
fn compose_serves_clients_on_a_real_engine() {
    let test = "compose_serves_clients_on_a_real_engine";
    if !docker::is_inside() {
        // What is inside reaches no registry.
        let ready = docker::prepare().and_then(|()| tools::node_clients().map(drop));
        if Skips::here().or_skip(test, ready).is_some() {
            docker::in_namespaces(&format!("engine::{test}")).unwrap();
        }
        return;
    }
    let Some(project) = Project::new() else { return };

    project.compose("up --build --wait");
    // At once: that is what `--wait` waits for.
    for path in ["/", "/signalr.min.js"] {
        assert_eq!(http::get(&format!("{GATEWAY}{path}")).unwrap().0, 200, "{path}");
    }
    assert_eq!(all_connect("at first").len(), 3);
    a_message_reaches_every_pod(GATEWAY, 3);

    only_connections_of_a_stopped_pod_end(&project);

    project.compose("up --wait --scale hub=5");
    on_each_pod(GATEWAY, 5);
    all_connect("with five pods");
    a_message_reaches_every_pod(GATEWAY, 5);

    project.compose("restart envoy");
    wait_for("the gateway", || http::get(GATEWAY).is_ok_and(|(status, _)| status == 200)).unwrap();
    all_connect("after a restart of the gateway");

    let key = "SIGNALR_AFFINITY_KEY=0123456789abcdef0123456789abcdef\n";
    fs::write(project.folder.path().join("envoy/.env"), key).unwrap();
    project.compose("--profile second-gateway --profile metrics up --build --wait");
    for (one, other) in [(GATEWAY, SECOND_GATEWAY), (SECOND_GATEWAY, GATEWAY)] {
        connects_by_the_other_gateway(&Client::of(one), &Client::of(other));
    }
    let scraped = "http://127.0.0.1:9090/api/v1/query?query=sum(up)";
    let both = |answer: &Value| answer["data"]["result"][0]["value"][1] == "2";
    let answer = || serde_json::from_str(&http::get(scraped).ok()?.1).ok();
    wait_for("both gateways to be scraped", || answer().as_ref().is_some_and(both))
        .unwrap_or_else(|error| panic!("{error:#}: {:?} {}", answer(), project.ask(PROMETHEUS_LOG)));
    wait_for("Grafana's files", || project.ask(GRAFANA_LOG).contains("stand-in")).unwrap();

    project.compose("--profile shared up --build --wait");
    // Through Redis: these pods do not know each other.
    a_message_reaches_every_pod(SHARED_GATEWAYS[0], 2);
    two_gateways_have_one_limit();

    the_default_image_is_the_module(&project);

    project.compose("--profile * down --volumes --rmi local");
    for left in [
        "ps --all --quiet",
        "volume ls --quiet",
        "network ls --quiet --filter type=custom",
        "images --quiet envoy-signalr-*",
    ] {
        assert_eq!(project.ask(left), "", "{left}");
    }
}

/// By every transport. Returns the pods that were met.
fn all_connect(when: &str) -> BTreeSet<String> {
    let mut pods = BTreeSet::new();
    for transport in Transport::ALL {
        let client = NodeClient { task: Task::of(GATEWAY.into(), CONNECTS), transport, ..NodeClient::default() };
        let outcome = run_node(&client).unwrap();
        assert_eq!(outcome.connected, CONNECTS, "{when}, {transport:?}: {:?}", outcome.first_error());
        pods.extend(outcome.tries.into_iter().filter_map(|attempt| attempt.answered_pod));
    }
    pods
}

/// A socket on each pod, by the pod's name.
fn on_each_pod(gateway: &str, number: usize) -> Vec<(String, Socket)> {
    let client = Client::of(gateway);
    let mut sockets: Vec<(String, Socket)> = Vec::new();
    wait_for("a connection on each pod", || {
        let mut socket = client.connect().unwrap();
        let pod = socket.ask("WhoAmI", &[]).unwrap()["pod"].as_str().unwrap().to_owned();
        if sockets.iter().all(|(met, _)| *met != pod) {
            sockets.push((pod, socket));
        }
        sockets.len() == number
    })
    .unwrap();
    sockets
}

fn a_message_reaches_every_pod(gateway: &str, number: usize) {
    let mut sockets = on_each_pod(gateway, number);
    let mut said = vec![String::new(); number];
    said[0] = until_answered(&mut sockets[0].1, "Send", &["ann", "to everybody"]);
    for ((pod, socket), mut heard) in sockets.iter_mut().zip(said) {
        wait_for("the message", || {
            heard.push_str(&until_answered(socket, "Echo", &["hello"]));
            heard.contains("to everybody")
        })
        .unwrap();
        assert_eq!(heard.matches("to everybody").count(), 1, "{pod}: {heard}");
    }
}

/// What a client hears until the hub has answered its call.
fn until_answered(socket: &mut Socket, method: &str, arguments: &[&str]) -> String {
    socket.send(&invocation(method, arguments)).unwrap();
    let mut heard = String::new();
    while !heard.contains("\"type\":3") {
        heard.push_str(socket.frames.read().unwrap().to_text().unwrap());
    }
    heard
}

fn only_connections_of_a_stopped_pod_end(project: &Project) {
    let mut sockets = on_each_pod(GATEWAY, 3);
    // Docker knows a pod by the same name.
    let (stopped, socket) = sockets.remove(0);
    project.docker(&format!("stop {stopped}"));
    socket.read_to_end();
    for (pod, socket) in &mut sockets {
        assert!(socket.echoes(), "{pod}");
    }
    assert!(!all_connect("with a pod stopped").contains(&stopped));
}

/// Negotiates by one gateway what comes by the other.
fn connects_by_the_other_gateway(one: &Client, other: &Client) {
    for _ in 0..CONNECTS {
        other.socket(&one.negotiate().unwrap()).unwrap();
        other.events(&one.negotiate().unwrap()).unwrap_or_else(|answer| panic!("events: {answer:?}"));
        other.session(&one.negotiate().unwrap()).unwrap_or_else(|answer| panic!("long polling: {answer:?}")).close();
    }
}

/// Of six connections for each client.
fn two_gateways_have_one_limit() {
    let connect = |at: usize| -> Result<Socket, Answer> { Client::of(SHARED_GATEWAYS[at % 2]).connect() };
    let mut sockets = Vec::new();
    // Those of the last test may not have ended yet.
    wait_for("six connections", || {
        sockets.extend(connect(sockets.len()));
        sockets.len() == 6
    })
    .unwrap();
    assert!((0..2).all(|at| connect(at).is_err_and(|answer| answer.is_refusal())));
    assert!(sockets.iter_mut().all(Socket::echoes));
}

/// With one file, and the same bytes as `cargo xtask wasm` gives with the same compiler.
fn the_default_image_is_the_module(project: &Project) {
    let build = "build --quiet --file envoy/Dockerfile --platform linux/amd64";
    project.docker(&format!("{build} --output type=local,dest=image ."));
    let image = project.folder.path().join("image");
    let files: Vec<_> = fs::read_dir(&image).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["plugin.wasm"]);
    let (built, ours) = (fs::read(image.join("plugin.wasm")).unwrap(), fs::read(envoy::module().unwrap()).unwrap());
    assert!(built == ours, "{} and {} bytes", built.len(), ours.len());

    project.docker(&format!("{build} --tag module:test ."));
    let labels = project.ask("inspect --format {{.Config.Labels}} module:test");
    assert!(labels.contains(env!("CARGO_PKG_VERSION")), "{labels}");
    project.docker("rmi module:test");
}
