//! `cargo xtask hubs`: pods of the chat on ports of this machine, for an Envoy that is started beside them.
use std::net::TcpListener;

use anyhow::{Context as _, Result};
use testbed::hub::{Hub, pods};
use testbed::process::wait_for_interrupt;
use testbed::workspace;

/// Those of `envoy/func-e.yaml`.
const PORTS: [u16; 3] = [8081, 8082, 8083];

/// Where `envoy/func-e.yaml` looks for the module.
const MODULE: &str = "target/wasm32-wasip1/release/envoy_signalr.wasm";

/// Start hubs of examples/chat on 127.0.0.1.
#[derive(clap::Args, Debug)]
pub(crate) struct Hubs {
    /// A port for each hub
    #[arg(long, value_delimiter = ',', num_args = 1.., default_values_t = PORTS)]
    ports: Vec<u16>,
}

/// Serves until it is interrupted.
pub(crate) fn run(options: &Hubs) -> Result<()> {
    testbed::tools::require_programs()?;
    for port in &options.ports {
        TcpListener::bind(("127.0.0.1", *port))
            .with_context(|| format!("port {port} of 127.0.0.1 is not free: name others with `--ports`"))?;
    }
    let module = testbed::envoy::module()?;
    let hubs = Hub::start_all(&pods(&options.ports))?;
    for hub in &hubs {
        println!("{}: {}/", hub.pod(), hub.url());
    }
    if options.ports != PORTS {
        println!("\nPut these ports into the cluster `hubs` of envoy/func-e.yaml.");
    }
    if module != workspace().join(MODULE) {
        println!("\nPut the module's path into envoy/func-e.yaml: {}", module.display());
    }
    println!("\nNow start Envoy, in another terminal and from the repository's root:\n");
    println!("    func-e run -c envoy/func-e.yaml\n");
    println!("and open http://127.0.0.1:8080. Ctrl-C ends the hubs.");
    wait_for_interrupt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_module_are_those_of_the_file() {
        let text = std::fs::read_to_string(workspace().join("envoy/func-e.yaml")).unwrap();
        assert!(text.contains(&format!("filename: {MODULE} ")), "{MODULE}");
        for port in PORTS {
            let endpoint =
                format!("endpoint: {{ address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }} }}");
            assert!(text.contains(&endpoint), "{port}");
        }
    }
}
