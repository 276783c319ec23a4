//! Tier 6: the two commands of `envoy/README.md` for a machine without containers, as they stand there: hubs, and func-e with
//! `envoy/func-e.yaml`.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use testbed::clients::{NodeClient, Task, Transport, run_node};
use testbed::docs::commands;
use testbed::envoy::module;
use testbed::process::{Process, free_port, run_dir, wait_for};
use testbed::tools::{self, EnvoyVersion, Skips};
use testbed::{http, tasks, workspace};

const CONNECTIONS: u32 = 20;

/// What the file for this machine has in place of what the file for containers has: lines of the one, and of the other.
const DIFFERENCES: [(&str, &str); 6] = [
    (
        "# Envoy in front of SignalR hubs, by itself: docker-compose.yaml runs this file, and the tests boot it.\n",
        "# envoy.yaml for this machine, without containers: `func-e run -c envoy/func-e.yaml` from the repository's root, with the\n\
         # hubs of `cargo xtask hubs`. Only addresses and the path of the module differ, and a test sees to that.\n",
    ),
    ("address: 0.0.0.0, port_value: 8080", "address: 127.0.0.1, port_value: 8080"),
    ("address: 0.0.0.0, port_value: 9902", "address: 127.0.0.1, port_value: 9902"),
    ("filename: /etc/envoy/envoy_signalr.wasm", "filename: target/wasm32-wasip1/release/envoy_signalr.wasm"),
    (
        "      # One host for each address of the name `hub`.\n      type: STRICT_DNS\n      dns_lookup_family: V4_PREFERRED\n",
        "      type: STATIC\n",
    ),
    (
        "              - endpoint: { address: { socket_address: { address: hub, port_value: 8080 } } }\n",
        "              - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 8081 } } }\n              \
         - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 8082 } } }\n              \
         - endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: 8083 } } }\n",
    ),
];

fn shipped(name: &str) -> String {
    fs::read_to_string(workspace().join("envoy").join(name)).unwrap()
}

#[test]
fn the_two_files_differ_in_addresses_and_the_path_of_the_module_only() {
    let mut expected = shipped("envoy.yaml");
    for (there, here) in DIFFERENCES {
        assert_eq!(expected.matches(there).count(), 1, "{there}");
        expected = expected.replace(there, here);
    }
    for (number, (found, expected)) in (1..).zip(shipped("func-e.yaml").lines().zip(expected.lines())) {
        assert_eq!(found, expected, "line {number} of func-e.yaml");
    }
    assert_eq!(shipped("func-e.yaml").lines().count(), expected.lines().count());
}

/// Ports of this machine that other tests do not use, by those in the file.
fn ports() -> BTreeMap<u16, u16> {
    [8080, 8081, 8082, 8083, 9901, 9902].map(|port| (port, free_port().unwrap())).into()
}

/// A folder that looks like the repository's root to Envoy: with the file, of which only the ports are changed, and the module.
fn root(folder: &Path, ports: &BTreeMap<u16, u16>) {
    let moved = ports.iter().fold(shipped("func-e.yaml"), |text, (from, to)| {
        let port = format!("port_value: {from} ");
        assert!(text.contains(&port), "{port}");
        text.replace(&port, &format!("port_value: {to} "))
    });
    let built = folder.join("target/wasm32-wasip1/release");
    fs::create_dir_all(folder.join("envoy")).unwrap();
    fs::create_dir_all(&built).unwrap();
    fs::write(folder.join("envoy/func-e.yaml"), moved).unwrap();
    symlink(module().unwrap(), built.join("envoy_signalr.wasm")).unwrap();
}

/// Ends what runs in the foreground as Ctrl-C does, and waits until nobody serves on these ports any more.
fn interrupt(name: &str, mut process: Process, ports: &[u16]) {
    let status = process.interrupt().unwrap();
    assert!(status.success(), "{name}: {status}: {}", process.log());
    for port in ports {
        wait_for(&format!("port {port} to be free"), || TcpStream::connect(("127.0.0.1", *port)).is_err()).unwrap();
    }
}

#[test]
fn the_commands_of_the_readme_serve_every_client() {
    let test = "the_commands_of_the_readme_serve_every_client";
    let Some(func_e) = Skips::here().or_skip(test, tools::func_e()) else { return };
    let mut commands = commands("envoy/README.md");
    commands.retain(|command| command.starts_with("cargo xtask hubs") || command.starts_with("func-e "));
    let [hubs, envoy] = commands.try_into().unwrap();
    let ports = ports();
    let folder = run_dir().unwrap().join("func-e");
    root(&folder, &ports);

    let hub_ports = [8081, 8082, 8083].map(|port| ports[&port]);
    let mut command = Command::new(tasks::xtask().unwrap());
    let arguments = hubs.strip_prefix("cargo xtask ").unwrap();
    command.arg(arguments).args(["--ports", &hub_ports.map(|port| port.to_string()).join(",")]);
    let mut hubs = Process::spawn("hubs", command).unwrap();
    let output = hubs.log_path().to_owned();
    hubs.wait_ready(|| fs::read_to_string(&output).is_ok_and(|output| output.contains(&envoy))).unwrap();

    let mut command = Command::new(func_e);
    command.args(envoy.strip_prefix("func-e ").unwrap().split(' ')).current_dir(&folder);
    command.env("ENVOY_PATH", tools::envoy(EnvoyVersion::Newest).unwrap());
    // Beside other Envoys.
    command.arg("--disable-hot-restart");
    for place in ["CONFIG_HOME", "DATA_HOME", "STATE_HOME", "RUNTIME_DIR"] {
        command.env(format!("FUNC_E_{place}"), folder.join(place));
    }
    let mut envoy = Process::spawn("func-e", command).unwrap();
    let metrics = format!("http://127.0.0.1:{}/stats/prometheus?filter=membership_healthy", ports[&9902]);
    let all = "envoy_cluster_membership_healthy{envoy_cluster_name=\"hubs\"} 3";
    envoy.wait_ready(|| http::get(&metrics).is_ok_and(|(_, stats)| stats.contains(all))).unwrap();

    let url = format!("http://127.0.0.1:{}", ports[&8080]);
    for transport in Transport::ALL {
        let client = NodeClient { task: Task::of(url.clone(), CONNECTIONS), transport, ..NodeClient::default() };
        let outcome = run_node(&client).unwrap();
        assert_eq!(outcome.connected, CONNECTIONS, "{transport:?}: {:?}", outcome.first_error());
    }
    interrupt("func-e", envoy, &[8080, 9901, 9902].map(|port| ports[&port]));
    interrupt("hubs", hubs, &hub_ports);
}
